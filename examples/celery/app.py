"""Invoices closed by Celery: the app, its worker, a native task, and a producer."""

from __future__ import annotations

import os
import sys

from celery import Celery
from celery.schedules import crontab

from sigra import AuditEvent, AuditScope, Snooze, configure, log_safe, tenant_worker
from sigra.backends.celery import CeleryBackend
from sigra.workers import for_each_organization

app = Celery("app", broker=os.environ.get("BROKER", "redis://127.0.0.1:6379/0"))
configure(backend=CeleryBackend(app))


@tenant_worker(audit_schema=AuditEvent, max_attempts=3, name="invoices.close")
def close_invoice(scope: AuditScope, invoice_id: int, job):
    if job.snoozes == 0:
        return Snooze(2)  # the ledger is not ready yet
    log_safe("invoice.close", scope, target_id=invoice_id)
    return None


@tenant_worker(audit_schema=AuditEvent, action="invoices.remind", name="invoices.remind")
def remind(scope: AuditScope):
    """Remind an organization of its open invoices; its event's actor is the system."""


@app.task(name="invoices.remind_all")
def remind_all():
    for_each_organization(remind, ["42", "43"])


app.conf.beat_schedule = {"remind": {"task": "invoices.remind_all", "schedule": crontab()}}


@app.task(name="native.ping")
def ping():
    return "pong"


if __name__ == "__main__":
    for number in map(int, sys.argv[1:] or ["9"]):
        keys = {"organization_id": "42", "actor_id": "7"}
        print(close_invoice.new({**keys, "invoice_id": number}))
    ping.delay()
