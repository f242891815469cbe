"""A database: transactions that write, and connections that read."""

from __future__ import annotations

import os
from collections.abc import Callable
from sqlite3 import OperationalError
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from sigra.store.statements import ConnectionRunner, Runner

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")

_BUSY_MILLISECONDS = 10_000
_LEFT = "the rows are erased, but their text may be left in the file or in its write-ahead log"
_PATIENCE = 60.0
"""Seconds in which all others must let go of the log: a writer may be busy emptying it too."""

_NO_FILE = ("", ":memory:", "file:", "file::memory:")

WRITING, READING = "READ COMMITTED", "REPEATABLE READ"
"""How far a server keeps transactions apart, whatever a given engine is set to: who writes waits
for the one before and goes on from there; at any other level he would fail, or not wait."""


class Database(Protocol):
    """What the store asks of a database, be it driven synchronously or not."""

    dialect: str
    file: str
    """SQLite's, empty for a server."""

    def transact(self, work: Callable[[Runner], T]) -> T:
        """Append in a transaction of its own: commit it, or roll it back and raise."""
        ...

    def write(self, work: Callable[[Connection], T]) -> T:
        """Do the same with a SQLAlchemy connection."""
        ...

    def read(self, work: Callable[[Connection], T]) -> T:
        """Read in one transaction, which sees one state of the database throughout."""
        ...

    def scrub(self) -> None:
        """Let nothing of deleted rows stay in a file, where that is the store's to do."""

    def close(self) -> None:
        """Let go of the connections that the store opened."""


def check_kind(name: str) -> None:
    """Refuse, with ``ValueError``, a kind of database on which the store was not tried."""
    if name not in ("sqlite", "postgresql"):
        hint = "; write postgresql://, as SQLAlchemy wants it" if name == "postgres" else ""
        raise ValueError(f"the audit store runs on SQLite and PostgreSQL, not on {name}{hint}")


def check_dialect(engine: Engine | AsyncEngine) -> None:
    """Refuse, with ``ValueError``, what would keep nothing, or mix transactions up."""
    check_kind(engine.name)
    url = engine.url
    if engine.name == "sqlite" and (
        (url.database or "") in _NO_FILE or url.query.get("mode") == "memory"
    ):
        raise ValueError(
            "an audit store in memory keeps nothing: name a file, as in sqlite:///audit.db"
        )
    if isinstance(engine.pool, StaticPool):
        raise ValueError(
            "an engine with a StaticPool has one connection, on which transactions of several "
            "threads would end each other: give one with another pool, or a URL"
        )
    if isinstance(engine.pool, SingletonThreadPool):
        raise ValueError(
            "an engine with a SingletonThreadPool closes connections that other threads use, once "
            "there are more than a few: give one with another pool, or a URL"
        )


def file_of(url: URL) -> str:
    """Return the path of SQLite's file, which a URL may name by a URI."""
    name = url.database or ""
    return os.path.realpath(unquote(urlsplit(name).path) if name.startswith("file:") else name)


def read_again(read: Callable[[], T]) -> T:
    """Read, and once more where the connection was dead: a pool keeps those of before a restart."""
    try:
        return read()
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
    return read()


def patient_runner(connection: Connection) -> Runner:
    """Return what appends on PostgreSQL, which waits for a chain no longer than on SQLite.

    Else an event that is logged without ``conn`` by whoever holds its chain in a transaction
    would wait for itself, and with it every writer of that organization.
    """
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {_BUSY_MILLISECONDS}")
    return ConnectionRunner(connection)


def scrub_file(cursor: Any) -> None:
    """Write SQLite's file anew and cut its write-ahead log to nothing.

    Where a full page was split or two were joined, copies of rows stay behind in what is then
    free of a page, and deleting the rows overwrites none of these.
    """
    try:
        cursor.execute("VACUUM")
    except Exception as error:
        error.add_note(f"{_LEFT}: call sigra.store.vacuum")
        raise
    until = monotonic() + _PATIENCE
    while True:
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if not cursor.fetchone()[0]:
            return
        if monotonic() > until:
            raise TimeoutError(
                f"{_LEFT}, which others kept in use: call sigra.store.vacuum once they have ended"
            )
        sleep(0.1)


def set_up_sqlite(connection: Any, _: Any = None) -> None:
    """Make a new connection durable, and its transactions ours to begin.

    An answer "emitted" means that the row survives a loss of power (``FULL``), and what is
    erased is overwritten (``secure_delete``). The write-ahead log is copied into the file at 8 MB
    and not at 4: each event changes pages that the one before changed, and they are copied once.
    """
    connection.isolation_level = None
    if getattr(connection, "autocommit", None) is False:
        connection.autocommit = True  # it ends the transaction that the mode has begun
        connection.autocommit = -1  # sqlite3.LEGACY_TRANSACTION_CONTROL, new in Python 3.12
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
    _begin_log(cursor)
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA secure_delete = ON")
    cursor.execute("PRAGMA wal_autocheckpoint = 2000")
    cursor.close()


def _begin_log(cursor: Any) -> None:
    # SQLite waits for a lock everywhere but here.
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
