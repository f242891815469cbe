"""What the store asks of a database, and how SQLite and PostgreSQL are set up for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from sqlite3 import OperationalError
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from sigra.store.errors import LOCKED, code_of
from sigra.store.interrupts import interruptible
from sigra.store.private import path_of
from sigra.store.statements import Runner

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")

_BUSY_MILLISECONDS = 10_000
_OWN_TIMEOUT = "sigra_lock_timeout"
_OWN_MILLISECONDS = (
    "SELECT CAST(1000 * extract(epoch FROM current_setting('lock_timeout')::interval) AS bigint)"
)
_SIZES = """
SELECT page_count, freelist_count, page_size
FROM pragma_page_count, pragma_freelist_count, pragma_page_size
"""
_EMPTY_LOG = "PRAGMA wal_checkpoint(TRUNCATE)"
LEFT = "the rows are erased, but their text may remain in the file or in its write-ahead log"
_PATIENCE = 60.0
"""Seconds to wait until nobody uses the log: a writer may be emptying it at the same time."""

KEPT = (
    "another transaction kept its lock on the audit store for too long: find it by "
    "pg_blocking_pids() or as 'idle in transaction' in pg_stat_activity, end it"
)

_NO_FILE = ("", ":memory:", "file:", "file::memory:")

WRITING, READING = "READ COMMITTED", "REPEATABLE READ"
"""A server's isolation levels, whatever a given engine is set to. A writer waits for the one before
and goes on from its rows: at a higher level it would fail, in AUTOCOMMIT it would not wait."""


class Database(Protocol):
    """What the store asks of a database, whether its driver is synchronous or not."""

    dialect: str
    file: str
    """The path of SQLite's file; empty for a server."""

    def transact(self, work: Callable[[Runner], T]) -> T:
        """Run the work in a transaction of its own: commit it, or roll it back and raise."""
        ...

    def write(self, work: Callable[[Connection], T]) -> T:
        """Do the same with a SQLAlchemy connection in place of a runner."""
        ...

    def read(self, work: Callable[[Connection], T]) -> T:
        """Read in one transaction, which sees one state of the database throughout."""
        ...

    def scrub(self) -> None:
        """Remove what is left of deleted rows from SQLite's file; do nothing on a server."""

    def close(self) -> None:
        """Close the connections that the store opened."""


def check_kind(name: str) -> None:
    """Raise ``ValueError`` for any kind of database but SQLite and PostgreSQL."""
    if name not in ("sqlite", "postgresql"):
        hint = "; write postgresql://, as SQLAlchemy wants it" if name == "postgres" else ""
        raise ValueError(f"the audit store runs on SQLite and PostgreSQL, not on {name}{hint}")


def check_dialect(engine: Engine | AsyncEngine) -> None:
    """Raise ``ValueError`` for an engine that would keep nothing, or mix transactions up."""
    check_kind(engine.name)
    url = engine.url
    if engine.name == "sqlite" and (
        (url.database or "") in _NO_FILE or url.query.get("mode") == "memory"
    ):
        raise ValueError(
            "an audit store in memory keeps nothing: name a file, as in sqlite:///audit.db"
        )
    if None in (engine.get_execution_options().get("schema_translate_map") or ()):
        raise ValueError(
            "an engine whose schema_translate_map has None would read other tables than it writes: "
            "set the search_path of its connections instead"
        )
    if isinstance(engine.pool, StaticPool):
        raise ValueError(
            "an engine with a StaticPool has one connection, on which the transactions of several "
            "threads would end each other: use another pool, or pass a URL"
        )
    if isinstance(engine.pool, SingletonThreadPool):
        raise ValueError(
            "an engine with a SingletonThreadPool closes connections that other threads use, once "
            "there are more than a few: use another pool, or pass a URL"
        )


def schemas_of(engine: Engine) -> dict[str, Any]:
    """Return the options of a given engine that say where the table of a mapped class is."""
    return {"schema_translate_map": engine.get_execution_options().get("schema_translate_map")}


def file_of(url: URL) -> str:
    """Return the path of SQLite's file, which a URL may name by a URI."""
    name = url.database or ""
    return os.path.realpath(path_of(name) if name.startswith("file:") else name)


def read_again(read: Callable[[], T]) -> T:
    """Read, and again if the connection was dead: a pool keeps those from before a restart."""
    try:
        return read()
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
    return read()


