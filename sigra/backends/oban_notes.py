"""Note in Oban's rows that a job waits for a thread, and then begins: Oban counts the fetch."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

from sigra.backends.external import native
from sigra.backends.insist import insist
from sigra.errors import brief

_instances = native("oban.oban", "oban")._instances
_psycopg = native("psycopg", "oban")
_sql = native("psycopg.sql", "oban")

_log = logging.getLogger("sigra.job")

_COUNT = """
UPDATE {} SET attempt = %(attempt)s,
    meta = meta || jsonb_build_object('rescued', %(rescued)s::int)
WHERE id = %(id)s AND state = 'executing' AND attempted_at = %(attempted_at)s
"""


def begin_notes(job: Any) -> dict[str, Any]:
    """Return what ``aconsume`` takes as ``note`` and ``waits``; nothing outside a consumer.

    A rescue adds one to ``rescued``, which counts the runs that died; so a job that waits has one
    less of both counts. A job that was rescued, or whose begin cannot be written, does not begin:
    its task is cancelled, Oban writes nothing about that, and a rescue finds it.
    """
    query, rescued = _query_of(job), rescues_of(job)
    if query is None:
        return {}
    taken = job.attempted_at.replace(tzinfo=None)  # UTC, in a column that has no zone
    facts = {"id": job.id, "attempted_at": taken}
    waiting = {**facts, "attempt": job.attempt - 1, "rescued": rescued - 1}
    begun = {**facts, "attempt": job.attempt, "rescued": rescued}

    async def waits() -> None:
        try:
            await _write(query, waiting)
        except Exception:
            what = "could not note that job %s waits: it counts as begun"
            _log.warning(what, brief(str(job.id)), exc_info=True)

    async def note() -> None:
        try:
            await insist(partial(_write, query, begun), _psycopg.OperationalError)
        except Exception as error:
            what = "job %s does not run here: its start could not be written, so a rescue finds it"
            _log.warning(what, brief(str(job.id)), exc_info=True)
            raise asyncio.CancelledError from error

    return {"note": note, "waits": waits}


def rescues_of(job: Any) -> int:
    """Return how many runs of a job died; one that was cancelled as it waited may have one less."""
    rescued: int = job.meta.get("rescued", 0)
    return max(0, rescued)


async def _write(query: Any, facts: dict[str, Any]) -> None:
    table = _sql.Identifier(query._prefix, "oban_jobs")
    async with query._pool.connection() as conn:
        written = await conn.execute(_sql.SQL(_COUNT).format(table), facts)
    if not written.rowcount:
        raise LookupError("it was rescued meanwhile")


def _query_of(job: Any) -> Any:
    """Return the database of the consumer that runs this job."""
    for instance in list(_instances.values()):  # another thread may make one
        for producer in instance._producers.values():
            if producer._running_jobs.get(job.id, (None,))[0] is job:
                return producer._query
    return None
