"""One attempt of one job: admit, build the scope, run, conclude, audit."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Mapping
from contextvars import Context, copy_context
from types import CoroutineType
from typing import Any

from sigra.binding import IMPERSONATOR_KEY
from sigra.context import Running, running
from sigra.errors import (
    InvalidArgsError,
    JobCancelledError,
    JobFailedError,
    MissingArgError,
    SigraError,
)
from sigra.outcome import Cancel, Failure, Ok, Snooze
from sigra.scope import AuditScope, id_text, scope_from_ids
from sigra.verdict import DONE, Verdict

log = logging.getLogger("sigra.job")

_OUTCOMES = (Ok, Failure, Snooze, Cancel)


def fetch_arg(args: Mapping[str, Any], key: str) -> Any:
    """Return ``args[key]``; raise ``MissingArgError`` where the key is absent.

    A job that was built by hand never passed ``.new()``, so that a body checks again.
    """
    if key not in args:
        attempt = running.get()
        raise MissingArgError(key, attempt.job.definition.name if attempt is not None else None)
    return args[key]


def execute(attempt: Running) -> Verdict:
    """Run one attempt to its end in this thread; never raise what the function raised."""
    context = copy_context()
    context.run(running.set, attempt)
    try:
        definition = attempt.job.definition
        if definition.tenant:
            attempt.scope = _build_scope(attempt.job.args)
        invoke = definition.binding.invoke
        value = context.run(invoke, attempt.scope, attempt.job.args, attempt)
        if type(value) is CoroutineType:
            value = _run_coroutine(value, context)
    except BaseException as error:
        return _conclude_error(attempt, error, context)
    return _conclude(attempt, value, context)


async def aexecute(attempt: Running) -> Verdict:
    """Run one attempt to its end on this event loop.

    A cancellation of the surrounding task is passed on to the body and then raised
    again; anything else that the body raises becomes the verdict.
    """
    import asyncio

    context = copy_context()
    context.run(running.set, attempt)
    try:
        definition = attempt.job.definition
        if definition.tenant:
            attempt.scope = _build_scope(attempt.job.args)
        invoke = definition.binding.invoke
        value = context.run(invoke, attempt.scope, attempt.job.args, attempt)
        if isinstance(value, CoroutineType):
            task = asyncio.get_running_loop().create_task(_contain(value), context=context)
            value, raised = await task
            if raised is not None:
                raise raised
    except BaseException as error:
        verdict = _conclude_error(attempt, error, context)
        current = asyncio.current_task()
        if (
            isinstance(error, asyncio.CancelledError)
            and current is not None
            and current.cancelling()
        ):
            raise
        return verdict
    return _conclude(attempt, value, context)


def admit(attempt: Running) -> Verdict | None:
    """Check a job that may have bypassed ``.new()``; give its verdict where it cannot run.

    Such a job fails for good: no retry would bring the missing key, or make args bind
    to a function that a deploy has changed.
    """
    definition, args = attempt.job.definition, attempt.job.args
    context = copy_context()
    context.run(running.set, attempt)
    try:
        if definition.tenant:
            _build_scope(args, definition.name)
        definition.binding.check(args)
    except SigraError as error:
        _log(attempt, context, logging.ERROR, "was refused and ends here", error)
        return Verdict("discarded", error=error)
    return None


def _build_scope(args: Mapping[str, Any], worker: str | None = None) -> AuditScope:
    """Build the scope from the ids alone, never by a database read."""
    try:
        actor, organization = args["actor_id"], args["organization_id"]
    except KeyError as error:
        raise MissingArgError(error.args[0], worker) from None
    impersonator = args.get(IMPERSONATOR_KEY)
    if type(actor) is str and type(organization) is str and impersonator is None:
        return scope_from_ids(actor, organization, None)
    ids = {"actor_id": actor, "organization_id": organization, IMPERSONATOR_KEY: impersonator}
    texts: list[str | None] = []
    for name, value in ids.items():
        # Ids that came through .new() are text; those of a hand-built job may be numbers.
        text = None if value is None else id_text(value)
        if text is None and value is not None:
            reason = f"an id is a str that is not blank, or an int, not {type(value).__qualname__}"
            raise InvalidArgsError(f"$.{name}", reason, worker)
        texts.append(text)
    return scope_from_ids(*texts)


def in_event_loop() -> bool:
    """Tell whether an event loop runs in this thread."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run_coroutine(coroutine: CoroutineType[Any, Any, Any], context: Context) -> Any:
    """Run an async worker by a loop of its own, which ends with it."""
    import asyncio

    with asyncio.Runner() as runner:
        value, raised = runner.run(_contain(coroutine), context=context)
    if raised is not None:
        raise raised
    return value


