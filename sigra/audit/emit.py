"""Log an audit event through structlog and to the sinks."""

from __future__ import annotations

import sys
import warnings
from contextlib import suppress
from itertools import count
from types import CodeType
from typing import Any
from weakref import WeakKeyDictionary

from sigra import config
from sigra.audit.action import accepted
from sigra.audit.channel import open_channel
from sigra.audit.compose import EXACT, LENIENT, NO_DETAILS, REGULAR, Details, compose
from sigra.audit.event import LEVELS, AuditEvent, AuditResult, Outcome, event_of, result_of
from sigra.audit.failure import report
from sigra.audit.form import STRICT, called_like, checked_form, well_formed_call
from sigra.audit.read import ABSENT, type_name
from sigra.audit.sanitize import check_metadata
from sigra.audit.sink import fault_of, write_record
from sigra.audit.stats import emitted, failed
from sigra.audit.transaction import NoAuditStoreError, Transaction, stores, transaction_of
from sigra.context import Attempt, running
from sigra.errors import AuditRejectedError
from sigra.schema import check_schema
from sigra.scope import AuditScope

BEGUN, REJECTED = "sigra.job.begun", "sigra.audit.rejected"

_FILTERED = AuditResult("disabled", "left out by its logger: by level, or a dictConfig disabled it")
_NO_SCHEMA = AuditResult("disabled", "no audit_schema was passed, declared or configured")
_NO_JOB = (
    "log_safe() logged nothing: it was given a worker's scope where no job runs (a plain call of a "
    "worker, or a thread that its body started). Pass audit_schema=, or set it with configure()."
)
# Weak references, so that a function made at run time can be freed.
_warned = WeakKeyDictionary[CodeType, object]()
# From 3.14 on a context may have its own: always, without the GIL.
_filters: Any = getattr(warnings, "_get_filters", lambda: warnings.filters)
# Made now, for when there is no room left to make anything.
_LAST_RESORT = AuditResult("failed", "the stack or the memory ran out while the event was built")


@called_like(well_formed_call)
def log_safe(
    action: Any = ABSENT, scope: Any = ABSENT, /, *surplus: Any, outcome: Any = "success",
    target_id: Any = None, target_type: Any = None, metadata: Any = None, actor_type: Any = None,
    ip_address: Any = None, user_agent: Any = None, occurred_at: Any = None, actor_id: Any = ABSENT,
    organization_id: Any = ABSENT, audit_schema: Any = ABSENT, **unknown: Any,
) -> AuditResult:  # fmt: skip
    """Log an audit event; never raise an ``Exception``, and return what became of it.

    ``action``: a name such as "invoice.close". ``scope``: a job's ``AuditScope``, the host's
    request scope (an object or a dict with ``user``, ``active_organization`` and perhaps
    ``impersonating_from``) or None; ids that are passed win over it. ``outcome``: "success",
    "failure" or "error". ``target_id``: str, int or UUID. ``target_type``, ``actor_type``,
    ``ip_address`` and ``user_agent``: str. ``metadata``: a mapping; if it is over 8,192 bytes of
    JSON, its digest takes its place. ``occurred_at``: an aware datetime; by default now.
    ``audit_schema``: by default that of the running job or of ``configure()``; with None nothing is
    logged. ``conn``: a connection or session, in whose transaction a store writes, behind a
    savepoint. Secrets in ``metadata`` and in texts are redacted.
    """
    try:
        # Here, where the report of a failure names it.
        action = unknown.pop("action", ABSENT) if action is ABSENT else action
        details = (target_id, target_type, metadata, actor_type, ip_address, user_agent,
                   occurred_at, organization_id, actor_id)  # fmt: skip
        result = _log(action, scope, outcome, details, audit_schema, surplus, unknown)
        if result.status == "emitted":
            next(emitted)
            return result
        return report(result, action)
    except Exception as error:
        if surplus and surplus[0] is STRICT and type(error) is AuditRejectedError:
            next(failed)
            raise
        kind = type(error)
    try:
        return report(AuditResult("failed", f"{type_name(kind)} while the event was built"), action)
    except Exception:
        # Counted without a call, for which the stack may have no room.
        for _ in failed:
            break
        return _LAST_RESORT


@called_like(well_formed_call)
def log(
    action: Any = ABSENT, scope: Any = ABSENT, /, *surplus: Any, **keywords: Any
) -> AuditResult:
    """Log an audit event as ``log_safe`` does, but raise for a call that is not well formed.

    Where ``log_safe`` would log ``sigra.audit.rejected``, or mend a value, it raises
    ``AuditRejectedError`` and writes nothing: for a text or an id that is of another type, too
    long or not well-formed; for a text that has a secret (a target's id too); and for ``metadata``
    that is not a dict of strict JSON (as a job's args are), has a secret or takes over 8,192 bytes.

    What structlog, a sink or the schema raises is still only in the result. With ``conn``, what
    the store raises while it writes in that transaction is raised.
    """
    tolerant: Any = log_safe
    transaction = transaction_of(keywords.get("conn"), strict=True)
    if transaction is not None:
        if not stores():
            raise NoAuditStoreError
        keywords["conn"] = transaction
    result: AuditResult = tolerant(action, scope, STRICT, *surplus, **keywords)
    if transaction is not None and transaction.error is not None:
        raise transaction.error
    return result


