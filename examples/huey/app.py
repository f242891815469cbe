"""Invoices closed by huey, from an SQLite file: the backend, a worker, and a native task."""

from __future__ import annotations

from sigra import AuditEvent, AuditScope, Snooze, configure, log_safe, tenant_worker
from sigra.backends.huey import HueyBackend

backend = HueyBackend()
huey = backend.huey
configure(backend=backend)


@tenant_worker(audit_schema=AuditEvent, max_attempts=3, name="invoices.close")
def close_invoice(scope: AuditScope, invoice_id: int, job):
    if job.snoozes == 0:
        return Snooze(2)  # the ledger is not ready yet
    log_safe("invoice.close", scope, target_id=invoice_id)
    return None


@huey.task()
def ping():
    print("pong")
