"""What is said to be kept is there, in the chain of its own organization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from events import event
from sqlalchemy import text

from sigra import AuditEvent, AuditScope, SyncBackend, configure, log_safe, tenant_worker
from sigra.audit import EventFilter
from sigra.backends.envelope import pack
from sigra.backends.external import consume
from sigra.store import AuditNotKeptError, Batching, SqlAuditSink, verify

EVERYONE = EventFilter(all_organizations=True)
FOR_EVER = Batching(size=10_000, seconds=3_600, queue=10_000)

SWALLOW = {
    "sqlite": """
        CREATE TRIGGER swallow BEFORE INSERT ON sigra_audit_entries WHEN new.actor_id = 'mallory'
        BEGIN SELECT RAISE(IGNORE); END""",
    "postgresql": """
        CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF new.actor_id = 'mallory' THEN RETURN NULL; END IF; RETURN new; END $$;
        CREATE TRIGGER swallow BEFORE INSERT ON sigra_audit_entries FOR EACH ROW
        EXECUTE FUNCTION swallow()""",
}
"""What keeps Mallory's events out of the table, and says nothing."""

FORWARD = {
    "sqlite": """
        CREATE TRIGGER forward AFTER INSERT ON sigra_audit_entries
        BEGIN INSERT INTO outbox SELECT new.event_id; END""",
    "postgresql": """
        CREATE FUNCTION forward() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO outbox SELECT event_id FROM sigra_audit_entries; RETURN NULL; END $$;
        CREATE TRIGGER forward AFTER INSERT ON sigra_audit_entries FOR EACH ROW
        EXECUTE FUNCTION forward()""",
}
"""What writes each event to another table, which is missing."""


def swallow(sink: SqlAuditSink) -> None:
    sink.prepare()
    sink.database.write(lambda c: c.execute(text(SWALLOW[c.dialect.name])))


def events_of(sink: SqlAuditSink, organization: str) -> list[str]:
    return [each.target_id for each in sink.stream(EventFilter(organization))]


def test_an_event_that_a_trigger_swallows_has_failed(sink: SqlAuditSink) -> None:
    """Emitted means that the row is there, also where the database says nothing."""
    swallow(sink)
    with configure(sinks=[sink], audit_schema=AuditEvent):
        scope = AuditScope.build(actor_id="mallory", organization_id="acme")
        result = log_safe("invoice.close", scope)
    assert (result.status, "AuditNotKeptError" in result.reason) == ("failed", True)


def test_a_table_that_a_trigger_lacks_is_not_said_to_be_the_store_s(sink: SqlAuditSink) -> None:
    """The command that makes the store's own would not make it."""
    sink.prepare()
    sink.database.write(lambda c: c.execute(text(FORWARD[c.dialect.name])))
    with configure(sinks=[sink], audit_schema=AuditEvent):
        result = log_safe("invoice.close", None)
    assert (result.status, "AuditTablesMissing" in result.reason) == ("failed", False)


@pytest.mark.parametrize("count", [3, 120])
def test_an_event_of_many_that_a_trigger_swallows_is_told_of(
    url: str, open_sink: Callable[..., SqlAuditSink], count: int
) -> None:
    """A batch is written without it, and it counts as failed."""
    told: list[Any] = []
    swallow(open_sink(url))
    sink = open_sink(url, batch=FOR_EVER)
    with configure(on_audit_failure=told.append):
        for number in range(count):
            sink.write(event(number, actor_id="mallory" if number == 1 else "ann"))
        sink.flush()
    assert [each.event.target_id for each in told] == ["1"]
    assert len(events_of(sink, "acme")) == count - 1
    assert verify(sink, all_organizations=True).verdict == "intact"


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.servers)])
def test_a_driver_that_counts_no_rows_tells_of_a_swallowed_event(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink], kind: str
) -> None:
    """Through an asynchronous driver an event of many is looked for as well."""
    sink = open_sink(new_url(kind).replace("sqlite:", "sqlite+aiosqlite:"))
    swallow(sink)
    with pytest.raises(AuditNotKeptError, match="did not keep it"):
        sink._write([(event(number, actor_id="mallory"), None) for number in range(3)])


ran: list[str] = []


