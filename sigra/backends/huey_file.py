"""A SQLite file from which no job is lost: huey's own storage forgets a job as it begins."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timezone
from typing import Any

from sigra.backends.envelope import MARK, add_delivery
from sigra.backends.external import native
from sigra.backends.huey_json import JSONSerializer
from sigra.errors import EnqueueError
from sigra.store.forking import Gate
from sigra.store.private import make_file

_Huey = native("huey.api", "huey").Huey
_SqliteStorage = native("huey.storage", "huey").SqliteStorage
_exceptions = native("huey.exceptions", "huey")

_TAKEN = (
    "create table if not exists taken (id integer primary key autoincrement, "
    "queue text not null, data blob not null, priority real not null)"
)
_PUT = "insert into task (queue, data, priority) values (?, ?, ?)"
_TAKEN_ONES = "from taken where queue = ? and id = coalesce(?, id)"
_ANY = "select 1 from task where queue = ? limit 1"
_DUE = (
    "insert into task (queue, data, priority) select queue, data, "
    "coalesce(case when json_valid(cast(data as text)) then "
    "json_extract(cast(data as text), '$.task.priority') end, 0) from schedule "
    "where queue = ? and timestamp <= ? order by timestamp, id"
)
_LEFT = (
    "select (select count(*) from task where queue = :queue) + "
    "(select count(*) from schedule where queue = :queue) + "
    "(select count(*) from taken where queue = :queue)"
)


def huey_on(file: str) -> Any:
    """Return a huey whose jobs are in an SQLite file; raise ``EnqueueError`` if they cannot be."""
    if file == ":memory:":
        raise EnqueueError("huey", "memory keeps no jobs; name a file with SIGRA_HUEY_FILE")
    make_file(file)
    try:
        return _Huey("sigra", serializer=JSONSerializer(), storage_class=FileStorage, filename=file)
    except sqlite3.Error as error:
        reason = f"{file} is not a writable SQLite file ({error})"
        raise EnqueueError("huey", f"{reason}; name another with SIGRA_HUEY_FILE") from error


class FileStorage(_SqliteStorage):  # type: ignore[misc, valid-type]
    """Keep each job in the file until the thread that took it asks for the next one.

    A job whose consumer was killed is queued again when the next consumer starts,
    counted as one delivery. One consumer process at a time, with any number of
    threads: a second one waits, and says so in its log. For ``JSONSerializer`` only.
    """

    ddl = [*_SqliteStorage.ddl, _TAKEN]

    def __init__(self, name: str = "huey", filename: str = "huey.db", **kwargs: Any) -> None:
        self._own, self._claiming = threading.local(), threading.Lock()
        self._claimed: sqlite3.Connection | None = None
        self._gate = Gate(self.close, filename)  # closes the file at a fork, as in sigra.store
        super().__init__(name, filename, **kwargs)

    @contextmanager
    def db(self, commit: bool = False, close: bool = False) -> Iterator[Any]:
        """Yield a cursor: that of this thread's open ``transaction``, if there is one."""
        cursor = getattr(self._own, "cursor", None)
        if cursor is not None:
            yield cursor
            return
        with self._gate, self.lock:
            conn = self.conn
            try:
                cursor = conn.cursor()
                if commit:
                    cursor.execute(self.begin_sql)
                yield cursor
                if commit:
                    conn.commit()
            except BaseException:
                conn.rollback()  # huey's own code does not at Ctrl-C
                raise
            finally:
                if close:
                    conn.close()
                    self._conn = None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all that this thread writes in the block, or nothing; other threads wait."""
        with self.db(commit=True) as cursor:
            before = getattr(self._own, "cursor", None)
            self._own.cursor = cursor
            try:
                yield
            finally:
                self._own.cursor = before

    def enqueue(self, data: bytes, priority: float | None = None) -> None:
        """Queue a task."""
        with self._instead_of_taken(data):
            super().enqueue(data, priority)

    def add_to_schedule(self, data: bytes, ts: Any) -> None:
        """Schedule a task: by UTC, which huey means, and not by this process's time zone."""
        with self._instead_of_taken(data):
            super().add_to_schedule(data, ts.replace(tzinfo=timezone.utc))

    @contextmanager
    def _instead_of_taken(self, data: bytes) -> Iterator[None]:
        """If what is written is the next run of the task that this thread took, delete that too.

        In one transaction: otherwise, a consumer that is killed just then would leave both.
        """
        taken = getattr(self._own, "taken", None)
        if taken is None or _id_of(data) != _id_of(self._own.data):
            yield
            return
        try:
            with self.transaction():
                yield
                self.release()
        except BaseException:
            self._own.taken = taken
            raise

    def surely(self, execute: Callable[..., Any]) -> Callable[..., Any]:
        """Return huey's ``execute``, after which a task is queued again if its end is not written.

        huey logs such an error and goes on with the next task.
        """

        def executing(*args: Any, **kwargs: Any) -> Any:
            try:
                return execute(*args, **kwargs)
            except BaseException:
                self._own.unwritten = True
                raise

        return executing

    def dequeue(self) -> bytes | None:
        """Delete the task that this thread took before, which has ended, and take the next one."""
        self.claim()
        self.release()
        if not self.sql(_ANY, (self.name,), results=True):
            return None
        with self.db(commit=True) as cursor:
            cursor.execute(
                "select id, data, priority from task where queue = ? "
                "order by priority desc, id limit 1",
                (self.name,),
            )
            row = cursor.fetchone()
            if row is None:
                return None
            cursor.execute("delete from task where id = ?", row[:1])
            cursor.execute(_PUT.replace("task", "taken"), (self.name, *row[1:]))
            self._own.taken, self._own.data = cursor.lastrowid, row[1]
            self._own.unwritten = False
        data: bytes = row[1]
        return data

    def release(self) -> None:
        """Delete the task that this thread took: it has ended."""
        taken = getattr(self._own, "taken", None)
        if taken is not None:
            self._forget(taken, again=self._own.unwritten)
            self._own.taken = None

    def read_schedule(self, ts: Any) -> list[bytes]:
        """Queue in one transaction what is due; return none of it for the scheduler to queue."""
        due = self.name, ts.replace(tzinfo=timezone.utc).timestamp()
        with self.db(commit=True) as cursor:
            cursor.execute(_DUE, due)
            cursor.execute("delete from schedule where queue = ? and timestamp <= ?", due)
        return []

    def unfinished(self) -> int:
        """Return how many tasks wait, are scheduled or run."""
        count: int = self.sql(_LEFT, {"queue": self.name}, results=True)[0][0]
        return count

    def claim(self) -> None:
        """Become the file's one consumer, and queue again what the one before had taken.

        Raises huey's ``ConfigurationError`` while another process is the consumer. The lock
        is SQLite's, on a second file: the system frees it when the process dies.
        """
        with self._claiming:
            if self._claimed is not None:
                return
            beside = f"{self.filename}.consumer"
            make_file(beside)
            lock = sqlite3.connect(beside, timeout=0, isolation_level=None, check_same_thread=False)
            try:
                lock.execute("pragma journal_mode = memory")
                lock.execute("begin exclusive")
            except sqlite3.OperationalError as error:
                lock.close()
                raise _exceptions.ConfigurationError(
                    f"{self.filename} already has a consumer: it takes one process, with threads "
                    "(huey_consumer -k thread); for more processes, use Redis or PostgreSQL"
                ) from error
            self._forget(None, again=True)
            self._claimed = lock

    def _forget(self, taken: int | None, *, again: bool) -> None:
        """Delete a taken task, or all; if ``again``, queue them, each counted as one delivery."""
        with self.db(commit=True) as cursor:
            which = (self.name, taken)
            if again:
                cursor.execute(f"select data, priority {_TAKEN_ONES}", which)
                for data, priority in cursor.fetchall():
                    cursor.execute(_PUT, (self.name, _count_delivery(data), priority))
            cursor.execute(f"delete {_TAKEN_ONES}", which)


def _id_of(data: bytes) -> str | None:
    """Return the id of a task; None for what is none."""
    match _message(data):
        case {"task": {"id": str(id)}}:
            return id
    return None


def _count_delivery(data: bytes) -> bytes:
    """Return the task with one more delivery counted; unchanged if it holds no envelope."""
    message = _message(data)
    match message:
        case {"task": {"kwargs": dict(payload)}} if MARK in payload:
            add_delivery(payload)
            return json.dumps(message, separators=(",", ":")).encode()
    return data


def _message(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
