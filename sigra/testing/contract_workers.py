"""The workers that the conformance suite sends through a backend.

Import this module in the consumer. Each run appends one JSON line to the file that
``SIGRA_CONTRACT_RECORD`` names, and ``SIGRA_CONTRACT_EVENTS`` receives the audit events
once ``record_events()`` was called, so that the suite sees what happened elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from sigra.audit.emit import log_safe
from sigra.audit.event import AuditEvent
from sigra.config import configure
from sigra.context import current_job
from sigra.decorators import tenant_worker, worker
from sigra.job import JobInfo
from sigra.outcome import Cancel, Failure, Ok, Snooze
from sigra.scope import AuditScope
from sigra.store.lines import JSONLinesSink

RECORD = "SIGRA_CONTRACT_RECORD"
EVENTS = "SIGRA_CONTRACT_EVENTS"

mark: ContextVar[str | None] = ContextVar("sigra_contract_mark", default=None)
"""What jobs leave in their contexts, where no other job may find it."""


def record_events() -> JSONLinesSink:
    """Write this process's audit events to the file that the environment names.

    Returns the sink, for the caller to close.
    """
    sink = JSONLinesSink(Path(os.environ[EVENTS]))
    configure(sinks=[sink], audit_schema=AuditEvent)
    return sink


def record(scope: AuditScope | None, args: Mapping[str, Any], **facts: Any) -> JobInfo:
    """Append one line, in one write, so that lines of several processes do not mix."""
    job = current_job()
    assert job is not None
    line = {
        "worker": job.worker,
        "job_id": job.id,
        "queue": job.queue,
        "backend": job.backend,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "snoozes": job.snoozes,
        "enqueued_at": job.enqueued_at.isoformat(),
        "organization_id": _id(scope, "active_organization"),
        "actor_id": _id(scope, "user"),
        "impersonating_from": _id(scope, "impersonating_from"),
        "args": args,
        "pid": os.getpid(),
        "at": time.time(),
        **facts,
    }
    data = json.dumps(line).encode() + b"\n"
    descriptor = os.open(os.environ[RECORD], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
    return job


def _id(scope: AuditScope | None, member: str) -> str | None:
    identity = getattr(scope, member) if scope is not None else None
    return identity.id if identity is not None else None


@tenant_worker(name="sigra.contract.echo", audit_schema=AuditEvent)
def echo(scope: AuditScope, args: Mapping[str, Any], job: JobInfo) -> Ok:
    """Record what arrived and log two audit events."""
    try:
        args["organization_id"] = "changed"  # type: ignore[index]
        frozen = False
    except TypeError:
        frozen = True
    log_safe("contract.echo", scope, target_id=args.get("target"))
    log_safe("contract.echo_again", scope)
    # Last: whoever waits for the record finds the events too.
    record(scope, args, frozen=frozen, same_job=job == current_job())
    return Ok(args.get("value"))


@tenant_worker(name="sigra.contract.echo_async", audit_schema=AuditEvent)
async def echo_async(scope: AuditScope, args: Mapping[str, Any]) -> Any:
    """Do the same across an await, and leave a mark."""
    found, mine = mark.get(), object()
    mark.set(repr(mine))
    await asyncio.sleep(0.01)
    log_safe("contract.echo", scope)
    record(scope, args, found=found, kept=mark.get() == repr(mine))
    return args.get("value")


@tenant_worker(name="sigra.contract.named", audit_schema=AuditEvent)
def named(scope: AuditScope, number: int, flag: bool = False, **rest: Any) -> None:
    """Record args that were bound by name."""
    record(scope, {"number": number, "flag": flag, "rest": rest})


POSTPONED = 1
"""For how many seconds."""


@tenant_worker(name="sigra.contract.postponed", delay=POSTPONED)
def postponed(scope: AuditScope, args: Mapping[str, Any]) -> None:
    """Record a job that is due later by its decorator."""
    record(scope, args)


@worker(name="sigra.contract.agnostic")
def agnostic(args: Mapping[str, Any]) -> None:
    """Record a job that has no tenant."""
    record(None, args)


class MuteError(Exception):
    """An error that has no text."""

    def __str__(self) -> str:
        raise TypeError("mute")


@tenant_worker(name="sigra.contract.ends", audit_schema=AuditEvent, action="contract.ends")
def ends(scope: AuditScope, args: Mapping[str, Any], how: str) -> Any:
    """Leave a mark, and end in the way that args ask for."""
    record(scope, args, found=mark.get())
    mark.set(how)
    match how:
        case "value":
            return {"done": True}
        case "failure":
            return Failure("said so")
        case "cancel":
            return Cancel("said so")
        case "raise":
            raise ValueError("said so")
        case "mute":
            raise MuteError
        case "unwritable":
            raise ValueError("\0, which PostgreSQL cannot write")
        case "exit":
            raise SystemExit(3)
        case "interrupt":
            raise KeyboardInterrupt
    return None


@tenant_worker(name="sigra.contract.recovers", audit_schema=AuditEvent, action="contract.recovers")
def recovers(scope: AuditScope, args: Mapping[str, Any], job: JobInfo, failures: int) -> Any:
    """Raise in the first ``failures`` attempts, then succeed."""
    record(scope, args)
    if job.attempt <= failures:
        raise MuteError if args.get("mute") else RuntimeError(f"attempt {job.attempt}")
    return "recovered"


@tenant_worker(name="sigra.contract.snoozes", audit_schema=AuditEvent, action="contract.snoozes")
def snoozes(scope: AuditScope, args: Mapping[str, Any], job: JobInfo, times: int) -> Any:
    """Snooze for a second ``times`` times, then succeed."""
    record(scope, args)
    return Snooze(1) if job.snoozes < times else "awake"


@tenant_worker(name="sigra.contract.wavers", audit_schema=AuditEvent)
def wavers(scope: AuditScope, args: Mapping[str, Any], job: JobInfo) -> Any:
    """Snooze and fail by turns in two attempts, then succeed."""
    record(scope, args)
    if job.snoozes < job.attempt:
        return Snooze(1)
    return Failure("not yet") if job.attempt == 1 else "steady"


@tenant_worker(name="sigra.contract.waits", audit_schema=AuditEvent, action="contract.waits")
def waits(scope: AuditScope, args: Mapping[str, Any], seconds: float) -> None:
    """Take ``seconds``, recording and auditing the beginning and the end."""
    record(scope, args, phase="begun")
    log_safe("contract.begun", scope)
    time.sleep(seconds)
    record(scope, args, phase="ended")
    log_safe("contract.ended", scope)


@tenant_worker(name="sigra.contract.kills", audit_schema=AuditEvent)
def kills(scope: AuditScope, args: Mapping[str, Any]) -> None:
    """Kill the consumer that runs it."""
    record(scope, args)
    os.kill(os.getpid(), signal.SIGKILL)


@tenant_worker(name="sigra.contract.kills_once", audit_schema=AuditEvent)
def kills_once(scope: AuditScope, args: Mapping[str, Any], job: JobInfo) -> None:
    """Kill the consumer that runs it first, and fail from then on."""
    first = job.id not in Path(os.environ[RECORD]).read_text()
    record(scope, args)
    if first:
        os.kill(os.getpid(), signal.SIGKILL)
    raise RuntimeError("not the first")
