"""Write what a consumer knows of a job, and overwrite nothing that it has not read."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from sigra.backends.external import native

_Status = native("saq", "saq").Status

_ON_REDIS = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[2])
    return 1
end
"""

_READ_ROW = "SELECT job, status FROM {} WHERE key = %s"
_WRITE_ROW = """
UPDATE {} SET job = %s, status = %s, scheduled = %s WHERE key = %s AND status = %s AND job = %s
"""


class GoneError(Exception):
    """The queue has taken a job away from this run, and given it to another or ended it."""


async def write(job: Any) -> None:
    """Write what this consumer knows of a job: one write at a time, because each writes all of it.

    Raises ``GoneError`` if the queue has taken the job away meanwhile.
    """
    async with vars(job).setdefault("sigra_writing", asyncio.Lock()):
        while not await _written(job.get_queue(), job):
            pass  # somebody, such as whoever aborts it, wrote after it was read


async def _written(queue: Any, job: Any) -> bool:
    """Read what the queue has of a job, and write it; tell whether that was still there."""
    if hasattr(queue, "redis"):
        read = await queue.redis.get(job.id)
        after = _following(job, queue.deserialize(read))
        return bool(await queue.redis.eval(_ON_REDIS, 1, job.id, read, queue.serialize(after)))
    if hasattr(queue, "pool"):
        async with queue.pool.connection() as conn:
            row = await read_row(conn, queue, job.key)
            return await write_row(conn, _following(job, queue.deserialize(*row)), *row)
    _following(job, await queue.job(job.key))
    await job.update()
    return True


async def read_row(conn: Any, queue: Any, key: str, lock: str = "") -> Any:
    """Return a job as PostgreSQL has it, and its status; None twice if it is not there."""
    statement = native("psycopg.sql", "saq").SQL(_READ_ROW + lock).format(queue.jobs_table)
    return await (await conn.execute(statement, [key])).fetchone() or (None, None)


async def write_row(conn: Any, job: Any, read: Any, status: Any) -> bool:
    """Write a job on PostgreSQL, if its row is still as it was read; tell whether it was."""
    queue = job.get_queue()
    statement = native("psycopg.sql", "saq").SQL(_WRITE_ROW).format(queue.jobs_table)
    facts = queue.serialize(job), job.status, job.scheduled, job.key, status, read
    return bool((await conn.execute(statement, facts)).rowcount)


def _following(job: Any, held: Any) -> Any:
    """Return what to write of a job, given what the queue holds of it now."""
    if not _is_held(job, held):
        raise GoneError
    job.error = held.error  # written by whoever aborts it
    job.touched = int(time.time() * 1000)
    after = job.get_queue().copy(job)
    after.status = held.status
    return after


def _is_held(job: Any, found: Any) -> bool:
    """Tell whether a job that was found is still this run, and not one that a sweep takes away."""
    if found is None or found.started != job.started:
        return False
    swept = found.error == job.get_queue().swept_error_message
    return found.status == _Status.ACTIVE or (found.status == _Status.ABORTING and not swept)
