"""Run a job in procrastinate's consumer, and tell procrastinate what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from sigra import catalog
from sigra.backends.cut_off import by_procrastinate
from sigra.backends.external import ENDED, Consumed, aconsume, ends_in, native
from sigra.backends.insist import insist
from sigra.backends.jsonb import fit, unfit
from sigra.backends.procrastinate_rescue import let_go

_procrastinate = native("procrastinate", "procrastinate")

_COUNT = """
UPDATE procrastinate_jobs SET args = %(args)s::jsonb, attempts = %(attempts)s
WHERE id = %(id)s AND status = 'doing'
"""


async def run(context: Any, args: Mapping[str, Any]) -> None:
    """Run a job: the body of every worker's task."""
    native, payload = context.job, unfit(args)
    if (whole := asyncio.current_task()) is not None:
        whole.add_done_callback(partial(let_go, context))
    definition = catalog.lookup(native.task_name)
    # Our own verdicts keep both counts equal; a rescue or a retry by hand raises only the native.
    lost = native.attempts - ends_in(payload)
    if lost < 0:  # it came from elsewhere, or its consumer died just after its end was noted
        lost = int(ENDED in payload)
    words = partial(by_procrastinate, context)
    facts: Any = {"native_id": str(native.id), "cut_off": words, "deliveries": lost}
    work = asyncio.ensure_future(aconsume(payload, definition, "procrastinate", **facts))
    try:
        consumed = await (work if definition.is_async else asyncio.shield(work))
    except asyncio.CancelledError:
        if definition.is_async:
            reason = context.abort_reason()
            if reason is None or reason.value != "shutdown":
                raise
            await _note(context, payload, native.attempts)
            raise _AgainError("cut off by the worker's stop", 0.0) from None
        consumed = await work  # a thread cannot be cut off: its verdict counts
    await _settle(context, consumed)


async def _settle(context: Any, consumed: Consumed) -> None:
    verdict = consumed.verdict
    match verdict.state:
        case "retryable" | "scheduled":
            payload = consumed.following()
            attempts = payload["failures"] if consumed.delivery else context.job.attempts
            await _note(context, payload, attempts)
            why = "snoozed" if verdict.state == "scheduled" else "failed"
            raise _AgainError(why, verdict.delay) from verdict.error
        case "cancelled":
            raise _procrastinate.exceptions.JobAborted(str(verdict.error)) from verdict.error
        case "discarded":
            # For "retry" in procrastinate's shell, which itself adds one to attempts.
            if consumed.delivery is not None:
                attempts = context.job.attempts
                with suppress(_AgainError):
                    await _note(context, consumed.by_hand(attempts + 2), attempts + 1)
            verdict.unwrap()


async def _note(context: Any, payload: Mapping[str, Any], attempts: int) -> None:
    """Write what the next run has to know; procrastinate adds one to attempts as this run ends.

    Raises ``_AgainError`` if it cannot be written: the run then counts as one that died.
    """
    facts = {"args": fit(payload), "attempts": attempts - 1, "id": context.job.id}
    write = partial(context.app.connector.execute_query_async, _COUNT, **facts)
    away = _procrastinate.exceptions.ConnectorException
    writing = asyncio.ensure_future(insist(write, away))
    try:
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await writing  # a stop comes too late to cut it off
    except away as error:
        raise _AgainError("could not be written down", 1.0) from error


class _AgainError(Exception):
    """Have the job run again after ``delay`` seconds; procrastinate logs it with a traceback."""

    def __init__(self, why: str, delay: float) -> None:
        super().__init__(f"{why}, and runs again in {delay:g} s")
        self.delay = delay


class Strategy:
    """Have procrastinate retry what a verdict says, and nothing else."""

    def get_retry_exception(self, exception: BaseException, job: Any) -> Any:  # noqa: ARG002
        """Return the decision by which procrastinate runs a job again, or None."""
        if not isinstance(exception, _AgainError):
            return None
        decision = _procrastinate.RetryDecision(retry_in={"seconds": exception.delay})
        return _procrastinate.exceptions.JobRetry(decision)


def is_ours(app: Any, name: str) -> bool:
    """Tell whether the app's task of that name is one that runs a worker."""
    return name in app.tasks and isinstance(app.tasks[name].retry_strategy, Strategy)
