"""The consumer of test_huey: ``huey_consumer huey_app.huey -g TERM``."""

from __future__ import annotations

import consumer_side
from huey import PriorityRedisHuey, SqliteHuey

from sigra.backends.huey import HueyBackend, JSONSerializer


def make_huey(where, name):
    """Make a huey at a Redis URL or on an SQLite file; None, for the default one, at ""."""
    if not where:
        return None
    if where.startswith("redis"):
        # As docs/backends.md has it: what huey took is lost where its answer comes too late.
        patient = f"{where}?socket_timeout=60"
        return PriorityRedisHuey(name, url=patient, serializer=JSONSerializer())
    return SqliteHuey(name, filename=where, serializer=JSONSerializer())


if consumer_side.QUEUE:
    huey = HueyBackend(make_huey(consumer_side.URL, consumer_side.QUEUE)).huey
    huey.task()(consumer_side.note)
