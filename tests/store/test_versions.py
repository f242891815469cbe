"""Chains that an older Sigra began: they go on in the newest format, and verify."""

from __future__ import annotations

from contextlib import nullcontext
from random import Random

import pytest
from attacks import ATTACKS, State, attack_store, read_state, write_state
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from events import event
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from sigra.store import Signer, SqlAuditSink, take_checkpoint, verify
from sigra.store.chain import GENESIS, entry_hash
from sigra.store.tables import entries

KEY = Signer(Ed25519PrivateKey.generate())


def make_first_version(sink: SqlAuditSink) -> None:
    """Write all hashes anew as the first version made them."""
    tables = read_state(sink)
    for chain in tables["chains"]:
        previous = GENESIS
        rows = [row for row in tables["entries"] if row["chain"] == chain["id"]]
        for row in sorted(rows, key=lambda row: row["sequence"]):
            row["previous"] = previous
            row["hash"] = previous = entry_hash(
                chain["tag"], row["sequence"], previous, row["event_id"], row["occurred_at"],
                row["action"], row["worker"], row["outcome"], row["commitment"], "1",
            )  # fmt: skip
        chain["head"] = previous
    write_state(sink, tables)


@pytest.fixture
def old(sink: SqlAuditSink) -> SqlAuditSink:
    for number in range(8):
        sink.write(event(number))
        sink.write(event(number, "other"))
    make_first_version(sink)
    return sink


def test_a_chain_of_the_first_version_goes_on(old: SqlAuditSink) -> None:
    """New entries follow old ones, one by one and in a batch, and all verify."""
    old.write(event(8))
    old._write([(event(number), None) for number in range(9, 70)])
    report = verify(old, all_organizations=True)
    assert (report.verdict, report.rows) == ("intact", 78)
    hashes = [row["hash"] for row in read_state(old)["entries"] if row["chain"] == 1]
    assert [len(digest) for digest in hashes] == [32] * 8 + [40] * 62


def test_old_entries_that_changed_places_are_told_from_changed_ones(old: SqlAuditSink) -> None:
    """Where an old entry stood before is found by a hash of its own version."""
    tables = read_state(old)
    rows = {row["sequence"]: row for row in tables["entries"] if row["chain"] == 1}
    rows[2]["sequence"], rows[5]["sequence"] = 5, 2
    write_state(old, tables)
    first = verify(old, organization_id="acme").first
    assert first is not None
    told = (first.kind, first.sequence, first.reason)
    assert ("reordered", 2, "it was written with sequence 5") == told


@pytest.mark.parametrize("attack", list(ATTACKS)[:-2])
def test_attacks_on_entries_of_both_versions_are_found(old: SqlAuditSink, attack: str) -> None:
    """Which version an entry is of makes no difference to what is found."""
    for number in range(8, 16):
        old.write(event(number))
        old.write(event(number, "other"))
    state = State(read_state(old), "org:acme", "org:other", Random(attack))
    kept = [take_checkpoint(old, KEY)]
    seen = attack_store(old, ATTACKS[attack], "editor", KEY, state)
    report = verify(old, organization_id="acme", public_keys=[KEY.public_key], checkpoints=kept)
    # A forged mark is of no event: it is found besides, at 0.
    found = next(each for each in report.findings if each.sequence)
    assert (found.kind, found.sequence) == seen


@pytest.mark.parametrize("like", [0, 1])
@pytest.mark.parametrize("column", ["sequence", "previous", "event_id", None])
def test_the_database_refuses_a_fork(sink: SqlAuditSink, column: str | None, like: int) -> None:
    """No two entries have one sequence, follow one entry or tell of one event."""
    for number in range(3):
        sink.write(event(number))
    rows = read_state(sink)["entries"]
    same = {} if column is None else {column: rows[like][column]}
    fork = {**rows[2], "sequence": 9, "event_id": "9", **same}
    if column != "previous":
        fork["previous"] = (fork["sequence"] - 1).to_bytes(8, "big") + bytes(32)
    expected = nullcontext() if column is None else pytest.raises(IntegrityError)
    with expected:
        sink.database.write(lambda connection: connection.execute(insert(entries), [fork]))
