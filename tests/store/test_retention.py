"""Pruning and erasing: what must go is gone, and the chains still verify."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from drivers import driven_by
from events import NOON, event
from servers import holding
from sqlalchemy import and_, func, insert, select
from sqlalchemy import event as listen
from sqlalchemy.exc import DBAPIError

from sigra import AuditEvent, AuditScope, audit, configure, log_safe
from sigra.audit import EventFilter
from sigra.store import (
    Batching,
    Report,
    Signer,
    SqlAuditSink,
    database,
    erase,
    export,
    prune,
    retention,
    take_checkpoint,
    verify,
)
from sigra.store.canonical import canonical
from sigra.store.chain import chain_tag
from sigra.store.errors import AuditChainError, InvalidQueryError
from sigra.store.person import events_of
from sigra.store.tables import chains, entries, marks

KEY = Signer(Ed25519PrivateKey.generate())
EVERYONE = EventFilter(all_organizations=True)


def verified(sink: SqlAuditSink, **options: Any) -> Report:
    return verify(sink, all_organizations=True, public_keys=[KEY.public_key], **options)


@pytest.fixture
def filled(sink: SqlAuditSink) -> SqlAuditSink:
    for number in range(10):
        sink.write(event(number))
        sink.write(event(number, "other", actor_id="bob"))
    return sink


def test_pruning_removes_what_is_older(filled: SqlAuditSink) -> None:
    """It goes batch by batch, of all organizations or of one, and says how far it is."""
    steps = list(
        prune(
            filled, NOON + timedelta(minutes=5), reason="old", signer=KEY, batch=2,
            all_organizations=True,
        )
    )  # fmt: skip
    assert steps == [
        ("acme", 2),
        ("acme", 2),
        ("acme", 1),
        ("other", 2),
        ("other", 2),
        ("other", 1),
    ]
    assert [each.target_id for each in filled.stream(EventFilter("acme"))] == list("98765")
    report = verified(filled)
    assert (report.verdict, report.rows, report.pruned) == ("intact", 10, 10)


def test_pruning_that_stopped_is_taken_up(filled: SqlAuditSink) -> None:
    """Each batch is whole, and the next call goes on."""
    later = NOON + timedelta(days=1)
    steps = prune(filled, later, reason="old", signer=KEY, batch=4, organization_id="acme")
    next(steps)
    steps.close()
    assert verified(filled).verdict == "intact"
    again = list(prune(filled, later, reason="old", signer=KEY, batch=4, organization_id="acme"))
    assert again == [("acme", 4), ("acme", 2)]
    report = verified(filled)
    assert (report.verdict, report.pruned, report.rows) == ("intact", 10, 10)


LONG_AGO = "1999-01-01T00:00:00.000000+00:00"
OLD = and_(entries.c.chain == 1, entries.c.sequence <= 3)
MIDDLE = and_(entries.c.chain == 1, entries.c.sequence == 2)


@pytest.mark.parametrize(
    "change",
    [
        entries.update().where(OLD).values(occurred_at=LONG_AGO),
        entries.delete().where(MIDDLE),
        entries.update().where(MIDDLE).values(actor_id="bob"),
        entries.update().where(MIDDLE).values(salt=None, payload=None, actor_id=None),
    ],
    ids=["dated back", "removed", "changed", "emptied"],
)
def test_nobody_signs_that_what_was_tampered_with_was_pruned(
    filled: SqlAuditSink, change: Any
) -> None:
    """Retention hides no attack: the chain stays as it is, and the others are pruned."""
    filled.database.write(lambda c: c.execute(change))
    steps = prune(
        filled, NOON + timedelta(minutes=5), reason="old", signer=KEY, all_organizations=True
    )
    assert next(steps) == ("other", 5)
    with pytest.raises(AuditChainError) as caught:
        next(steps)
    report = verified(filled)
    assert (report.verdict, report.pruned) == ("broken", 5)
    first = next(each for each in report.findings if each.organization_id == "acme")
    said = f"hold an entry, {first.sequence}, of which verify says: {first.reason}."
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("tampered", "told"),
    [([1], []), ([1, 2], ["1 more of the chains cannot be used: verify names them"])],
)
def test_who_prunes_is_told_how_many_chains_were_tampered_with(
    filled: SqlAuditSink, tampered: list[int], told: list[str]
) -> None:
    """The error names the first one: without a count the others are found one after the other."""
    change = entries.update().where(entries.c.chain.in_(tampered)).values(action="evil")
    filled.database.write(lambda c: c.execute(change))
    later = NOON + timedelta(days=1)
    with pytest.raises(AuditChainError, match="acme") as caught:
        list(prune(filled, later, reason="old", signer=KEY, all_organizations=True))
    assert getattr(caught.value, "__notes__", []) == told


def test_a_mark_that_is_put_before_all_opens_no_way_for_what_was_removed(
    filled: SqlAuditSink,
) -> None:
    """It could be taken away again, once the next mark is signed after the last that there was."""
    limit = NOON + timedelta(minutes=2)
    list(prune(filled, limit, reason="old", signer=KEY, organization_id="acme"))
    nothing = insert(marks).values(id=-1, chain=1, body="nothing")
    third = and_(entries.c.chain == 1, entries.c.sequence == 3)
    filled.database.write(lambda c: (c.execute(nothing), c.execute(entries.delete().where(third))))
    with pytest.raises(AuditChainError):
        list(prune(filled, NOON + timedelta(minutes=5), reason="old", signer=KEY,
                   organization_id="acme"))  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"payload": func.replace(entries.c.payload, '"target_id":"1"', '"target_id":"eve"')},
        {"outcome": "denied", "payload": func.replace(entries.c.payload, "ann", "eve")},
    ],
    ids=["payload", "both"],
)
def test_nobody_signs_that_what_was_tampered_with_was_erased(
    filled: SqlAuditSink, change: Any
) -> None:
    """Who writes a person into another's event has its text erased, and it is missed."""
    filled.database.write(lambda c: c.execute(entries.update().where(MIDDLE).values(change)))
    assert erase(filled, "eve", reason="asked", signer=KEY, organization_id="acme") == 1
    (finding,) = verified(filled).findings
    assert finding.sequence == 2