def log_lifecycle(attempt: Attempt, action: str, outcome: Outcome) -> AuditResult:
    """Log the end of a job's attempt, as event 0 of it; never raise an ``Exception``."""
    # Apart from the body's own numbers, as are those of what is logged while this event is.
    end = Attempt(attempt.job, attempt.number, attempt.snoozes, ordinals=count(-1, -1))
    token = running.set(end)
    try:
        return log_safe(action, attempt.scope, outcome=outcome)
    finally:
        running.reset(token)


def log_begin(attempt: Attempt) -> str | None:
    """Write to every sink that an attempt begins; one that queues events writes it at once.

    Return None if a sink took it, otherwise why none did.
    """
    # Not through a store's queue: its failures come later and reach no caller.
    sinks, faults, alone = config.current.sinks, list[str](), Transaction(None, strict=True)
    schema = attempt.job.definition.schema or config.current.audit_schema or AuditEvent
    # Event 0 is the attempt's end, and from 1 on they are the body's.
    begun = compose(BEGUN, "success", attempt.scope, NO_DETAILS, attempt, -1, LENIENT)[0]
    taken = write_record(event_of(begun.values()), schema, sinks, faults, alone, flushing=True)
    next(failed if faults or not sinks else emitted)
    why = f"no sink took the audit_required event: {'; '.join(faults) or 'none is configured'}"
    return None if taken else why


def _log(
    action: Any, scope: Any, outcome: Any, details: Details, schema: Any, surplus: Any, unknown: Any
) -> AuditResult:
    """Log an event; if the call is not well formed and not strict, log that it was rejected."""
    attempt = running.get()
    ordinal = 0 if attempt is None else next(attempt.ordinals) + 1  # 0 is the end's
    if scope is ABSENT:
        scope = unknown.pop("scope", ABSENT)
    if schema is ABSENT:
        schema = None if attempt is None else attempt.job.definition.schema
        if schema is None:
            schema = config.current.audit_schema
        if schema is None and attempt is None and type(scope) is AuditScope:
            _warn_of_no_job(5 if surplus else 4)  # frames up to the caller: log() is one more
    transaction = transaction_of(unknown.pop("conn", None), strict=False) if unknown else None
    try:
        if (
            surplus or unknown or scope is ABSENT or not type(action) is type(outcome) is str
            or action not in accepted or outcome not in LEVELS
        ):  # fmt: skip
            action, outcome = checked_form(action, scope, outcome, surplus, unknown)
            if surplus:
                _check_exact(action, outcome, scope, details, schema)
        return _emit(action, outcome, scope, details, schema, attempt, ordinal, transaction)
    except AuditRejectedError as error:
        if surplus and surplus[0] is STRICT:
            raise
        # It has the ids that can be read, and no other value that was passed.
        metadata = {"field": error.field, "reason": error.reason}
        told = (None, None, metadata, None, None, None, None, *details[-2:])
        result = _emit(REJECTED, "failure", scope, told, schema, attempt, ordinal, transaction)
        more = f"; {result.reason}" if result.status == "failed" else ""
        return AuditResult("failed", f"rejected at {error.field}: {error.reason}{more}")


def _check_exact(action: str, outcome: Outcome, scope: Any, details: Details, schema: Any) -> None:
    """Raise ``AuditRejectedError`` for what ``log_safe`` would mend or only report."""
    line, redacted = compose(action, outcome, scope, details, None, 0, EXACT)
    check_metadata(details[2], line["metadata"], redacted)
    try:
        check_schema(schema)
    except TypeError as error:
        raise AuditRejectedError("audit_schema", str(error)) from None


def _emit(
    action: str, outcome: Outcome, scope: Any, details: Details, schema: Any,
    attempt: Attempt | None, ordinal: int, transaction: Transaction | None,
) -> AuditResult:  # fmt: skip
    """Compose an event if it is wanted, and hand it to structlog and to each sink."""
    if schema is None:
        return _NO_SCHEMA
    faults = [] if transaction is None or stores() else [f"conn: {NoAuditStoreError()}"]
    channel, taken, sinks = None, True, config.current.sinks
    try:
        channel = open_channel(outcome)
    except Exception as error:
        faults.append(fault_of("structlog", error))
    if channel is None and not sinks and not faults:
        return _FILTERED
    strict = LENIENT if action is REJECTED else REGULAR
    line, redacted = compose(action, outcome, scope, details, attempt, ordinal, strict)
    # If no sink needs the event now, the result makes it from the line when it is read.
    event: Any = event_of(line.values()) if sinks or schema is not AuditEvent else line
    try:
        taken = channel is None or channel.send(line)
    except Exception as error:
        faults.append(fault_of("structlog", error))
    if event is not line:
        write_record(event, schema, sinks, faults, transaction)
    if not (taken or sinks or faults):
        return _FILTERED
    # An event that is held is counted by whoever writes it later.
    held = transaction is not None and transaction.held is not None
    status: Any = "failed" if faults else "held" if held else "emitted"
    return result_of(status, "; ".join(faults) or None, event, tuple(redacted))


def _warn_of_no_job(level: int) -> None:
    """Warn, at the line that called ``log_safe`` or ``log``, that it had a scope but no job."""
    with suppress(Exception):  # a warning that is an error must not become log_safe's
        caller = sys._getframe(level - 1).f_code
        # Once for a function, and again in a block that catches warnings, as a test is.
        if _warned.get(caller) is not (filters := _filters()):
            _warned[caller] = filters
            warnings.warn(_NO_JOB, RuntimeWarning, level)
