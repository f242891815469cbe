"""Notes at RabbitMQ of the jobs that are begun and not ended.

RabbitMQ cannot change a message, and its mark of what it delivers again does not tell the
jobs that a dead consumer had begun from those that it had only fetched. So each job that
begins puts a note into one of a few queues, and takes it away when it ends: what comes
again with a note is what was running.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from zlib import crc32

from sigra.backends.external import native

SLOTS = 16
"""How many queues share the notes, so that few have to be read to find one."""

_WEEK = 7 * 24 * 3600 * 1000
_local = threading.local()


def put(broker: Any, queue: str, run: str) -> None:
    """Note that the run is begun, and wait until RabbitMQ has the note."""
    slot = _slot(queue, run)
    _on_channel(broker, slot, _publish, run)


def count(broker: Any, queue: str, run: str) -> int:
    """Return how often the run was begun."""
    slot = _slot(queue, run)
    return _on_channel(broker, slot, _find, run, None)


def take(broker: Any, queue: str, run: str, notes: int) -> None:
    """Take the run's notes away; another thread may just be reading one."""
    slot = _slot(queue, run)
    for _ in range(10):
        notes -= _on_channel(broker, slot, _find, run, notes)
        if notes <= 0:
            return
        time.sleep(0.02)


def _publish(channel: Any, slot: str, run: str) -> int:
    channel.basic_publish("", slot, run.encode())
    return 1


def _find(channel: Any, slot: str, run: str, wanted: int | None) -> int:
    """Count a run's notes, taking away as many as are wanted; put the others back."""
    found, others = 0, list[int]()
    while wanted is None or found < wanted:
        method, _, body = channel.basic_get(slot)
        if method is None:
            break
        mine = body == run.encode()
        found += mine
        if mine and wanted is not None:
            channel.basic_ack(method.delivery_tag)
        else:
            others.append(method.delivery_tag)
    for tag in others:
        channel.basic_nack(tag, requeue=True)
    return found


def _slot(queue: str, run: str) -> str:
    return f"{queue}.begun.{crc32(run.encode()) % SLOTS}"


def _on_channel(broker: Any, slot: str, call: Callable[..., int], *args: Any) -> int:
    """Call with this thread's channel; with a new one where RabbitMQ has closed it.

    It does so while a long job runs, for nothing is heard from the thread meanwhile.
    """
    try:
        return call(_channel(broker, slot), slot, *args)
    except native("pika.exceptions", "dramatiq").AMQPError:
        del broker.connection
        return call(_channel(broker, slot), slot, *args)


def _channel(broker: Any, slot: str) -> Any:
    held: tuple[Any, Any, set[str]] | None = getattr(_local, "held", None)
    if held is None or held[0] is not broker.connection or not held[1].is_open:
        channel = broker.connection.channel()
        channel.confirm_delivery()
        held = _local.held = broker.connection, channel, set()
    _, channel, declared = held
    if slot not in declared:
        channel.queue_declare(slot, durable=True, arguments={"x-message-ttl": _WEEK})
        declared.add(slot)
    return channel
