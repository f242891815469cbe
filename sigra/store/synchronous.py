"""Databases behind synchronous engines."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event

from sigra.store.database import (
    READING,
    WRITING,
    be_patient,
    file_of,
    noting_locked,
    read_again,
    schemas_of,
    scrub_file,
    set_up_sqlite,
)
from sigra.store.errors import REENTERED
from sigra.store.forking import Gate, PerProcess
from sigra.store.statements import ConnectionRunner, CursorRunner, Runner, statements_of

T = TypeVar("T")


class SqliteDatabase:
    """A file of SQLite's; one connection of ours writes to it and is kept open.

    Connections are made as the given engine makes its own, with its options and its
    listeners for "connect", but belong to another pool, because they have settings of ours.
    """

    dialect = "sqlite"

    def __init__(self, engine: Engine) -> None:
        self._engine = create_engine(
            engine.url, pool=engine.pool.recreate(), execution_options=schemas_of(engine)
        )
        event.listen(self._engine, "connect", set_up_sqlite)
        self._statements = statements_of(self._engine.dialect)
        self._writer: Any = None
        self._process, self._lock, self._writing = PerProcess(), threading.RLock(), False
        self.file = file_of(engine.url)
        self._gate = Gate(self.close, self.file)

    def transact(self, work: Callable[[Runner], T]) -> T:
        """Append in a transaction of its own."""
        self._process.check(self._forget)
        with self._gate, self._lock:
            if self._writing:
                raise RuntimeError(REENTERED)
            if self._writer is None:
                # From a pool of its own: the engine's may have one connection, which readers need.
                self._writer = self._engine.pool.recreate().connect()
                # SQLite saves the pages that a statement changes: do it in memory. Only here: with
                # this setting, a VACUUM would copy the whole store into memory.
                self._writer.cursor().execute("PRAGMA temp_store = MEMORY")
            cursor: Any = None
            self._writing = True
            try:
                cursor = self._writer.cursor()
                cursor.execute("BEGIN IMMEDIATE")
                result = work(CursorRunner(cursor, self._statements))
                cursor.execute("COMMIT")
            except BaseException:
                try:  # noqa: SIM105 - suppress() is a frame more, and the stack may be full
                    cursor.execute("ROLLBACK")
                except Exception:  # noqa: S110 - no transaction is open, or the connection is dead
                    pass
                self._drop_writer()
                raise
            finally:
                self._writing = False
            return result

    def _forget(self) -> None:
        # A forked child can neither use the parent's connections nor close them.
        self._inherited, self._writer = self._writer, None
        self._lock, self._writing = threading.RLock(), False
        self._engine.dispose(close=False)

    def _drop_writer(self) -> None:
        # Closing it rolls back, whatever state a failure left it in.
        writer, self._writer = self._writer, None
        with suppress(Exception):
            writer.invalidate()

    def write(self, work: Callable[[Connection], T]) -> T:
        """Write in a transaction of its own."""
        return self._within("BEGIN IMMEDIATE", work)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Read in a transaction of its own."""
        return self._within("BEGIN", work)

    def _within(self, begin: str, work: Callable[[Connection], T]) -> T:
        self._process.check(self._forget)
        with self._gate, self._engine.begin() as connection:
            connection.exec_driver_sql(begin)
            return work(connection)

    def scrub(self) -> None:
        """Write the file anew, and empty the write-ahead log."""
        self._process.check(self._forget)
        with self._gate:
            connection = self._engine.raw_connection()
            try:
                scrub_file(connection.cursor(), self.file)
            finally:
                connection.close()

    def close(self) -> None:
        """Close what the store opened."""
        self._process.check(self._forget)  # first: a thread of the parent may have held the lock
        with self._lock:
            if self._writer is not None:
                self._drop_writer()
            self._engine.dispose()
        self._gate.forget_log()


class ServerDatabase:
    """A server, reached by an engine's pool."""

    file = ""

    def __init__(self, engine: Engine, owned: bool) -> None:
        self._engine, self._owned = engine, owned
        self._process, self._forked = PerProcess(), False
        self.dialect = engine.name

    def transact(self, work: Callable[[Runner], T]) -> T:
        """Append in a transaction of its own."""
        return self.write(lambda connection: work(ConnectionRunner(connection)))

    def write(self, work: Callable[[Connection], T]) -> T:
        """Write in a transaction of its own."""
        return self._within(WRITING, work)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Read in a transaction of its own."""
        return read_again(lambda: self._within(READING, work))

    @noting_locked()
    def _within(self, level: str, work: Callable[[Connection], T]) -> T:
        with self._own_engine().connect() as connection:
            if self._forked:
                # The fork may have cut off what the dialect first asks a server: ask again.
                self._engine.dialect.initialize(connection)
                connection.rollback()
                self._forked = False
            connection.execution_options(isolation_level=level)
            with connection.begin():
                be_patient(connection)
                return work(connection)

    def _own_engine(self) -> Engine:
        # A forked child must not use its parent's connections, a given engine's neither: two
        # processes on one socket read each other's answers, and take a lost row for written.
        self._process.check(self._forget)
        return self._engine

    def _forget(self) -> None:
        self._engine.dispose(close=False)
        self._forked = True

    def scrub(self) -> None:
        """Do nothing: it is for the server's operator to do, by VACUUM FULL."""

    def close(self) -> None:
        """Close what the store opened."""
        if self._owned:
            self._own_engine().dispose()
