"""Row 4: what is logged and audited of a failure carries scope and ids."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from sigra import AuditEvent, AuditScope, tenant_worker
from sigra.testing import AuditLog

TENANT = {"organization_id": "42", "actor_id": "7", "impersonating_from": "1"}


@tenant_worker(action="invoice.close", audit_schema=AuditEvent)
def close(scope: AuditScope) -> None:
    raise ValueError("why")


def test_the_failure_s_event_carries_scope_and_job(audit_log: AuditLog) -> None:
    """The audit event of a raising body has organization, both actors, job and attempt."""
    job = close.new(TENANT)
    (event,) = audit_log
    assert ("error", "42", "1", "7", job.id, job.worker, 1) == (
        event.outcome,
        event.organization_id,
        event.actor_id,
        event.effective_user_id,
        event.job_id,
        event.worker,
        event.attempt,
    )


def test_the_failure_s_log_line_carries_scope_and_job(caplog: pytest.LogCaptureFixture) -> None:
    """The line with the traceback has the same ids, as text and as attributes."""
    with caplog.at_level(logging.ERROR, "sigra.job"):
        job = close.new(TENANT)
    record: Any = caplog.records[0]
    assert (job.id, "42", "7", "1") == (
        record.job_id,
        record.organization_id,
        record.actor_id,
        record.impersonating_from,
    )
    assert job.id in record.getMessage()
