"""Say what becomes of a job whose body SAQ cancelled."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any


def cut_off(worker: Any, job: Any) -> Callable[[], str]:
    """Return what gives words for the log if the body is just ending by its cancellation."""

    def words() -> str:
        if not isinstance(sys.exc_info()[1], asyncio.CancelledError):
            return ""
        if worker.event.is_set():
            return "; cut off by the worker's stop, it runs again"
        running = worker.job_task_contexts.get(job)
        if running is None or running["aborted"] is None:
            return ""
        return "; aborted by SAQ, it does not run again"

    return words
