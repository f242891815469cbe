"""The consumer of test_dramatiq: ``dramatiq dramatiq_app``."""

from __future__ import annotations

import consumer_side
import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker

from sigra.backends.dramatiq import DramatiqBackend


def make_broker(url, queue):
    """Make the broker that the test and its consumer share."""
    if url.startswith("redis"):
        # By default what a dead consumer held is looked for by one command in a thousand.
        # And a server that stalls for more than 5 seconds counts as gone.
        broker = RedisBroker(
            url=f"{url}?socket_timeout=60",
            namespace=queue,
            heartbeat_timeout=6000,
            maintenance_chance=1_000_000,
        )
    else:
        broker = RabbitmqBroker(url=url.rstrip("/"), confirm_delivery=True)
    broker.declare_queue(f"{queue}-other")
    return broker


if consumer_side.URL:
    broker = make_broker(consumer_side.URL, consumer_side.QUEUE)
    dramatiq.set_broker(broker)
    backend = DramatiqBackend(broker, queue=consumer_side.QUEUE)
    note = dramatiq.actor(
        consumer_side.note, actor_name="native.note", queue_name=consumer_side.QUEUE
    )
