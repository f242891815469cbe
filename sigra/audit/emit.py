"""Logging an audit event through structlog and to the sinks; the only user of structlog."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import structlog

from sigra import config
from sigra.audit import declare
from sigra.audit.action import accepted
from sigra.audit.compose import NO_DETAILS, Details, compose
from sigra.audit.event import AuditEvent, AuditResult, Outcome, log_fields, result_of
from sigra.audit.failure import LAST_RESORT, report_crash, settled
from sigra.audit.fanout import write_record
from sigra.audit.form import LEVELS, STRICT, checked_form, rejected_event
from sigra.audit.lookup import schema_in_force, warn_of_no_job
from sigra.audit.read import ABSENT, type_name
from sigra.audit.stats import audit_stats, failed
from sigra.context import Running, running
from sigra.errors import AuditRejectedError
from sigra.scope import AuditScope

__all__ = ["audit_stats", "log", "log_lifecycle", "log_safe"]

_NUMBERS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_FILTERED = AuditResult("disabled", "filtered out by its level")
_NO_SCHEMA = AuditResult("disabled", "no audit_schema: none passed, of the job, or configured")


class _Channel(NamedTuple):
    """A bound logger, what it was made from, and how to ask it for its level."""

    made_from: tuple[Any, ...]
    logger: Any
    is_enabled: Callable[[Any, int], bool] | None


_channel: _Channel | None = None


def _open_channel() -> _Channel:
    """Return a logger as structlog is configured now.

    It is kept only where the application keeps its own, and only while nothing that
    it was made from has changed; so capture_logs, capsys and a later configure() work.
    """
    global _channel
    settings = structlog.get_config()
    known = _channel
    if known is not None and settings["cache_logger_on_first_use"] is True:
        processors, wrapper, context, factory, stdout, stderr = known.made_from
        if (
            settings["processors"] is processors
            and settings["wrapper_class"] is wrapper
            and settings["logger_factory"] is factory
            and settings["context_class"] is context
            and sys.stdout is stdout
            and sys.stderr is stderr
        ):
            return known
    logger = structlog.get_logger("sigra.audit").bind()
    kind: Any = type(logger)
    names = ("processors", "wrapper_class", "context_class", "logger_factory")
    channel = _Channel(
        (*(settings[name] for name in names), sys.stdout, sys.stderr),
        logger,
        # On the class: a generic BoundLogger would take the name for that of a log method.
        getattr(kind, "is_enabled_for", None) or getattr(kind, "isEnabledFor", None),
    )
    _channel = channel if settings["cache_logger_on_first_use"] is True else None
    return channel


class _Broken:
    """Stand in for a log method that could not be had; raise, when called, why not."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise self.error


def _log_method(outcome: str) -> Any:
    """Return the log method for an outcome, or None where its level is filtered out."""
    level = LEVELS[outcome]
    try:
        _, logger, is_enabled = _open_channel()
        if is_enabled is not None and not is_enabled(logger, _NUMBERS[level]):
            return None
        return getattr(logger, level)
    except Exception as error:
        return _Broken(error)


def _log(
    action: Any,
    scope: Any,
    outcome: Any,
    details: Details,
    schema: Any,
    job: Running | None,
    ordinal: int,
    surplus: tuple[Any, ...] = (),
    unknown: dict[str, Any] | None = None,
) -> AuditResult:
    """Log one event and say what became of it; raise ``AuditRejectedError`` for a bad call."""
    if (
        type(action) is not str
        or action not in accepted
        or type(outcome) is not str
        or outcome not in LEVELS
        or scope is ABSENT
        or surplus
        or unknown
    ):
        action, scope, outcome = checked_form(action, scope, outcome, surplus, unknown or {})
    in_force = schema_in_force(schema, job)
    if in_force is None:
        if schema is ABSENT and job is None and type(scope) is AuditScope:
            warn_of_no_job()
        return _NO_SCHEMA
    log_method = _log_method(outcome)
    if log_method is None and not config.current.sinks:
        return _FILTERED
    event, redacted, nested = compose(action, outcome, scope, details, job, ordinal)
    faults = _deliver(event, log_method, in_force, nested)
    if faults:
        return result_of("failed", "; ".join(faults), event, tuple(redacted))
    return result_of("emitted", None, event, tuple(redacted))


