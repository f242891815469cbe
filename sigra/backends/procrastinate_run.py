"""Run a job in procrastinate's consumer, and tell procrastinate what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from sigra import catalog
from sigra.backends.begin import ThisRun
from sigra.backends.cut_off import by_procrastinate
from sigra.backends.envelope import MARK
from sigra.backends.external import ENDED, Consumed, aconsume, ends_in, native
from sigra.backends.jsonb import unfit
from sigra.backends.native_error import error_text
from sigra.backends.procrastinate_middleware import enter
from sigra.backends.procrastinate_notes import AgainError, begin_notes, note
from sigra.definition import Definition
from sigra.errors import UnknownWorkerError

_procrastinate = native("procrastinate", "procrastinate")

_ABORTS = (_procrastinate.exceptions.JobAborted, asyncio.CancelledError)
"""What a job that failed must not raise: procrastinate would show it as aborted, not as failed."""


async def run(context: Any, args: Mapping[str, Any]) -> None:
    """Run a job: the body of every worker's task."""
    native, payload = enter(context), unfit(args)
    worker = _known(native.task_name)
    is_async = not isinstance(worker, str) and worker.is_async
    # Our own verdicts keep both counts equal; a rescue or a retry by hand raises only the native.
    lost = native.attempts - ends_in(payload)
    if lost < 0:  # it came from elsewhere, or its consumer died just after its end was noted
        lost = int(ENDED in payload)
    words = partial(by_procrastinate, context)
    facts: Any = {"native_id": str(native.id), "cut_off": words, "deliveries": lost}
    facts |= begin_notes(context, payload, this_run := ThisRun())
    work = asyncio.ensure_future(aconsume(payload, worker, "procrastinate", **facts))
    try:
        consumed = await (work if is_async else asyncio.shield(work))
    except asyncio.CancelledError:
        if is_async or not this_run.has_begun:
            this_run.is_cut_off = work.cancel()
            await asyncio.wait({work})
            reason = context.abort_reason()
            if reason is None or reason.value != "shutdown":
                raise
            await note(context, payload, native.attempts)
            raise AgainError("was cut off by the worker's stop", 0.0) from None
        consumed = await work  # a thread cannot be cut off: its verdict counts
    await _settle(context, consumed)


def _known(name: str) -> Definition | str:
    with suppress(UnknownWorkerError):
        return catalog.lookup(name)
    return name


async def _settle(context: Any, consumed: Consumed) -> None:
    verdict = consumed.verdict
    match verdict.state:
        case "retryable" | "scheduled":
            payload = consumed.following()
            attempts = payload["failures"] if consumed.delivery else context.job.attempts
            await note(context, payload, attempts)
            why = "snoozed" if verdict.state == "scheduled" else "failed"
            raise AgainError(why, verdict.delay)  # without its cause, which is logged already
        case "cancelled":
            raise _procrastinate.exceptions.JobAborted(str(verdict.error)) from verdict.error
        case "discarded":
            # For "retry" in procrastinate's shell, which itself adds one to attempts.
            attempts = context.job.attempts
            if MARK in (payload := consumed.by_hand(attempts + 2)):
                with suppress(AgainError):
                    await note(context, payload, attempts + 1)
            if isinstance(verdict.error, _ABORTS):
                raise RuntimeError(error_text(verdict.error)) from verdict.error
            verdict.unwrap()


class Strategy:
    """Have procrastinate retry what a verdict says, and nothing else."""

    def get_retry_exception(self, exception: BaseException, job: Any) -> Any:  # noqa: ARG002
        """Return the decision by which procrastinate runs a job again, or None."""
        if not isinstance(exception, AgainError):
            return None
        decision = _procrastinate.RetryDecision(retry_in={"seconds": exception.delay})
        return _procrastinate.exceptions.JobRetry(decision)


def is_ours(app: Any, name: str) -> bool:
    """Tell whether the app's task of that name is one that runs a worker."""
    return name in app.tasks and isinstance(app.tasks[name].retry_strategy, Strategy)
