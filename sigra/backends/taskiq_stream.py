"""What taskiq lacks and Redis has: counts of the jobs that are begun, and a look at lost ones."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sigra.backends.external import native

_log = logging.getLogger("sigra.job")

_WEEK = 7 * 24 * 3600
_WAKE = "sigra.wake"
"""The task that does nothing, after which taskiq looks for what a dead consumer held."""


def is_stream(broker: Any) -> bool:
    """Tell a broker that reads a Redis stream."""
    return hasattr(broker, "connection_pool") and hasattr(broker, "idle_timeout")


@asynccontextmanager
async def counted(broker: Any, schedules: Any, id: str) -> AsyncIterator[int]:
    """Note in Redis that a job is begun; give how often it was, and never ended.

    A stream's own count has also what a consumer fetched and did not begin. Where neither
    the broker nor the schedules are in Redis nothing is counted.
    """
    pool = getattr(broker, "connection_pool", getattr(schedules, "_connection_pool", None))
    if pool is None:
        yield 0
        return
    before, key = 0, f"sigra:begun:{id}"
    redis = native("redis.asyncio", "taskiq").Redis(connection_pool=pool)
    try:
        async with redis.pipeline() as pipeline:
            begun, _ = await pipeline.incr(key).expire(key, _WEEK).execute()
        before = begun - 1
    except Exception:
        _log.warning("job %s runs uncounted", id, exc_info=True)
    yield before
    try:
        await redis.delete(key)
    except Exception:
        _log.warning("the count of job %s is left to expire", id, exc_info=True)


async def keep_awake(broker: Any, labels: Mapping[str, Any]) -> None:
    """Send a message now and then while any is unacknowledged.

    Taskiq looks for what a dead consumer held only after it received something new.
    """
    wake = broker.register_task(_nothing, task_name=_WAKE, **labels)
    redis = native("redis.asyncio", "taskiq").Redis(connection_pool=broker.connection_pool)
    streams = [broker.queue_name, *broker.additional_streams]
    while True:
        await asyncio.sleep(broker.idle_timeout / 1000)
        try:
            pending = [await redis.xpending(each, broker.consumer_group_name) for each in streams]
            if any(each["pending"] for each in pending):
                await wake.kiq()
        except Exception:
            _log.warning("cannot look for lost jobs", exc_info=True)


async def _nothing() -> None:
    """Be a message that is received."""
