"""Who can do what to a store unseen: every cell of the table in docs/security.md, many times."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from attacks import ATTACKS, EMPTY, Attacker, State, attack_store, read_state, write_state
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from events import event

from sigra.store import Checkpoint, Signer, SqlAuditSink, take_checkpoint, verify
from sigra.store.chain import chain_tag

KEY = Signer(Ed25519PrivateKey.generate())
TRIALS = 60 if "SIGRA_LONG" in os.environ else 1
ATTACKERS: tuple[Attacker, ...] = ("editor", "rewriter", "thief")
ORGANIZATIONS = ("acme", "other", "third", None)

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
CELLS = {
    row[0]: dict(zip(ATTACKERS, row[1:], strict=True))
    for row in ([cell.strip(" *") for cell in line.split("|")[1:-1]]
                for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| "))
    if row[0] in ATTACKS
}  # fmt: skip
"""What the page says of each attack by each attacker."""

NEVER_LATE = ("remove the oldest entries", *list(ATTACKS)[-2:])
"""What always changes rows that a checkpoint knows."""

Found = tuple[str, int] | None
"""The kind and the sequence of the first finding in the attacked chain."""


@dataclass
class Trial:
    """One attack on rows that ``seed`` chose; ``late`` spares those that the checkpoint knows."""

    sink: SqlAuditSink
    seed: int
    late: bool = False

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.victim, self.other = self.random.sample(ORGANIZATIONS, 2)
        self.sink.prepare()
        write_state(self.sink, EMPTY)
        self._write(3, 6)
        copy, early = read_state(self.sink), take_checkpoint(self.sink, KEY)
        self._write(3, 6)
        self.checkpoint = early if self.late else take_checkpoint(self.sink, KEY, early)
        tags = chain_tag(self.victim), chain_tag(self.other)
        self.state = State(read_state(self.sink), *tags, self.random, copy=copy)
        self.anchored = next(n for tag, n, _ in self.checkpoint.heads if tag == tags[0])
        self.state.first = self.anchored + 1 if self.late else 1

    def _write(self, least: int, most: int) -> None:
        who = [each for each in ORGANIZATIONS for _ in range(self.random.randint(least, most))]
        self.random.shuffle(who)
        self.sink._write([(self._event(number, each), None) for number, each in enumerate(who)])

    def _event(self, number: int, organization: str | None) -> Any:
        some = self.random
        return event(
            number, organization, actor_id=some.choice(["ann", "b\u00f6b", None]),
            outcome=some.choice(["success", "failure"]), worker=some.choice(["w.one", None]),
            metadata=some.choice([{}, {"n": number, "text": "\U0001f600"}]),
        )  # fmt: skip

    def attack(self, attack: str, attacker: Attacker) -> tuple[str, int]:
        """Carry it out; return what shows of it to who knows no hashes."""
        return attack_store(self.sink, ATTACKS[attack], attacker, KEY, self.state)

    def rewritten(self) -> tuple[str, int]:
        """Return what a checkpoint shows of a chain whose hashes were computed anew."""
        left = len(self.state.entries)
        return ("truncated", left + 1) if left < self.anchored else ("forged", self.anchored)

    def found(self, checkpoints: Sequence[Checkpoint] = (), keys: bool = True) -> Found:
        """Return what is found first of the attacked chain's events."""
        report = verify(
            self.sink, all_organizations=True, checkpoints=checkpoints,
            public_keys=[KEY.public_key] if keys else (),
        )  # fmt: skip
        assert (report.verdict == "broken") is bool(report.findings)
        mine = [one for one in report.findings if one.organization_id == self.victim]
        assert bool(mine) is bool(report.findings)
        # A forged mark is of no event: it is found besides, at 0.
        first = next((one for one in mine if one.sequence), None)
        return None if first is None else (first.kind, first.sequence)


def test_the_page_has_a_row_for_each_attack() -> None:
    """Twelve attacks by three attackers, and no cell that says something else."""
    assert list(CELLS) == list(ATTACKS)
    said = {cell for row in CELLS.values() for cell in row.values()}
    assert said == {"at once", "at once (with keys)", "checkpoint", "never"}


@pytest.mark.parametrize("attacker", ATTACKERS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_seen_where_the_page_says_so(
    sink: SqlAuditSink, attack: str, attacker: Attacker
) -> None:
    """What is said to be found is found at its place, and what is said to be unseen is unseen."""
    cell = CELLS[attack][attacker]
    for _ in range(TRIALS):
        trial = Trial(sink, secrets.randbits(32))
        assert trial.found([trial.checkpoint]) is None, trial.seed
        shown = trial.attack(attack, attacker)
        alone, anchored = trial.found(), trial.found([trial.checkpoint])
        if cell == "never":
            assert (alone, anchored) == (None, None), trial.seed
        elif cell == "checkpoint":
            expected = shown if attacker == "editor" else trial.rewritten()
            assert (alone, anchored) == (None, expected), trial.seed
        else:
            assert (alone, anchored) == (shown, shown), trial.seed
            unsigned = None if cell == "at once (with keys)" else shown
            assert trial.found(keys=False) == unsigned, trial.seed


@pytest.mark.parametrize("attacker", ATTACKERS)
@pytest.mark.parametrize("attack", [each for each in ATTACKS if each not in NEVER_LATE])
def test_rows_after_a_checkpoint_have_the_chain_alone(
    sink: SqlAuditSink, attack: str, attacker: Attacker
) -> None:
    """What is found without a checkpoint is found with an older one, and no more."""
    for _ in range(max(1, TRIALS // 6)):
        trial = Trial(sink, secrets.randbits(32), late=True)
        shown = trial.attack(attack, attacker)
        expected = shown if CELLS[attack][attacker].startswith("at once") else None
        assert trial.found([trial.checkpoint]) == expected, trial.seed
        assert trial.found() == expected, trial.seed
