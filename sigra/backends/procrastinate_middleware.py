"""Have a job run again whose run a middleware ended before it began: procrastinate ends the job."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache, partial, wraps
from typing import Any

from sigra.backends.envelope import MARK
from sigra.backends.external import ENDED, ends_in, native
from sigra.backends.jsonb import unfit
from sigra.backends.procrastinate_alive import keep_alive
from sigra.backends.procrastinate_notes import AgainError, note
from sigra.backends.procrastinate_rescue import let_go

_Aborted = native("procrastinate", "procrastinate").exceptions.JobAborted

_ENTERED = "sigra_entered"


def enter(context: Any) -> Any:
    """Note that all middleware has let a job through to its body; return the job."""
    vars(context)[_ENTERED] = True
    return context.job


def hold(context: Any) -> None:
    """Keep a job from others until its task has ended; let it go if that end cannot be written."""
    whole: Any = asyncio.current_task()
    whole.add_done_callback(partial(let_go, context))
    keep_alive(context, whole)


@cache
def watch_consumers(is_ours: Callable[[Any, str], bool]) -> None:
    """Have each consumer that this process makes from now on do so with the jobs of workers.

    ``is_ours``: tells whether an app's task of that name runs a worker.
    """
    kind = native("procrastinate.worker", "procrastinate").Worker
    make = kind.__init__

    async def run_or_again(proceed: Callable[[], Awaitable[Any]], context: Any, _: Any) -> Any:
        if not is_ours(context.app, context.job.task_name):
            return await proceed()
        hold(context)
        try:
            return await proceed()
        except (Exception, asyncio.CancelledError) as error:
            if _ENTERED not in vars(context):
                await _run_again(context, error)
            raise

    @wraps(make)
    def make_and_watch(worker: Any, *args: Any, **options: Any) -> None:
        make(worker, *args, **options)
        worker.worker_middleware = [run_or_again, *worker.worker_middleware]

    kind.__init__ = make_and_watch


async def _run_again(context: Any, error: BaseException) -> None:
    """Raise ``AgainError``, unless somebody aborts the job, or it came to this too often."""
    job, payload, reason = context.job, unfit(context.job.task_kwargs), context.abort_reason()
    if isinstance(error, asyncio.CancelledError):
        if reason is not None and reason.value == "shutdown":
            await note(context, payload, job.attempts)
            raise AgainError("was cut off by the worker's stop", 0.0) from None
    elif MARK in payload and not isinstance(error, _Aborted):
        again = job.attempts < _most(payload)
        # So it is no run that died, now or when it is retried by hand, which adds one to attempts.
        ended = ends_in(payload) + 1 if again else job.attempts + 2
        await note(context, payload | {ENDED: ended}, job.attempts + 1)
        if again:
            raise AgainError("was kept from its begin by a middleware", 1.0) from error


def _most(payload: dict[str, Any]) -> int:
    """Return how often a middleware may raise before a job: as often as the job has attempts."""
    attempts = payload.get("max_attempts")
    return attempts if type(attempts) is int else 0
