"""The statements that put jobs into procrastinate's table, and what their rows say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from sigra.backends.envelope import pack
from sigra.backends.external import native
from sigra.backends.jsonb import fit
from sigra.backends.procrastinate_notes import rows_in_memory
from sigra.backends.producing import (
    accept,
    check_length,
    check_texts,
    due_at,
    is_async,
    require_conn,
    unique_key,
)
from sigra.errors import EnqueueError, InvalidOptionError
from sigra.job import Job

_procrastinate = native("procrastinate", "procrastinate")

# One statement, so that it sees a job that begins meanwhile either as waiting or as running. It
# raises no error for a duplicate, because that would end the caller's transaction. Each status is
# asked for alone: procrastinate has an index for each, and none for both that begins with the lock.
_DEFER_UNIQUE = """
WITH job AS (
    SELECT * FROM unnest(%(jobs)s::procrastinate_job_to_defer_v1[])
), held AS (
    SELECT id, queueing_lock FROM procrastinate_jobs
    WHERE queueing_lock IN (SELECT queueing_lock FROM job) AND status = 'todo'
    UNION ALL SELECT id, queueing_lock FROM procrastinate_jobs
    WHERE queueing_lock IN (SELECT queueing_lock FROM job) AND status = 'doing'
), made AS (
    INSERT INTO procrastinate_jobs
        (queue_name, task_name, priority, lock, queueing_lock, args, scheduled_at)
    SELECT * FROM job
    WHERE NOT EXISTS (SELECT 1 FROM held WHERE held.queueing_lock = job.queueing_lock)
    ON CONFLICT (queueing_lock) WHERE status = 'todo' DO NOTHING
    RETURNING id, queueing_lock
)
SELECT id, queueing_lock, true AS made FROM made
UNION ALL SELECT id, queueing_lock, false FROM held
"""

# Asked afterwards: the insert may wait for another producer, and does not see the job that this
# commits and a consumer begins at once. If there is one, the batch is taken back and inserted anew.
_BEGUN = """
SELECT 1 FROM procrastinate_jobs WHERE queueing_lock = ANY(%(keys)s) AND status = 'doing' LIMIT 1
"""
_SAVEPOINT = "SAVEPOINT sigra_unique"
_TAKE_BACK, _RELEASE = f"ROLLBACK TO {_SAVEPOINT}", f"RELEASE {_SAVEPOINT}"


def in_loop_only(connector: Any) -> bool:
    """Tell whether a connector has a pool that belongs to a loop; the in-memory one has none."""
    base = import_module("procrastinate.connector").BaseAsyncConnector
    return isinstance(connector, base) and hasattr(type(connector), "pool")


def commits(connector: Any) -> bool:
    """Tell whether each statement is a transaction: on Django's connection, outside of atomic()."""
    connection = getattr(connector.get_sync_connector(), "connection", None)
    return not getattr(connection, "in_atomic_block", True)


def write(connector: Any, jobs: Sequence[Job], conn: Any = None) -> Any:
    """Insert jobs by a caller's connection, or else by a connector's own; return the rows.

    Raises ``InvalidOptionError`` or ``EnqueueError`` for a ``conn`` that cannot be written by.
    """
    _check_in_memory(connector, jobs[0])
    require_conn(jobs[0], "psycopg", "pgconn")
    if conn is not None:
        if is_async(conn):
            raise EnqueueError("procrastinate", "conn is async; use await .anew(..., conn=conn)")
        if not isinstance(connector, _procrastinate.SyncPsycopgConnector):
            connector = _procrastinate.SyncPsycopgConnector()
    if conn is None and _is_exclusive(connector, jobs):
        with connector.pool.connection() as own, own.transaction():
            return write(connector, jobs, own)
    statement = _statement(jobs)
    if conn is None:
        return connector.execute_query_all(**statement)
    if jobs[0].options.unique is None:
        return connector.execute_query_all_with_connection(conn, **statement)
    conn.execute(_SAVEPOINT)
    ask = connector.execute_query_all_with_connection  # dicts, whatever rows the connection makes
    rows = ask(conn, **statement)
    while (made := _made(rows)) and ask(conn, query=_BEGUN, keys=[*made]):
        conn.execute(_TAKE_BACK)
        rows = ask(conn, **statement)
    conn.execute(_RELEASE)
    return rows


