"""Insert jobs as Oban's, also on blocking connections: Oban itself takes only async ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from inspect import isawaitable
from typing import Any
from weakref import WeakKeyDictionary

from sigra.backends.envelope import pack
from sigra.backends.external import native
from sigra.backends.jsonb import fit
from sigra.backends.postgres_pool import OwnPool
from sigra.backends.producing import (
    check_texts,
    due_at,
    is_async,
    require_conn,
    require_transaction,
)
from sigra.errors import InvalidOptionError
from sigra.job import Job

_oban = native("oban", "oban")
_psycopg = native("psycopg", "oban")


def check_conn(job: Job) -> None:
    """Raise ``InvalidOptionError`` for a ``conn`` that Oban cannot write by."""
    wanted = "psycopg, or an async one or session of SQLAlchemy"
    require_conn(job, wanted, "pgconn", "fetchone", "get_raw_connection", "sync_session")
    if hasattr(job.options.conn, "fetchone"):  # a cursor of psycopg's
        require_transaction(job, job.options.conn.connection)


def native_job(job: Job) -> Any:
    """Return the job as one of Oban's; ``InvalidOptionError`` for options that Oban lacks."""
    options = job.options
    check_texts(job)
    if not -9 <= options.priority <= 0:
        reason = f"it must be 0 (the soonest) to -9, Oban's 0 to 9, not {options.priority}"
        raise InvalidOptionError("priority", reason, job.worker)
    if options.max_attempts >= 2**15:
        reason = f"it must be at most 32767, as in Oban's column, not {options.max_attempts}"
        raise InvalidOptionError("max_attempts", reason, job.worker)
    return _oban.Job(
        job.worker,
        queue=options.queue or "default",
        args=fit(pack(job)),
        max_attempts=options.max_attempts,
        priority=-options.priority,
        scheduled_at=due_at(options),
    )


_pools = WeakKeyDictionary[Any, OwnPool]()


def pool_like(pool: Any) -> OwnPool:
    """Return the blocking pool that has the settings of the instance's own, async one."""
    if pool not in _pools:
        conninfo, kwargs = _made(pool.conninfo), _made(pool.kwargs, _blocking)
        made = OwnPool(conninfo, kwargs=kwargs, max_size=pool.max_size, timeout=pool.timeout)
        return _pools.setdefault(pool, made)
    return _pools[pool]


def _made(given: Any, fit: Callable[[Any], Any] = lambda made: made) -> Any:
    """Return a setting of an async pool for a blocking one; a function's result is waited for."""
    return (lambda: fit(asyncio.run(_awaited(given)))) if callable(given) else fit(given)


def _blocking(kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Leave out the cursors of an async connection, by which a blocking one would do nothing."""
    return {name: it for name, it in (kwargs or {}).items() if name != "cursor_factory"}


async def _awaited(given: Any) -> Any:
    made = given()
    return await made if isawaitable(made) else made


async def cursor_below(job: Job) -> Any:
    """Return a cursor of the job's async ``conn``, or of the one that SQLAlchemy's holds.

    Raises ``InvalidOptionError`` if that is not psycopg's, or commits each statement.
    """
    conn = job.options.conn
    if hasattr(conn, "sync_session"):
        conn = await conn.connection()
    if not hasattr(conn, "get_raw_connection"):
        return _cursor(conn)
    below = (await conn.get_raw_connection()).driver_connection
    if not hasattr(below, "pgconn"):
        driver = type(below).__module__.partition(".")[0]
        reason = f"Oban writes by psycopg, not {driver}: make the engine of postgresql+psycopg://"
        raise InvalidOptionError("conn", reason, job.worker)
    require_transaction(job, below)
    if not conn.in_transaction():
        await conn.begin()  # Oban writes by the driver, past SQLAlchemy
    return _cursor(below)


def _cursor(conn: Any) -> Any:
    """Return one whose rows are tuples, as Oban reads them, whatever the connection's own are."""
    made = _psycopg.AsyncCursor if is_async(conn) else _psycopg.Cursor
    return made(getattr(conn, "connection", conn), row_factory=_psycopg.rows.tuple_row)


def insert(oban: Any, natives: Sequence[Any], conn: Any) -> None:
    """Insert the jobs by Oban's own coroutine, which with a blocking connection never waits."""
    work = oban.enqueue_many(natives, conn=_Awaited(_cursor(conn)))
    with suppress(StopIteration):
        work.send(None)
        work.close()
        raise RuntimeError("Oban waited for something other than the connection that it was given")


class _Awaited:
    """Give a blocking cursor the async methods that Oban awaits."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def execute(self, *args: Any) -> _Awaited:
        return _Awaited(self._inner.execute(*args))

    async def fetchone(self) -> Any:
        return self._inner.fetchone()
