"""What an attempt came to: its verdict, its log line and its audit event."""

from __future__ import annotations

import logging
import traceback
from contextvars import Context
from typing import Any

from sigra import config
from sigra.binding import IMPERSONATOR_KEY
from sigra.context import Running
from sigra.errors import JobCancelledError, JobFailedError, MissingArgError
from sigra.outcome import Cancel, Failure, Ok, Snooze
from sigra.verdict import DONE, Verdict

log = logging.getLogger("sigra.job")

_OUTCOMES = (Ok, Failure, Snooze, Cancel)


def conclude(attempt: Running, value: Any, context: Context) -> Verdict:
    """Turn what the function returned into a verdict, and audit it if asked to."""
    # By its type: a proxy's __class__ may raise, or say that it is what it is not.
    if value is None or not issubclass(type(value), _OUTCOMES):
        verdict = DONE if value is None else Verdict("completed", value)
        outcome = "success"
    else:
        verdict, outcome = _judge(attempt, value, context)
    action = attempt.job.definition.action
    if action is not None and outcome:
        _audit(attempt, action, outcome, context)
    if config.current.sinks:
        _flush()
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
            log_attempt(attempt, context, logging.INFO, f"was cancelled: {_brief(reason)}")
            return Verdict(
                "cancelled", error=JobCancelledError(job.id, job.worker, reason)
            ), "failure"
        case Failure(reason):
            error = JobFailedError(job.id, job.worker, reason)
            verdict = _retry_or_discard(attempt, error, context)
            log_attempt(
                attempt, context, logging.WARNING, f"failed: {_brief(reason)}{_next(verdict)}"
            )
            return verdict, "failure"


def conclude_error(attempt: Running, error: BaseException, context: Context) -> Verdict:
    """Turn what the function raised into a verdict; log it with its traceback and ids."""
    permanent = isinstance(error, MissingArgError)
    verdict = (
        Verdict("discarded", error=error)
        if permanent
        else _retry_or_discard(attempt, error, context)
    )
    log_attempt(
        attempt, context, logging.ERROR, f"raised {type(error).__qualname__}{_next(verdict)}", error
    )
    action = attempt.job.definition.action
    if action is not None:
        _audit(attempt, action, "error", context)
    if config.current.sinks:
        _flush()
    return verdict


def _retry_or_discard(attempt: Running, error: BaseException, context: Context) -> Verdict:
    options = attempt.job.options
    if attempt.attempt >= options.max_attempts:
        return Verdict("discarded", error=error)
    try:
        delay = options.retry_delay(attempt.attempt)
    except Exception as broken:
        log_attempt(
            attempt, context, logging.ERROR, "has a backoff that raises; it is not retried", broken
        )
        return Verdict("discarded", error=error)
    return Verdict("retryable", error=error, delay=delay)


def _audit(attempt: Running, action: str, outcome: Any, context: Context) -> None:
    from sigra.audit.emit import log_lifecycle

    context.run(log_lifecycle, attempt, action, outcome)


def _flush() -> None:
    """Let sinks that queue events write them, before the queue hears that the job has ended."""
    for sink in config.current.sinks:
        flush = getattr(sink, "flush", None)
        if flush is not None:
            try:
                flush()
            except Exception:
                log.exception("audit events wait in %s, which could not write", type(sink).__name__)


def log_attempt(
    attempt: Running, context: Context, level: int, what: str, error: BaseException | None = None
) -> None:
    """Log in the job's own context, so that the application's filters see its ids too."""
    job = attempt.job
    try:
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
    except Exception:
        # A filter's: it must not decide what becomes of the job. As logging does with a handler's.
        if logging.raiseExceptions:
            traceback.print_exc()


def _next(verdict: Verdict) -> str:
    return f"; again in {verdict.delay:.0f} s" if verdict.state == "retryable" else ""


def _brief(reason: Any) -> str:
    """Show a reason that is text; of anything else, only its type."""
    return reason[:200] if type(reason) is str else f"<{type(reason).__qualname__}>"
