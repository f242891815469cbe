"""Run one job at once, in the test, and see what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sigra import config
from sigra.backends.inprocess.pump import Pump
from sigra.backends.orm_thread import execute_in_place, execute_in_thread, in_django
from sigra.backends.sync import SyncBackend
from sigra.context import Attempt
from sigra.enqueue import Enqueuer
from sigra.errors import JobCancelledError, JobFailedError
from sigra.execute import aexecute, in_event_loop
from sigra.job import Job
from sigra.options import parse_options
from sigra.outcome import Cancel, Failure, Ok, Outcome, Snooze
from sigra.proxy import Worker

if TYPE_CHECKING:
    from sigra.definition import Definition
    from sigra.verdict import Verdict


def perform_job(
    worker: Worker[..., Any],
    args: Mapping[str, Any],
    *,
    attempt: int = 1,
    snoozes: int = 0,
    **options: Any,
) -> Outcome:
    """Validate args as ``.new()`` does, run the worker once and return its outcome.

    A plain value comes back as ``Ok(value)``. Raises what ``.new()`` would raise, and
    what the function raises. ``attempt`` and ``snoozes`` are what the body will see.
    """
    if definition_of(worker).is_async and in_event_loop():
        raise RuntimeError("an event loop runs here already: use 'await aperform_job(...)'")
    turn, pump = _prepare(worker, args, attempt, snoozes, options)
    try:
        verdict = execute_in_place(turn)
    except BaseException:  # while it was logged or audited: not the body's
        pump.leave()
        raise
    if (left := pump.take()) is not None:
        pump.backend._run(*left, pump)
    return _outcome(turn.job, verdict)


async def aperform_job(
    worker: Worker[..., Any],
    args: Mapping[str, Any],
    *,
    attempt: int = 1,
    snoozes: int = 0,
    **options: Any,
) -> Outcome:
    """Do the same as ``perform_job`` inside a running asyncio event loop."""
    if not in_event_loop():
        raise RuntimeError("no asyncio event loop runs here: use 'perform_job(...)'")
    turn, pump = _prepare(worker, args, attempt, snoozes, options)
    try:
        if in_django() and not definition_of(worker).is_async:  # its ORM refuses to run on a loop
            verdict = await execute_in_thread(turn)
        else:
            verdict = await aexecute(turn)
    except BaseException:
        pump.leave()
        raise
    await pump.backend._arun_waiting(pump)
    return _outcome(turn.job, verdict)


def definition_of(worker: Worker[..., Any]) -> Definition:
    """Return a worker's definition; raise ``TypeError`` for anything else."""
    if issubclass(type(worker), Worker):
        return worker.definition
    kind = type(worker).__qualname__
    raise TypeError(f"worker must be what @tenant_worker or @worker made, not a plain {kind}")


def _prepare(
    worker: Worker[..., Any],
    args: Mapping[str, Any],
    attempt: int,
    snoozes: int,
    options: dict[str, Any],
) -> tuple[Attempt, Pump]:
    definition = definition_of(worker)
    for name, value, least in (("attempt", attempt, 1), ("snoozes", snoozes, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an int of at least {least}, not {value!r}")
    frozen = Enqueuer(definition).validate(args)
    chosen = parse_options(options, definition.defaults, definition.name)
    backend = config.current.choose(definition.backend, chosen.queue)
    # Where that is no sync backend, nothing is put into the pump.
    pump = Pump(backend if isinstance(backend, SyncBackend) else SyncBackend())
    return Attempt(Job(definition, frozen, chosen, "sync"), attempt, snoozes, None, pump), pump


def _outcome(job: Job, verdict: Verdict) -> Outcome:
    match verdict.error:
        case None if verdict.state == "scheduled":
            return Snooze(int(verdict.delay))
        case None:
            return Ok(verdict.value)
        # Of another job, it is an exception of the body, which asked that job for its result.
        case JobFailedError(job_id=job.id, reason=reason):
            return Failure(reason)
        case JobCancelledError(job_id=job.id, reason=reason):
            return Cancel(reason)
        case error:
            raise error
