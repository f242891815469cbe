"""Notes at RabbitMQ of the jobs that are begun and not ended.

RabbitMQ cannot change a message, and its mark of what it delivers again does not tell the
jobs that a dead consumer had begun from those that it had only fetched. So each job that
begins puts a note into one of a few queues, and takes it away when it ends: what comes
again with a note is what was running.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from zlib import crc32

from sigra.backends.external import native

SLOTS = 16
"""How many queues share the notes, so that few have to be read to find one."""

_WEEK = 7 * 24 * 3600 * 1000


def put(broker: Any, queue: str, run: str) -> None:
    """Note that the run is begun, and wait until RabbitMQ has the note."""
    with _slot(broker, queue, run) as (channel, slot):
        channel.confirm_delivery()
        channel.basic_publish("", slot, run.encode())


def count(broker: Any, queue: str, run: str) -> int:
    """Return how often the run was begun."""
    with _slot(broker, queue, run) as (channel, slot):
        return sum(1 for _, body in _read(channel, slot) if body == run.encode())


def take(broker: Any, queue: str, run: str) -> None:
    """Take the run's notes away."""
    with _slot(broker, queue, run) as (channel, slot):
        for tag, body in _read(channel, slot):
            if body == run.encode():
                channel.basic_ack(tag)


@contextmanager
def _slot(broker: Any, queue: str, run: str) -> Iterator[tuple[Any, str]]:
    """Open a channel, whose end puts back what was read, and the queue of the run's notes."""
    try:
        channel = broker.connection.channel()
    except native("pika.exceptions", "dramatiq").AMQPError:
        del broker.connection  # RabbitMQ closes this thread's while a long job runs
        channel = broker.connection.channel()
    slot = f"{queue}.begun.{crc32(run.encode()) % SLOTS}"
    channel.queue_declare(slot, durable=True, arguments={"x-message-ttl": _WEEK})
    yield channel, slot
    channel.close()


def _read(channel: Any, slot: str) -> Iterator[tuple[int, bytes]]:
    while True:
        method, _, body = channel.basic_get(slot)
        if method is None:
            return
        yield method.delivery_tag, body
