"""Row 6: an audit row that a job writes says who acted."""

from __future__ import annotations

from typing import Any

import pytest

from sigra import AuditEvent, AuditScope, ThreadBackend, configure, log_safe, tenant_worker
from sigra.testing import AuditLog


@tenant_worker(audit_schema=AuditEvent)
def close(scope: AuditScope) -> None:
    log_safe("invoice.close", scope)


@pytest.mark.parametrize(("actor_id", "expected"), [("7", ("7", "user")), (None, (None, "system"))])
def test_the_event_names_the_actor_or_the_system(
    actor_id: Any, expected: Any, audit_log: AuditLog
) -> None:
    """The enqueuer's actor is in the event; where there is none it says "system"."""
    close.new({"organization_id": "42", "actor_id": actor_id})
    (event,) = audit_log
    assert expected == (event.actor_id, event.actor_type)


def test_the_actor_reaches_another_thread(audit_log: AuditLog) -> None:
    """No thread-local request is needed: the actor comes with the job."""
    pool = ThreadBackend(max_workers=1)
    with configure(backend=pool):
        close.new({"organization_id": "42", "actor_id": "7"}).result(60)
    pool.close(60)
    assert ["7"] == [event.actor_id for event in audit_log]
