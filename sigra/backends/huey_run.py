"""What huey's consumer runs for a job, and what came of it in huey's words."""

from __future__ import annotations

from typing import Any

from sigra.backends.external import Consumed, consume, native, refuse_positional
from sigra.backends.producing import error_text

_exceptions = native("huey.exceptions", "huey")


def run(task: Any) -> None:
    """Run a job: the body of every worker's task."""
    if task.args:
        consumed = refuse_positional(task.worker, task.id)
    else:
        consumed = consume(task.kwargs, task.worker, "huey", native_id=task.id)
    _settle(task, consumed)


def _settle(task: Any, consumed: Consumed) -> None:
    verdict, error = consumed.verdict, consumed.verdict.error
    match verdict.state:
        case "retryable" | "scheduled":
            task.kwargs = consumed.following()
            raise _exceptions.RetryTask(verdict.state, delay=verdict.delay or None) from error
        case "cancelled":
            raise _exceptions.CancelExecution(str(error), retry=False) from error
        case "discarded":
            # Not the error itself: SystemExit ends huey's thread, and huey retries its RetryTask.
            raise RuntimeError(error_text(error)) from error
