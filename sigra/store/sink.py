"""The sink that keeps events in a database, and reads them back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError

from sigra import config
from sigra.audit.event import AuditEvent
from sigra.store.append import append
from sigra.store.batch import Batch, Batching
from sigra.store.database import check_kind
from sigra.store.errors import AuditLostError, AuditSinkClosedError
from sigra.store.failure import is_of_the_data, tell_lost
from sigra.store.forking import PerProcess
from sigra.store.keys import Signer, check_signer
from sigra.store.migrate import HEAD, ensure_tables, make_within, version
from sigra.store.opening import open_database
from sigra.store.query import count_events, read_all, read_page
from sigra.store.reading import EventFilter, Page
from sigra.store.records import add_records, all_records, count_records, is_mapped, record_page
from sigra.store.retention import prune
from sigra.store.statements import ConnectionRunner
from sigra.store.transaction import write_within

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

Item = tuple[AuditEvent, Any]
"""An event, and its record if that is of a mapped class, else None."""


class SqlAuditSink:
    """Keep audit events in SQLite or PostgreSQL; pass it to ``configure(sinks=[...])``.

    ``target``: a URL, or an engine of yours, synchronous or not. By default an event is in the
    database, durably, when ``write`` returns; with ``batch=Batching(...)`` it is queued. An
    event whose ``event_id`` is there already changes nothing.

    An event whose record is of a mapped class (``audit_schema=MyAudit``) goes to the table of
    that class, any other to the store's own tables: unless ``create_tables`` is False, these are
    made or upgraded on first use. Reads go to the class ``audit_schema``, or the configured one,
    if it is mapped, else to the store's own. ``signer`` signs the marks of ``clean_up``.
    """

    def __init__(
        self,
        target: str | URL | Engine | AsyncEngine,
        *,
        batch: Batching | None = None,
        audit_schema: Any = None,
        create_tables: bool = True,
        signer: Signer | None = None,
    ) -> None:
        check_signer(signer)
        self._signer, self._schema = signer, audit_schema
        self.database = open_database(target)
        self._ready, self._seen, self._made = not create_tables, False, False
        self._closed, self._making = False, False
        self._process = PerProcess()
        self._renew()
        self._batch = None
        if batch is not None:
            self._batch = Batch(batch, self._write_some, tell_lost, type(self))

    def write(self, event: AuditEvent, record: Any = None) -> None:
        """Keep one event; raise what the database raises, or ``AuditBacklogError``."""
        item = _item(event, record)
        if self._batch is None:
            self._write((item,))
        else:
            self._batch.add(item)

    def write_in(self, conn: Any, pairs: Sequence[Item], *, savepoint: bool) -> None:
        """Keep events, each with its record, in the transaction of a connection or session.

        Raises what the database raises; with ``savepoint`` the transaction can then go on. With
        ``conn`` None all are kept in a transaction of the sink's own.
        """
        items = [_item(event, record) for event, record in pairs]
        if conn is None:
            self._write(items)
            return
        prepare = self.prepare if any(record is None for _, record in items) else None
        write_within(conn, lambda c: self._write_on(c, items), savepoint=savepoint, prepare=prepare)

    def flush(self) -> None:
        """Write what is queued; where the database raises, raise the same and keep it queued."""
        if self._batch is not None:
            self._batch.flush()

    def close(self) -> None:
        """Write what is queued and close what the sink opened.

        Raises ``AuditLostError`` for what could not be written.
        """
        lost = None
        try:
            if self._batch is not None:
                self._batch.close()
        except AuditLostError as error:
            lost = error
        self._closed = True
        self.database.close()
        if lost is not None:
            raise lost

    def query(self, which: EventFilter, cursor: str | None, limit: int) -> Page:
        """Return one page, newest first."""
        own = self._class_read()
        if own is not None:
            return record_page(self.database, own, which, cursor, limit)
        self.prepare()
        return read_page(self.database, which, cursor, limit)

    def stream(self, which: EventFilter) -> Iterator[Any]:
        """Return all events, newest first, of which one page is in memory at a time."""
        own = self._class_read()
        if own is not None:
            return all_records(self.database, own, which)
        self.prepare()
        return read_all(self.database, which)

    def count(self, which: EventFilter) -> int:
        """Return how many events there are."""
        own = self._class_read()
        if own is not None:
            return count_records(self.database, own, which)
        self.prepare()
        return count_events(self.database, which)

    def clean_up(self, before: datetime, progress: Callable[[int], object] | None = None) -> int:
        """Remove all organizations' events older than a moment, in batches; return how many.

        ``progress`` is called after each batch with the number so far.
        """
        done = 0
        for pruned in prune(
            self, before, reason="retention", signer=self._signer, all_organizations=True
        ):
            done += pruned.events
            if progress is not None:
                progress(done)
        return done

    def _class_read(self) -> Any:
        """Return the mapped class whose records are read, None for the store's own tables."""
        schema = self._schema if self._schema is not None else config.current.audit_schema
        return schema if is_mapped(schema) else None

    def prepare(self) -> None:
        """Make the store's own tables where they are not there yet."""
        self._process.check(self._renew)
        with self._preparing:
            if self._making:
                raise RuntimeError("a signal handler logged an event while its tables were made")
            if not self._ready:
                self._making = True
                try:
                    ensure_tables(self.database)
                    self._ready = True
                finally:
                    self._making = False

    def _prepare_on(self, connection: Connection) -> None:
        # On the caller's connection: the pool may have no other left, and the caller's
        # transaction may hold SQLite's lock.
        if _sees_tables(connection):
            self._seen = not self._made  # tables that it made may still be rolled back
            return
        if connection.dialect.name == "sqlite" and make_within(connection, self.database.file):
            self._made = True
        else:
            self.prepare()

    def _renew(self) -> None:
        # Called in a forked child too. Reentrant: prepare() refuses a signal's handler instead.
        self._preparing, self._making = threading.RLock(), False

    def _write_some(self, items: Sequence[Item]) -> None:
        """Write a batch; where one event in it is at fault, report it and write the others."""
        try:
            self._write(items)
        except Exception as error:
            if not is_of_the_data(error):
                raise
            if len(items) == 1:
                tell_lost(items, error)
                return
            for item in items:
                self._write_some((item,))

    def _write(self, items: Sequence[Item]) -> None:
        try:
            self._write_once(items)
        except DBAPIError as error:
            # A pooled connection had died, or two writers added one new event: try again. Nothing
            # is written twice, because the second try finds what the first one committed.
            if not (error.connection_invalidated or isinstance(error, IntegrityError)):
                raise
            self._write_once(items)

    def _write_once(self, items: Sequence[Item]) -> None:
        if self._closed:
            raise AuditSinkClosedError
        events, records = _split(items)
        if events:
            if not self._ready:
                self.prepare()
            self.database.transact(lambda runner: append(runner, events))
        if records:
            self.database.write(lambda connection: add_records(connection, records))

    def _write_on(self, connection: Connection, items: Sequence[Item]) -> None:
        events, records = _split(items)
        if events:
            check_kind(connection.dialect.name)
            if not (self._ready or self._seen):
                self._prepare_on(connection)
            append(ConnectionRunner(connection), events)
        if records:
            with connection.begin_nested():  # one that is refused undoes this and no more
                add_records(connection, records)


def _sees_tables(connection: Connection) -> bool:
    """Tell whether the tables are there, as far as the connection's role may look."""
    try:
        with connection.begin_nested():
            return version(connection) == HEAD
    except DBAPIError:  # a role may be allowed to write events and no more
        return False


def _item(event: AuditEvent, record: Any) -> Item:
    kind = type(record)
    own = kind is not AuditEvent and record is not None and is_mapped(kind)
    return event, record if own else None


def _split(items: Sequence[Item]) -> tuple[list[AuditEvent], list[Any]]:
    """Return the events for the store's own tables, and the records of mapped classes."""
    events = [event for event, record in items if record is None]
    return events, [record for _, record in items if record is not None]