def _deliver(event: AuditEvent, log_method: Any, schema: Any, nested: bool) -> list[str]:
    """Hand the event to structlog and to each sink; return who raised, by type, no more."""
    faults: list[str] = []
    if log_method is not None:
        try:
            log_method(event.action, **log_fields(event, nested))
        except Exception as error:
            faults.append(f"structlog raised {type_name(type(error))}")
    sinks = config.current.sinks
    if sinks or schema is not AuditEvent:
        write_record(event, schema, sinks, faults)
    return faults


def _reject(
    error: AuditRejectedError,
    scope: Any,
    details: Details,
    schema: Any,
    job: Running | None,
    ordinal: int,
) -> AuditResult:
    """Log, where anything is logged, that something was rejected, with the ids there are."""
    reasons = [f"rejected at {error.field}: {error.reason}"]
    in_force = schema_in_force(schema, job)
    if in_force is not None:
        event = rejected_event(error, scope, details, job, ordinal)
        reasons += _deliver(event, _log_method(event.outcome), in_force, nested=False)
    return AuditResult("failed", "; ".join(reasons))


def _log_safe(
    action: Any = ABSENT,
    scope: Any = ABSENT,
    /,
    *surplus: Any,
    outcome: Any = "success",
    target_id: Any = None,
    target_type: Any = None,
    metadata: Any = None,
    actor_type: Any = None,
    ip_address: Any = None,
    user_agent: Any = None,
    occurred_at: Any = None,
    organization_id: Any = ABSENT,
    actor_id: Any = ABSENT,
    audit_schema: Any = ABSENT,
    **unknown: Any,
) -> AuditResult:
    try:
        details = (
            target_id, target_type, metadata, actor_type, ip_address, user_agent,
            occurred_at, organization_id, actor_id,
        )  # fmt: skip
        job = running.get()
        ordinal = 0
        if job is not None:
            job.ordinal = ordinal = job.ordinal + 1
        try:
            result = _log(
                action, scope, outcome, details, audit_schema, job, ordinal, surplus, unknown
            )
        except AuditRejectedError as error:
            if surplus and surplus[0] is STRICT:
                raise
            scope = unknown.get("scope") if scope is ABSENT else scope
            result = _reject(error, scope, details, audit_schema, job, ordinal)
        return settled(result, action)
    except Exception as error:
        # Counted first and without a call, for which the stack may have no room.
        for _ in failed:
            break
        if surplus and surplus[0] is STRICT and type(error) is AuditRejectedError:
            raise
        kind = type(error)
    try:
        return report_crash(kind, action)
    except Exception:
        return LAST_RESORT


def _log_strictly(
    action: Any = ABSENT, scope: Any = ABSENT, /, *surplus: Any, **keywords: Any
) -> AuditResult:
    return _log_safe(action, scope, STRICT, *surplus, **keywords)


log_safe = declare.runs(_log_safe, declare.log_safe)
log = declare.runs(_log_strictly, declare.log)


def log_lifecycle(attempt: Running, action: str, outcome: Outcome) -> AuditResult:
    """Log the end of a job's attempt, as event 0 of it; never raise an ``Exception``."""
    try:
        try:
            result = _log(action, attempt.scope, outcome, NO_DETAILS, ABSENT, attempt, 0)
        except AuditRejectedError as error:
            result = _reject(error, attempt.scope, NO_DETAILS, ABSENT, attempt, 0)
        return settled(result, action)
    except Exception as error:
        for _ in failed:
            break
        kind = type(error)
    try:
        return report_crash(kind, action)
    except Exception:
        return LAST_RESORT
