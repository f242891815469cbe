"""What is found of a store that was tampered with, and how it is told."""

from __future__ import annotations

import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from amounts import LONG, MANY
from attacks import EMPTY, alter, read_state, write_state
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from events import NOON, event
from sqlalchemy import Connection, and_, func, insert, select, text
from sqlalchemy import event as listen
from sqlalchemy.exc import OperationalError

from sigra.audit import EventFilter
from sigra.store import (
    AuditTablesError,
    Batching,
    Signer,
    SqlAuditSink,
    erase,
    prune,
    strays,
    take_checkpoint,
    verify,
)
from sigra.store.chain import entry_hash
from sigra.store.errors import AuditChainError
from sigra.store.marks import mark_pruned, marks_of
from sigra.store.seen import hidden
from sigra.store.tables import chains, entries, marks

KEY = Signer(Ed25519PrivateKey.generate())
UNSEEN = "unseen"
ONE_OF = 1 if LONG else 5 if MANY else 71
"""Of so many bits one is flipped."""


@pytest.fixture
def filled(sink: SqlAuditSink) -> SqlAuditSink:
    for number in range(10):
        sink.write(event(number))
        sink.write(event(number, "other"))
    return sink


def found(sink: SqlAuditSink, checkpoints: Any = ()) -> Any:
    report = verify(
        sink, all_organizations=True, public_keys=[KEY.public_key], checkpoints=checkpoints
    )
    assert (report.verdict == "broken") is bool(report.findings)
    return report


def first(report: Any) -> Any:
    if report.first is None:
        return UNSEEN
    acme = [one for one in report.findings if one.organization_id == "acme"]
    return (acme[0].kind, acme[0].sequence)


def test_what_follows_a_checkpoint_is_counted(filled: SqlAuditSink) -> None:
    """A report says how many rows nothing outside vouches for."""
    checkpoint = take_checkpoint(filled, KEY)
    filled.write(event(10))
    report = found(filled, [checkpoint])
    assert (report.verdict, report.rows, report.unanchored) == ("intact", 21, 1)
    assert report.checkpoint_age.total_seconds() >= 0
    assert found(filled).unanchored == 21
    assert found(filled).checkpoint_age is None


