"""Logging an audit event through structlog and to the sinks."""

from __future__ import annotations

from typing import Any

from sigra import config
from sigra.audit import declare
from sigra.audit.action import accepted
from sigra.audit.channel import LEVELS, Channel, open_channel, send
from sigra.audit.compose import NO_DETAILS, Composed, Details, compose
from sigra.audit.event import AuditEvent, AuditResult, Outcome, result_of
from sigra.audit.failure import LAST_RESORT, report_crash, settled
from sigra.audit.fanout import write_record
from sigra.audit.form import STRICT, checked_form, rejected_event
from sigra.audit.lookup import schema_in_force, warn_of_no_job
from sigra.audit.read import ABSENT, type_name
from sigra.audit.stats import audit_stats, emitted, failed
from sigra.context import Running, running
from sigra.errors import AuditRejectedError
from sigra.scope import AuditScope

__all__ = ["audit_stats", "log", "log_lifecycle", "log_safe"]

_FILTERED = AuditResult("disabled", "filtered out by its level")
_NO_SCHEMA = AuditResult("disabled", "no audit_schema: none passed, of the job, or configured")


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
    try:
        channel: Any = open_channel(outcome)
    except Exception as error:
        channel = error
    if channel is None and not config.current.sinks:
        return _FILTERED
    composed = compose(action, outcome, scope, details, job, ordinal)
    faults = _deliver(composed, channel, in_force)
    event, redacted = composed[0], composed[2]
    paths = tuple(redacted) if redacted else ()
    if faults:
        return result_of("failed", "; ".join(faults), event, paths)
    return result_of("emitted", None, event, paths)


def _deliver(composed: Composed, channel: Any, schema: Any) -> list[str]:
    """Hand the event to structlog and to each sink; return who raised, by type, no more."""
    faults: list[str] = []
    if channel is not None:
        try:
            if type(channel) is not Channel:
                raise channel
            send(channel, composed)
        except Exception as error:
            faults.append(f"structlog raised {type_name(type(error))}")
    sinks = config.current.sinks
    if sinks or schema is not AuditEvent:
        write_record(composed[0], schema, sinks, faults)
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
        composed = rejected_event(error, scope, details, job, ordinal)
        try:
            channel: Any = open_channel(composed[0].outcome)
        except Exception as broken:
            channel = broken
        reasons += _deliver(composed, channel, in_force)
    return AuditResult("failed", "; ".join(reasons))


def _log_safe(
    action: Any = ABSENT, scope: Any = ABSENT, /, *surplus: Any, outcome: Any = "success",
    target_id: Any = None, target_type: Any = None, metadata: Any = None, actor_type: Any = None,
    ip_address: Any = None, user_agent: Any = None, occurred_at: Any = None, actor_id: Any = ABSENT,
    organization_id: Any = ABSENT, audit_schema: Any = ABSENT, **unknown: Any,
) -> AuditResult:  # fmt: skip
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
        if result.status != "emitted":
            return settled(result, action)
        for _ in emitted:
            break
        return result
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
