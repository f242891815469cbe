"""Invoices closed by taskiq: the broker, its scheduler, a worker, and a native task."""

from __future__ import annotations

import os

from taskiq import TaskiqScheduler
from taskiq.serializers import JSONSerializer
from taskiq_redis import ListRedisScheduleSource, RedisStreamBroker

from sigra import AuditEvent, AuditScope, Snooze, configure, log_safe, tenant_worker
from sigra.backends.taskiq import TaskiqBackend

REDIS = os.environ.get("BROKER", "redis://127.0.0.1:6379/0")
# From the first message on, one at a time, and so that one that is killed keeps none from its jobs.
broker = RedisStreamBroker(
    REDIS, queue_name="invoices", consumer_id="0", xread_count=1, unacknowledged_lock_timeout=60
)
schedules = ListRedisScheduleSource(REDIS, prefix="invoices-due", serializer=JSONSerializer())
scheduler = TaskiqScheduler(broker, [schedules])
configure(backend=TaskiqBackend(broker, schedules))


@tenant_worker(audit_schema=AuditEvent, max_attempts=3, name="invoices.close")
async def close_invoice(scope: AuditScope, invoice_id: int, job):
    if job.snoozes == 0:
        return Snooze(2)  # the ledger is not ready yet
    log_safe("invoice.close", scope, target_id=invoice_id)
    return None


@broker.task("native.ping")
async def ping():
    print("pong")