def test_one_organization_is_verified_without_the_marks_of_others(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """Its own are looked up by the index: each organization gets one a day that something goes."""

    def plan(connection: Connection) -> str:
        query = marks_of({1: "org:acme"}).compile(
            connection.engine, compile_kwargs={"literal_binds": True}
        )
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")
        return " ".join(row[3] for row in rows)

    sink = open_sink(new_url("sqlite"))
    assert "USING INDEX ix_sigra_audit_marks_chain" in sink.database.read(plan)


def test_an_empty_store_is_no_success(sink: SqlAuditSink) -> None:
    """Nothing there is not the same as nothing wrong."""
    assert found(sink).verdict == "empty"


def test_a_store_that_nobody_has_written_to_is_empty(
    tmp_path: Path, open_sink: Callable[..., SqlAuditSink]
) -> None:
    """Its tables are made, as by any other use of a sink."""
    new = open_sink(f"sqlite:///{tmp_path / 'audit.db'}")
    assert verify(new, all_organizations=True).verdict == "empty"


def test_what_is_queued_is_verified_too(url: str, open_sink: Callable[..., SqlAuditSink]) -> None:
    """Who has written an event is told of a store that has it."""
    sink = open_sink(url, batch=Batching(1_000, 3_600))
    sink.write(event(1))
    assert verify(sink, all_organizations=True).rows == 1


def test_a_chain_under_another_name_is_found_by_who_verifies_all(filled: SqlAuditSink) -> None:
    """Alone the organization has no row, or a chain begun anew; a checkpoint says what it lacks."""
    checkpoint = take_checkpoint(filled, KEY)
    renamed = chains.update().where(chains.c.tag == "org:acme").values(tag="org:hidden")
    alter(filled, lambda c: c.execute(renamed))
    assert verify(filled, organization_id="acme").verdict == "empty"
    filled.write(event(10))
    report = verify(filled, organization_id="acme")
    assert (report.verdict, report.rows) == ("intact", 1)
    assert {one.kind for one in found(filled).findings} == {"changed"}
    assert first(found(filled, [checkpoint]))[0] == "truncated"


def test_an_organization_whose_chain_is_gone_is_told_by_a_checkpoint(filled: SqlAuditSink) -> None:
    """To who verifies that organization alone, and to nobody who verifies another one."""
    options: Any = {"public_keys": [KEY.public_key], "checkpoints": [take_checkpoint(filled, KEY)]}
    filled.database.write(lambda c: c.execute(entries.delete().where(entries.c.chain == 2)))
    remove_row(filled, "org:other")
    reason = "a checkpoint has this chain, and it is gone"
    gone = ("other", 1, None, "truncated", reason)
    assert verify(filled, organization_id="other", **options).findings == (gone,)
    assert verify(filled, organization_id="acme", **options).findings == ()


def test_an_emptied_store_is_broken(filled: SqlAuditSink) -> None:
    """A checkpoint remembers what there was."""
    checkpoint = take_checkpoint(filled, KEY)
    write_state(filled, EMPTY)
    assert found(filled).verdict == "empty"
    report = found(filled, [checkpoint])
    assert {one.organization_id: one.kind for one in report.findings} == {
        "acme": "truncated",
        "other": "truncated",
    }


def test_a_report_is_neither_true_nor_false(filled: SqlAuditSink) -> None:
    """``if verify(...)`` is a mistake that shows at once."""
    with pytest.raises(TypeError, match="verdict"):
        bool(found(filled))


def test_checkpoints_need_keys(filled: SqlAuditSink) -> None:
    """A checkpoint that nobody checks is not believed."""
    checkpoint = take_checkpoint(filled, KEY)
    with pytest.raises(ValueError, match="public_keys"):
        verify(filled, all_organizations=True, checkpoints=[checkpoint])


def hash_anew(sink: SqlAuditSink, number: int, **changes: Any) -> None:
    """Change one entry of acme's, and compute its hash, but no other's, anew."""
    row = next(
        row for row in read_state(sink)["entries"] if (row["chain"], row["sequence"]) == (1, number)
    )
    now = {**row, **changes}
    now["hash"] = entry_hash(
        "org:acme", now["sequence"], now["previous"], now["event_id"], now["occurred_at"],
        now["action"], now["worker"], now["outcome"], now["commitment"],
    )  # fmt: skip
    one = and_(entries.c.chain == 1, entries.c.sequence == number)
    alter(sink, lambda c: c.execute(entries.update().where(one).values(now)))


def test_a_payload_whose_beginning_became_salt_is_found(sink: SqlAuditSink) -> None:
    """The commitment covers both as one text, so the salt's length says where a payload begins."""
    within = '{"actor_id":"bob",'  # as a payload begins, in what a tenant may write
    sink.write(event(1, metadata={"before": {"actor_id": "bob", "role": "clerk"}}))
    kept = read_state(sink)["entries"][0]
    cut = kept["payload"].index(within)
    salt, payload = kept["salt"] + kept["payload"][:cut].encode(), kept["payload"][cut:]
    moved = entries.update().values(salt=salt, payload=payload, actor_id="bob")
    alter(sink, lambda c: c.execute(moved))
    assert first(found(sink)) == ("changed", 1)


def test_an_entry_that_was_hashed_anew_is_found(filled: SqlAuditSink) -> None:
    """The one after it names another hash."""
    hash_anew(filled, 5, action="invoice.open")
    assert first(found(filled)) == ("forged", 5)


def test_a_beginning_that_was_hashed_is_found(filled: SqlAuditSink) -> None:
    """That of another chain is not taken for the one that is missing here."""
    hash_anew(filled, 1, previous=b"-" * 32)
    assert first(found(filled)) == ("removed", 1)


def test_a_gap_that_was_hashed_is_found(filled: SqlAuditSink) -> None:
    """Sequences have no gaps, though each hash may be right."""
    hash_anew(filled, 10, sequence=12)
    assert first(found(filled)) == ("removed", 10)


@pytest.mark.parametrize("gone", [1, 4])
def test_a_gap_hides_no_change_of_the_entry_after_it(filled: SqlAuditSink, gone: int) -> None:
    """Who knows of the gap compares the findings, and sees another one."""
    acme = entries.c.chain == 1
    filled.database.write(
        lambda c: c.execute(entries.delete().where(acme, entries.c.sequence == gone))
    )
    known = found(filled).findings
    after = entries.update().where(acme, entries.c.sequence == gone + 1)
    filled.database.write(lambda c: c.execute(after.values(payload="{}")))
    (new,) = [one for one in found(filled).findings if one not in known]
    reason = "its payload is not what was committed to"
    assert (new.kind, new.sequence, new.reason) == ("changed", gone + 1, reason)
    emptied = after.values(payload=None, salt=None, actor_id=None)
    filled.database.write(lambda c: c.execute(emptied))
    report = found(filled)
    assert (report.erased, report.found) == (1, len(known) + 1)


def test_an_entry_from_before_what_was_pruned_was_inserted(filled: SqlAuditSink) -> None:
    """Though it follows the last one that was pruned, and its hash is that of its fields."""
    rows = {row["sequence"]: row for row in read_state(filled)["entries"] if row["chain"] == 1}
    end = rows[10]["hash"]

    def tamper(connection: Connection) -> None:
        mark_pruned(connection, 1, "org:acme", (10, end), "old", KEY)
        connection.execute(entries.delete().where(entries.c.chain == 1))
        connection.execute(insert(entries).values({**rows[2], "previous": end}))

    alter(filled, tamper)
    hash_anew(filled, 2)
    assert first(found(filled)) == ("inserted", 2)


def test_an_entry_that_was_moved_before_the_first_is_missed_in_its_place(
    filled: SqlAuditSink,
) -> None:
    """A number below zero is found, and so is the entry that has none any more."""
    one = and_(entries.c.chain == 1, entries.c.sequence == 1)
    filled.database.write(lambda c: c.execute(entries.update().where(one).values(sequence=-5)))
    seen = [(each.sequence, each.kind) for each in found(filled).findings]
    assert seen == [(-5, "inserted"), (1, "removed")]


def test_what_is_beyond_the_end_was_inserted(filled: SqlAuditSink) -> None:
    """An entry that follows the last one well is one too many all the same."""
    ninth = filled.database.read(
        lambda c: c.scalar(
            select(entries.c.hash).where(entries.c.chain == 1, entries.c.sequence == 9)
        )
    )
    end = {"sequence": 9, "head": ninth}
    filled.database.write(lambda c: c.execute(chains.update().where(chains.c.id == 1).values(end)))
    assert first(found(filled)) == ("inserted", 10)


def test_a_made_up_entry_beyond_the_end_was_inserted(filled: SqlAuditSink) -> None:
    """No entry was there that could have been changed."""
    tenth = and_(entries.c.chain == 1, entries.c.sequence == 10)

    def add(connection: Connection) -> None:
        (last,) = connection.execute(select(entries).where(tenth)).mappings()
        made_up = (11).to_bytes(8, "big") + bytes(32)
        row = {"sequence": 11, "previous": last["hash"], "hash": made_up, "event_id": "new"}
        connection.execute(insert(entries).values({**last, **row}))

    filled.database.write(add)
    assert first(found(filled)) == ("inserted", 11)


def test_a_chain_s_row_with_another_hash_is_forged(filled: SqlAuditSink) -> None:
    """Where the chain ends is told twice, and both must agree."""
    (last,) = (e.event_id for e in filled.stream(EventFilter("acme")) if e.target_id == "9")
    change = chains.update().where(chains.c.id == 1).values(head=bytes(32))
    filled.database.write(lambda c: c.execute(change))
    finding = found(filled).first
    assert (finding.kind, finding.sequence, finding.event_id) == ("forged", 10, last)


def test_a_finding_names_the_event_that_is_there(filled: SqlAuditSink) -> None:
    """A changed event has its id, a removed one has none."""
    rows = {row["sequence"]: row for row in read_state(filled)["entries"] if row["chain"] == 1}
    third = and_(entries.c.chain == 1, entries.c.sequence == 3)
    filled.database.write(lambda c: c.execute(entries.update().where(third).values(action="x.y")))
    sixth = and_(entries.c.chain == 1, entries.c.sequence == 6)
    filled.database.write(lambda c: c.execute(entries.delete().where(sixth)))
    seen = [(each.sequence, each.event_id, each.kind) for each in found(filled).findings[:2]]
    assert seen == [(3, rows[3]["event_id"], "changed"), (6, None, "removed")]


@pytest.mark.parametrize("past", [bytes(40), b"\xff" * 40])
def test_a_mark_cannot_contradict_a_checkpoint(filled: SqlAuditSink, past: bytes) -> None:
    """A thief who signs a mark for another past is found where a checkpoint knows that one."""
    checkpoint = take_checkpoint(filled, KEY)
    filled.write(event(10))
    filled.database.write(lambda c: mark_pruned(c, 1, "org:acme", (10, past), "old", KEY))
    reasons = {each.reason for each in found(filled, [checkpoint]).findings}
    assert "a mark and a checkpoint contradict" in reasons
    assert "a mark and a checkpoint contradict" not in {e.reason for e in found(filled).findings}


def test_an_erased_event_has_no_actor(filled: SqlAuditSink) -> None:
    """Whoever writes one back is found."""
    erase(filled, "ann", reason="asked", signer=KEY, organization_id="acme")
    filled.database.write(lambda c: c.execute(entries.update().values(actor_id="eve")))
    assert first(found(filled)) == ("changed", 1)


@pytest.mark.parametrize("erased", [False, True])
@pytest.mark.parametrize(("values", "kind", "reason"), [
    ({"salt": None}, "changed", "its salt alone is gone"),
    ({"payload": None}, "changed", "its payload alone is gone"),
    ({"salt": None, "payload": None, "actor_id": None}, "removed",
     "its payload is gone, and no mark says that it was erased"),
])  # fmt: skip
def test_what_is_half_gone_is_found(
    filled: SqlAuditSink, values: dict[str, Any], kind: str, reason: str, erased: bool
) -> None:
    """Of salt and payload both are there, or a mark says that both were erased."""
    if erased:
        erase(filled, "4", reason="asked", signer=KEY, organization_id="acme")
    third = and_(entries.c.chain == 1, entries.c.sequence == 3)
    filled.database.write(lambda c: c.execute(entries.update().where(third).values(values)))
    (one,) = found(filled).findings
    assert (one.organization_id, *one[1:2], *one[3:]) == ("acme", 3, kind, reason)


@pytest.mark.parametrize("back", [("salt",), ("payload",), ("salt", "payload", "actor_id")])
def test_what_was_erased_stays_erased(filled: SqlAuditSink, back: tuple[str, ...]) -> None:
    """A payload that is put back, or a part of it, is found, though it is the very one."""
    third = and_(entries.c.chain == 1, entries.c.sequence == 3)
    read = select(*(entries.c[name] for name in back)).where(third)
    values = filled.database.read(lambda c: c.execute(read).one()._asdict())
    erase(filled, "ann", reason="asked", signer=KEY, organization_id="acme")
    filled.database.write(lambda c: c.execute(entries.update().where(third).values(values)))
    (one,) = found(filled).findings
    assert one[:2] == ("acme", 3)
    assert one[3:] == ("changed", "it was erased, and has a payload or a salt")


def test_checkpoints_that_contradict_each_other_are_found(filled: SqlAuditSink) -> None:
    """Two histories cannot both be true, whichever the database has."""
    before = read_state(filled)
    filled.write(event(10))
    one = take_checkpoint(filled, KEY)
    write_state(filled, before)
    filled.write(event(11))
    two = take_checkpoint(filled, KEY, one)
    report = found(filled, [one, two])
    assert ("forged", 0) in {(each.kind, each.sequence) for each in report.findings}


def test_a_checkpoint_of_another_key_is_forged(filled: SqlAuditSink) -> None:
    """Only keys that are named count, and the report does not pass for anchored."""
    stranger = Signer(Ed25519PrivateKey.generate())
    report = found(filled, [take_checkpoint(filled, stranger)])
    assert (report.verdict, report.level, report.first.kind) == ("broken", "signed", "forged")


def test_checkpoints_follow_each_other(filled: SqlAuditSink) -> None:
    """One that was taken out of the middle is missed."""
    one = take_checkpoint(filled, KEY)
    two = take_checkpoint(filled, KEY, one)
    three = take_checkpoint(filled, KEY, two)
    assert found(filled, [one, two, three]).verdict == "intact"
    assert (
        found(filled, [one, three]).first.reason
        == "checkpoint 2: it does not follow the one before"
    )


ENTRY = ("sequence previous hash event_id occurred_at action outcome worker actor_id commitment "
         "salt payload chain").split()  # fmt: skip
THIRD = {"chain": 1, "sequence": 3}
FLIPPED = [
    *[("entries", column, THIRD, 3) for column in ENTRY],
    *[("chains", column, {"id": 1}, None) for column in ("id", "tag", "sequence", "head")],
    *[("marks", column, {"id": 1}, None) for column in ("chain", "body", "key_id", "signature")],
]
"""Tables and their columns, the row that is changed, and the sequence where it must show."""


@pytest.fixture(scope="module")
def with_six_events(
    tmp_path_factory: pytest.TempPathFactory, no_events: Path
) -> Callable[[bool], Path]:
    """Return what makes a SQLite store of six events once, and once more with them erased."""

    @cache
    def make(erased: bool) -> Path:
        path: Path = tmp_path_factory.mktemp("six") / "audit.db"
        sink = SqlAuditSink(f"sqlite:///{shutil.copyfile(no_events, path)}")
        for number in range(6):
            sink.write(event(number, worker="invoices.close"))
        if erased:
            erase(sink, "ann", reason="asked", signer=KEY, organization_id="acme")
        sink.close()
        return path

    return make


@pytest.fixture
def six_events(with_six_events: Callable[[bool], Path], tmp_path: Path) -> Callable[..., str]:
    """Return what copies that store and gives the copy's URL."""

    def copy(*, erased: bool) -> str:
        return f"sqlite:///{shutil.copyfile(with_six_events(erased), tmp_path / 'audit.db')}"

    return copy


@pytest.mark.parametrize(("table", "column", "row", "sequence"), FLIPPED)
def test_each_bit_matters(
    six_events: Callable[..., str], open_sink: Callable[..., SqlAuditSink],
    table: str, column: str, row: dict[str, int], sequence: int | None,
) -> None:  # fmt: skip
    """A flipped bit is found, and of an event at the very entry."""
    sink = open_sink(six_events(erased=table == "marks"))
    where = " AND ".join(f"{name} = ?" for name in row)
    change = f"UPDATE sigra_audit_{table} SET {column} = {{}} WHERE {where}"
    with closing(sqlite3.connect(sink.database._engine.url.database)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        read = f"SELECT {column} FROM sigra_audit_{table} WHERE {where}"
        value = connection.execute(read, tuple(row.values())).fetchone()[0]
        for flipped, expression in _flips(value):
            connection.execute(change.format(expression), (flipped, *row.values()))
            connection.commit()
            report = found(sink)
            assert report.verdict == "broken", flipped
            assert sequence in (None, report.first.sequence), flipped
            there = {**row, column: flipped} if column in row else row
            connection.execute(change.format("?"), (value, *there.values()))
            connection.commit()
    assert found(sink).verdict == "intact"


@pytest.mark.parametrize("odd", [b"\xff\xfe", "text", 7, 1.5])
@pytest.mark.parametrize(("table", "column", "row", "sequence"), FLIPPED)
def test_a_value_of_any_kind_is_found_and_not_stumbled_over(
    six_events: Callable[..., str], open_sink: Callable[..., SqlAuditSink],
    table: str, column: str, row: dict[str, int], sequence: int | None, odd: Any,
) -> None:  # fmt: skip
    """SQLite takes any value in any column; a report comes of it, and a page where it can."""
    sink = open_sink(six_events(erased=table == "marks"))
    where = " AND ".join(f"{name} = ?" for name in row)
    with closing(sqlite3.connect(sink.database._engine.url.database)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        change = f"UPDATE sigra_audit_{table} SET {column} = ? WHERE {where}"
        try:
            connection.execute(change, (odd, *row.values()))
        except sqlite3.IntegrityError:  # an INTEGER PRIMARY KEY is the one that takes no other
            return
        connection.commit()
    report = found(sink)
    assert report.verdict == "broken"
    if sequence is not None:
        assert sequence in {each.sequence for each in report.findings}
    if column in ("previous", "hash"):
        assert sequence == report.first.sequence


def _flips(value: Any) -> list[tuple[Any, str]]:
    if isinstance(value, int):
        # Beyond the rows there are: the key is unique.
        return [(value ^ (1 << bit), "?") for bit in range(3, 62, ONE_OF)]
    data = value.encode() if isinstance(value, str) else value
    expression = "CAST(? AS TEXT)" if isinstance(value, str) else "?"
    flips = []
    for bit in range(0, len(data) * 8, ONE_OF):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << (bit % 8)
        flips.append((bytes(changed), expression))
    return flips


def remove_row(sink: SqlAuditSink, tag: str) -> None:
    sink.database.write(lambda c: c.execute(chains.delete().where(chains.c.tag == tag)))


def test_a_chain_whose_row_is_gone_is_named(filled: SqlAuditSink) -> None:
    """By its number, how much of it is left, and whose it is where that can be told."""
    checkpoint = take_checkpoint(filled, KEY)
    remove_row(filled, "org:other")
    missing = ("other", 1, None, "removed")
    reason = "the row of chain 2 is gone: 10 entries and 0 marks of it are left"
    assert verify(filled, organization_id="other").findings == ((*missing, reason),)
    assert verify(filled, organization_id="acme").findings == ()
    assert found(filled).findings == ((None, *missing[1:], reason),)
    assert (*missing, reason) in found(filled, [checkpoint]).findings


def test_events_of_a_chain_whose_row_is_gone_are_counted_and_shown(filled: SqlAuditSink) -> None:
    """To who reads all organizations, each told as of nobody known; to no single one."""
    remove_row(filled, "org:other")
    everyone = EventFilter(all_organizations=True)
    page = filled.query(everyone, None, 100).events
    lost = [each for each in page if each.organization_id != "acme"]
    assert {each.organization_id for each in lost} == {"(unknown: the row of chain 2 is gone)"}
    assert all(each.actor_id == "ann" and each.metadata == {} for each in lost), lost
    assert (len(lost), len(page)) == (10, filled.count(everyone))
    assert [each.event_id for each in filled.stream(everyone)] == [each.event_id for each in page]
    pages, cursor = list[str](), None
    while len(pages) < len(page):
        some, cursor = filled.query(everyone, cursor, 3)
        pages += [each.event_id for each in some]
    assert (pages, cursor) == ([each.event_id for each in page], None)
    for organization in ("other", "2", None):
        assert filled.query(EventFilter(organization), None, 100).events == ()
        assert filled.count(EventFilter(organization)) == 0


def test_a_new_organization_is_not_given_the_number_of_a_removed_one(filled: SqlAuditSink) -> None:
    """Its events are written, as are those of the removed one, and what is left is still found."""
    checkpoint = take_checkpoint(filled, KEY)
    remove_row(filled, "org:other")
    for organization in ("new", "other"):
        filled.write(event(20, organization))
    assert verify(filled, organization_id="new").verdict == "intact"
    assert [one.organization_id for one in found(filled).findings] == ["other"]
    left = [one for one in found(filled, [checkpoint]).findings if one.kind == "removed"]
    assert [one.organization_id for one in left] == ["other"]
    assert verify(filled, organization_id="other").verdict == "broken"


def test_a_pruned_chain_whose_row_is_gone_is_named(filled: SqlAuditSink) -> None:
    """Its marks say whose it was, and nobody is given its number."""
    list(prune(filled, NOON + timedelta(days=1), reason="old", signer=KEY, organization_id="other"))
    remove_row(filled, "org:other")
    filled.write(event(20, "new"))
    assert erase(filled, "ann", reason="asked", signer=KEY, organization_id="new") == 1
    assert verify(filled, organization_id="new").verdict == "intact"
    (one,) = found(filled).findings
    reason = "the row of chain 2 is gone: 0 entries and 1 marks of it are left"
    assert one == ("other", 0, None, "removed", reason)


def test_entries_of_no_chain_are_found(filled: SqlAuditSink) -> None:
    """Whatever number they were given, they stand for one finding, and marks of none for another."""
    for number in (1, 2):
        one = and_(entries.c.chain == 2, entries.c.sequence == number)
        filled.database.write(lambda c: c.execute(entries.update().where(one).values(chain=-7)))
    filled.database.write(lambda c: c.execute(insert(marks).values(chain=99, body="[]")))
    strays = [each for each in found(filled).findings if "the row of chain" in each.reason]
    assert [(each.organization_id, each.sequence) for each in strays] == [("other", 1), (None, 0)]


@pytest.mark.parametrize("odd", ["'text'", "1.5", "x'ff'", "CAST(x'ff80' AS TEXT)"])
@pytest.mark.parametrize("table", ["entries", "marks"])
def test_a_chain_that_is_no_number_is_found(
    six_events: Callable[..., str], open_sink: Callable[..., SqlAuditSink], table: str, odd: str
) -> None:
    """Whatever SQLite was given there, also where it is no text in UTF-8.

    Who erases in all organizations is told so, and one organization's events go all the same.
    """
    sink = open_sink(six_events(erased=True))
    change = f"UPDATE sigra_audit_{table} SET chain = {odd}"
    sink.database.write(lambda c: c.exec_driver_sql(change))
    reason = "entries or marks name their chain by a value of a kind that is never written"
    assert (None, 0, None, "changed", reason) in found(sink).findings
    assert verify(sink, organization_id="acme").verdict == "broken"
    with pytest.raises(AuditChainError, match=reason):
        erase(sink, "nobody", reason="asked", all_organizations=True)
    sink.write(event(20, actor_id="eve"))
    assert erase(sink, "eve", reason="asked", organization_id="acme") == 1


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("change", [
    "DELETE FROM sigra_audit_version",
    "DROP TABLE sigra_audit_version",
    "ALTER TABLE sigra_audit_version RENAME COLUMN version_num TO number",
    "UPDATE sigra_audit_version SET version_num = '0001'",
    "UPDATE sigra_audit_version SET version_num = '*'",
    "INSERT INTO sigra_audit_version VALUES ('0001')",
    "DROP TABLE sigra_audit_entries",
    "ALTER TABLE sigra_audit_entries RENAME COLUMN salt TO pepper",
])  # fmt: skip
def test_a_table_that_was_altered_is_told_in_one_sentence(
    url: str, filled: SqlAuditSink, open_sink: Callable[..., SqlAuditSink], change: str, again: bool
) -> None:
    """Be it that of the version, and before this sink read it or after, nothing is made anew."""
    filled.database.write(lambda c: c.execute(text(change)))
    sink = filled if again else open_sink(url)
    with pytest.raises(AuditTablesError, match="the audit store's tables are"):
        verify(sink, all_organizations=True)


def test_a_version_that_is_no_text_is_told_in_one_sentence(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """SQLite keeps bytes that are no UTF-8 there as well."""
    sink = open_sink(new_url("sqlite"))
    change = "UPDATE sigra_audit_version SET version_num = CAST(x'ff80' AS TEXT)"
    sink.database.write(lambda c: c.exec_driver_sql(change))
    with pytest.raises(AuditTablesError):
        verify(sink, all_organizations=True)


def test_findings_of_one_organization_hide_no_other_s(filled: SqlAuditSink) -> None:
    """Of each the first hundred are told, however many there are before; all are counted."""
    filled._write([(event(number), None) for number in range(10, 150)])
    many = entries.update().where(entries.c.chain == 1).values(action="x.y")
    one = and_(entries.c.chain == 2, entries.c.sequence == 4)
    for change in (many, entries.update().where(one).values(action="x.y")):
        filled.database.write(lambda c: c.execute(change))  # noqa: B023
    report = found(filled)
    seen = [(each.organization_id, each.sequence) for each in report.findings]
    assert (len(seen), ("other", 4) in seen) == (101, True)
    changed = filled.database.read(
        lambda c: c.scalar(select(func.count()).where(entries.c.action == "x.y"))
    )
    assert report.found == changed > 140


@pytest.mark.parametrize("change", ["DELETE FROM", "UPDATE"])
def test_of_chains_that_lost_their_row_all_are_counted(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink], change: str
) -> None:
    """Or whose row holds what is never written: the first hundred are told."""
    sink = open_sink(new_url("sqlite"))
    sink._write([(event(number, f"org{number}"), None) for number in range(130)])
    how = " SET sequence = 'x'" if change == "UPDATE" else ""
    sink.database.write(lambda c: c.exec_driver_sql(f"{change} sigra_audit_chains{how}"))
    report = verify(sink, all_organizations=True)
    assert (len(report.findings), report.found) == (100, 130)


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_a_text_that_is_no_utf8_is_found_by_any_driver(
    six_events: Callable[..., str], open_sink: Callable[..., SqlAuditSink], driver: str
) -> None:
    """And again by the next verification; who reads the event is told, and no other read changes."""
    sink = open_sink(six_events(erased=False).replace("sqlite:", f"{driver}:"))
    change = "UPDATE sigra_audit_entries SET action = CAST(x'ff80' AS TEXT) WHERE sequence = 2"
    sink.database.write(lambda c: c.exec_driver_sql(change))
    for _ in range(2):
        assert first(found(sink)) == ("changed", 2)
        events = sink.query(EventFilter("acme"), None, 10).events
        assert [each.metadata for each in reversed(events)] == [
            {"unreadable": True} if number == 1 else {} for number in range(6)
        ]
        with pytest.raises(OperationalError, match="UTF-8"):
            sink.database.read(lambda c: c.execute(select(entries.c.action)).all())


def test_of_many_broken_chains_all_are_found_though_not_all_are_searched(
    filled: SqlAuditSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each search is a query: 200,000 of them took longer than anybody waits."""
    altered = entries.update().where(entries.c.sequence == 5).values(action="another.one")
    filled.database.write(lambda c: c.execute(altered))
    asked: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        asked.append(" ".join(statement.split()))

    monkeypatch.setattr("sigra.store.verification._SEARCHES", 1)
    listen.listen(filled.database._engine, "before_cursor_execute", note)
    report = found(filled)
    of_places = "SELECT sigra_audit_entries.sequence, sigra_audit_entries.previous, "
    assert 1 == sum(statement.startswith(of_places) for statement in asked)
    places = {(each.organization_id, each.sequence, each.kind) for each in report.findings}
    assert places == {("acme", 5, "changed"), ("other", 5, "changed")}


@pytest.mark.parametrize("tag", ["'other'", "CAST(x'6f72673aff' AS TEXT)"])
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_chain_under_a_name_that_no_organization_has_is_found(
    filled: SqlAuditSink, tag: str
) -> None:
    """It is told of by its number, and its entries count as those of no chain."""
    change = f"UPDATE sigra_audit_chains SET tag = {tag} WHERE id = 2"
    filled.database.write(lambda c: c.exec_driver_sql(change))
    told = "the row of chain 2 has a value of a kind that is never written"
    report = found(filled)
    assert (None, 0, None, "changed", told) in report.findings
    assert (report.verdict, report.chains, report.rows) == ("broken", 1, 10)


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_chain_that_has_two_rows_is_named(filled: SqlAuditSink) -> None:
    """Only where its constraints were dropped; to make them again one has to know."""
    statements = (
        "ALTER TABLE sigra_audit_chains DROP CONSTRAINT sigra_audit_chains_pkey",
        "ALTER TABLE sigra_audit_chains DROP CONSTRAINT sigra_audit_chains_tag_key",
        "INSERT INTO sigra_audit_chains SELECT * FROM sigra_audit_chains WHERE tag = 'org:other'",
    )
    filled.database.write(lambda c: [c.exec_driver_sql(each) for each in statements])
    findings = [(each.organization_id, each.kind) for each in found(filled).findings]
    assert [("other", "inserted")] == findings


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_lost_chains_are_looked_for_among_any_number(sink: SqlAuditSink) -> None:
    """PostgreSQL does not read all chains once for each of them, as it did beyond some 10^5."""
    sink.prepare()
    made = "SELECT 'org:' || n, 1, '' FROM generate_series(1, 5000) AS n"
    statements = (
        f"INSERT INTO sigra_audit_chains (tag, sequence, head) {made}",
        "ANALYZE sigra_audit_chains",
        "SET LOCAL work_mem = '64kB'",  # as if there were more of them
    )

    def plan(connection: Connection) -> str:
        for statement in statements:
            connection.exec_driver_sql(statement)
        lines = connection.exec_driver_sql(f"EXPLAIN {strays._WITHOUT_ROW}").scalars()
        return "\n".join(lines)

    assert 2 == sink.database.write(plan).count(" Anti Join ")


def pass_off(connection: sqlite3.Connection, sql: dict[str, str]) -> None:
    """Write the schema by hand: what is there passes for what the SQL says that it is."""
    connection.execute("PRAGMA writable_schema = ON")
    for name, shown in sql.items():
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (shown, name))
    (version,) = connection.execute("PRAGMA schema_version").fetchone()
    connection.execute(f"PRAGMA schema_version = {version + 1}")
    connection.commit()


# Neither needs more than SQL. The second leaves as many entries in the index as in the table.
@pytest.mark.parametrize("shown_as", ["", "CASE event_id WHEN '{}' THEN '' ELSE occurred_at END"])
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_an_index_that_hides_an_entry_from_readers_is_found(
    filled: SqlAuditSink, shown_as: str
) -> None:
    """Readers go by it: the entry is in its chain, whole, and nobody is shown it."""
    which = EventFilter(organization_id="acme", since=NOON)
    *_, hidden = (one.event_id for one in filled.query(which, None, 50).events)
    name = "sigra_audit_entries_newest_of_chain"
    with closing(sqlite3.connect(filled.database.file)) as connection:
        look = "SELECT sql FROM sqlite_master WHERE name = ?"
        (honest,) = connection.execute(look, (name,)).fetchone()
        connection.execute(f"DROP INDEX {name}")
        false = honest.replace("occurred_at", shown_as.format(hidden), 1) if shown_as else honest
        less = "" if shown_as else f" WHERE event_id <> '{hidden}'"
        connection.execute(f"{false}{less}")
        pass_off(connection, {name: honest})
    assert hidden not in {one.event_id for one in filled.query(which, None, 50).events}
    report = found(filled)
    assert {(None, 0, "changed")} == {(f[0], f[1], f.kind) for f in report.findings}
    assert all(name in finding.reason for finding in report.findings)
    with closing(sqlite3.connect(filled.database.file)) as connection:
        connection.execute("REINDEX")
    assert ("intact", 20) == (found(filled).verdict, found(filled).rows)
    assert hidden in {one.event_id for one in filled.query(which, None, 50).events}


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_many_other_faults_do_not_keep_a_false_index_unseen(sink: SqlAuditSink) -> None:
    """SQLite tells 100: by a constraint that no old row meets, they can be made."""
    for number in range(101):
        sink.write(event(number))
    name = "sigra_audit_entries_newest_of_chain"
    entry = "CASE sequence WHEN 101 THEN '' ELSE occurred_at END"
    with closing(sqlite3.connect(sink.database.file)) as connection:
        look = "SELECT sql FROM sqlite_master WHERE name = ?"
        (honest,) = connection.execute(look, (name,)).fetchone()
        (table,) = connection.execute(look, ("sigra_audit_entries",)).fetchone()
        connection.execute(f"DROP INDEX {name}")
        connection.execute(honest.replace("occurred_at", entry, 1))
        table = table.replace("PRIMARY KEY (", "CHECK (sequence > 101), PRIMARY KEY (")
        pass_off(connection, {name: honest, "sigra_audit_entries": table})
    which = EventFilter(organization_id="acme", since=NOON)
    assert 100 == len(sink.query(which, None, 200).events)
    assert [finding.kind for finding in found(sink).findings] == ["changed"]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no such signal")
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_signal_stops_the_look_at_the_indexes(sink: SqlAuditSink) -> None:
    """Of a large store it takes minutes, and Python itself handles no signal meanwhile."""
    sink.write(event(1))
    many = """
        WITH RECURSIVE more(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM more WHERE n < 15000)
        INSERT INTO sigra_audit_entries SELECT chain, n, randomblob(32), hash, n, occurred_at, action,
        outcome, worker, actor_id, commitment, salt, payload FROM sigra_audit_entries, more"""
    alter(sink, lambda connection: connection.exec_driver_sql(many))

    def stop(_: int, frame: Any) -> None:
        if frame.f_code.co_name == "_run_handlers":  # amid the statement
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        with pytest.raises(KeyboardInterrupt):
            sink.database.read(lambda connection: list(hidden(connection, everything=True)))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
