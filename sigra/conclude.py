"""How an attempt ended: its verdict, its log line and its audit event."""

from __future__ import annotations

import logging
import sys
from contextvars import Context
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, get_args

from sigra import config
from sigra.audit.read import type_name
from sigra.audit.sink import fault_of, flush
from sigra.binding import ID_KEYS, IMPERSONATOR_KEY
from sigra.context import Attempt
from sigra.errors import JobCancelledError, JobFailedError, MissingArgError, brief
from sigra.job import FINISHED, Job
from sigra.json import type_qualname
from sigra.options import LONGEST_DELAY, default_backoff
from sigra.outcome import Cancel, Failure, Ok, Outcome, Snooze
from sigra.scope import id_text
from sigra.verdict import DONE, Verdict

_log = logging.getLogger("sigra.job")

_OUTCOMES = get_args(Outcome)


def conclude(attempt: Attempt, value: Any, context: Context) -> Verdict:
    """Turn what the function returned into a verdict, and audit it if asked to."""
    if value is None:
        verdict, outcome = DONE, "success"
    elif issubclass(type(value), _OUTCOMES):  # not isinstance: the __class__ of a proxy may raise
        verdict, outcome = _judge(attempt, value, context)
    elif (kind := type(value)) is type and value in _OUTCOMES:
        forgotten = TypeError(f"the function returned a class: return {value.__name__}(...)")
        return conclude_error(attempt, forgotten, context)
    elif kind is GeneratorType or kind is CoroutineType or kind is AsyncGeneratorType:
        # Decoration could not see it: a wrapper or an async function returned it.
        unrun = TypeError(f"the function returned a {kind.__name__} that was never run")
        return conclude_error(attempt, unrun, context)
    else:
        verdict, outcome = Verdict("completed", value), "success"
    if attempt.job.definition.action is not None or config.current.sinks:
        _audit(attempt, outcome, context)
    return verdict


def _judge(attempt: Attempt, outcome: Outcome, context: Context) -> tuple[Verdict, Any]:
    """Return the verdict and the outcome to audit, which is None for a snooze."""
    ids = attempt.job.id, attempt.job.worker
    match outcome:
        case Ok(value):
            return Verdict("completed", value), "success"
        case Snooze(seconds):
            verdict = Verdict("scheduled", delay=float(min(seconds, LONGEST_DELAY)))
            what = f"snoozed ({attempt.snoozes + 1} so far){_what_follows(attempt, verdict)}"
            log_attempt(attempt, context, logging.INFO, what)
            return verdict, None
        case Cancel(reason):
            log_attempt(attempt, context, logging.INFO, f"was cancelled: {brief(reason)}")
            return Verdict("cancelled", error=JobCancelledError(*ids, reason)), "failure"
        case Failure(reason):
            verdict = _retry_or_discard(attempt, JobFailedError(*ids, reason), context)
            level = logging.ERROR if verdict.state == "discarded" else logging.WARNING
            what = f"failed: {brief(reason)}{_what_follows(attempt, verdict)}"
            log_attempt(attempt, context, level, what)
            return verdict, "failure"


def conclude_error(attempt: Attempt, error: BaseException, context: Context) -> Verdict:
    """Turn what the function raised into a verdict; log it with its traceback and ids."""
    verdict = _retry_or_discard(attempt, error, context)
    what = f"raised {type_qualname(type(error))}{_what_follows(attempt, verdict)}"
    log_attempt(attempt, context, logging.ERROR, what, error)
    _audit(attempt, "error", context)
    return verdict


def _retry_or_discard(attempt: Attempt, error: Any, context: Context) -> Verdict:
    options = attempt.job.options
    # A retry cannot supply an arg that this job itself lacks. Not isinstance: the error's __class__
    # may raise.
    lacks = issubclass(type(error), MissingArgError) and error.worker in (None, attempt.job.worker)
    if lacks or attempt.number + attempt.lost >= options.max_attempts:
        return Verdict("discarded", error=error)
    try:
        delay = min(options.retry_delay(attempt.number), LONGEST_DELAY)
    except BaseException as broken:  # not even SystemExit may end the consumer
        what = "has a backoff that raised: the default backoff is used"
        log_attempt(attempt, context, logging.ERROR, what, broken)
        delay = default_backoff(attempt.number)
    return Verdict("retryable", error=error, delay=delay)


def _audit(attempt: Attempt, outcome: Any, context: Context) -> None:
    """Audit the end of the attempt if asked to, and have the sinks write what they have queued.

    So the events are kept before the queue is told that the job has ended.
    """
    if outcome is not None and (action := attempt.job.definition.action) is not None:
        from sigra.audit.emit import log_lifecycle

        context.run(log_lifecycle, attempt, action, outcome)
    for sink in config.current.sinks:
        try:
            flush(sink)
        except Exception as error:
            # The type alone: text and traceback may hold values of the events.
            _log.error("audit events wait: %s", fault_of(type_name(type(sink)), error))


def log_attempt(
    attempt: Attempt, context: Context, level: int, what: str, error: BaseException | None = None
) -> None:
    """Log in the job's own context, so that the application's filters find its ids there."""
    name, facts = named_in_logs(attempt.job)
    turn = f"{name}, attempt {attempt.number} of {attempt.info.max_attempts}"
    worker, facts["attempt"] = attempt.job.worker, attempt.number
    # The format names the worker, because error trackers group lines by it.
    words = f"%s{worker.replace('%', '%%')}%s, %s", *turn.split(worker, 1), what
    try:
        context.run(_log.log, level, *words, exc_info=error, extra=facts)
    except Exception as broken:
        # A filter raised, which must not decide what becomes of the job. Show it, but not by the
        # module traceback, which may raise again.
        sys.__excepthook__(type(broken), broken, broken.__traceback__)


def named_in_logs(job: Job) -> tuple[str, dict[str, Any]]:
    """Return a job's name for a log line, safe whatever its ids hold, and the extra fields."""
    ids = {key: job.args.get(key) for key in ID_KEYS}
    organization, actor, impersonator = (brief(id_text(id) or id) for id in ids.values())
    who = actor if ids[IMPERSONATOR_KEY] is None else f"{impersonator} as {actor}"
    name = f"job {brief(job.id)} of {job.worker} (organization {organization}, actor {who})"
    return name, {"job_id": job.id, "worker": job.worker, **ids}


def _what_follows(attempt: Attempt, verdict: Verdict) -> str:
    """Say, for the log line, what becomes of the job now; "" if it has ended."""
    again = f"; again in {round(verdict.delay, 1):.12g} s"
    return attempt.cut_off() or ("" if verdict.state in FINISHED else attempt.closing() or again)
