"""Let a job that has ended stay so where SAQ's sweep takes it for lost."""

from __future__ import annotations

import logging
from typing import Any

from sigra.backends.external import native
from sigra.errors import brief

_Status = native("saq", "saq").Status

_log = logging.getLogger("sigra.job")

_ENDED = "sigra.ended"
"""Where a job's meta says after how many of its runs it ended, how, and whether that is written."""

_ENDS = {
    "completed": _Status.COMPLETE,
    "cancelled": _Status.ABORTED,
    "discarded": _Status.FAILED,
}


def goes_on(job: Any) -> None:
    """Note that a job has not ended."""
    job.meta = {**job.meta, _ENDED: None}


async def end(job: Any, state: str, error: str | None) -> None:
    """Write how a job ends."""
    await _finish(job, _ENDS[state], error)


async def had_ended(job: Any, task: dict[str, Any]) -> bool:
    """Tell whether SAQ alone has brought a job back that had ended, and put it as it was.

    It does so where the end could not be written. And on Redis a sweep may take a job for lost
    as that is fetched; it then waits for its end, for up to five seconds, and sends it once more
    whatever that was.
    """
    runs, status, error, written = job.meta.get(_ENDED) or (None, None, None, True)
    swept = job.error == job.get_queue().swept_error_message
    if (written and not swept) or runs != job.attempts - 1:
        return False
    job.attempts = runs
    _log.warning("job %s had ended, and SAQ brought it back: it stays so", brief(job.key))
    await _finish(job, _Status(status), error)
    task["aborted"] = status
    return True


async def _finish(job: Any, status: Any, error: str | None) -> None:
    """Write it; where that fails, or a stop cuts it off, SAQ itself queues the job once more."""
    job.meta = {**job.meta, _ENDED: (job.attempts, status, error, True)}
    try:
        await job.finish(status, error=error)
    except BaseException:
        job.meta = {**job.meta, _ENDED: (job.attempts, status, error, False)}
        raise
