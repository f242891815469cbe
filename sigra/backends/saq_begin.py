"""Have a job begin only if it was fetched for good, and count only the attempts that begin.

On PostgreSQL, SAQ gives a job to its consumer before the fetching transaction has ended. If the
connection breaks then, the job is still in the queue, and another consumer fetches it too. And on
any server, SAQ counts an attempt before it has written that it begins, and keeps the count if that
cannot be written.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from typing import Any

from sigra.backends.begin import is_busy
from sigra.backends.external import ENDED, ends_in, native
from sigra.backends.insist import insist
from sigra.backends.saq_lost import AGAIN, beat, is_ours, put_off
from sigra.backends.saq_write import GoneError, read_row, write
from sigra.catalog import lookup
from sigra.errors import UnknownWorkerError, brief

_saq = native("saq", "saq")

_log = logging.getLogger("sigra.job")

_WAYS = ("", *[" FOR UPDATE"] * 4)
"""How to read a job, until the server has answered. The lock, which costs a write, is only to wait
for a transaction that has not ended yet."""


def watch_begins(queue: Any) -> None:
    """Have a consumer's jobs of ours begin once, and their attempts count if they do.

    Between SAQ's begin and ours, the application's ``before_process`` may raise, or SAQ may not
    know the worker: that does not count as a run that died.
    """
    update, retry = queue.update, queue.retry
    if update.__module__ == __name__:
        return

    async def update_or_uncount(job: Any, **changes: Any) -> None:
        begins = changes.get("status") == _saq.Status.ACTIVE and is_ours(job)
        counted, job.sigra_waits = job.attempts, begins and _may_wait(job)
        job.attempts = counted - job.sigra_waits
        try:
            await update(job, **changes)
        except BaseException as error:
            if begins:
                job.attempts, job.retry_delay = counted - 1, AGAIN
                if isinstance(error, asyncio.CancelledError):
                    await queue.retry(job, "cancelled")  # a stop: SAQ itself would leave it so
            raise
        if begins:
            job.attempts, job.sigra_fetched = counted, True
            job.retry_delay = AGAIN  # and not as long as this run waited itself

    async def retry_as_it_was(job: Any, error: str | None) -> None:
        if await _is_to_retry(job):
            await retry(job, error)

    queue.update, queue.retry = update_or_uncount, retry_as_it_was
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
            except BaseException as error:
                well = range(0)
                if isinstance(error, Exception) and not isinstance(error, broken(queue)):
                    await put_off(queue)
                raise
            well = range(first, _saq.utils.now() + 1)

    async def take_for_good(*args: Any, **options: Any) -> Any:
        while (job := await take(*args, **options)) and is_ours(job):
            if job.touched not in well:
                async with fetching:
                    pass  # the fetch that brought it has ended now
            if job.touched in well or await _is_held(queue, job):
                break
            _log.warning("job %s does not run here: its fetch was rolled back", brief(job.key))
        return job

    queue._dequeue, queue.dequeue = fetch_and_note, take_for_good


def watch_hooks(worker: Any) -> None:
    """Have a job of ours wait again if a stop cuts off the hooks before it: SAQ leaves it begun."""
    before = worker._before_process

    async def before_or_again(context: dict[str, Any]) -> None:
        try:
            await before(context)
        except asyncio.CancelledError:
            job = context["job"]
            if only_fetched(job) and await _is_here(job):
                job.attempts, job.sigra_fetched = job.attempts - 1, False
                await job.retry("cancelled")
            raise

    worker._before_process = before_or_again


def only_fetched(job: Any) -> bool:
    """Tell whether this consumer has begun the job for SAQ, and not yet its run."""
    return getattr(job, "sigra_fetched", False)


async def _is_to_retry(job: Any) -> bool:
    """Tell whether SAQ may send a job again; if its run has not begun, note that in the job."""
    if not only_fetched(job):
        return True
    job.kwargs = {**job.kwargs, ENDED: ends_in(job.kwargs) + 1}
    return await _is_here(job)


async def _is_here(job: Any) -> bool:
    """Tell whether a job is still begun here: not taken away by a sweep, or to be ended by one."""
    found = await job.get_queue().job(job.key)
    return bool(found) and (found.started, found.status) == (job.started, _saq.Status.ACTIVE)


def begin_notes(job: Any) -> dict[str, Any]:
    """Return what ``aconsume`` takes as ``note`` and ``waits``, if SAQ has counted the attempt."""
    attempts, job.sigra_fetched = job.attempts, False
    uncounted = getattr(job, "sigra_waits", False)
    job.attempts -= uncounted

    async def waits() -> None:
        job.attempts = attempts - 1
        await beat(job)

    async def note() -> None:
        job.attempts = attempts
        try:
            await insist(partial(write, job), broken(job.get_queue()))
        except GoneError:
            _log.warning("job %s does not run here: its queue has sent it again", brief(job.key))
            raise
        except BaseException:
            job.attempts = attempts - 1
            raise

    return {"note": note} if uncounted else {"note": note, "waits": waits}


def _may_wait(job: Any) -> bool:
    """Tell whether a job that is fetched may have to wait for a thread."""
    try:
        return is_busy() and not lookup(job.function).is_async
    except UnknownWorkerError:
        return False


def broken(queue: Any) -> Any:
    """Return the errors of a connection that breaks, or of a server that refuses writes now."""
    if hasattr(queue, "pool"):
        errors = native("psycopg.errors", "saq")
        return errors.OperationalError, errors.ReadOnlySqlTransaction
    if not hasattr(queue, "redis"):
        return OSError
    return native("redis.exceptions", "saq").RedisError  # NOREPLICAS and the like


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
    async with queue.pool.connection() as conn:
        return queue.deserialize(*await read_row(conn, queue, key, way))


def _stamp(job: Any) -> tuple[Any, ...]:
    """Return what differs between two times that a job is fetched, and once it has begun."""
    return job.status, job.touched, job.attempts