def be_patient(connection: Connection) -> None:
    """Have a transaction on PostgreSQL wait for each lock no longer than one on SQLite waits.

    A shorter ``lock_timeout`` of the role, the database or the connection stays. Without any, a
    caller that holds a chain in a transaction, and logs another event of it without ``conn``, would
    wait for ever, as would every writer of that organization. Writers also queue behind one that
    waits for a table's lock, or for a row while it holds a chain's.
    """
    if connection.dialect.name != "postgresql":
        return
    known = connection.info  # of the driver's connection, which is asked once
    if (own := known.get(_OWN_TIMEOUT)) is None:
        own = known[_OWN_TIMEOUT] = connection.exec_driver_sql(_OWN_MILLISECONDS).scalar_one()
    # Its own too: behind PgBouncer the next transaction may be on a connection that has none.
    patience = own if 0 < own <= _BUSY_MILLISECONDS else _BUSY_MILLISECONDS
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {patience}")


@contextmanager
def noting_locked() -> Iterator[None]:
    """Add what to do to PostgreSQL's error about a lock that somebody kept for too long."""
    try:
        yield
    except DBAPIError as error:
        if code_of(error) == LOCKED:
            error.add_note(f"{KEPT}, and do this again")
        raise


def scrub_file(cursor: Any, file: str) -> None:
    """Write SQLite's file anew, and truncate its write-ahead log to nothing.

    Splitting or joining pages leaves copies of rows in the free part of a page, which deleting
    the rows does not overwrite. Raises ``TimeoutError`` where others keep the log in use, and
    ``OSError`` where the disk has no room.
    """
    try:
        _check_room(cursor, file)
        with interruptible(getattr(cursor, "connection", None)):
            cursor.execute("VACUUM")
    except Exception as error:
        error.add_note(f"{LEFT}: call sigra.store.vacuum")
        raise
    until = monotonic() + _PATIENCE
    while True:
        cursor.execute(_EMPTY_LOG)
        if not cursor.fetchone()[0]:
            return
        if monotonic() > until:
            raise TimeoutError(
                f"{LEFT}, which others were using: call sigra.store.vacuum once they have ended"
            )
        sleep(0.1)


def _check_room(cursor: Any, file: str) -> None:
    """Raise ``OSError`` where the disk has no room for a VACUUM, which writes all into the log.

    A log that has filled the disk stays as it is, for it cannot be copied into the file any more:
    soon no event could be written.
    """
    cursor.execute(_SIZES)
    pages, unused, size = cursor.fetchone()
    needed, folder = (pages - unused) * size, os.path.dirname(file)
    if needed > shutil.disk_usage(folder).free:
        cursor.execute(_EMPTY_LOG)  # what room it has; one that is in use keeps that, and grows
        cursor.fetchall()
        disk = shutil.disk_usage(folder)
        if disk.total and needed > disk.free:  # a FUSE file system may say that it has 0 of 0 bytes
            room = f"that takes {needed >> 20:,} MB on its disk, which has {disk.free >> 20:,}"
            raise OSError(f"the file cannot be written anew: {room}")


def set_up_sqlite(connection: Any, _: Any = None) -> None:
    """Make a new connection durable, and leave it to the store to begin transactions.

    "emitted" means that the row survives a loss of power (``FULL``); what is erased is
    overwritten (``secure_delete``). The write-ahead log is copied into the file at 8 MB, not at 4:
    successive events change the same pages, and so each page is copied less often.
    """
    connection.isolation_level = None
    if getattr(connection, "autocommit", None) is False:
        connection.autocommit = True  # it ends the transaction that the mode has begun
        connection.autocommit = -1  # sqlite3.LEGACY_TRANSACTION_CONTROL, new in Python 3.12
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
    _use_wal(cursor)
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA fullfsync = ON")  # on macOS alone: there fsync() ends in a drive's cache
    cursor.execute("PRAGMA secure_delete = ON")
    cursor.execute("PRAGMA wal_autocheckpoint = 2000")
    cursor.close()


def _use_wal(cursor: Any) -> None:
    # Here SQLite does not wait for a lock, as it does everywhere else.
    until = monotonic() + _BUSY_MILLISECONDS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except OperationalError as error:
            if "locked" not in str(error) or monotonic() > until:
                raise
        else:
            return
        sleep(0.01)
