"""A database behind an asynchronous engine, for callers that cannot await."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, event, util
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sigra.store.database import (
    READING,
    WRITING,
    be_patient,
    check_dialect,
    file_of,
    noting_locked,
    read_again,
    schemas_of,
    scrub_file,
    set_up_sqlite,
)
from sigra.store.forking import Gate, PerProcess
from sigra.store.loop_thread import LoopThread
from sigra.store.statements import ConnectionRunner, Runner

T = TypeVar("T")

_await: Any = getattr(util, "await_", None) or util.await_only  # before 2.1


class AsyncDatabase:
    """The database of an asynchronous engine, used by an event loop in a thread of its own.

    ``log_safe`` is a plain call, inside a running event loop too: it waits until the row is
    written, as with a synchronous driver. Connections are made as the given engine makes its
    own, but belong to another pool, because each works on one loop only. On a server the given
    engine's listeners for "begin" are called too.
    """

    def __init__(self, target: URL | AsyncEngine) -> None:
        engine = create_async_engine(target) if isinstance(target, URL) else target
        check_dialect(engine)
        self.dialect = engine.name
        self._is_sqlite = engine.name == "sqlite"
        self._given = engine
        self._process = PerProcess()
        self._inherited = list[Any]()
        self._thread: LoopThread | None = None
        self._forget()
        self.file = file_of(engine.url) if self._is_sqlite else ""
        self._gate = Gate(self.close, self.file) if self._is_sqlite else nullcontext()

    def _forget(self) -> None:
        # A forked child can neither use its parent's thread and connections nor close them.
        self._inherited.append(self._thread)
        self._lock = threading.RLock()  # a signal's handler may log while its thread has it
        self._thread = None

    def _new_engine(self) -> AsyncEngine:
        """Return a new engine for one loop: no other loop can use its connections."""
        given = self._given.sync_engine
        engine = create_async_engine(
            given.url, pool=given.pool.recreate(), execution_options=schemas_of(given)
        )
        if self._is_sqlite:
            event.listen(engine.sync_engine, "connect", set_up_sqlite)
        else:
            event.listen(engine.sync_engine, "handle_error", _mark_dead)
            ours = engine.sync_engine.dispatch.begin

            def begin(connection: Connection) -> None:
                for listener in given.dispatch.begin:  # it may set the search_path
                    if listener not in ours:  # as all of its class are
                        listener(connection)

            event.listen(engine.sync_engine, "begin", begin)
        return engine

    def transact(self, work: Callable[[Runner], T]) -> T:
        """Append in a transaction of its own."""
        return self.write(lambda connection: work(ConnectionRunner(connection)))

    def write(self, work: Callable[[Connection], T]) -> T:
        """Write in a transaction of its own."""
        return self._wait(lambda engine: self._within(engine, "BEGIN IMMEDIATE", WRITING, work))

    def read(self, work: Callable[[Connection], T]) -> T:
        """Read in a transaction of its own."""
        return read_again(
            lambda: self._wait(lambda engine: self._within(engine, "BEGIN", READING, work))
        )

    def scrub(self) -> None:
        """Write SQLite's file anew; do nothing on a server, where it is the operator's task."""
        if self._is_sqlite:
            self._wait(self._scrub)

    async def _scrub(self, engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            await connection.run_sync(lambda c: scrub_file(c.connection.cursor(), self.file))

    async def _within(
        self, engine: AsyncEngine, begin: str, level: str, work: Callable[[Connection], T]
    ) -> T:
        async with engine.connect() as connection:
            if not self._is_sqlite:
                await connection.execution_options(isolation_level=level)
            async with connection.begin():
                if self._is_sqlite:
                    await connection.exec_driver_sql(begin)
                else:
                    await connection.run_sync(be_patient)
                return await connection.run_sync(work)

    @noting_locked()
    def _wait(self, work: Callable[[AsyncEngine], Coroutine[Any, Any, T]]) -> T:
        self._process.check(self._forget)
        here = threading.current_thread()
        if isinstance(here, LoopThread) and here.given is self._given:
            # Called by work on this loop, such as verify's progress: it cannot wait for itself.
            found: T = _await(work(here.engine))
            return found
        undo: list[Callable[[], object]] = []
        with self._gate:
            try:
                with self._lock:
                    if self._thread is None:
                        thread = LoopThread(self._given, self._new_engine())
                        thread.start()
                        if self._thread is None:
                            self._thread = thread
                        else:  # a signal's handler logged meanwhile and made one
                            thread.loop.call_soon_threadsafe(thread.loop.stop)
                    # With the lock held: after close() the loop would never run it.
                    told = _begin_in(self._thread.loop, work(self._thread.engine), undo)
                done = told.get()
            except BaseException:  # of a signal's handler, as after Ctrl-C; close() would wait on
                for each in undo:
                    with suppress(RuntimeError):  # it is closed, and so nothing is under way
                        each()
                raise
            return done.result()

    def close(self) -> None:
        """Close what the store opened, once the work under way has ended."""
        self._process.check(self._forget)  # in a forked child the loop's thread does not run
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            _begin_in(thread.loop, _finish(thread.engine)).get().result()
        if isinstance(self._gate, Gate):
            self._gate.forget_log()


async def _finish(engine: AsyncEngine) -> None:
    me = asyncio.current_task()
    try:
        # Threads wait for these tasks, which would never end without the loop.
        await asyncio.gather(*(asyncio.all_tasks() & _begun - {me}), return_exceptions=True)
        await engine.dispose()
        # The rest are the driver's: asyncpg's that cancels a query waits for the server's answer.
        rest = asyncio.all_tasks() - {me}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
    finally:
        asyncio.get_running_loop().stop()


def _mark_dead(context: Any) -> OperationalError | None:
    """Mark a connection as dead by an error of asyncpg's that SQLAlchemy before 2.1 does not know.

    asyncpg raises it when it knows why the server closes a connection, but not yet that it has.
    """
    error = context.original_exception
    if type(error).__name__ != "InternalClientError":
        return None
    context.is_disconnect = True
    return OperationalError(None, None, error, connection_invalidated=True)


def _begin_in(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, T],
    undo: list[Callable[[], object]] | None = None,
) -> SimpleQueue[Future[T]]:
    """Start a coroutine in a loop; return a queue that will get its finished future.

    What cancels it is added to ``undo`` first, because a signal handler may interrupt this too.

    The future is not returned at once: a signal handler may interrupt a thread that holds its
    lock, and wait for the loop, which would wait for that lock.
    """
    told: SimpleQueue[Future[T]] = SimpleQueue()
    tasks: list[asyncio.Task[None]] = []

    async def tell() -> None:
        done: Future[T] = Future()
        try:
            done.set_result(await coroutine)
        except BaseException as error:
            done.set_exception(error)
        told.put(done)

    def begin() -> None:
        tasks.append(task := loop.create_task(tell()))
        _begun.add(task)
        task.add_done_callback(_begun.discard)
        task.add_done_callback(lambda _: coroutine.close())  # if it was cancelled before it began

    def cancel() -> None:
        for task in tasks:
            task.cancel()

    if undo is not None:
        undo.append(lambda: loop.call_soon_threadsafe(cancel))
    loop.call_soon_threadsafe(begin)
    return told


_begun: set[asyncio.Task[None]] = set()
"""Tasks that are not done, kept here because a loop has only weak references to them."""
