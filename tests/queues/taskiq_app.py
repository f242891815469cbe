"""The consumer of test_taskiq: ``taskiq worker taskiq_app:broker``, and its scheduler."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import consumer_side
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from taskiq import TaskiqMiddleware, TaskiqScheduler
from taskiq.serializers import JSONSerializer
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue
from taskiq_redis import ListRedisScheduleSource, RedisStreamBroker

from sigra.backends.taskiq import TaskiqBackend

# From Python 3.14 on taskiq does so in its main process alone.
logging.basicConfig(level=logging.INFO)

RETRY = Retry(ExponentialBackoff(), 5)
"""What the scheduler could not send, it would send only after its restart."""


def make_broker(url, queue, alone=None):
    """Make the broker that the test and its consumer share, or one of a queue ``alone``."""
    queues = [alone] if alone else [queue, f"{queue}-other"]
    if url.startswith("redis"):
        return RedisStreamBroker(
            url,
            queue_name=queues[0],
            consumer_id="0",
            additional_streams=dict.fromkeys(queues[1:], ">"),
            idle_timeout=6000,
            unacknowledged_lock_timeout=5,
            xread_count=4,
            retry=RETRY,
        )
    limit = {"x-delivery-limit": 10}  # more than any test kills consumers that hold the same job
    return AioPikaBroker(
        url,
        exchange=Exchange(name=queue),
        task_queues=[Queue(name=name, arguments=limit) for name in queues],
        dead_letter_queue=Queue(name=f"{queue}-dead"),
        qos=4,
        reconnect_interval=1,
    )


def make_schedules(url, queue):
    """Make what the scheduler sends from."""
    return ListRedisScheduleSource(url, prefix=queue, serializer=JSONSerializer(), retry=RETRY)


class DiesAsItSends(TaskiqMiddleware):
    """Kill the scheduler, once there is such a file, as it has sent as many as that says."""

    def __init__(self, file):
        self._file, self._sent = Path(file), 0

    def post_send(self, message):
        if self.broker.is_scheduler_process and self._file.exists():
            self._sent += 1
            if self._sent == int(self._file.read_text()):
                self._file.unlink()
                os.kill(os.getpid(), signal.SIGKILL)


if consumer_side.URL:
    alone = os.environ.get("SIGRA_TEST_ALONE")
    broker = make_broker(consumer_side.URL, consumer_side.QUEUE, alone)
    url = os.environ["SIGRA_TEST_SCHEDULES"]
    schedules = make_schedules(url, consumer_side.QUEUE) if url else None
    broker.add_middlewares(DiesAsItSends(os.environ["SIGRA_TEST_DIES"]))
    scheduler = TaskiqScheduler(broker, [schedules] if schedules else [])
    backend = TaskiqBackend(broker, schedules, queue=alone or consumer_side.QUEUE)
    note = broker.task("native.note", queue_name=consumer_side.QUEUE)(consumer_side.note)
