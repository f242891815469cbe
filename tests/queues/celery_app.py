"""The consumer of test_celery: ``celery --workdir tests/queues -A celery_app worker``."""

from __future__ import annotations

import json
import os
import time

from celery import Celery
from celery.signals import worker_process_init

from sigra import AuditEvent, log_safe, tenant_worker
from sigra.backends.celery import CeleryBackend
from sigra.testing.contract_workers import record_events

app = Celery("sigra_tests")
app.conf.update(json.loads(os.environ["SIGRA_CELERY"]))
backend = CeleryBackend(app)
record_events()


@worker_process_init.connect
def _own_sink(**_):
    record_events()


@app.task(name="native.note")
def note(text):
    """Be a task of the application's own, which Sigra knows nothing of."""
    with open(os.environ["SIGRA_NATIVE_NOTES"], "a") as notes:
        notes.write(text + "\n")
    return text


@tenant_worker(name="sigra.tests.celery.slow", audit_schema=AuditEvent)
def slow(scope, n):
    log_safe("test.begun", scope, target_id=n)
    time.sleep(0.25)
    log_safe("test.ended", scope, target_id=n)
