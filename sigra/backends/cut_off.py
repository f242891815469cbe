"""Say what becomes of a job whose body its queue cancelled."""

from __future__ import annotations

import asyncio
import sys
from typing import Any


def by_procrastinate(context: Any) -> str:
    """Return words for the log if procrastinate has cancelled the body, which now ends; else ""."""
    reason = context.abort_reason()
    return _words("procrastinate", stops=None if reason is None else reason.value == "shutdown")


def by_saq(worker: Any, job: Any) -> str:
    """Return words for the log if SAQ has cancelled the body, which now ends; else ""."""
    if worker.event.is_set():
        return _words("SAQ", stops=True)
    running = worker.job_task_contexts.get(job)
    aborted = running is not None and running["aborted"] is not None
    return _words("SAQ", stops=False if aborted else None)


def _words(queue: str, *, stops: bool | None) -> str:
    """Return the words. ``stops``: the worker stops; None if the queue did not cancel the job."""
    if stops is None or not isinstance(sys.exc_info()[1], asyncio.CancelledError):
        return ""
    if stops:
        return "; cut off by the worker's stop, it runs again"
    return f"; aborted by {queue}, it does not run again"
