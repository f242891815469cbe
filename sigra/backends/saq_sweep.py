"""Have SAQ's sweep leave our jobs alone, and queue the lost ones again itself, at once.

SAQ's own sweep reads all running jobs, waits for five seconds at each lost one, and judges the next
by what it read before: it may take a job for lost that has ended since, and overwrite that end. On
Redis it also takes for lost what was just fetched, and keeps a lost job on no list meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from sigra.backends.external import native
from sigra.backends.saq_lost import (
    end_aborted,
    is_lost,
    is_ours,
    look_on_postgres,
    make_queued,
    readable,
    told,
)

_Status = native("saq", "saq").Status

_RUNNING = """
local found = {}
if redis.call('EXISTS', KEYS[1]) == 0 then
    redis.call('SETEX', KEYS[1], ARGV[1], 1)
    for i, id in ipairs(redis.call('LRANGE', KEYS[2], 0, -1)) do
        found[i] = {id, redis.call('GET', id)}
    end
end
return found
"""
"""As in SAQ's own sweep, of which there is one for ``ARGV[1]`` seconds."""

_QUEUE_AGAIN = """
if redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('LREM', KEYS[2], 0, KEYS[1]) > 0 then
    redis.call('SET', KEYS[1], ARGV[2])
    redis.call('ZADD', KEYS[3], ARGV[3], KEYS[1])
    return 1
end
"""

_KEEP = """
local read = redis.call('GET', KEYS[1])
if read and cjson.decode(read).status == 'aborting' then
    redis.call('LREM', KEYS[2], 0, KEYS[1])
    redis.call('RPUSH', KEYS[2], KEYS[1])
end
"""


def look_for_lost(queue: Any) -> None:
    """Have each sweep of a queue first queue all our lost jobs again, and then look at others."""
    sweep = queue.sweep
    if sweep.__module__ == __name__:
        return
    look: Callable[[], Awaitable[list[str]]]
    if hasattr(queue, "pool"):
        look = partial(look_on_postgres, queue)
    elif hasattr(queue, "redis"):
        look = _Look(queue)
        queue._cleanup_script = partial(_others, queue)
        queue.abort = partial(_abort_and_keep, queue, queue.abort)
    else:
        return

    async def sweep_both(*args: Any, **options: Any) -> list[str]:
        return [*await look(), *await sweep(*args, **options)]

    queue.sweep = sweep_both


class _Look:
    """Queue the lost jobs of a queue on Redis again; remember which had not begun the last time."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._fetched: dict[tuple[bytes, bytes], float] = {}

    async def __call__(self) -> list[str]:
        """Return the ids under which Redis has what comes again, unchanged since it was read."""
        redis, before, lost = self._queue.redis, self._fetched, list[str]()
        active, incomplete, sweep = map(self._queue.namespace, ("active", "incomplete", "sweep"))
        ids, self._fetched = await redis.lrange(active, 0, -1), {}
        others = await redis.exists(sweep)
        for id, read in zip(ids, await redis.mget(ids) if ids else (), strict=True):
            job = _readable(self._queue, id, read)
            # An older release, whose jobs have a heartbeat of SAQ's, may be at them just now.
            if not _is_swept_here(job) or (job.heartbeat and others):
                continue
            if job.status == _Status.QUEUED:  # just fetched: lost, if it is still so after a while
                since = self._fetched[id, read] = before.get((id, read), time.time())
                job.touched = since * 1000
            if is_lost(job) and job.status == _Status.ABORTING:
                await end_aborted(job)
            elif is_lost(job) and job.status in (_Status.QUEUED, _Status.ACTIVE):
                make_queued(job)
                facts = read, self._queue.serialize(job), job.scheduled
                again = await redis.eval(_QUEUE_AGAIN, 3, id, active, incomplete, *facts)
                lost += [job.id for _ in told(job, again)]
        return lost


async def _abort_and_keep(queue: Any, abort: Any, job: Any, *args: Any, **options: Any) -> None:
    """Abort a job and, while its consumer is still to end it, leave it where a sweep finds it.

    SAQ takes it off all lists: if the consumer dies now, or it was to run later, it never ends.
    """
    await abort(job, *args, **options)
    if _is_swept_here(job) and job.status == _Status.ABORTING:
        await queue.redis.eval(_KEEP, 2, job.id, queue.namespace("active"))


async def _others(queue: Any, keys: Iterable[str], args: Iterable[Any], client: Any) -> Any:
    """Return the running jobs that SAQ's own sweep is to look at."""
    found = await queue.redis.register_script(_RUNNING)(keys=keys, args=args, client=client)
    jobs = [(id, read, _readable(queue, id, read)) for id, read in found]
    # Neither ours, nor such as SAQ cannot read.
    return [(id, read) for id, read, job in jobs if not (is_ours(job) if job else read)]


def _readable(queue: Any, id: bytes, read: Any) -> Any:
    # Not by job_key_from_id: a queue class of the application's own may have job_id alone.
    key = id.decode("utf-8", "backslashreplace").removeprefix(queue.job_id(""))
    return readable(queue, key, read)


def _is_swept_here(job: Any) -> bool:
    """Tell whether a job that was read is one of ours, if it is there still."""
    return job is not None and is_ours(job)
