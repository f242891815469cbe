"""The consumer of test_taskiq: ``taskiq worker taskiq_app:broker``, and its scheduler."""

from __future__ import annotations

import consumer_side
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from taskiq import TaskiqScheduler
from taskiq.serializers import JSONSerializer
from taskiq_redis import ListRedisScheduleSource, RedisStreamBroker

from sigra.backends.taskiq import TaskiqBackend


def make_broker(url, queue):
    """Make the broker and the schedules that the test and its consumer share.

    ``retry``: what the scheduler could not send, it would send only after its restart.
    """
    retry = Retry(ExponentialBackoff(), 5)
    broker = RedisStreamBroker(
        url,
        queue_name=queue,
        consumer_id="0",
        additional_streams={f"{queue}-other": ">"},
        idle_timeout=3000,
        unacknowledged_lock_timeout=5,
        xread_count=4,
        socket_timeout=None,  # else an idle worker does not hear SIGTERM
        retry=retry,
    )
    source = ListRedisScheduleSource(url, prefix=queue, serializer=JSONSerializer(), retry=retry)
    return broker, source


if consumer_side.URL:
    broker, schedules = make_broker(consumer_side.URL, consumer_side.QUEUE)
    scheduler = TaskiqScheduler(broker, [schedules])
    backend = TaskiqBackend(broker, schedules)
    note = broker.task("native.note")(consumer_side.note)
