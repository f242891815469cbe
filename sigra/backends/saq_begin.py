"""Have a job begin only if it was fetched for good, and count only the attempts that begin.

On PostgreSQL SAQ gives a job to its consumer before the transaction ends that fetches it. If the
connection breaks there, the job is still in the queue, and another consumer fetches it too. And on
any server SAQ counts an attempt before it has written that one begins, and keeps the count if it
cannot write it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

from sigra.backends.envelope import MARK
from sigra.backends.external import native
from sigra.errors import brief

_saq = native("saq", "saq")

_log = logging.getLogger("sigra.job")

_READ = "SELECT job, status FROM {} WHERE key = %s"

_WAYS = ("", *[" FOR UPDATE"] * 4)
"""How to read a job, until the server has answered: with a lock, which costs a write, only to wait
for a transaction that has not ended yet."""


def watch_begins(queue: Any) -> None:
    """Have a consumer's jobs of ours begin once, and their attempts count if they do."""
    update = queue.update
    if update.__module__ == __name__:
        return

    async def update_or_uncount(job: Any, **changes: Any) -> None:
        try:
            await update(job, **changes)
        except BaseException as error:
            if changes.get("status") == _saq.Status.ACTIVE and _is_ours(job):
                job.attempts -= 1
                if isinstance(error, asyncio.CancelledError):
                    await queue.retry(job, "cancelled")  # a stop: SAQ itself would leave it so
            raise

    queue.update = update_or_uncount
    if hasattr(queue, "pool"):
        _watch_fetches(queue)


def _watch_fetches(queue: Any) -> None:
    """Have a job begin only if the fetch that brought it has ended well, or the database has it."""
    fetch, take, well, fetching = queue._dequeue, queue.dequeue, range(0), asyncio.Lock()

    async def fetch_and_note() -> None:
        nonlocal well
        if queue._dequeue_lock.locked():  # another fetch is under way, and SAQ leaves it to that
            return
        async with fetching:
            begun = _saq.utils.now()
            first = well.start or begun + 1
            well = range(first, begun)
            try:
                await fetch()
            except BaseException:
                well = range(0)
                raise
            well = range(first, _saq.utils.now() + 1)

    async def take_for_good(*args: Any, **options: Any) -> Any:
        while (job := await take(*args, **options)) and _is_ours(job):
            if job.touched not in well:
                async with fetching:
                    pass  # the fetch that brought it has ended now
            if job.touched in well or await _is_held(queue, job):
                break
            _log.warning("job %s does not begin here: its fetch was undone", brief(job.key))
        return job

    queue._dequeue, queue.dequeue = fetch_and_note, take_for_good


def broken(queue: Any) -> Any:
    """Return the error of a connection that breaks."""
    if hasattr(queue, "pool"):
        return native("psycopg", "saq").OperationalError
    return native("redis", "saq").ConnectionError if hasattr(queue, "redis") else OSError


def _is_ours(job: Any) -> bool:
    return MARK in (job.kwargs or {})


async def _is_held(queue: Any, job: Any) -> bool:
    """Tell whether a job is in the database as this consumer fetched it."""
    for way in _WAYS:
        with suppress(broken(queue)):
            found = await _read(queue, job.key, way)
            if found is not None and _stamp(found) == _stamp(job):
                return True
            if way:
                return False
    return False  # nobody knows: if it is held, a sweep queues it again


async def _read(queue: Any, key: str, way: str) -> Any:
    statement = native("psycopg.sql", "saq").SQL(_READ + way).format(queue.jobs_table)
    async with queue.pool.connection() as conn:
        row = await (await conn.execute(statement, [key])).fetchone()
    return None if row is None else queue.deserialize(*row)


def _stamp(job: Any) -> tuple[Any, ...]:
    """Return what differs between two times that a job is fetched, and once it has begun."""
    return job.status, job.touched, job.attempts
