"""Invoices closed by RQ: the queue, its worker, a native function, and a producer."""

from __future__ import annotations

import os

from redis import Redis
from rq import Queue

from sigra import AuditEvent, AuditScope, Snooze, configure, log_safe, tenant_worker
from sigra.backends.rq import RQBackend

# As RQ's own command has it.
redis = Redis.from_url(os.environ.get("RQ_REDIS_URL", "redis://127.0.0.1:6379/0"))
queue = Queue("invoices", connection=redis, serializer="json")
configure(backend=RQBackend(queue))


@tenant_worker(audit_schema=AuditEvent, max_attempts=3, name="invoices.close")
def close_invoice(scope: AuditScope, invoice_id: int, job):
    if job.snoozes == 0:
        return Snooze(2)  # the ledger is not ready yet
    log_safe("invoice.close", scope, target_id=invoice_id)
    return None


def ping():
    return "pong"