@tenant_worker(audit_schema=AuditEvent, audit_required=True)
def pay(scope: AuditScope) -> None:
    assert scope.user is not None
    ran.append(scope.user.id)


def test_no_body_runs_whose_begin_a_batching_sink_would_be_refused(
    url: str, open_sink: Callable[..., SqlAuditSink]
) -> None:
    """An audit that is required is written at once: of what is queued the loss is told too late."""
    ran.clear()
    swallow(open_sink(url))
    sink = open_sink(url, batch=FOR_EVER)
    with configure(sinks=[sink], backend=SyncBackend()):
        jobs = [pay.new({"organization_id": "acme", "actor_id": who}) for who in ("mallory", "ann")]
    assert (["discarded", "completed"], ["ann"]) == ([job.state for job in jobs], ran)


left: list[int] = []


@tenant_worker(audit_schema=AuditEvent, max_attempts=2)
def close_all(scope: AuditScope) -> None:
    for number in left.copy():
        left.remove(number)
        log_safe("invoice.close", scope, target_id=number)
        if number == 2:
            raise SystemExit


def test_an_attempt_that_goes_on_where_it_died_keeps_all_its_events(sink: SqlAuditSink) -> None:
    """It is the same attempt with other things to do: none of its events passes for an earlier."""
    left[:] = [1, 2, 3, 4]
    with configure(sinks=[sink], backend=SyncBackend()):
        payload = pack(close_all.new({"organization_id": "acme", "actor_id": "ann"}, delay=1))
        consume(payload, close_all.definition, "test")
        consume(payload, close_all.definition, "test", deliveries=1)
    assert ["4", "3", "2", "1"] == events_of(sink, "acme")


def test_an_id_that_another_organization_has_is_refused(sink: SqlAuditSink) -> None:
    """Whoever knows an event's id beforehand cannot keep it out of its chain unseen."""
    squatter = event(1, "mallory")
    sink.write(squatter)
    with pytest.raises(AuditNotKeptError, match="another organization") as caught:
        sink.write(event(2, "acme", event_id=squatter.event_id))
    assert (caught.value.event_id, caught.value.taken) == (squatter.event_id, True)


@pytest.mark.parametrize("begun", ["acme", "mallory"])
@pytest.mark.parametrize("earlier", [True, False])
def test_an_id_of_many_that_another_organization_has_is_told_of(
    url: str, open_sink: Callable[..., SqlAuditSink], begun: str, earlier: bool
) -> None:
    """A batch is written without it, be it taken before or in the same batch, in an older chain
    or a newer one.
    """
    told: list[Any] = []
    sink = open_sink(url, batch=FOR_EVER)
    sink.write(event(0, begun))
    sink.flush()
    taken = event(1, "mallory")
    sink.write(taken)
    if earlier:
        sink.flush()
    with configure(on_audit_failure=told.append):
        for each in (event(3), event(4, event_id=taken.event_id)):
            sink.write(each)
        sink.flush()
    assert [each.event.target_id for each in told] == ["4"]
    expected = {"acme": ["3"], "mallory": ["1"]}
    expected[begun].append("0")
    assert {name: events_of(sink, name) for name in expected} == expected


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_trigger_that_moves_the_end_back_is_seen_by_nobody(sink: SqlAuditSink) -> None:
    """It removes the newest events before any checkpoint has them; docs/security.md says so."""
    sink.write(event(1))
    sink.database.write(
        lambda c: c.exec_driver_sql("""
        CREATE TRIGGER swallow AFTER UPDATE ON sigra_audit_chains
        WHEN (SELECT actor_id FROM sigra_audit_entries WHERE hash = new.head) = 'mallory' BEGIN
        DELETE FROM sigra_audit_entries WHERE hash = new.head;
        UPDATE sigra_audit_chains SET sequence = old.sequence, head = old.head WHERE id = new.id;
        END""")
    )
    with configure(sinks=[sink], audit_schema=AuditEvent):
        for actor in ("mallory", "ann"):
            scope = AuditScope.build(actor_id=actor, organization_id="acme")
            assert log_safe("invoice.close", scope).status == "emitted"
    report = verify(sink, all_organizations=True)
    assert (report.verdict, report.rows) == ("intact", 2)
