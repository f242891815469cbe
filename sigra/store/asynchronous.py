"""A database behind an asynchronous engine, for callers that cannot await."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from queue import SimpleQueue
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, event, util
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sigra.store.database import (
    READING,
    WRITING,
    check_dialect,
    file_of,
    patient_runner,
    read_again,
    scrub_file,
    set_up_sqlite,
)
from sigra.store.forking import Gate, PerProcess
from sigra.store.statements import ConnectionRunner, Runner

T = TypeVar("T")

_awaited: Any = getattr(util, "await_", None) or util.await_only  # its name before 2.1


class AsyncDatabase:
    """An asynchronous driver, run by an event loop in a thread of its own.

    ``log_safe`` is a plain call, also where an event loop runs: it waits for the row, as it
    does with a synchronous driver. Connections are made as the given engine makes its own,
    but are of another pool: they belong to another loop.
    """

    def __init__(self, target: URL | AsyncEngine) -> None:
        engine = create_async_engine(target) if isinstance(target, URL) else target
        check_dialect(engine)
        self.dialect = engine.name
        self._begin = engine.name == "sqlite"
        self._given = engine
        self._process = PerProcess()
        self._inherited = list[Any]()
        self._thread: _LoopThread | None = None
        self._forget()
        self.file = file_of(engine.url) if self._begin else ""
        self._gate = Gate(self.close, self.file) if self._begin else nullcontext()

    def _forget(self) -> None:
        # A forked child can neither use its parent's thread and connections nor close them.
        self._inherited.append(self._thread)
        self._lock = threading.RLock()  # for a signal's handler that logs while its thread reads
        self._thread = None

    def _engine(self) -> AsyncEngine:
        """Return an engine for one loop: its connections are of no use to another."""
        pool = self._given.sync_engine.pool.recreate()
        engine = create_async_engine(self._given.url, pool=pool)
        if self._begin:
            event.listen(engine.sync_engine, "connect", set_up_sqlite)
        else:
            event.listen(engine.sync_engine, "handle_error", _tell_dead)
        return engine

    def transact(self, work: Callable[[Runner], T]) -> T:
        """Append in a transaction of its own."""
        runner_of = ConnectionRunner if self._begin else patient_runner
        return self.write(lambda connection: work(runner_of(connection)))

    def write(self, work: Callable[[Connection], T]) -> T:
        """Write in a transaction of its own."""
        return self._wait(lambda engine: self._within(engine, "BEGIN IMMEDIATE", WRITING, work))

    def read(self, work: Callable[[Connection], T]) -> T:
        """Read in a transaction of its own."""
        return read_again(
            lambda: self._wait(lambda engine: self._within(engine, "BEGIN", READING, work))
        )

    def scrub(self) -> None:
        """Write SQLite's file anew; on a server that is for its operator to do."""
        if self._begin:
            self._wait(_scrub)

    async def _within(
        self, engine: AsyncEngine, begin: str, level: str, work: Callable[[Connection], T]
    ) -> T:
        async with engine.connect() as connection:
            if not self._begin:
                await connection.execution_options(isolation_level=level)
            async with connection.begin():
                if self._begin:
                    await connection.exec_driver_sql(begin)
                return await connection.run_sync(work)

    def _wait(self, work: Callable[[AsyncEngine], Coroutine[Any, Any, T]]) -> T:
        self._process.check(self._forget)
        here = threading.current_thread()
        if isinstance(here, _LoopThread) and here.given is self._given:
            # Within work that the loop does, as by verify's progress: it cannot wait for itself.
            found: T = _awaited(work(here.engine))
            return found
        with self._gate:
            with self._lock:
                if self._thread is None:
                    thread = _LoopThread(self._given, self._engine())
                    thread.start()
                    if self._thread is None:
                        self._thread = thread
                    else:  # a signal's handler, which logged meanwhile, has made one
                        thread.loop.call_soon_threadsafe(thread.loop.stop)
                # Before close() can have ended the loop, which would never come to it.
                told = _begin_in(self._thread.loop, work(self._thread.engine))
            return told.get().result()

    def close(self) -> None:
        """Close what the store opened, once those are done who still use it."""
        self._process.check(self._forget)  # its loop runs in a thread of the parent's
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            _begin_in(thread.loop, _end(thread.engine)).get().result()


async def _scrub(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.run_sync(lambda c: scrub_file(c.connection.cursor()))


async def _end(engine: AsyncEngine) -> None:
    try:
        # Without the loop the others would wait for ever.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        await engine.dispose()
    finally:
        asyncio.get_running_loop().stop()


def _tell_dead(context: Any) -> OperationalError | None:
    """Tell that a connection is dead where SQLAlchemy, before 2.1, does not know asyncpg's error.

    It comes where asyncpg has read why the server ended one, and not yet that it is closed.
    """
    error = context.original_exception
    if type(error).__name__ != "InternalClientError":
        return None
    context.is_disconnect = True
    return OperationalError(None, None, error, connection_invalidated=True)


def _begin_in(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]
) -> SimpleQueue[Future[T]]:
    """Have a loop run a coroutine; return what it will put the end of it into.

    Who waits there holds no lock: a signal's handler that waits in turn would keep it from the
    loop, as that of a future that is not done.
    """
    told: SimpleQueue[Future[T]] = SimpleQueue()

    async def tell() -> None:
        done: Future[T] = Future()
        try:
            done.set_result(await coroutine)
        except BaseException as error:
            done.set_exception(error)
        told.put(done)

    def begin() -> None:
        task = loop.create_task(tell())
        _begun.add(task)
        task.add_done_callback(_begun.discard)

    loop.call_soon_threadsafe(begin)
    return told


_begun: set[asyncio.Task[None]] = set()
"""Tasks that are not done: a loop itself holds them weakly."""


class _Executor(ThreadPoolExecutor):
    """Work in this thread where no other takes work any more, as when the main one has ended.

    A driver has a server's name looked up by it, also for events that wait until the exit.
    """

    def submit(self, work: Callable[..., T], /, *args: Any, **keywords: Any) -> Future[T]:
        """Do the work, elsewhere if that can be."""
        try:
            return super().submit(work, *args, **keywords)
        except RuntimeError:
            done: Future[T] = Future()
            try:
                done.set_result(work(*args, **keywords))
            except Exception as error:
                done.set_exception(error)
            return done


class _LoopThread(threading.Thread):
    """The thread of an event loop, and the engine whose connections belong to that."""

    def __init__(self, given: AsyncEngine, engine: AsyncEngine) -> None:
        super().__init__(name="sigra-audit-store", daemon=True)
        self.given, self.engine, self.loop = given, engine, asyncio.new_event_loop()
        self.loop.set_default_executor(_Executor())

    def start(self) -> None:
        """Start it; raise ``RuntimeError`` where no thread can be had now."""
        try:
            super().start()
        except RuntimeError:
            self.loop.close()
            raise

    def run(self) -> None:
        """Run the loop until it is stopped."""
        self.loop.run_forever()
        self.loop.close()
