"""What an audit event is, and what a caller learns of the one it logged."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal, NoReturn, TypeVar

from sigra.audit.action import check_action
from sigra.ids import uuid7

__all__ = ["AuditEvent", "AuditResult", "Outcome", "Status", "check_action"]

Outcome = Literal["success", "failure", "error"]
Status = Literal["emitted", "disabled", "failed"]

C = TypeVar("C", bound=type)


def _refuse_set(_: object, name: str, __: object) -> NoReturn:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _sealed(cls: C) -> C:
    # What dataclass() writes for a frozen slotted class raises TypeError for an unknown name.
    cls.__setattr__ = _refuse_set  # type: ignore[assignment]
    return cls


def _now() -> datetime:
    return datetime.now(timezone.utc)


@_sealed
@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One thing that was done: what, by whom, for which organization, and how it ended.

    ``actor_id`` is who acted (the impersonator where there is one),
    ``effective_user_id`` as whom. Ids are strings, ``metadata`` is plain JSON without
    secrets, ``occurred_at`` is aware UTC. ``worker``, ``job_id`` and ``attempt`` are
    None outside a job.
    """

    event_id: str = field(default_factory=uuid7)
    action: str
    outcome: Outcome = "success"
    organization_id: str | None = None
    actor_id: str | None = None
    effective_user_id: str | None = None
    actor_type: str | None = None
    target_id: str | None = None
    target_type: str | None = None
    ip_address: str | None = None
    user_agent: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    occurred_at: datetime = field(default_factory=_now)
    worker: str | None = None
    job_id: str | None = None
    attempt: int | None = None


@_sealed
@dataclass(frozen=True, slots=True)
class AuditResult:
    """What became of one call of ``log_safe``.

    ``status`` is "emitted", "disabled" or "failed". ``reason`` says why where it is not
    emitted. ``event`` is what was logged, or None. ``redacted`` holds the paths
    (``$.card.number`` in the metadata, or the name of a field) whose values were
    secrets.
    """

    status: Status
    reason: str | None = None
    event: AuditEvent | None = None
    redacted: tuple[str, ...] = ()


class _EventDraft:
    """An event while it is written: the same slots, not yet frozen.

    Turning a draft into the event costs a quarter of what the frozen class's own
    ``__init__`` does, and one event is made for each call.
    """

    __slots__ = tuple(AuditEvent.__dataclass_fields__)

    def __init__(
        self, event_id: str, action: str, outcome: Outcome, organization_id: str | None,
        actor_id: str | None, effective_user_id: str | None, actor_type: str | None,
        target_id: str | None, target_type: str | None, ip_address: str | None,
        user_agent: str | None, metadata: dict[str, Any], occurred_at: datetime,
        worker: str | None, job_id: str | None, attempt: int | None,
    ) -> None:  # fmt: skip
        self.event_id = event_id
        self.action = action
        self.outcome = outcome
        self.organization_id = organization_id
        self.actor_id = actor_id
        self.effective_user_id = effective_user_id
        self.actor_type = actor_type
        self.target_id = target_id
        self.target_type = target_type
        self.ip_address = ip_address
        self.user_agent = user_agent
        self.metadata = metadata
        self.occurred_at = occurred_at
        self.worker = worker
        self.job_id = job_id
        self.attempt = attempt


class _ResultDraft:
    __slots__ = tuple(AuditResult.__dataclass_fields__)

    def __init__(
        self,
        status: Status,
        reason: str | None,
        event: AuditEvent | None,
        redacted: tuple[str, ...],
    ) -> None:
        self.status = status
        self.reason = reason
        self.event = event
        self.redacted = redacted


def event_and_fields(
    action: str, outcome: Outcome, organization_id: str | None, actor_id: str | None,
    effective_user_id: str | None, actor_type: str | None, target_id: str | None,
    target_type: str | None, ip_address: str | None, user_agent: str | None,
    metadata: dict[str, Any], occurred_at: datetime, event_id: str, worker: str | None,
    job_id: str | None, attempt: int | None,
) -> tuple[AuditEvent, dict[str, Any]]:  # fmt: skip
    """Make an event from checked values, and the dict that a log line is made of."""
    event: Any = _EventDraft(
        event_id, action, outcome, organization_id, actor_id, effective_user_id, actor_type,
        target_id, target_type, ip_address, user_agent, metadata, occurred_at, worker, job_id,
        attempt,
    )  # fmt: skip
    event.__class__ = AuditEvent
    return event, {
        "event": action,
        "outcome": outcome,
        "event_id": event_id,
        "organization_id": organization_id,
        "actor_id": actor_id,
        "effective_user_id": effective_user_id,
        "actor_type": actor_type,
        "target_id": target_id,
        "target_type": target_type,
        "ip_address": ip_address,
        "user_agent": user_agent,
        "metadata": metadata,
        "occurred_at": occurred_at,
        "worker": worker,
        "job_id": job_id,
        "attempt": attempt,
    }


def result_of(
    status: Status, reason: str | None, event: AuditEvent | None, redacted: tuple[str, ...]
) -> AuditResult:
    """Make a result from its four values in order, faster than its own ``__init__``."""
    draft: Any = _ResultDraft(status, reason, event, redacted)
    draft.__class__ = AuditResult
    return draft  # type: ignore[no-any-return]


def copied(plain: Any) -> Any:
    """Copy plain JSON, containers and all."""
    if type(plain) is dict:
        return {key: copied(value) for key, value in plain.items()}
    if type(plain) is list:
        return [copied(value) for value in plain]
    return plain
