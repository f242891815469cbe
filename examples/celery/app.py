"""Invoices closed by Celery: the app, its worker, a native task, and a producer."""

from __future__ import annotations

import os
import sys

from celery import Celery

from sigra import AuditEvent, AuditScope, Snooze, configure, log_safe, tenant_worker
from sigra.backends.celery import CeleryBackend

app = Celery("app", broker=os.environ.get("BROKER", "redis://127.0.0.1:6379/0"))
configure(backend=CeleryBackend(app))


@tenant_worker(audit_schema=AuditEvent, max_attempts=3, name="invoices.close")
def close_invoice(scope: AuditScope, invoice_id: int, job):
    if job.snoozes == 0:
        return Snooze(2)  # the ledger is not ready yet
    log_safe("invoice.close", scope, target_id=invoice_id)
    return None


@app.task(name="native.ping")
def ping():
    return "pong"


if __name__ == "__main__":
    for number in map(int, sys.argv[1:] or ["9"]):
        keys = {"organization_id": "42", "actor_id": "7"}
        print(close_invoice.new({**keys, "invoice_id": number}))
    ping.delay()
