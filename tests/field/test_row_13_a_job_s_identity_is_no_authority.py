"""Row 13: a worker's scope is refused wherever it would decide on access."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from sigra import AuditOnlyScopeError, AuditScope, request_scope_only, tenant_worker

TENANT = {"organization_id": "42", "actor_id": "7"}


@dataclass
class RequestScope:
    user: Any
    active_organization: Any
    impersonating_from: Any = None
    roles: tuple[str, ...] = ()


@request_scope_only
def authorize(scope: RequestScope, permission: str) -> bool:
    return permission in scope.roles


def test_it_cannot_be_passed_to_authorization() -> None:
    """A body that authorizes with its scope fails, and says why."""

    @tenant_worker
    def sly(scope: AuditScope) -> None:
        authorize(scope, "close")  # type: ignore[arg-type]

    with pytest.raises(AuditOnlyScopeError):
        sly.new(TENANT).result()


def test_it_cannot_be_smuggled_inside_a_request_scope() -> None:
    """Wrapped into the host's own type it is found all the same."""
    inner = AuditScope.build(actor_id=7, organization_id=42)
    with pytest.raises(AuditOnlyScopeError):
        authorize(RequestScope(inner, None, roles=("close",)), "close")


@pytest.mark.parametrize("attribute", ["roles", "membership", "session", "request", "permissions"])
def test_it_has_nothing_to_decide_on(attribute: str) -> None:
    """There is no attribute that a host could read a permission from."""
    with pytest.raises(AuditOnlyScopeError):
        getattr(AuditScope.build(actor_id=7, organization_id=42), attribute)


def test_a_request_s_own_scope_still_decides() -> None:
    """The host's scope goes through unchanged."""
    assert authorize(RequestScope(None, None, roles=("close",)), "close")
