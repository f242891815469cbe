"""Whether a call is well formed, and the event that stands for one that is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sigra.audit.action import action_fault
from sigra.audit.compose import Composed, Details, checked_id, compose, read_member_id
from sigra.audit.event import Outcome
from sigra.audit.read import ABSENT
from sigra.errors import AuditRejectedError
from sigra.scope import scope_from_ids

if TYPE_CHECKING:
    from sigra.context import Running

REJECTED = "sigra.audit.rejected"

_OUTCOMES = ("success", "failure", "error")

STRICT: Any = object()
"""As the first surplus argument of a call: its caller wants to be told by an exception.
No one else has it, so no keyword or value that a tenant sent can ask for the same."""


def checked_form(
    action: Any, scope: Any, outcome: Any, surplus: tuple[Any, ...], unknown: dict[str, Any]
) -> tuple[str, Any, Outcome]:
    """Return action, scope and outcome as they were meant; raise ``AuditRejectedError``.

    The first two may have come by keyword.
    """
    if action is ABSENT:
        action = unknown.pop("action", ABSENT)
    if scope is ABSENT:
        scope = unknown.pop("scope", ABSENT)
    for field, value in (("action", action), ("scope", scope)):
        if value is ABSENT:
            raise AuditRejectedError(field, "it is missing")
    if len(surplus) > (1 if surplus and surplus[0] is STRICT else 0):
        raise AuditRejectedError("scope", "what follows it must be passed by keyword")
    if unknown:
        raise AuditRejectedError(_shown(next(iter(unknown))), "no such keyword")
    action = _exact(action)
    reason = action_fault(action)
    if reason is not None:
        raise AuditRejectedError("action", f"it {reason}")
    outcome = _exact(outcome)
    if type(outcome) is not str or outcome not in _OUTCOMES:
        raise AuditRejectedError("outcome", "it must be 'success', 'failure' or 'error'")
    return action, scope, outcome  # type: ignore[return-value]


def rejected_event(
    error: AuditRejectedError, scope: Any, details: Details, running: Running | None, ordinal: int
) -> Composed:
    """Return the event that says a call was rejected, with the ids that can be read."""
    organization_id, actor_id = details[-2:]
    organization = _attempt(read_member_id, scope, "active_organization")
    user = _attempt(read_member_id, scope, "user")
    impersonator = _attempt(read_member_id, scope, "impersonating_from")
    if organization_id is not ABSENT:
        organization = _attempt(checked_id, "organization_id", organization_id)
    actor = ABSENT if actor_id is ABSENT else _attempt(checked_id, "actor_id", actor_id)
    metadata = {"field": error.field, "reason": error.reason}
    readable = scope_from_ids(user, organization, impersonator)
    known: Details = (None, None, metadata, None, None, None, None, organization, actor)
    return compose(REJECTED, "failure", readable, known, running, ordinal)


def _attempt(read: Callable[..., str | None], *args: Any) -> str | None:
    try:
        return read(*args)
    except AuditRejectedError:
        return None


def _exact(value: Any) -> Any:
    return str.__str__(value) if issubclass(type(value), str) else value


def _shown(keyword: str) -> str:
    # A keyword may come from **payload, and so from a tenant.
    fit = type(keyword) is str and len(keyword) <= 64 and keyword.isidentifier()
    return keyword if fit and keyword.isascii() else "(an odd keyword)"
