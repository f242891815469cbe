"""Row 1: a job without its tenant never runs in some default one."""

from __future__ import annotations

from typing import Any

import pytest

from sigra import AuditScope, MissingArgError, MissingTenantKeysError, tenant_worker
from sigra.backends.external import consume
from sigra.testing import RecordingBackend

ran: list[Any] = []


@tenant_worker
def close(scope: AuditScope, organization_id: str | None = "default") -> None:
    ran.append(organization_id)


@pytest.fixture(autouse=True)
def fresh() -> None:
    ran.clear()


@pytest.mark.parametrize("args", [{}, {"organization_id": "42"}, {"actor_id": "7"}])
def test_absent_keys_raise_at_enqueue(args: Any, sigra_backend: RecordingBackend) -> None:
    """Absent keys raise where the job is made, and no job reaches the queue."""
    with pytest.raises(MissingTenantKeysError):
        close.new(args)
    assert ([], []) == (sigra_backend.jobs, ran)


@pytest.mark.parametrize("args", [{}, {"organization_id": "42"}, {"actor_id": "7"}])
def test_absent_keys_raise_again_in_the_body_s_place(args: Any) -> None:
    """A job that was put into the queue by hand fails for good, unrun, even with defaults."""
    verdict = consume(args, close.definition, "test").verdict
    assert ("discarded", MissingArgError, []) == (verdict.state, type(verdict.error), ran)


def test_none_is_not_replaced_by_a_default() -> None:
    """A job that says it has no organization runs with none."""
    close.new({"organization_id": None, "actor_id": None})
    assert [None] == ran
