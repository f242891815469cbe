"""The consumer of test_huey: ``huey_consumer huey_app.huey -g TERM``."""

from __future__ import annotations

import os

if os.environ.get("SIGRA_TEST_GREENLETS"):
    from gevent import monkey

    monkey.patch_all()

import asyncio  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import consumer_side  # noqa: E402
from huey import PriorityRedisHuey, SqliteHuey  # noqa: E402

from sigra import AuditScope, tenant_worker  # noqa: E402
from sigra.backends.huey import HueyBackend, JSONSerializer  # noqa: E402
from sigra.testing.contract_workers import record  # noqa: E402


@tenant_worker(name="sigra.tests.meets")
async def meets(scope: AuditScope, args: Any, own: str, other: str, blocks: bool) -> None:
    """End when another run has begun too; ``blocks``: keep the loop from all else until then."""
    Path(own).touch()
    while not Path(other).exists():
        time.sleep(0.02) if blocks else await asyncio.sleep(0.02)
    record(scope, args)


def fails(text):
    """Be the body of a native task that fails each time."""
    raise LookupError(text)


def make_huey(where, name):
    """Make a huey at a Redis URL or on an SQLite file; None, for the default one, at ""."""
    if not where:
        return None
    if where.startswith("redis"):
        # As docs/queues/huey.md has it: what huey took is lost where its answer comes too late.
        patient = f"{where}?socket_timeout=60"
        return PriorityRedisHuey(name, url=patient, serializer=JSONSerializer())
    return SqliteHuey(name, filename=where, serializer=JSONSerializer())


if consumer_side.QUEUE:
    huey = HueyBackend(make_huey(consumer_side.URL, consumer_side.QUEUE)).huey
    huey.task()(consumer_side.note)
    huey.task(retries=1)(fails)