@pytest.mark.parametrize("change", [
    {"payload": func.replace(entries.c.payload, '"target_id":"1"', '"target_id":"9"')},
    {"outcome": "denied"}, {"salt": None}, {"salt": b"short"},
])  # fmt: skip
def test_who_erases_what_was_tampered_with_is_given_it(filled: SqlAuditSink, change: Any) -> None:
    """All of the person goes, and whoever ordered it hears which events were evidence."""
    filled.database.write(lambda c: c.execute(entries.update().where(MIDDLE).values(change)))
    found: list[Any] = []
    asked = {"reason": "asked", "signer": KEY, "all_organizations": True}
    assert erase(filled, "ann", on_changed=found.append, **asked) == 10
    assert [(each.organization_id, each.sequence, each.kind) for each in found] == [
        ("acme", 2, "changed")
    ]
    assert [each.event_id for each in found] == [
        filled.database.read(lambda c: c.scalar(select(entries.c.event_id).where(MIDDLE)))
    ]
    assert erase(filled, "bob", on_changed=found.append, **asked) == 10
    assert len(found) == 1


def test_what_was_tampered_with_is_not_erased_without_a_word(
    filled: SqlAuditSink, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nobody asked to be told it stands in the log."""
    change = entries.update().where(MIDDLE).values(outcome="denied")
    filled.database.write(lambda c: c.execute(change))
    erase(filled, "ann", reason="asked", signer=KEY, organization_id="acme")
    (record,) = [each for each in caplog.records if each.name == "sigra.audit"]
    assert (record.levelname, "organization acme, sequence 2:" in record.getMessage()) == (
        "ERROR",
        True,
    )


@pytest.mark.parametrize("sequence", [0, -1, -(1 << 63)])
def test_a_person_is_erased_whatever_sequence_an_event_was_given(
    filled: SqlAuditSink, sequence: int
) -> None:
    """Somebody who moves an event before the first does not keep its text from being erased."""
    moved = {"sequence": sequence, "previous": b"-" * 32}
    filled.database.write(lambda c: c.execute(entries.update().where(MIDDLE).values(moved)))
    assert erase(filled, "ann", reason="asked", signer=KEY, organization_id="acme") == 10
    left = select(func.count()).where(entries.c.payload.like("%ann%"))
    assert filled.database.read(lambda c: c.scalar(left)) == 0


@pytest.mark.parametrize(
    "which", [{"all_organizations": True}, {"organization_id": "other"}], ids=str
)
def test_who_keeps_the_store_is_told_of_a_chain_whose_row_is_gone(
    filled: SqlAuditSink, which: Any
) -> None:
    """Its events are neither erased nor pruned, and that is not passed over."""
    gone = chains.delete().where(chains.c.tag == "org:other")
    filled.database.write(lambda c: c.execute(gone))
    told = "the row of chain 2 is gone: 10 entries and 0 marks of it are left"
    with pytest.raises(AuditChainError, match=told) as caught:
        erase(filled, "bob", reason="asked", signer=KEY, **which)
    assert caught.value.chain == ("'org:other'" if "organization_id" in which else "2")
    assert erase(filled, "ann", reason="asked", signer=KEY, organization_id="acme") == 10
    with pytest.raises(AuditChainError, match=told):
        list(prune(filled, NOON + timedelta(days=1), reason="old", signer=KEY, **which))


def test_marks_alone_of_a_chain_whose_row_is_gone_keep_nobody_from_erasing(
    filled: SqlAuditSink,
) -> None:
    """Nothing is left of it that could be a person's."""
    list(prune(filled, NOON + timedelta(days=1), reason="old", signer=KEY, organization_id="other"))
    gone = chains.delete().where(chains.c.tag == "org:other")
    filled.database.write(lambda c: c.execute(gone))
    assert erase(filled, "ann", reason="asked", signer=KEY, all_organizations=True) == 10


def test_only_the_beginning_of_a_chain_goes(sink: SqlAuditSink) -> None:
    """An old event behind a newer one stays, for a gap would look like a theft."""
    for number in (1, 9, 2):
        sink.write(event(number))
    assert list(prune(sink, NOON + timedelta(minutes=5), reason="old", organization_id="acme")) == [
        ("acme", 1)
    ]
    assert sink.count(EVERYONE) == 2


def test_events_go_on_after_all_was_pruned(filled: SqlAuditSink) -> None:
    """The chain remembers where it was."""
    checkpoint = take_checkpoint(filled, KEY)
    list(prune(filled, NOON + timedelta(days=1), reason="old", signer=KEY, all_organizations=True))
    assert (filled.count(EVERYONE), verified(filled).verdict) == (0, "intact")
    filled.write(event(11))
    report = verified(filled, checkpoints=[checkpoint])
    assert (report.verdict, report.rows, report.pruned, report.unanchored) == ("intact", 1, 20, 1)


def test_pruning_one_organization_touches_no_other(filled: SqlAuditSink) -> None:
    """Its chain need not be the first."""
    list(
        prune(
            filled, NOON + timedelta(minutes=5), reason="old", signer=KEY, organization_id="other"
        )
    )
    assert [filled.count(EventFilter(name)) for name in ("acme", "other")] == [10, 5]
    assert verified(filled).findings == ()


def test_a_mark_must_be_signed_where_keys_are_given(filled: SqlAuditSink) -> None:
    """Without a signature anybody could have pruned."""
    list(prune(filled, NOON + timedelta(minutes=2), reason="old", organization_id="acme"))
    assert verify(filled, all_organizations=True).verdict == "intact"
    report = verified(filled)
    kinds = {(one.kind, one.sequence) for one in report.findings}
    assert kinds == {("forged", 0), ("removed", 1)}


def test_a_mark_s_key_that_was_not_given_is_named(filled: SqlAuditSink) -> None:
    """So that the right public key can be found."""
    other = Signer(Ed25519PrivateKey.generate())
    erase(filled, "ann", reason="asked", signer=other, organization_id="acme")
    assert verified(filled).first.reason.endswith(f"it names the key {other.key_id}")


@pytest.mark.parametrize("body", [
    "", "{}", '{"chain": "org:acme", "kind": "pruned"}', "[1]", "[" * 100_000,
    *(f'{{"chain": "org:acme", "kind": "pruned", "hash": "", "sequence": {number}, "previous": null}}'
      for number in ("1.5", "1e400", "9" * 4_000)),
])  # fmt: skip
def test_a_mark_that_means_nothing_is_found(filled: SqlAuditSink, body: str) -> None:
    """A mark is of a chain and says what went."""
    row = {"chain": 1, "body": body, "key_id": KEY.key_id, "signature": KEY.sign("mark", body)}
    filled.database.write(lambda connection: connection.execute(insert(marks).values(row)))
    assert verified(filled).first.kind == "forged"
    assert verify(filled, all_organizations=True).first.kind == "forged"


@pytest.mark.parametrize("change", [
    "DELETE FROM sigra_audit_marks WHERE id = 1",
    """INSERT INTO sigra_audit_marks (id, chain, body, key_id, signature)
    SELECT 9, chain, body, key_id, signature FROM sigra_audit_marks WHERE id = 2""",
])  # fmt: skip
@pytest.mark.parametrize("keys", [(), (KEY.public_key,)])
def test_a_mark_more_or_less_is_found(filled: SqlAuditSink, change: str, keys: Any) -> None:
    """Each mark names the one before it, so that what was done cannot be left out or repeated."""
    for number in (3, 6, 8):
        before = NOON + timedelta(minutes=number)
        list(prune(filled, before, reason="old", signer=KEY, organization_id="acme"))
    assert verified(filled).verdict == "intact"
    filled.database.write(lambda c: c.exec_driver_sql(change))
    report = verify(filled, all_organizations=True, public_keys=keys)
    (one,) = report.findings
    assert (one.organization_id, one.sequence, one.kind) == ("acme", 0, "removed")
    assert "does not follow the mark before it" in one.reason


def test_marks_of_before_need_name_none(filled: SqlAuditSink) -> None:
    """Those of the first tables are believed as they were, and new ones follow them."""
    for number in (3, 6):
        before = NOON + timedelta(minutes=number)
        list(prune(filled, before, reason="old", organization_id="acme"))
    rows = filled.database.read(lambda c: c.execute(select(marks.c.id, marks.c.body)).all())
    for row in rows:
        old = canonical({k: v for k, v in json.loads(row.body).items() if k != "previous"})
        change = marks.update().where(marks.c.id == row.id).values(body=old)
        filled.database.write(lambda c: c.execute(change))  # noqa: B023
    list(prune(filled, NOON + timedelta(minutes=8), reason="old", organization_id="acme"))
    assert verify(filled, all_organizations=True).verdict == "intact"


@pytest.mark.parametrize(("pruned", "chain", "named"), [("acme", 2, "other"), ("other", 1, "acme")])
def test_a_mark_is_of_one_chain(filled: SqlAuditSink, pruned: str, chain: int, named: str) -> None:
    """What was pruned for one organization is not pruned for another."""
    before = NOON + timedelta(minutes=2)
    list(prune(filled, before, reason="old", signer=KEY, organization_id=pruned))
    filled.database.write(lambda connection: connection.execute(marks.update().values(chain=chain)))
    findings = [(one.organization_id, one.sequence, one.kind) for one in verified(filled).findings]
    assert (named, 0, "forged") in findings


def test_the_marks_of_a_chain_follow_each_other(filled: SqlAuditSink) -> None:
    """Those of other chains stand between them, also of one whose own row is gone."""
    filled.write(event(10, "third"))
    for number in (3, 6):
        before = NOON + timedelta(minutes=number)
        list(prune(filled, before, reason="old", signer=KEY, all_organizations=True))
    assert verified(filled).findings == ()
    filled.database.write(lambda c: c.execute(chains.delete().where(chains.c.id == 1)))
    assert {one.organization_id for one in verified(filled).findings} == {"acme"}


def test_a_mark_of_before_does_not_follow_new_ones(filled: SqlAuditSink) -> None:
    """Whoever kept an old one cannot put it behind those that name the one before them."""
    list(
        prune(filled, NOON + timedelta(minutes=3), reason="old", signer=KEY, organization_id="acme")
    )
    (row,) = filled.database.read(lambda c: c.execute(select(marks)).mappings().all())
    body = canonical({k: v for k, v in json.loads(row["body"]).items() if k != "previous"})
    again = {**row, "id": 9, "body": body, "signature": KEY.sign("mark", body)}
    filled.database.write(lambda c: c.execute(insert(marks).values(again)))
    (one,) = verified(filled).findings
    assert (one.organization_id, one.sequence, one.kind) == ("acme", 0, "removed")


def test_erasing_removes_a_person_and_no_more(filled: SqlAuditSink) -> None:
    """Events of the person stay without their payload; those of others stay as they are."""
    filled.write(event(20, actor_id="eve", target_id="bob"))
    filled.write(event(21, actor_id="eve", effective_user_id="bob"))
    filled.write(event(22, actor_id="bobby", metadata={"actor_id": "bob"}))
    checkpoint = take_checkpoint(filled, KEY)
    count = erase(filled, "bob", reason="asked", signer=KEY, all_organizations=True)
    report = verified(filled, checkpoints=[checkpoint])
    assert (count, report.verdict, report.erased, report.rows) == (12, "intact", 12, 23)
    erased = [each for each in filled.stream(EVERYONE) if each.metadata == {"erased": True}]
    assert (len(erased), {each.actor_id for each in erased}) == (12, {None})
    assert [each.target_id for each in filled.stream(EventFilter("acme", actor_id="bobby"))] == [
        "22"
    ]
    assert erase(filled, "bob", reason="asked", signer=KEY, all_organizations=True) == 0


def test_a_thing_of_the_same_id_is_no_person(sink: SqlAuditSink) -> None:
    """Who says what events call a person keeps those about invoice 7 when user 7 is erased."""
    sink.write(event(1, target_id="7", target_type="invoice"))
    sink.write(event(2, target_id="7"))
    sink.write(event(3, target_id="7", target_type="user"))
    sink.write(event(4, actor_id="7", target_type="invoice"))
    assert erase(sink, 7, reason="asked", target_type="user", organization_id="acme") == 2
    kept = sink.stream(EventFilter("acme", actor_id="ann"))
    assert [(each.target_id, each.target_type) for each in kept] == [("7", None), ("7", "invoice")]
    assert erase(sink, 7, reason="asked", organization_id="acme") == 2


def test_what_is_queued_is_erased_too(url: str, open_sink: Callable[..., SqlAuditSink]) -> None:
    """A person does not come back from a queue."""
    sink = open_sink(url, batch=Batching(1_000, 3_600))
    sink.write(event(1))
    assert erase(sink, "ann", reason="asked", organization_id="acme") == 1


def test_many_are_erased_in_steps(sink: SqlAuditSink) -> None:
    """More than one mark's worth is erased, and all verifies."""
    sink._write([(event(number % 50), None) for number in range(2_100)])
    assert erase(sink, "ann", reason="asked", signer=KEY, organization_id="acme") == 2_100
    report = verified(sink)
    assert (report.verdict, report.erased) == ("intact", 2_100)


def test_erasing_can_be_of_one_organization(filled: SqlAuditSink) -> None:
    """Another organization's events of the same id are another person's, maybe."""
    assert erase(filled, "bob", reason="asked", organization_id="acme") == 0
    assert erase(filled, "bob", reason="asked", organization_id="other") == 10


def test_erasing_goes_by_each_organization_s_own_events(filled: SqlAuditSink) -> None:
    """Where others have events of that id too, nobody else's event of the same place is erased."""
    filled.write(event(20, actor_id="bob"))
    filled.write(event(21, "other", actor_id="ann"))
    assert erase(filled, "bob", reason="asked", organization_id="acme") == 1
    assert erase(filled, "ann", reason="asked", organization_id="other") == 1
    for organization, person in (("acme", "ann"), ("other", "bob")):
        assert filled.count(EventFilter(organization, actor_id=person)) == 10


def test_a_person_s_events_are_found_once_each(
    sink: SqlAuditSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search goes on after the last one found, also where that is not erased meanwhile."""
    monkeypatch.setattr("sigra.store.person._AT_ONCE", 3)
    for number in range(7):
        sink.write(event(number))
    found = events_of(sink.database, chain_tag("acme"), {"ann"}, None)
    steps = [[row.sequence for row in some] for some in islice(found, 5)]
    assert steps == [[1, 2, 3], [4, 5, 6], [7]]


def test_erasing_searches_only_the_chains_that_name_the_person(sink: SqlAuditSink) -> None:
    """Of 200,000 organizations one query each took three minutes."""
    for number in range(9):
        sink.write(event(number, f"o{number}", actor_id="ann" if number in (3, 7) else "bob"))
    asked: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "strpos" in statement or "instr" in statement:
            asked.append(statement)

    listen.listen(sink.database._engine, "before_cursor_execute", note)
    assert erase(sink, "ann", reason="asked", all_organizations=True) == 2
    assert len(asked) == 1 + 2
    assert erase(sink, "ann", reason="asked", organization_id="o3") == 0
    assert len(asked) == 1 + 2 + 1


@pytest.mark.parametrize("name", ['a"b\\', "50%_", "\u00fcn\u00ef", "\u2028\x7f", "a\0b"])
def test_any_id_can_be_erased(sink: SqlAuditSink, name: str) -> None:
    """No character of an id means anything else."""
    sink.write(event(1, actor_id=name))
    sink.write(event(2, actor_id="50xy"))
    assert erase(sink, name, reason="asked", organization_id="acme") == 1


@pytest.mark.parametrize("sign", ["x", "%", "\u00fc"])
def test_an_id_of_any_length_can_be_erased(sink: SqlAuditSink, sign: str) -> None:
    """No limit of a database's to a pattern keeps a person in the store."""
    name = sign * 100_000
    for number, person in enumerate((name, name + sign, name[1:])):
        sink.write(event(number, actor_id=person))
    assert erase(sink, name, reason="asked", organization_id="acme") == 1
    assert erase(sink, name, reason="asked", organization_id="acme") == 0


def test_a_prune_needs_a_moment_and_a_tenant(filled: SqlAuditSink) -> None:
    """A mistake removes nothing."""
    with pytest.raises(InvalidQueryError, match="aware"):
        next(prune(filled, datetime(2026, 1, 1), reason="old", all_organizations=True))
    with pytest.raises(InvalidQueryError, match="all_organizations"):
        next(prune(filled, NOON, reason="old"))
    with pytest.raises(TypeError, match="actor_id"):
        next(prune(filled, NOON, reason="old", all_organizations=True, actor_id="ann"))


def test_a_mark_says_why_and_when(filled: SqlAuditSink) -> None:
    """Whoever asks later what is missing finds the reason, and no name."""
    erase(filled, "bob", reason="request 12", signer=KEY, organization_id="other")
    row = filled.database.read(lambda connection: connection.execute(marks.select()).one())
    body = json.loads(row.body)
    assert (body["kind"], body["reason"], len(body["entries"])) == ("erased", "request 12", 10)
    assert "bob" not in row.body


def test_a_broken_payload_is_readable_as_such(filled: SqlAuditSink) -> None:
    """A page shows what can be read of an event whose payload was damaged."""
    filled.database.write(lambda c: c.execute(entries.update().values(payload="{")))
    shown: AuditEvent = next(filled.stream(EventFilter("acme")))
    assert (shown.action, shown.metadata) == ("invoice.close", {"unreadable": True})


@pytest.mark.parametrize("long", ["a" * 1_025, "\u00e9" * 257])
def test_a_long_id_is_found_by_itself(sink: SqlAuditSink, long: str) -> None:
    """Whoever logs by an id reads, verifies and erases by the same one, though it is kept cut."""
    with configure(sinks=[sink], audit_schema=AuditEvent):
        log_safe("invoice.close", AuditScope.build(actor_id=long, organization_id=long))
        assert audit.count(organization_id=long, actor_id=long) == 1
    assert verify(sink, organization_id=long).rows == 1
    assert erase(sink, long, reason="asked", organization_id=long) == 1


@pytest.mark.parametrize("payload", ["[{}]", "{}, 1", "[" * 100_000 + "{}"])
def test_a_damaged_payload_stops_no_erasing(filled: SqlAuditSink, payload: str) -> None:
    """It mentions the person, so it goes too, and all others are erased."""
    damaged = payload.replace("{}", '{"actor_id":"ann"}')
    first = and_(entries.c.chain == 1, entries.c.sequence == 1)
    change = entries.update().where(first).values(payload=damaged)
    filled.database.write(lambda c: c.execute(change))
    assert erase(filled, "ann", reason="asked", all_organizations=True) == 10
    left = select(entries.c.payload).where(entries.c.chain == 1)
    assert set(filled.database.read(lambda c: c.scalars(left).all())) == {None}


@pytest.mark.parametrize("person", [None, "", " ", True, 1.5, ["ann"]])
def test_nobody_is_erased_by_what_is_no_id(filled: SqlAuditSink, person: Any) -> None:
    """A variable that was never set looks like no request that was fulfilled."""
    with pytest.raises(InvalidQueryError, match="person_id"):
        erase(filled, person, reason="request", all_organizations=True)


@pytest.mark.parametrize("reason", ["", " ", None, 5])
def test_nothing_goes_without_a_reason(filled: SqlAuditSink, reason: Any) -> None:
    """A mark that says nothing stays as long as the chain, and what it is about is gone."""
    with pytest.raises(ValueError, match="^reason must be a str that says why"):
        erase(filled, "ann", reason=reason, all_organizations=True)
    with pytest.raises(ValueError, match="^reason must be a str that says why"):
        next(prune(filled, NOON, reason=reason, all_organizations=True))


def test_a_person_s_id_may_be_a_number(sink: SqlAuditSink) -> None:
    """As it may be where events are logged."""
    sink.write(event(1, actor_id="7"))
    assert erase(sink, 7, reason="request", all_organizations=True) == 1


def test_writers_of_sqlite_have_their_turn_between_batches(
    tmp_path: Path, open_sink: Callable[..., SqlAuditSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits there stands in no queue: the next batch would have the lock before him."""
    sink = open_sink(f"sqlite:///{tmp_path}/audit.db")
    sink.write_in(None, [(event(number), None) for number in range(120)], savepoint=False)
    other = sqlite3.connect(
        tmp_path / "audit.db", timeout=60, isolation_level=None, check_same_thread=False
    )
    turns, pauses, ended = list[int](), list[float](), threading.Event()

    def write() -> None:
        while not ended.is_set():
            other.execute("BEGIN IMMEDIATE").execute("COMMIT")
            turns.append(len(steps))
            ended.wait(0.002)

    def pause(seconds: float) -> None:
        """Pause for as long as a busy machine needs to give the other thread a turn."""
        pauses.append(seconds)
        until, begun = time.monotonic() + 60, len(turns)
        while len(turns) < begun + 2:  # the first may have been before the pause
            assert time.monotonic() < until, "the lock is not left to others"
            time.sleep(0.002)

    monkeypatch.setattr(retention, "_HELD", 0.0)
    monkeypatch.setattr(retention, "sleep", pause)
    steps: list[Any] = []
    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    for step in prune(
        sink, NOON + timedelta(days=99), reason="old", batch=10, organization_id="acme"
    ):
        steps.append(step)
    ended.set()
    thread.join()
    other.close()
    assert len(steps) == 12
    assert len(pauses) == 13 and min(pauses) >= 0.1  # SQLite looks again so often, at the least
    assert set(range(12)) <= set(turns)


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("driver", ["postgresql+psycopg", "postgresql+asyncpg"])
@pytest.mark.parametrize("locked", [chains, entries], ids=str)
def test_a_row_that_somebody_keeps_locked_is_not_waited_for_without_end(
    url: str, driver: str, locked: Any, open_sink: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a chain locked, its writers would wait too; who removes events is told what to do."""
    monkeypatch.setattr(database, "_BUSY_MILLISECONDS", 200)
    sink = open_sink(driven_by(driver, url))
    sink.write(event(1))
    calls: list[Callable[[], Any]] = [
        lambda: erase(sink, "ann", reason="asked", organization_id="acme"),
        lambda: list(prune(sink, NOON + timedelta(1), reason="old", organization_id="acme")),
    ]
    with holding(url, f"SELECT FROM {locked} FOR UPDATE"):
        for call in calls:
            with pytest.raises(DBAPIError, match="lock timeout") as caught:
                call()
            assert "pg_blocking_pids" in caught.value.__notes__[0]
    assert [1, [("acme", 1)]] == [call() for call in calls]


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("driver", ["postgresql+psycopg", "postgresql+asyncpg"])
def test_tables_that_somebody_keeps_locked_are_not_waited_for_without_end(
    url: str, driver: str, tmp_path: Path, open_sink: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by VACUUM FULL, which lets nobody read either: whoever waited is told what to do."""
    monkeypatch.setattr(database, "_BUSY_MILLISECONDS", 200)
    sink = open_sink(driven_by(driver, url))
    sink.write(event(1))
    acme: Any = {"organization_id": "acme"}
    calls: list[Callable[[], Any]] = [
        lambda: len(list(sink.stream(EventFilter("acme")))),
        lambda: sink.count(EventFilter("acme")),
        lambda: verify(sink, **acme).rows,
        lambda: export(sink, tmp_path / uuid.uuid4().hex, **acme).events,
        lambda: len(list(take_checkpoint(sink, KEY).heads)),
        lambda: erase(sink, "ann", reason="asked", **acme),
        lambda: len(list(prune(sink, NOON + timedelta(1), reason="old", **acme))),
    ]
    with holding(url, "LOCK TABLE sigra_audit_chains, sigra_audit_entries"):
        for call in calls:
            with pytest.raises(DBAPIError, match="lock timeout") as caught:
                call()
            assert "pg_blocking_pids" in caught.value.__notes__[0]
    assert [1] * 7 == [call() for call in calls]


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_who_follows_tables_that_somebody_keeps_locked_is_told_and_goes_on(
    url: str, sink: SqlAuditSink
) -> None:
    """A follower that ended would miss what comes after."""
    sink.write(event(1))
    impatient = f"{url}%20-clock_timeout=200"
    words = ["audit", "tail", "-f", "--all-organizations", "--json", "--store", impatient]
    with subprocess.Popen(
        [sys.executable, "-m", "sigra", *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        limit = threading.Timer(60, process.kill)
        limit.start()
        try:
            shown = [json.loads(process.stdout.readline())["target_id"]]
            with holding(url, "LOCK TABLE sigra_audit_chains"):
                told = process.stderr.readline()
            sink.write(event(2))
            shown.append(json.loads(process.stdout.readline() or told)["target_id"])
        finally:
            limit.cancel()
            process.terminate()
    assert shown == ["1", "2"]
    assert "pg_blocking_pids" in told


@pytest.mark.parametrize("batch", [0, -1, True, 1.5])
def test_a_batch_is_of_one_event_at_least(filled: SqlAuditSink, batch: Any) -> None:
    """A batch of none would never end."""
    with pytest.raises(ValueError, match="batch"):
        next(prune(filled, NOON, reason="old", batch=batch, all_organizations=True))
    later = NOON + timedelta(minutes=2)
    steps = prune(filled, later, reason="old", batch=1, organization_id="acme")
    assert list(steps) == [("acme", 1), ("acme", 1)]
