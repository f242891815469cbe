"""Let a job that has ended stay so where SAQ's sweep takes it for lost."""

from __future__ import annotations

import logging
from typing import Any

from sigra.backends.external import native
from sigra.errors import brief

_Status = native("saq", "saq").Status

_log = logging.getLogger("sigra.job")

_ENDED = "sigra.ended"
"""Where a job's meta says after how many of its runs it ended, and how."""

_ENDS = {
    "completed": _Status.COMPLETE,
    "cancelled": _Status.ABORTED,
    "discarded": _Status.FAILED,
}


def note_end(job: Any, state: str, error: str | None) -> Any:
    """Note how a job ends, or that it goes on; return SAQ's word for it, None if it goes on."""
    status = _ENDS.get(state)
    job.meta = {**job.meta, _ENDED: status and (job.attempts, status, error)}
    return status


async def had_ended(job: Any, task: dict[str, Any]) -> bool:
    """Tell whether a sweep alone has brought a job back that had ended, and put it as it was.

    On Redis a sweep may take a job for lost as that is fetched; it then waits for its end, for
    up to five seconds, and sends it once more whatever that was.
    """
    runs, status, error = job.meta.get(_ENDED) or (None, None, None)
    swept = job.error == job.get_queue().swept_error_message
    if not swept or runs != job.attempts - 1:
        return False
    task["aborted"], job.attempts = status, runs
    _log.warning("job %s had ended, and SAQ's sweep took it for lost: it stays so", brief(job.key))
    await job.finish(_Status(status), error=error)
    return True
