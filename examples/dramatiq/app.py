"""Invoices closed by Dramatiq: the broker, a worker, and a native actor."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from sigra import AuditEvent, AuditScope, Snooze, configure, log_safe, tenant_worker
from sigra.backends.dramatiq import DramatiqBackend

broker = RedisBroker(url=os.environ.get("BROKER", "redis://127.0.0.1:6379/0"))
dramatiq.set_broker(broker)
configure(backend=DramatiqBackend(broker))


@tenant_worker(audit_schema=AuditEvent, max_attempts=3, name="invoices.close")
def close_invoice(scope: AuditScope, invoice_id: int, job):
    if job.snoozes == 0:
        return Snooze(2)  # the ledger is not ready yet
    log_safe("invoice.close", scope, target_id=invoice_id)
    return None


@dramatiq.actor
def ping():
    print("pong")
