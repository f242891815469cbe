"""Invoices closed by SAQ: the queue, a worker, a native function, and the settings."""

from __future__ import annotations

import os

from saq import Queue

from sigra import AuditEvent, AuditScope, Snooze, configure, log_safe, tenant_worker
from sigra.backends.saq import SaqBackend

queue = Queue.from_url(os.environ.get("BROKER", "redis://127.0.0.1:6379/0"), name="invoices")
backend = SaqBackend(queue)
configure(backend=backend)


@tenant_worker(audit_schema=AuditEvent, max_attempts=3, name="invoices.close")
async def close_invoice(scope: AuditScope, invoice_id: int, job):
    if job.snoozes == 0:
        return Snooze(2)  # the ledger is not ready yet
    log_safe("invoice.close", scope, target_id=invoice_id)
    return None


async def ping(context):
    print("pong")


settings = {
    "queue": queue,
    "functions": [ping, *backend.functions],  # once every worker is imported
    "shutdown_grace_period_s": 10,  # every stop takes so long; a job that takes longer is cut off
}
