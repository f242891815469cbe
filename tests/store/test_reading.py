"""Reading events back: pages, streams and counts, for whom they are."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from events import NOON, event

from sigra import AuditEvent, AuditScope, audit, configure, log_safe
from sigra.audit import EventFilter
from sigra.audit.transaction import NoAuditStoreError
from sigra.store import SqlAuditSink
from sigra.store.errors import InvalidQueryError
from sigra.store.query import page_query
from sigra.store.tables import entries


def targets(events: Any) -> list[str | None]:
    return [each.target_id for each in events]


@pytest.fixture
def filled(sink: SqlAuditSink) -> Any:
    for number in range(10):
        sink.write(event(number))
    sink.write(event(3, "other", actor_id="bob"))
    sink.write(event(4, None, action="job.sweep", outcome="failure"))
    with configure(sinks=[sink]):
        yield sink


def test_an_event_comes_back_as_it_was(sink: SqlAuditSink) -> None:
    """Every field of an event survives the store."""
    scope = AuditScope.build(actor_id="bob", organization_id="acme", impersonating_from="ann")
    with configure(sinks=[sink], audit_schema=AuditEvent):
        told = log_safe(
            "invoice.close",
            scope,
            outcome="error",
            target_id=7,
            target_type="invoice",
            metadata={"sum": 12.5, "big": 7, "note": "\u00fc \U0001f600", "lines": [1, None, True]},
            ip_address="10.0.0.1",
            user_agent="curl/8\x00",
        )
        found = audit.query(organization_id="acme").events
    assert told.status == "emitted"
    assert found == (told.event,)


def test_pages_are_newest_first_and_end(filled: SqlAuditSink) -> None:
    """A cursor leads from page to page, and the last one has none."""
    seen, cursor = [], None
    while True:
        page = audit.query(organization_id="acme", limit=4, cursor=cursor)
        seen.append(targets(page.events))
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == [["9", "8", "7", "6"], ["5", "4", "3", "2"], ["1", "0"]]


@pytest.mark.parametrize("limit", [5, 10])
def test_a_page_that_the_last_event_fills_is_the_last(filled: SqlAuditSink, limit: int) -> None:
    """It has no cursor, which would lead to a page without events."""
    page = audit.query(organization_id="acme", limit=limit)
    if limit == 5:
        page = audit.query(organization_id="acme", limit=limit, cursor=page.cursor)
    assert (targets(page.events)[-1], page.cursor) == ("0", None)


def test_pages_stand_while_rows_are_inserted(filled: SqlAuditSink) -> None:
    """What is written between two pages neither repeats nor shifts an event."""
    first = audit.query(organization_id="acme", limit=5)
    filled.write(event(20))
    second = audit.query(organization_id="acme", limit=5, cursor=first.cursor)
    assert targets(first.events + second.events) == [str(n) for n in range(9, -1, -1)]


def test_pages_across_organizations_have_each_event_once(filled: SqlAuditSink) -> None:
    """Events of one moment and several organizations are neither lost nor repeated."""
    seen, cursor = [], None
    while True:
        page = audit.query(all_organizations=True, limit=1, cursor=cursor)
        seen += [one.event_id for one in page.events]
        cursor = page.cursor
        if cursor is None:
            break
    assert (len(seen), len(set(seen))) == (12, 12)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"organization_id": "other"}, ["3"]),
        ({"organization_id": None}, ["4"]),
        ({"organization_id": "nobody"}, []),
        ({"all_organizations": True, "actor_id": "bob"}, ["3"]),
        ({"all_organizations": True, "action": "job.sweep"}, ["4"]),
        ({"all_organizations": True, "outcome": "failure"}, ["4"]),
        ({"organization_id": "acme", "since": NOON + timedelta(minutes=8)}, ["9", "8"]),
        ({"organization_id": "acme", "until": NOON + timedelta(minutes=2)}, ["1", "0"]),
    ],
)
def test_filters_say_which(filled: SqlAuditSink, filters: Any, expected: list[str]) -> None:
    """A page, a stream and a count agree about a filter."""
    assert targets(audit.query(**filters).events) == expected
    assert targets(audit.stream(**filters)) == expected
    assert audit.count(**filters) == len(expected)


@pytest.mark.parametrize("read", [audit.query, audit.stream, audit.count])
def test_an_organization_must_be_named(filled: SqlAuditSink, read: Any) -> None:
    """No read crosses tenants because an argument was forgotten."""
    with pytest.raises(InvalidQueryError, match="all_organizations=True"):
        read()
    with pytest.raises(InvalidQueryError, match="not both"):
        read(organization_id="acme", all_organizations=True)


def cursor_of(position: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0},
        {"limit": 501},
        {"limit": True},
        {"cursor": "nonsense"},
        {"cursor": "WzFd"},
        {"cursor": 3},
        {"cursor": cursor_of(["2026", 1, 1 << 63])},
        {"cursor": cursor_of(["2026", -(1 << 63) - 1, 1])},
        {"cursor": cursor_of(["2026", True, 1])},
        {"cursor": cursor_of(["20\0", 1, 1])},
        {"cursor": cursor_of(["20\ud800", 1, 1])},
        {"cursor": cursor_of(["2026", 1, 1]) + "****"},
        {"cursor": base64.urlsafe_b64encode(b"[" * 200_001).decode()},
        {"since": datetime(2026, 1, 1)},
        {"since": datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))},
        {"until": datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))},
        {"action": 3},
        {"action": ["invoice.close"]},
        {"outcome": "fine"},
        {"actor_id": ""},
    ],
)
def test_a_wrong_argument_is_named(filled: SqlAuditSink, wrong: dict[str, Any]) -> None:
    """A mistake in a query is an error and not an empty page."""
    with pytest.raises(InvalidQueryError) as caught:
        audit.query(organization_id="acme", **wrong)
    assert caught.value.argument == next(iter(wrong))


@pytest.mark.parametrize("odd", ["no\0thing", "no\ud800thing"])
@pytest.mark.parametrize("name", ["organization_id", "actor_id", "action"])
def test_a_text_that_no_database_holds_finds_nothing(
    filled: SqlAuditSink, name: str, odd: str
) -> None:
    """It is looked for as an event would have it, and is no error of the database's."""
    assert audit.count(**{"organization_id": "acme", name: odd}) == 0


