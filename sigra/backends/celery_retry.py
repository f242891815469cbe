"""Make of Celery's own ``retry`` in a body a failed attempt."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from sigra.backends.external import native
from sigra.context import current_job

_exceptions = native("celery.exceptions", "celery")


def retry(
    _task: Any, _args: Any = None, _kwargs: Any = None, exc: Any = None, *_: Any, **_options: Any
) -> NoReturn:
    """Raise ``exc``, or what is being handled: a failed attempt, which Sigra retries.

    In the last attempt, without ``exc``, say as Celery does that none is left. Celery would send a
    next run too, beside the one that Sigra sends.
    """
    job = current_job()
    if exc is None and job is not None and job.attempt >= job.max_attempts:
        raise _exceptions.MaxRetriesExceededError(f"attempt {job.attempt} is the last")
    raise exc or sys.exception() or _exceptions.Retry("task.retry() was called")
