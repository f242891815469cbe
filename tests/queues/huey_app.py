"""The consumer of test_huey: ``huey_consumer huey_app.huey -g TERM``."""

from __future__ import annotations

import os
import time

from huey import PriorityRedisHuey, SqliteHuey

from sigra import AuditEvent, log_safe, tenant_worker
from sigra.backends.huey import HueyBackend, JSONSerializer
from sigra.testing import contract_workers


def make_huey(where):
    """Make the huey that ``where`` names: a Redis URL, an SQLite file, or "" for the default."""
    if not where:
        return None
    serializer = JSONSerializer()
    if where.startswith("redis"):
        name = os.environ["SIGRA_TEST_HUEY_NAME"]
        return PriorityRedisHuey(name, url=where, serializer=serializer)
    return SqliteHuey("tests", filename=where, serializer=serializer)


def note(text):
    """Be a task of the application's own, which Sigra knows nothing of."""
    with open(os.environ["SIGRA_NATIVE_NOTES"], "a") as notes:
        notes.write(text + "\n")
    return text


@tenant_worker(name="sigra.tests.huey.slow", audit_schema=AuditEvent)
def slow(scope, n):
    log_safe("test.begun", scope, target_id=n)
    time.sleep(0.05)
    log_safe("test.ended", scope, target_id=n)


if os.environ.get("SIGRA_CONSUMER"):
    backend = HueyBackend(make_huey(os.environ["SIGRA_TEST_HUEY"]))
    huey = backend.huey
    huey.task()(note)
    contract_workers.record_events()
else:

    @tenant_worker(name="sigra.tests.huey.unknown")
    def unknown(scope):
        raise AssertionError("no consumer knows it")