def test_without_a_store_there_is_nothing_to_read() -> None:
    """The error says how to add a store."""
    with configure(sinks=[]), pytest.raises(NoAuditStoreError, match="SqlAuditSink"):
        audit.count(all_organizations=True)


def test_a_stream_is_longer_than_a_page(sink: SqlAuditSink) -> None:
    """Streaming goes on from page to page."""
    sink._write([(event(number), None) for number in range(1200)])
    which = EventFilter(organization_id="acme")
    assert targets(sink.stream(which)) == [str(n) for n in range(1199, -1, -1)]


@pytest.mark.parametrize("after", [None, ("2026", 1)])
def test_a_page_of_one_organization_is_read_by_its_index(sink: SqlAuditSink, after: Any) -> None:
    """No table is scanned and nothing is sorted: a page costs the same in a large store."""
    sink._write([(event(n, f"org {n % 2}"), None) for n in range(2000)])

    def plan(connection: Any) -> str:
        query = page_query(1, None if after is None else ("2026", 0, 1)).limit(50)
        query = query.where(entries.c.chain == 1)
        text = query.compile(connection.engine, compile_kwargs={"literal_binds": True})
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("ANALYZE")
            rows = connection.exec_driver_sql(f"EXPLAIN {text}")
            return "\n".join(row[0] for row in rows)
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")
        return "\n".join(row[3] for row in rows)

    text = sink.database.write(plan)
    assert "sigra_audit_entries_newest_of_chain" in text
    assert "Sort" not in text
    assert "TEMP B-TREE" not in text
    assert "SCAN" not in text
