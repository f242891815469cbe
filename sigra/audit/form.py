"""How ``log_safe`` and ``log`` are to be called, and what is wrong with any other call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial, update_wrapper
from typing import Any, ParamSpec, TypeVar

from sigra.audit.action import action_fault
from sigra.audit.event import LEVELS, AuditResult, Outcome
from sigra.audit.read import ABSENT
from sigra.errors import AuditRejectedError
from sigra.scope import Id

P = ParamSpec("P")
R = TypeVar("R")

STRICT: Any = object()
"""What ``log`` passes to ``log_safe`` as a third positional argument: raise if the call is bad. It
is an object and no keyword, so that nothing in a tenant's ``**payload`` can ask for that."""


def well_formed_call(
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
    conn: Any = None,
) -> AuditResult:
    """Show how ``log_safe`` and ``log`` are called; both take anything, to report what is bad."""
    raise NotImplementedError


def called_like(form: Callable[P, R]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Show a function, to type checkers and ``help()``, as one that is called like ``form``."""
    show: Any = partial(update_wrapper, wrapped=form, assigned=("__annotations__",))
    return show  # type: ignore[no-any-return]


def checked_form(
    action: Any, scope: Any, outcome: Any, surplus: tuple[Any, ...], unknown: dict[str, Any]
) -> tuple[str, Outcome]:
    """Return action and outcome as plain str; raise ``AuditRejectedError`` for a bad call."""
    action, outcome = _exact(action), _exact(outcome)
    # The action first: once it is known to be good, the line of the failure names it.
    if reason := "is missing" if action is ABSENT else action_fault(action):
        raise AuditRejectedError("action", f"it {reason}")
    if scope is ABSENT:
        raise AuditRejectedError("scope", "it is missing")
    if surplus and (surplus[0] is not STRICT or len(surplus) > 1):
        raise AuditRejectedError("scope", "all arguments after it must be passed by keyword")
    if unknown:
        keyword = next(iter(unknown))
        # It may come from **payload, and so from a tenant.
        fit = type(keyword) is str and len(keyword) <= 64 and keyword.isidentifier()
        raise AuditRejectedError(keyword if fit else "(an odd keyword)", "no such keyword")
    if type(outcome) is not str or outcome not in LEVELS:
        raise AuditRejectedError("outcome", "it must be 'success', 'failure' or 'error'")
    return action, outcome  # type: ignore[return-value]


def _exact(value: Any) -> Any:
    return str.__str__(value) if issubclass(type(value), str) else value