async def awrite(connector: Any, jobs: Sequence[Job], conn: Any = None) -> Any:
    """Do the same by an async connection."""
    _check_in_memory(connector, jobs[0])
    require_conn(jobs[0], "psycopg", "pgconn")
    if conn is not None and not isinstance(connector, _procrastinate.PsycopgConnector):
        connector = _procrastinate.PsycopgConnector()
    if conn is None and _is_exclusive(connector, jobs):
        async with connector.pool.connection() as own, own.transaction():
            return await awrite(connector, jobs, own)
    statement = _statement(jobs)
    if conn is None:
        return await connector.execute_query_all_async(**statement)
    if jobs[0].options.unique is None:
        return await connector.execute_query_all_async_with_connection(conn, **statement)
    await conn.execute(_SAVEPOINT)
    ask = connector.execute_query_all_async_with_connection
    rows = await ask(conn, **statement)
    while (made := _made(rows)) and await ask(conn, query=_BEGUN, keys=[*made]):
        await conn.execute(_TAKE_BACK)
        rows = await ask(conn, **statement)
    await conn.execute(_RELEASE)
    return rows


def _check_in_memory(connector: Any, job: Job) -> None:
    """Refuse what the connector for tests cannot do."""
    for option in ("unique", "conn"):
        if getattr(job.options, option) is not None and rows_in_memory(connector) is not None:
            reason = "procrastinate's InMemoryConnector cannot honour it; test by sigra_backend"
            raise InvalidOptionError(option, reason, job.worker)


def _made(rows: Sequence[Mapping[str, Any]]) -> dict[str | None, Any]:
    """Return the ids of the jobs that were inserted, by their keys."""
    return {row["queueing_lock"]: row["id"] for row in rows if row["made"]}


def _is_exclusive(connector: Any, jobs: Sequence[Job]) -> bool:
    """Tell whether jobs have a unique key and their connector has a pool of psycopg's."""
    own = (_procrastinate.SyncPsycopgConnector, _procrastinate.PsycopgConnector)
    return jobs[0].options.unique is not None and isinstance(connector, own)


def _statement(jobs: Sequence[Job]) -> dict[str, Any]:
    """Return the query and its arguments, as a connector takes them."""
    query = _DEFER_UNIQUE
    if jobs[0].options.unique is None:
        query = import_module("procrastinate.sql").queries["defer_jobs"]
    return {"query": query, "jobs": [_native(job) for job in jobs]}


def accept_rows(jobs: Sequence[Job], rows: Sequence[Mapping[str, Any]]) -> None:
    """Tell the jobs their ids, or that they are duplicates, by the rows that were inserted."""
    if jobs[0].options.unique is None:
        accept(jobs, [row["id"] for row in rows])
        return
    # One row for each lock that was free: it is that of the first job that asked for the lock.
    ids, held = _made(rows), {row["queueing_lock"]: row["id"] for row in rows}
    accept(jobs, [ids.pop(unique_key(job), None) for job in jobs], held)


def _native(job: Job) -> Any:
    options = job.options
    check_texts(job)
    # Its trigger notifies a channel whose name is "procrastinate_queue_v1#" and the queue's.
    check_length(job, len((options.queue or "").encode()), 40, "bytes of UTF-8")
    return import_module("procrastinate.types").JobToDefer(
        queue_name=options.queue or "default",
        task_name=job.worker,
        priority=options.priority,
        lock=None,
        queueing_lock=unique_key(job),
        args=fit(pack(job)),
        scheduled_at=due_at(options),
    )
