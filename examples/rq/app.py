"""Invoices closed by RQ: the queue, its worker, a native function, and a producer."""

from __future__ import annotations

from redis import Redis
from rq import Queue

from sigra import AuditEvent, AuditScope, Snooze, configure, log_safe, tenant_worker
from sigra.backends.rq import RQBackend

queue = Queue("invoices", connection=Redis(), serializer="json")
configure(backend=RQBackend(queue))


@tenant_worker(audit_schema=AuditEvent, max_attempts=3, name="invoices.close")
def close_invoice(scope: AuditScope, invoice_id: int, job):
    if job.snoozes == 0:
        return Snooze(2)  # the ledger is not ready yet
    log_safe("invoice.close", scope, target_id=invoice_id)
    return None


def ping():
    return "pong"
