"""What an audit event is, and what the caller who logged one is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import FrozenInstanceError, dataclass, field, make_dataclass
from datetime import datetime, timezone
from typing import Any, Literal, NoReturn

from sigra.ids import uuid7

Outcome = Literal["success", "failure", "error"]
Status = Literal["emitted", "disabled", "failed"]
"""Inside ``log_many`` also "held", which no caller is given."""

LEVELS: dict[str, str] = {"success": "info", "failure": "warning", "error": "error"}
"""The outcomes, and the level at which an event of each is logged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One thing that was done: what, by whom, for which organization, and how it ended.

    ``actor_id`` is who acted (the impersonator where there is one),
    ``effective_user_id`` as whom. Ids are strings, ``metadata`` is plain JSON without
    secrets (read-only once sinks are given it: copy it to change it), ``occurred_at`` is aware
    UTC. ``worker``, ``job_id`` and ``attempt`` are None outside a job.
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
    occurred_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    worker: str | None = None
    job_id: str | None = None
    attempt: int | None = None


EVENT_FIELDS: tuple[str, ...] = tuple(AuditEvent.__slots__)
"""The names of an event's fields, in their order."""


@dataclass(frozen=True, slots=True)
class AuditResult:
    """What became of one call of ``log_safe``.

    ``status`` is "emitted", "disabled" or "failed"; ``reason`` says why it is not "emitted".
    ``event`` is what was logged, or None. ``redacted`` holds the paths (``$.card.number`` in the
    metadata, or the name of a field) whose values or keys were secrets, at most 1,000 of the
    metadata.
    """

    status: Status
    reason: str | None = None
    event: AuditEvent | None = None
    redacted: tuple[str, ...] = ()


def _refuse_set(_: object, name: str, __: object) -> NoReturn:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


# What dataclass() writes for a frozen slotted class raises TypeError for an unknown name.
AuditEvent.__setattr__ = AuditResult.__setattr__ = _refuse_set  # type: ignore[method-assign]


# Each call makes a result, and a frozen dataclass is slow to make. So the values are set on an
# object of a plain class, which is then given the frozen class: a quarter of the time. Nothing else
# may refer to it then: without the GIL, all threads would have to stop for that.
_ResultDraft: Any = type("_ResultDraft", (), {"__slots__": AuditResult.__slots__})


def result_of(status: Any, reason: str | None, event: Any, redacted: Any) -> AuditResult:
    """Make a result of checked values. The event may be a log line, until it is read."""
    result = _ResultDraft()
    result.status, result.reason, result.event, result.redacted = status, reason, event, redacted
    result.__class__ = AuditResult
    return result  # type: ignore[no-any-return]


_EventDraft = make_dataclass("_EventDraft", EVENT_FIELDS, slots=True)


def event_of(values: Iterable[Any]) -> AuditEvent:
    """Make an event of checked values, in the order of its fields."""
    event = _EventDraft(*values)
    event.__class__ = AuditEvent
    return event  # type: ignore[no-any-return]


_event: Any = AuditResult.__dict__["event"]


def _read_event(result: AuditResult) -> AuditEvent | None:
    """Return a result's event; make it from the log line when it is first read."""
    event = _event.__get__(result)
    if type(event) is dict:
        _event.__set__(result, event := event_of([*event.values()][: len(EVENT_FIELDS)]))
    return event  # type: ignore[no-any-return]


AuditResult.event = property(_read_event, _event.__set__)  # type: ignore[misc, assignment]
