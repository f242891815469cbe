"""Have a job that has ended stay so even if SAQ brings it back."""

from __future__ import annotations

import logging
from functools import partial
from itertools import count
from typing import Any

from sigra.backends.external import ENDED, native
from sigra.backends.insist import insist
from sigra.backends.saq_begin import broken, only_fetched
from sigra.backends.saq_lost import is_ours
from sigra.errors import brief

_Status = native("saq", "saq").Status

_log = logging.getLogger("sigra.job")

_ENDED = "sigra.ended"
"""The key in a job's meta for its end: after how many runs, status, error, and if it is written."""

_ENDS = {
    "completed": _Status.COMPLETE,
    "cancelled": _Status.ABORTED,
    "discarded": _Status.FAILED,
}


def watch_ends(queue: Any) -> None:
    """Keep SAQ from ending a job that is settled: it would complete it or, as it stops, abort it.

    And if SAQ aborts a job, or ends one that it could not begin, do not count this run as one that
    died when the job is run by hand.
    """
    finish = queue.finish
    if finish.__module__ == __name__:
        return

    async def finish_unless_settled(job: Any, status: Any, **facts: Any) -> None:
        if hasattr(job, "sigra_settled"):
            return
        aborted = status == _Status.ABORTED and is_ours(job)
        if aborted or only_fetched(job):
            job.kwargs = {**job.kwargs, ENDED: job.attempts}
        await finish(job, status, **facts)

    queue.finish = finish_unless_settled


def settle(job: Any) -> None:
    """Note, for this run alone, that its outcome is written."""
    job.sigra_settled = True


async def go_on(job: Any, error: str | None) -> None:
    """Write that a job has not ended, and have SAQ queue its next run."""
    job.meta = {**job.meta, _ENDED: None}
    queue, started, tries = job.get_queue(), job.started, count()

    async def once() -> None:
        if next(tries):  # if an answer was lost, the next run is queued, and may have begun
            found = await queue.job(job.key)
            if found is None or (found.started, found.status) != (started, _Status.ACTIVE):
                return
        await job.retry(error)

    await insist(once, broken(queue))


async def end(job: Any, state: str, error: str | None) -> None:
    """Write how a job ends."""
    await _finish(job, _ENDS[state], error)


async def had_ended(job: Any) -> bool:
    """Tell whether a job had ended and SAQ itself brought it back; if so, write its end again.

    SAQ does so if the end could not be written. And on Redis a sweep may take a job for lost just
    as it is fetched; the sweep then waits up to five seconds for the job to end, and queues it
    again however it ended.
    """
    runs, status, error, written = job.meta.get(_ENDED) or (None, None, None, True)
    swept = job.error == job.get_queue().swept_error_message
    if written and not (swept and runs == job.attempts - 1):
        return False
    job.attempts = runs
    _log.warning("job %s had ended, but SAQ queued it again: it is not run", brief(job.key))
    await _finish(job, _Status(status), error)
    settle(job)
    return True


async def _finish(job: Any, status: Any, error: str | None) -> None:
    """Write the end; if that fails, or a stop cuts it off, SAQ itself queues the job again."""
    job.meta = {**job.meta, _ENDED: (job.attempts, status, error, True)}
    write = partial(job.finish, status, error=error)
    # A key of the user's own may have another job by the time that a second try would come.
    own = job.key == (job.kwargs or {}).get("id")
    try:
        await (insist(write, broken(job.get_queue())) if own else write())
    except BaseException:
        job.meta = {**job.meta, _ENDED: (job.attempts, status, error, False)}
        raise
