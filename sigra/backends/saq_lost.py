"""Give signs of life for a job, and bring back, on PostgreSQL, those of a dead consumer of SAQ's.

SAQ's sweep reads all running jobs, waits for five seconds at each lost one, and judges the next
by what it read before: it may take for lost a job that has ended since, and overwrite that end.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from sigra.backends.external import native
from sigra.errors import brief

_Status = native("saq", "saq").Status

_log = logging.getLogger("sigra.job")

_HEARTBEAT = "sigra.heartbeat"
"""The key in a job's meta for its heartbeat, which SAQ's own sweep must not see."""

AGAIN = 1.0
"""Seconds after which a job is run again whose consumer stopped or died; with 0, one that had
been scheduled would be in the queue twice."""

_RUNNING = """
SELECT key, job, status FROM {} WHERE queue = %s AND status IN ('active', 'aborting')
"""
_QUEUE_AGAIN = """
UPDATE {} SET job = %s, status = 'queued', scheduled = %s
WHERE key = %s AND status = %s AND job = %s
"""


def heartbeat_of(job: Any) -> float:
    """Return the seconds without a sign of life after which a job is lost; 0 for never."""
    seconds = job.heartbeat or job.meta.get(_HEARTBEAT)
    return seconds if isinstance(seconds, int) else 0


def heartbeat_for(queue: Any, seconds: int) -> dict[str, Any]:
    """Return the fields of SAQ's job that give it a heartbeat, as this queue needs them."""
    if hasattr(queue, "pool"):
        return {"heartbeat": 0, "meta": {_HEARTBEAT: seconds}}
    return {"heartbeat": seconds}


async def beat(job: Any) -> bool:
    """Give a sign of life; tell whether its queue has it."""
    try:
        await job.update()
    except Exception:
        _log.warning("job %s gave no sign of life to its queue", brief(job.key), exc_info=True)
        return False
    return True


def look_for_lost(queue: Any) -> None:
    """Have each sweep of a queue on PostgreSQL first queue all our lost jobs again, at once."""
    sweep = queue.sweep
    if not hasattr(queue, "pool") or sweep.__module__ == __name__:
        return

    async def sweep_both(*args: Any, **options: Any) -> list[str]:
        return [*await _queue_again(queue), *await sweep(*args, **options)]

    queue.sweep = sweep_both


async def _queue_again(queue: Any) -> list[str]:
    """Queue the lost jobs again that have not changed since they were read; return their keys."""
    statement, lost, now = native("psycopg.sql", "saq").SQL, list[str](), time.time()
    table = queue.jobs_table
    async with queue.pool.connection() as conn:
        running = await conn.execute(statement(_RUNNING).format(table), [queue.name])
        for key, read, status in await running.fetchall():
            job = queue.deserialize(read, status)
            heartbeat = 0 if job.heartbeat else heartbeat_of(job)
            if not heartbeat or now - job.touched / 1000 <= heartbeat:
                continue
            job.status, job.error = _Status.QUEUED, queue.swept_error_message
            job.started, job.touched, job.scheduled = 0, int(now * 1000), int(now + AGAIN)
            facts = queue.serialize(job), job.scheduled, key, status, read
            written = await conn.execute(statement(_QUEUE_AGAIN).format(table), facts)
            if written.rowcount:
                _log.warning("job %s comes again: its consumer gave no sign of life", brief(key))
                lost.append(key)
    return lost
