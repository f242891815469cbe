"""Row 9: children, chains and bulk enqueues do not lose the tenant."""

from __future__ import annotations

from typing import Any

import pytest

from sigra import (
    AuditScope,
    CrossTenantError,
    MissingTenantKeysError,
    tenant_args,
    tenant_worker,
)
from sigra.testing import RecordingBackend

TENANT = {"organization_id": "42", "actor_id": "7", "impersonating_from": "1"}
SCOPE = AuditScope.build(actor_id=7, organization_id=42, impersonating_from=1)
seen: list[AuditScope] = []


@tenant_worker
def chain(scope: AuditScope, left: int) -> None:
    seen.append(scope)
    if left:
        chain.new({**tenant_args(scope), "left": left - 1})


def test_a_chain_keeps_its_scope() -> None:
    """Each link of a chain has the scope of the first."""
    seen.clear()
    chain.new({**TENANT, "left": 3})
    assert [SCOPE] * 4 == seen


def test_a_child_without_its_keys_is_refused() -> None:
    """A child does not inherit in silence: the keys are passed, or it raises."""

    @tenant_worker
    def forgetful(scope: AuditScope) -> None:
        chain.new({"left": 0})

    with pytest.raises(MissingTenantKeysError):
        forgetful.new(TENANT).result()


def test_a_child_for_another_tenant_is_refused() -> None:
    """A wrong organization raises where crossing was not asked for."""

    @tenant_worker
    def confused(scope: AuditScope) -> None:
        chain.new({**tenant_args(scope), "organization_id": "43", "left": 0})

    with pytest.raises(CrossTenantError):
        confused.new(TENANT).result()


@pytest.mark.parametrize("position", range(3))
def test_every_item_of_a_bulk_is_validated(position: int, sigra_backend: RecordingBackend) -> None:
    """One item without its tenant stops them all, and is named."""
    items: list[dict[str, Any]] = [{**TENANT, "left": 0} for _ in range(3)]
    del items[position]["organization_id"]
    with pytest.raises(MissingTenantKeysError) as caught:
        chain.new_many(items)
    assert (position, []) == (caught.value.index, sigra_backend.jobs)
