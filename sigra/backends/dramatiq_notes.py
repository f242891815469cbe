"""Notes at the broker of the jobs that are begun and not ended.

Redis keeps a message, and a count in it, until it is acknowledged. RabbitMQ cannot change
one, and its mark of what it delivers again does not tell the jobs that a dead consumer had
begun from those that it had only fetched. So each job that begins puts a note into one of a
few queues, and takes it away when it ends: what comes again with a note is what was running.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from zlib import crc32

from sigra.backends.external import native
from sigra.errors import brief

_log = logging.getLogger("sigra.job")

RUN, BEGUN = "sigra_run", "sigra_begun"
"""Options of a message: its number among the runs of its job, and how often that was begun."""

SLOTS = 16
"""How many queues share the notes, so that few have to be read to find one."""

_WEEK = 7 * 24 * 3600 * 1000
_local = threading.local()


@contextmanager
def counted(broker: Any, message: Any) -> Iterator[int]:
    """Note at the broker that this run is begun; give how often it was, and never ended."""
    before, queue, options = 0, message.queue_name, message.options
    run = f"{message.message_id}.{options.get(RUN, 0)}"
    in_rabbitmq = hasattr(message, "redelivered")
    try:
        if in_rabbitmq:
            before = _on_channel(broker, queue, run, _find) if message.redelivered else 0
            _on_channel(broker, queue, run, _publish)
        elif "redis_message_id" in options:
            before = options.get(BEGUN, 0)
            noted = message.copy(options={BEGUN: before + 1}).encode()
            key = f"{broker.namespace}:{queue}.msgs"
            broker.client.hset(key, options["redis_message_id"], noted)
    except Exception:
        _log.warning("job %s runs uncounted", brief(message.message_id), exc_info=True)
    yield before
    if in_rabbitmq:
        try:
            _take(broker, queue, run, before + 1)
        except Exception:
            _log.warning("the note of job %s is left to expire", brief(run), exc_info=True)


def _take(broker: Any, queue: str, run: str, notes: int) -> None:
    """Take the run's notes away; another thread may just be reading one."""
    for _ in range(10):
        notes -= _on_channel(broker, queue, run, _find, notes)
        if notes <= 0:
            return
        time.sleep(0.02)


def _publish(channel: Any, slot: str, run: str) -> int:
    """Leave one more note; return when RabbitMQ has it."""
    channel.basic_publish("", slot, run.encode())
    return 1


def _find(channel: Any, slot: str, run: str, wanted: int | None = None) -> int:
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


def _on_channel(broker: Any, queue: str, run: str, call: Callable[..., int], *args: Any) -> int:
    """Call with this thread's channel; with a new one if RabbitMQ has closed it.

    It does so while a long job runs, for nothing is heard from the thread meanwhile.
    """
    slot = f"{queue}.begun.{crc32(run.encode()) % SLOTS}"
    try:
        return call(_channel(broker, slot), slot, run, *args)
    except native("pika.exceptions", "dramatiq").AMQPError:
        del broker.connection
        return call(_channel(broker, slot), slot, run, *args)


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
