"""Send heartbeats for a job, and find the jobs that a dead SAQ consumer held."""

from __future__ import annotations

import logging
import time
from typing import Any

from sigra.backends.envelope import MARK
from sigra.backends.external import native
from sigra.backends.saq_write import GoneError, write, write_row
from sigra.errors import brief

_Status = native("saq", "saq").Status

_log = logging.getLogger("sigra.job")

_HEARTBEAT = "sigra.heartbeat"
"""The key in a job's meta for its heartbeat, which SAQ's own sweep must not see."""

AGAIN = 1.0
"""Seconds after which a job runs again if its consumer stopped or died; with 0, one that had been
scheduled would be in the queue twice."""

_RUNNING = """
SELECT key, job, status FROM {} WHERE queue = %s AND status IN ('active', 'aborting')
"""

_DUE = """
SELECT key, job FROM {} WHERE queue = %s AND status = 'queued' AND scheduled <= %s
AND priority BETWEEN %s AND %s ORDER BY priority, scheduled LIMIT 1000 FOR UPDATE SKIP LOCKED
"""
_PUT_OFF = "UPDATE {} SET scheduled = %s WHERE key = ANY(%s)"
_LATER = 60
"""Seconds by which a job is put off that perhaps only another consumer can read."""
_STAYS, _WAITS = "stays as it is", "is put off by a minute each time"

_NUMBER = (int, float)
_KINDS: dict[str, Any] = {
    **dict.fromkeys(("attempts", "retries", "scheduled", "started", "touched"), _NUMBER),
    "kwargs": (dict, type(None)),
}


def is_ours(job: Any) -> bool:
    """Tell whether a job is a worker's that ``.new()`` made."""
    return MARK in (job.kwargs or {})


def heartbeat_of(job: Any) -> float:
    """Return the seconds without a heartbeat after which a job is lost; 0 for never."""
    seconds = job.heartbeat or job.meta.get(_HEARTBEAT)
    return seconds if isinstance(seconds, int) else 0


def heartbeat_for(queue: Any, seconds: int) -> dict[str, Any]:
    """Return the fields of SAQ's job that give it a heartbeat, as this queue needs them."""
    if hasattr(queue, "pool") or hasattr(queue, "redis"):
        return {"heartbeat": 0, "meta": {_HEARTBEAT: seconds}}
    return {"heartbeat": seconds}


async def beat(job: Any) -> bool:
    """Send a heartbeat; tell whether it reached the queue."""
    try:
        await write(job)
    except GoneError:
        _log.warning("job %s is still held here, but its queue has sent it again", brief(job.key))
    except Exception:
        _log.warning("could not send the heartbeat of job %s", brief(job.key), exc_info=True)
        return False
    return True


def readable(queue: Any, key: str, read: Any, status: Any = None, stays: str = _STAYS) -> Any:
    """Return the job that a queue holds under a key; None for what SAQ cannot run, which is logged.

    SAQ itself says nothing of that, and does not get beyond it as it looks for lost jobs. None
    also if the queue holds nothing there. ``stays``: what the log says becomes of it.
    """
    job = None
    try:
        job = queue.deserialize(read, status)
        fault = "" if job is None else _fault(job, key)
    except Exception as error:
        fault = type(error).__qualname__
    told = vars(queue).setdefault("sigra_unreadable", set())
    if fault and key not in told:
        told.add(key)
        what = (
            "job %s of queue %s is none that this SAQ can run (see its %s), and %s: "
            "delete it, or run it by the release that wrote it"
        )
        _log.error(what, brief(key), queue.name, fault, stays)
    return None if fault else job


def _fault(job: Any, key: str) -> str:
    """Return the name of a field that SAQ would not have written so; "" for none."""
    odd = [name for name, kinds in _KINDS.items() if not isinstance(getattr(job, name), kinds)]
    if not odd and is_ours(job) and not isinstance(job.meta, dict):
        odd = ["meta"]
    if not odd and hasattr(job.queue, "pool") and not _fits(job.scheduled):
        odd = ["scheduled"]
    return (odd or ["" if str(job.key) == key else "key"])[0]  # a native one may be a number


def _fits(moment: float) -> bool:
    """Tell whether PostgreSQL takes a moment, which SAQ writes with each begin."""
    return not isinstance(moment, bool) and -(2**63) <= moment < 2**63


async def put_off(queue: Any) -> None:
    """Put off what waits on PostgreSQL and cannot be read: each fetch that comes upon it fails."""
    sql, now, table = native("psycopg.sql", "saq").SQL, int(time.time()), queue.jobs_table
    async with queue.pool.connection() as conn:
        facts = queue.name, now, *queue._priorities  # a consumer may take those of some alone
        due = await conn.execute(sql(_DUE).format(table), facts)
        rows = await due.fetchall()
        odd = [key for key, read in rows if readable(queue, key, read, stays=_WAITS) is None]
        await conn.execute(sql(_PUT_OFF).format(table), [now + _LATER, odd])


async def look_on_postgres(queue: Any) -> list[str]:
    """Queue the lost jobs again that have not changed since they were read; return their keys."""
    lost = list[str]()
    statement = native("psycopg.sql", "saq").SQL(_RUNNING).format(queue.jobs_table)
    async with queue.pool.connection() as conn:
        running = await conn.execute(statement, [queue.name])
        for key, read, status in await running.fetchall():
            job = readable(queue, key, read, status)
            # SAQ's own sweep sees a heartbeat of SAQ's.
            if job is None or not is_ours(job) or job.heartbeat or not is_lost(job):
                continue
            if job.status == _Status.ABORTING:
                await end_aborted(job)
            else:
                make_queued(job)
                lost += told(job, await write_row(conn, job, read, status))
    return lost


def is_lost(job: Any) -> bool:
    """Tell whether a job of ours has had no heartbeat for too long."""
    heartbeat = heartbeat_of(job)
    return bool(heartbeat) and time.time() - job.touched / 1000 > heartbeat


def make_queued(job: Any) -> None:
    """Make a lost job one that is queued."""
    now = time.time()
    job.status, job.error = _Status.QUEUED, job.get_queue().swept_error_message
    job.started, job.touched, job.scheduled = 0, int(now * 1000), int(now + AGAIN)


async def end_aborted(job: Any) -> None:
    """End a lost job that somebody has aborted, because its consumer can no longer do it."""
    _log.warning("job %s ends as aborted: its consumer sent no heartbeat", brief(job.key))
    await job.get_queue().finish_abort(job)


def told(job: Any, again: object) -> list[str]:
    """Log that a job comes again, if it does, and return its key."""
    if not again:
        return []
    _log.warning("job %s runs again: its consumer sent no heartbeat", brief(job.key))
    return [job.key]
