"""Insert jobs as PgQueuer's rows, also on connections for which it has no driver."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from typing import Any

from sigra.backends.envelope import pack
from sigra.backends.external import native
from sigra.backends.postgres_pool import OwnPool
from sigra.backends.producing import (
    accept,
    check_texts,
    is_async,
    require_conn,
    seconds_until,
    unique_key,
)
from sigra.errors import EnqueueError
from sigra.job import Job
from sigra.json import dumps

_settings = native("pgqueuer.domain.settings", "pgqueuer")
_psycopg = native("psycopg", "pgqueuer")
_pgqueuer = native("pgqueuer", "pgqueuer")
_queries = native("pgqueuer.queries", "pgqueuer")

_HOLDERS = (
    "SELECT id, dedupe_key FROM {table} "
    "WHERE dedupe_key = ANY($1::text[]) AND status IN ('queued', 'picked')"
)

_AGE = "SELECT extract(epoch FROM clock_timestamp() - now())::float8 AS age"
"""How long the caller's transaction has been open: PgQueuer counts a delay from its begin."""

_WHICH = (
    "PGDSN names the database, and where it is not set that is libpq's default; "
    "'pgq install' makes the tables there"
)
"""Tells a forgotten ``PGDSN`` from tables that are not made yet."""


class Driver:
    """Write by the caller's connection; PgQueuer's own driver refuses one in a transaction."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn

    def fetch(self, query: str, *args: Any) -> Any:
        """Return the rows as dicts."""
        cursor = _psycopg.RawCursor(self._conn, row_factory=_psycopg.rows.dict_row)
        return cursor.execute(query, args).fetchall()


class AsyncDriver(Driver):
    """Do the same by an async connection."""

    async def fetch(self, query: str, *args: Any) -> Any:
        """Return the rows as dicts."""
        cursor = _psycopg.AsyncRawCursor(self._conn, row_factory=_psycopg.rows.dict_row)
        return await (await cursor.execute(query, args)).fetchall()


class PooledDriver:
    """Write by connections of our own, which are opened when they are needed."""

    @cached_property
    def _pool(self) -> Any:
        settings = _settings.ConnectionSettings()
        return OwnPool(
            settings.dsn or "",
            max_size=settings.pool_max_size,
            timeout=settings.connect_timeout or 10.0,
        )

    def fetch(self, query: str, *args: Any) -> Any:
        """Return the rows as dicts."""
        try:
            with self._pool.connection() as conn:
                return Driver(conn).fetch(query, *args)
        except _psycopg.errors.UndefinedTable as error:
            reason = f"{error.diag.message_primary}; {_WHICH}"
            raise EnqueueError("pgqueuer", reason) from error


def queries_for(job: Job, own: Any) -> Any:
    """Return queries that do by the job's ``conn`` what ``own`` do; ``own`` without one.

    Raises ``InvalidOptionError`` if ``conn`` is no connection of psycopg's or asyncpg's.
    """
    conn = job.options.conn
    if conn is None:
        return own
    require_conn(job, "psycopg or asyncpg", "pgconn", "is_in_transaction")
    if not is_async(conn):
        return _queries.SyncQueries(Driver(conn), qbq=own.qbq, tracer=own.tracer)
    driver = _pgqueuer.AsyncpgDriver if hasattr(conn, "fetch") else AsyncDriver
    return _queries.Queries(driver(conn), qbq=own.qbq, tracer=own.tracer)


def write(queries: Any, jobs: Sequence[Job]) -> None:
    """Insert the jobs of a batch by queries that block, and tell them their ids."""
    age = queries.driver.fetch(_AGE) if _asks_age(jobs[0]) else ()
    ids = queries.enqueue(**_rows_of(jobs, age))
    held = queries.driver.fetch(*_holders_of(jobs, queries)) if None in ids else ()
    _accept(jobs, ids, held)


async def awrite(queries: Any, jobs: Sequence[Job]) -> None:
    """Do the same by queries of a loop."""
    fetch = queries.driver.fetch
    age = await fetch(_AGE) if _asks_age(jobs[0]) else ()
    ids = await queries.enqueue(**_rows_of(jobs, age))
    held = await fetch(*_holders_of(jobs, queries)) if None in ids else ()
    _accept(jobs, ids, held)


def _holders_of(jobs: Sequence[Job], queries: Any) -> tuple[str, Any]:
    """Return the query, with its argument, that asks which jobs hold the unique keys of these."""
    table = queries.qbq.qualified.queue_table
    return _HOLDERS.format(table=table), [*{unique_key(job) for job in jobs}]


def _accept(jobs: Sequence[Job], ids: Sequence[Any], held: Sequence[Any]) -> None:
    accept(jobs, ids, {row["dedupe_key"]: row["id"] for row in held})


def _asks_age(job: Job) -> bool:
    """Tell whether ``_rows_of`` needs the answer to ``_AGE``."""
    options = job.options
    return options.conn is not None and options.wait(time.time()) > 0


def _rows_of(jobs: Sequence[Job], age: Sequence[Any] = ()) -> dict[str, Any]:
    """Return the arguments by which the queries' ``enqueue`` inserts the jobs of a batch.

    ``age``: the rows of the answer to ``_AGE``, if it was asked.
    """
    options, count = jobs[0].options, len(jobs)  # in a batch only unique keys differ
    if wait := seconds_until(options):
        wait += sum(row["age"] for row in age)
    rows: dict[str, Any] = {
        "entrypoint": [jobs[0].worker] * count,
        "payload": [dumps(pack(job)) for job in jobs],
        "priority": [options.priority] * count,
        "execute_after": [timedelta(seconds=wait)] * count if wait else None,
    }
    if options.unique is not None:
        for job in jobs:
            check_texts(job)
        rows |= {"dedupe_key": [unique_key(job) for job in jobs], "on_conflict": "skip"}
    return rows
