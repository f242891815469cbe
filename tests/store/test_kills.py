"""What kill -9 leaves of a store: nothing that was said to be done is undone, nor half done."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import keeper
import pytest
from sqlalchemy import select

from sigra.audit import EventFilter
from sigra.store import SqlAuditSink, erase, read_checkpoints, verify
from sigra.store.tables import entries

pytestmark = pytest.mark.servers

KILLS = 250 if "SIGRA_LONG" in os.environ else 5
"""On each database."""

Words = list[str]


class Said:
    """What the killed ones had said."""

    def __init__(self) -> None:
        self.events: list[Words] = []
        self.checkpoints: list[str] = []
        self.erased: set[str] = set()
        self.persons: set[str] = set()
        self.pruned_before = ""
        self.hit: Counter[str] = Counter()

    def hear(self, lines: list[Words]) -> None:
        """Take one keeper's lines into account, and what it was about when it was killed."""
        for kind, *words in lines:
            match kind:
                case "event":
                    self.events.append(words)
                case "checkpoint":
                    self.checkpoints.append(words[0])
                case "pruning":
                    self.pruned_before = words[0]
                case "erasing":
                    self.persons.add(words[0])
                case "erased":
                    self.erased.add(words[0])
        last = next((line for line in reversed(lines) if line[0] in ("begin", "done")), ["none"])
        self.hit[last[1] if last[0] == "begin" else "between"] += 1


def kill_one(url: str, folder: Path, task: str) -> list[Words]:
    """Start a keeper, kill it in the midst of its task or soon after, return what it said."""
    command = [sys.executable, keeper.__file__, url, str(folder), task]
    # Unbuffered: what is read ahead by the line would be missing from what is read at the end.
    process = subprocess.Popen(command, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    seen = list(islice(_until_begun(process.stdout), 1_000))
    time.sleep(random.uniform(0, 0.03))
    process.kill()
    output, errors = process.communicate()
    assert seen and seen[-1].startswith(b"begin\t"), errors
    whole = b"".join(seen) + output
    return [line.decode().split("\t") for line in whole.split(b"\n")[:-1]]


def _until_begun(stream: Any) -> Iterator[bytes]:
    for _ in range(random.randint(1, 3)):
        for line in stream:
            yield line
            if line.startswith(b"begin\t"):
                break


def test_no_kill_undoes_what_was_done(
    url: str, open_sink: Callable[..., SqlAuditSink], tmp_path: Path
) -> None:
    """Killed in the midst of appending, pruning, erasing, signing, or a change of the key, the
    store has each event that was "emitted", verifies, and needs no repair."""
    said, tasks = Said(), [keeper.TASKS[n % len(keeper.TASKS)] for n in range(KILLS)]
    sink = open_sink(url)
    first = keeper.Keeper(url, tmp_path)
    first.checkpoint()  # of a few who are killed none may come to that
    first.sink.close()
    for number, task in enumerate(tasks, 1):
        said.hear(kill_one(url, tmp_path, task))
        if number % 50 == 0 or number == KILLS:
            assert verified(sink, tmp_path).findings == ()
    print(f"killed in the midst of: {dict(said.hit)}")
    report = verified(sink, tmp_path)
    assert (report.verdict, report.level) == ("intact", "anchored")
    there = ids_in(sink)
    known = set(there)
    assert report.rows == len(there) == len(set(there))
    for event_id, occurred_at, organization in said.events:
        if event_id not in known:
            assert organization in keeper.SHORT
            assert occurred_at < said.pruned_before
    kept = [each.digest for each in read_checkpoints(tmp_path / "checkpoints")]
    assert [each for each in kept if each in set(said.checkpoints)] == said.checkpoints
    assert report.rows + report.pruned >= len(said.events)
    assert persons_in(sink) & said.erased == set()
    for person in said.persons:
        erase(sink, person, reason="asked", signer=keeper.signers(tmp_path)[-1],
              all_organizations=True)  # fmt: skip
    assert persons_in(sink) & said.persons == set()
    assert verified(sink, tmp_path).verdict == "intact"


def verified(sink: SqlAuditSink, folder: Path) -> Any:
    return verify(
        sink, all_organizations=True, checkpoints=read_checkpoints(folder / "checkpoints"),
        public_keys=[each.public_key for each in keeper.signers(folder)],
    )  # fmt: skip


def ids_in(sink: SqlAuditSink) -> list[str]:
    return sink.database.read(lambda c: list(c.scalars(select(entries.c.event_id))))


def persons_in(sink: SqlAuditSink) -> set[str | None]:
    found = sink.stream(EventFilter(all_organizations=True))
    return {each.actor_id for each in found if each.metadata != {"erased": True}}