async def _contain(coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
    """Keep what a body raises from the loop, which SystemExit would otherwise stop."""
    import asyncio

    try:
        return await coroutine, None
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return None, error
    except BaseException as error:
        return None, error


def _conclude(attempt: Running, value: Any, context: Context) -> Verdict:
    """Turn what the function returned into a verdict, and audit it if asked to."""
    if not isinstance(value, _OUTCOMES):
        verdict = DONE if value is None else Verdict("completed", value)
        outcome = "success"
    else:
        verdict, outcome = _judge(attempt, value, context)
    action = attempt.job.definition.action
    if action is not None and outcome:
        _audit(attempt, action, outcome, context)
    return verdict


def _judge(
    attempt: Running, outcome: Ok | Failure | Snooze | Cancel, context: Context
) -> tuple[Verdict, str]:
    job = attempt.job
    match outcome:
        case Ok(value):
            return Verdict("completed", value), "success"
        case Snooze(seconds):
            return Verdict("scheduled", delay=float(min(seconds, 10**10))), ""
        case Cancel(reason):
            _log(attempt, context, logging.INFO, f"was cancelled: {_brief(reason)}")
            return Verdict(
                "cancelled", error=JobCancelledError(job.id, job.worker, reason)
            ), "failure"
        case Failure(reason):
            error = JobFailedError(job.id, job.worker, reason)
            verdict = _retry_or_discard(attempt, error, context)
            _log(attempt, context, logging.WARNING, f"failed: {_brief(reason)}{_next(verdict)}")
            return verdict, "failure"


def _conclude_error(attempt: Running, error: BaseException, context: Context) -> Verdict:
    """Turn what the function raised into a verdict; log it with its traceback and ids."""
    permanent = isinstance(error, MissingArgError)
    verdict = (
        Verdict("discarded", error=error)
        if permanent
        else _retry_or_discard(attempt, error, context)
    )
    _log(
        attempt, context, logging.ERROR, f"raised {type(error).__qualname__}{_next(verdict)}", error
    )
    action = attempt.job.definition.action
    if action is not None:
        _audit(attempt, action, "error", context)
    return verdict


def _retry_or_discard(attempt: Running, error: BaseException, context: Context) -> Verdict:
    options = attempt.job.options
    if attempt.attempt >= options.max_attempts:
        return Verdict("discarded", error=error)
    try:
        delay = options.retry_delay(attempt.attempt)
    except Exception as broken:
        _log(
            attempt, context, logging.ERROR, "has a backoff that raises; it is not retried", broken
        )
        return Verdict("discarded", error=error)
    return Verdict("retryable", error=error, delay=delay)


def _audit(attempt: Running, action: str, outcome: Any, context: Context) -> None:
    from sigra.audit.emit import log_lifecycle

    context.run(log_lifecycle, attempt, action, outcome)


def _log(
    attempt: Running, context: Context, level: int, what: str, error: BaseException | None = None
) -> None:
    """Log in the job's own context, so that the application's filters see its ids too."""
    job = attempt.job
    context.run(
        log.log,
        level,
        "job %s of %s (organization %s, actor %s, attempt %d of %d) %s",
        job.id,
        job.worker,
        job.args.get("organization_id"),
        job.args.get("actor_id"),
        attempt.attempt,
        job.options.max_attempts,
        what,
        exc_info=error,
        extra={
            "job_id": job.id,
            "worker": job.worker,
            "attempt": attempt.attempt,
            "organization_id": job.args.get("organization_id"),
            "actor_id": job.args.get("actor_id"),
            "impersonating_from": job.args.get(IMPERSONATOR_KEY),
        },
    )


def _next(verdict: Verdict) -> str:
    return f"; again in {verdict.delay:.0f} s" if verdict.state == "retryable" else ""


def _brief(reason: Any) -> str:
    """Show a reason that is text; of anything else, only its type."""
    return reason[:200] if type(reason) is str else f"<{type(reason).__qualname__}>"
