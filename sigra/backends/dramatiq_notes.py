"""Note at the broker which jobs are begun and not ended.

On Redis the count is written into the message, which Redis keeps until it is acknowledged; for
RabbitMQ see ``rabbitmq_notes``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from sigra.backends.external import native
from sigra.backends.rabbitmq_notes import QueueNotes
from sigra.errors import brief

_log = logging.getLogger("sigra.job")

RUN, BEGUN = "sigra_run", "sigra_begun"
"""Options of a message: the number of the job's run, from 0, and how often that run was begun."""

_IF_THERE = """
if redis.call('hexists', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('hset', KEYS[1], ARGV[1], ARGV[2])
return 1
"""

_local = threading.local()


@contextmanager
def counted(broker: Any, message: Any) -> Iterator[int | None]:
    """Note at the broker that this run begins; yield how often it began before and never ended.

    None: Redis no longer has the message, because another consumer has run it and is done.
    """
    noted, gone, options = False, False, message.options
    before = options.get(BEGUN) or 0
    run = f"{message.message_id}.{options.get(RUN, 0)}"
    notes = InQueues(message.queue_name)
    try:
        if hasattr(message, "redelivered"):  # RabbitMQ's
            again = message.redelivered or before > 0
            before = _on_channel(broker, notes.begin, run, before, again)
            noted = True
        elif "redis_message_id" in options:
            gone = not _write(broker, message, before + 1)
    except Exception:
        what = "job %s runs, but its start could not be counted"
        _log.warning(what, brief(message.message_id), exc_info=True)
    yield None if gone else before
    try:
        if noted:
            _on_channel(broker, notes.end, run, before + 1)
    except Exception:
        what = "could not delete the start note of job %s: it expires"
        _log.warning(what, brief(run), exc_info=True)


def begun_no_more(broker: Any, message: Any) -> None:
    """Reset the count in a message that becomes a dead letter, so that it can be run again."""
    if "redis_message_id" in message.options:
        try:
            _write(broker, message, 0)
        except Exception:
            what = "could not reset the start count of job %s, which is a dead letter now"
            _log.warning(what, brief(message.message_id), exc_info=True)


def _write(broker: Any, message: Any, begun: int) -> bool:
    """Write into a message on Redis how often it was begun; tell whether Redis still has it."""
    copy = message.copy(options={BEGUN: begun})
    place = f"{broker.namespace}:{message.queue_name}.msgs", message.options["redis_message_id"]
    return bool(broker.client.eval(_IF_THERE, 1, *place, copy.encode()))


def _get(channel: Any, slot: str) -> tuple[int, bytes] | None:
    method, _, body = channel.basic_get(slot)
    return None if method is None else (method.delivery_tag, body)


def _publish(channel: Any, slot: str, note: bytes) -> None:
    channel.basic_publish("", slot, note)


InQueues = partial(QueueNotes, get=_get, publish=_publish)


def _on_channel(broker: Any, call: Callable[..., Any], *args: Any) -> Any:
    """Call with this thread's channel; with a new one if RabbitMQ has closed it.

    It does so during a long job, because this thread sends it nothing meanwhile.
    """
    try:
        return call(_channel(broker), *args)
    except native("pika.exceptions", "dramatiq").AMQPError:
        del broker.connection
        return call(_channel(broker), *args)


def _channel(broker: Any) -> Any:
    channel, connection = getattr(_local, "channel", None), broker.connection
    if channel is None or channel.connection is not connection or not channel.is_open:
        channel = _local.channel = connection.channel()
        channel.confirm_delivery()
    return channel
