"""The calls of ``log_safe`` and ``log`` as they should be; what runs takes any others too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, ParamSpec, TypeVar, cast

from sigra.audit.event import AuditResult, Outcome
from sigra.audit.read import ABSENT
from sigra.scope import Id

P = ParamSpec("P")
R = TypeVar("R")


def runs(implementation: Callable[..., R], declared: Callable[P, R]) -> Callable[P, R]:
    """Return the implementation, which to type checkers and ``help()`` is the declared function."""
    shown = cast("Any", implementation)
    shown.__wrapped__ = declared
    for name in ("__name__", "__qualname__", "__doc__", "__annotations__"):
        setattr(shown, name, getattr(declared, name))
    return cast("Callable[P, R]", implementation)


def log_safe(
    action: str,
    scope: object,
    *,
    outcome: Outcome = "success",
    target_id: Id | None = None,
    target_type: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    actor_type: str | None = None,
    ip_address: str | None = None,
    user_agent: str | None = None,
    occurred_at: datetime | None = None,
    organization_id: Id | None = ABSENT,
    actor_id: Id | None = ABSENT,
    audit_schema: Any = ABSENT,
) -> AuditResult:
    """Log an audit event; never raise an ``Exception``, and say what became of it.

    ``scope`` is a job's ``AuditScope``, the host's request scope (an object or a mapping
    with ``user``, ``active_organization`` and perhaps ``impersonating_from``) or None.
    What is passed wins over it. ``occurred_at`` must be aware. ``audit_schema`` is
    found from the running job or ``configure()`` where it is not passed; None means
    that nothing is logged. Secrets in ``metadata`` and the texts are redacted.
    """
    raise NotImplementedError


def log(
    action: str,
    scope: object,
    *,
    outcome: Outcome = "success",
    target_id: Id | None = None,
    target_type: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    actor_type: str | None = None,
    ip_address: str | None = None,
    user_agent: str | None = None,
    occurred_at: datetime | None = None,
    organization_id: Id | None = ABSENT,
    actor_id: Id | None = ABSENT,
    audit_schema: Any = ABSENT,
) -> AuditResult:
    """Log an audit event as ``log_safe`` does, but raise for a call that is not well formed.

    ``AuditRejectedError`` then takes the place of the event ``sigra.audit.rejected``.
    What structlog, a sink or the schema raise is still only in the result.
    """
    raise NotImplementedError
