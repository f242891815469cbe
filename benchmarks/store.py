"""Pairs about the audit store: its sink against bare inserts, its chain, verifying, reading."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from itertools import count, repeat
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import structlog

from benchmarks.logs import shipped_chain
from benchmarks.measure import Pair, Timed
from sigra import AuditEvent, AuditScope, configure, log_safe
from sigra.audit.event import EVENT_FIELDS
from sigra.store.reading import EventFilter

COLUMNS = EVENT_FIELDS
BATCH = 500
PAGE = 50


START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def make_event(number: int = 0, organization: str = "acme") -> AuditEvent:
    """Return an event as a job logs it, some seconds after the year began."""
    return AuditEvent(
        action="invoice.close",
        organization_id=organization,
        actor_id="user_7",
        effective_user_id="user_7",
        actor_type="user",
        target_id=f"inv_{number}",
        target_type="invoice",
        metadata={"amount": 129950, "currency": "EUR", "lines": 3},
        worker="invoices.close",
        job_id="01890a5d-ac96-774b-bcce-b302099a8057",
        attempt=1,
        occurred_at=START + timedelta(seconds=number),
    )


class BareTable:
    """What one would write by hand: a row an event, as durable, and no chain.

    ``indexed``: with the two indexes that pages of one organization, and of all, are read by.
    """

    def __init__(self, path: Path, indexed: bool = False) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = FULL")
        columns = ", ".join(f"{name} TEXT" for name in COLUMNS[1:])
        self.connection.execute(f"CREATE TABLE audit (event_id TEXT PRIMARY KEY, {columns})")
        if indexed:
            self.connection.execute("CREATE INDEX one ON audit (organization_id, occurred_at)")
            self.connection.execute("CREATE INDEX all_of_them ON audit (occurred_at)")
        marks = ", ".join("?" * len(COLUMNS))
        self._insert = f"INSERT INTO audit VALUES ({marks})"

    def write(self, event: AuditEvent, record: Any = None) -> None:
        """Insert one row, committed by itself."""
        self.connection.execute(self._insert, _row(event))

    def write_many(self, events: Sequence[AuditEvent]) -> None:
        """Insert rows in one transaction."""
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany(self._insert, [_row(event) for event in events])
        self.connection.execute("COMMIT")

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def _row(event: AuditEvent) -> tuple[Any, ...]:
    return (
        event.event_id, event.action, event.outcome, event.organization_id, event.actor_id,
        event.effective_user_id, event.actor_type, event.target_id, event.target_type,
        event.ip_address, event.user_agent, json.dumps(event.metadata),
        event.occurred_at.isoformat(), event.worker, event.job_id, event.attempt,
    )  # fmt: skip


def immediate() -> Pair:
    """Compare one event in the store with one bare row, both on the disk when the call returns."""
    return _pair(lambda sink, events: _each(sink.write, events))


def immediate_indexed() -> Pair:
    """Compare with a row of a table that can be read as the store can."""
    return _pair(lambda sink, events: _each(sink.write, events), indexed=True)


def batched() -> Pair:
    """Compare a batch of events with a bare batch of rows."""

    def ours(sink: Any, events: Sequence[AuditEvent]) -> None:
        sink._write([(event, None) for event in events])

    return _pair(ours, BareTable.write_many, BATCH)


def _each(write: Callable[[AuditEvent], object], events: Sequence[AuditEvent]) -> None:
    for event in events:
        write(event)


def _pair(
    ours: Callable[[Any, Sequence[AuditEvent]], None],
    floor: Callable[[Any, Sequence[AuditEvent]], None] | None = None,
    size: int = 1,
    indexed: bool = False,
) -> Pair:
    folder = tempfile.TemporaryDirectory()
    table = BareTable(Path(folder.name) / "bare.db", indexed)
    sink = _open_sink(folder.name)

    def close() -> None:
        table.close()
        sink.close()
        folder.cleanup()

    by_hand = _timed(floor or ours, table, size)
    return Pair(_timed(ours, sink, size), by_hand, close, most=2_000)


def _open_sink(folder: str) -> Any:
    from sigra.store import SqlAuditSink

    sink = SqlAuditSink(f"sqlite:///{folder}/audit.db")
    sink.write(make_event())
    return sink


def _timed(write: Callable[[Any, Sequence[AuditEvent]], None], target: Any, size: int) -> Timed:
    """Time writing so many events, each later than the one before; making them is not timed."""
    numbers = count()

    def timed(loops: int) -> float:
        batches = [[make_event(next(numbers)) for _ in range(size)] for _ in range(loops)]
        start = perf_counter()
        for events in batches:
            write(target, events)
        return perf_counter() - start

    return timed


def chained() -> Pair:
    """Compare log_safe to the store with log_safe to a bare table, which has no chain."""
    folder = tempfile.TemporaryDirectory()
    sink, table = _open_sink(folder.name), BareTable(Path(folder.name) / "bare.db")
    return _logged_pair(folder, (sink, AuditEvent), (table, AuditEvent))


def chained_alike() -> Pair:
    """Compare with log_safe to the same sink where events go to a mapped class, without a chain."""
    from sqlalchemy import create_engine

    from sigra.store import SqlAuditSink

    folder = tempfile.TemporaryDirectory()
    own = _mapped_class()
    engine = create_engine(f"sqlite:///{folder.name}/own.db")
    own.metadata.create_all(engine)
    engine.dispose()
    sink, unchained = _open_sink(folder.name), SqlAuditSink(f"sqlite:///{folder.name}/own.db")
    return _logged_pair(folder, (sink, AuditEvent), (unchained, own))


def _mapped_class() -> Any:
    """Return a class with a column for each field of an event, indexed as the store is."""
    from sqlalchemy import JSON, DateTime, Index, Integer, Text
    from sqlalchemy.orm import DeclarativeBase, mapped_column

    kinds = {"occurred_at": DateTime(timezone=True), "metadata": JSON(), "attempt": Integer()}

    class Base(DeclarativeBase):
        pass

    columns: dict[str, Any] = {}
    for name in COLUMNS:
        column = mapped_column(name, kinds.get(name, Text()), primary_key=name == "event_id")
        columns["metadata_" if name == "metadata" else name] = column
    indexes = (
        Index("one", "organization_id", "occurred_at", "event_id"),
        Index("all_of_them", "occurred_at", "event_id"),
    )
    return type("Audit", (Base,), {"__tablename__": "audit", "__table_args__": indexes, **columns})


def _logged_pair(
    folder: tempfile.TemporaryDirectory[str], ours: tuple[Any, Any], floor: tuple[Any, Any]
) -> Pair:
    def close() -> None:
        structlog.reset_defaults()
        for sink, _ in (ours, floor):
            sink.close()
        folder.cleanup()

    return Pair(_logged(*ours), _logged(*floor), close, most=2_000)


def _logged(sink: Any, schema: Any) -> Timed:
    """Time log_safe to one sink, and through the processor that Sigra ships."""
    scope = AuditScope.build(actor_id="user_7", organization_id="acme")
    details = {"target_id": "inv_1042", "target_type": "invoice"}

    def timed(loops: int) -> float:
        structlog.configure(**shipped_chain())
        with configure(sinks=[sink], audit_schema=schema):
            start = perf_counter()
            for number in range(loops):
                metadata = {"amount": number, "currency": "EUR", "lines": 3}
                result = log_safe("invoice.close", scope, metadata=metadata, **details)
            taken = perf_counter() - start
        if result.status != "emitted":
            raise RuntimeError(f"the event is {result.status}: {result.reason}")
        return taken

    return timed


def verifying() -> Pair:
    """Compare verifying with 10 microseconds a row."""
    from sigra.store import verify

    folder = tempfile.TemporaryDirectory()
    sink = _open_sink(folder.name)
    rows = 20_000
    for start in range(0, rows, BATCH):
        sink._write([(make_event(n, f"org {n % 100}"), None) for n in range(start, start + BATCH)])

    def ours(loops: int) -> float:
        start = process_time()
        for _ in repeat(None, loops):
            report = verify(sink, all_organizations=True)
        taken = process_time() - start
        if report.verdict != "intact":
            raise RuntimeError(f"the store is {report.verdict}")
        return taken / report.rows

    def close() -> None:
        sink.close()
        folder.cleanup()

    return Pair(ours, lambda loops: loops * 1e-5, close, most=1)


def page() -> Pair:
    """Compare a page of one organization in a large store with one in a small store."""
    folder = tempfile.TemporaryDirectory()
    sinks = []
    for rows in (200_000, 10_000):
        path = Path(folder.name) / str(rows)
        path.mkdir()
        sink = _open_sink(str(path))
        _fill(sink, rows)
        sinks.append(sink)

    def close() -> None:
        for sink in sinks:
            sink.close()
        folder.cleanup()

    large, small = (_read(sink) for sink in sinks)
    return Pair(large, small, close)


def _fill(sink: Any, rows: int) -> None:
    """Write a page of one organization, and the rest of 10^4 others, spread over a year."""
    for first in range(0, rows, 10_000):
        items = []
        for number in range(first, first + 10_000):
            mine = first == 0 and number % (10_000 // PAGE) == 0
            organization = "mine" if mine else f"org {number % 10_000}"
            items.append((make_event(number, organization), None))
        sink._write(items)


def _read(sink: Any) -> Timed:
    which = EventFilter("mine")

    def timed(loops: int) -> float:
        start = process_time()
        for _ in repeat(None, loops):
            found = sink.query(which, None, PAGE)
        taken = process_time() - start
        if len(found.events) != PAGE:
            raise RuntimeError(f"the page has {len(found.events)} events")
        return taken

    return timed
