"""Row 8: a periodic job has a tenant; one explicit call makes one for each organization."""

from __future__ import annotations

from sigra import AuditEvent, AuditScope, log_safe, tenant_worker
from sigra.testing import AuditLog
from sigra.workers import for_each_organization


@tenant_worker(name="row_08.report", audit_schema=AuditEvent)
def report(scope: AuditScope) -> None:
    log_safe("report.send", scope)


def test_each_event_of_a_tick_names_its_own_organization(audit_log: AuditLog) -> None:
    """The actor is the system, said so."""
    for_each_organization(report, ["acme", "globex"])
    assert [("acme", None, "system"), ("globex", None, "system")] == [
        (event.organization_id, event.actor_id, event.actor_type) for event in audit_log.events
    ]
