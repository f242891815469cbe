"""The consumer of test_rq: ``rq worker -c rq_app --path tests/queues``."""

from __future__ import annotations

import os
import time

from sigra import AuditEvent, log_safe, tenant_worker
from sigra.testing.contract_workers import record_events

if os.environ.get("SIGRA_CONTRACT_EVENTS"):
    record_events()


def note(text):
    """Be a function of the application's own, which Sigra knows nothing of."""
    with open(os.environ["SIGRA_NATIVE_NOTES"], "a") as notes:
        notes.write(text + "\n")


@tenant_worker(name="sigra.tests.rq.slow", audit_schema=AuditEvent)
def slow(scope, n):
    log_safe("test.begun", scope, target_id=n)
    time.sleep(0.5)
    log_safe("test.ended", scope, target_id=n)
