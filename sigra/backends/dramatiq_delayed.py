"""Have a Dramatiq consumer neither forget nor repeat the delayed messages that it holds.

On Redis, Dramatiq forgets them when the connection breaks, but Redis lists them as held by the
consumer for as long as that lives. And one that stood still puts them into their queue though
another took it for dead, and has them. On RabbitMQ, it puts all that are due into their queue
before it acknowledges the first: if it is killed meanwhile, they come again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from sigra.backends.dramatiq_received import Received
from sigra.backends.external import native

_dramatiq = native("dramatiq", "dramatiq")
_common = native("dramatiq.common", "dramatiq")
_ConnectionClosed = native("dramatiq.errors", "dramatiq").ConnectionClosed

_log = logging.getLogger("sigra.job")

_UNDER_WAY = 0.2
"""Seconds after which another consumer holds what it was just fetching, or is done with it."""


def hold_surely(broker: Any) -> None:
    """Have a broker on Redis put them back into their queue before a consumer starts again.

    That consumer then fetches them anew. RabbitMQ puts them back by itself; there, have each
    acknowledged as soon as it is in its queue. Of any queue, a consumer gets what it can handle.
    """
    consume, on_redis = broker.consume, hasattr(broker, "broker_id")

    def consume_surely(queue_name: str, *args: Any, **options: Any) -> Any:
        if queue_name == _common.xq_name(queue_name):  # somebody looks at dead letters
            return consume(queue_name, *args, **options)
        delayed = queue_name == _common.dq_name(queue_name)
        if delayed and on_redis:
            _give_back(broker, queue_name)
        kind = Awake if delayed and on_redis else Received
        consumer: Any = kind(broker, queue_name, consume(queue_name, *args, **options))
        if not delayed:
            return consumer
        if on_redis:
            consumer.requeue = _unless_redis_is_away(consumer.requeue)
        else:
            consumer.ack = partial(_ack, consumer, threading.get_ident(), consumer.ack)
        return consumer

    # Once is enough, and other brokers, such as one for tests, hold messages in the process.
    if (on_redis or hasattr(broker, "connections")) and consume.__module__ != __name__:
        broker.consume = consume_surely


class Awake(Received):
    """A consumer of delayed messages on Redis that drops them once it has stood still for too long.

    Those that are still its own it is given back, and fetches anew.
    """

    def __init__(self, broker: Any, *args: Any) -> None:
        super().__init__(broker, *args)
        # It gave its last sign of life a moment before it stood still, and more often does no harm.
        # Where there is no message, it waits itself, for up to its timeout.
        self._limit = (broker.heartbeat_timeout / 2 + self.timeout) / 1_000
        self._at = time.time()

    def __next__(self) -> Any:
        """Return the next message, or None where there is none now."""
        message = super().__next__()
        self._look()
        if message is not None:  # which is copied as soon as it is due
            message.copy = partial(self._copy, message.copy)
        return message

    def _copy(self, copy: Callable[..., Any], **changes: Any) -> Any:
        self._look()
        return copy(**changes)

    def _look(self) -> None:
        before = self._at
        self._at = time.time()  # the monotonic clock of a machine that sleeps stands still too
        if self._at - before > self._limit:
            raise _ConnectionClosed("this consumer stood still, and fetches its delayed jobs anew")


def _ack(consumer: Any, thread: int, own: Callable[[Any], None], message: Any) -> None:
    """Acknowledge a message now, and not when the consumer's thread next reads."""
    if threading.get_ident() != thread or message._tag not in consumer.known_tags:
        own(message)  # only its own thread may use a connection
        return
    consumer.known_tags.remove(message._tag)
    # Without its connection the message comes again, and the thread's next read finds that out.
    with suppress(native("pika.exceptions", "dramatiq").AMQPError):
        consumer.channel.basic_ack(message._tag)


def _give_back(broker: Any, queue: str) -> None:
    """Put back what Redis lists as held by this process, but no consumer in it holds."""
    try:
        if lost := _lost(broker, queue):
            time.sleep(_UNDER_WAY)
        if lost and (lost := lost & _lost(broker, queue)):
            broker.do_requeue(queue, *lost)
    except native("redis", "dramatiq").RedisError as error:
        raise _ConnectionClosed(error) from None


def _lost(broker: Any, queue: str) -> set[bytes]:
    books = broker.client.smembers(f"{broker.namespace}:__acks__.{broker.broker_id}.{queue}")
    return set(books - _held(broker, queue))


def _held(broker: Any, queue: str) -> set[bytes]:
    """Return the ids that a second worker's threads hold: this thread only starts, with none."""
    messages, threads = list[Any](), list[Any](threading.enumerate())
    threads.remove(threading.current_thread())
    for thread in threads:
        of = getattr(thread, "broker", None), getattr(thread, "queue_name", None)
        if of == (broker, queue):
            fetched = tuple(getattr(thread.consumer, "message_cache", ()))
            messages += map(_dramatiq.Message.decode, filter(None, fetched))
            waiting = tuple(thread.delay_queue.queue)
            messages += (getattr(item, "message", None) or item[1] for item in waiting)
    return {str(message.options["redis_message_id"]).encode() for message in messages}


def _unless_redis_is_away(requeue: Any) -> Any:
    """Return ``requeue`` that logs Redis's errors, which would end the consumer's thread."""

    def try_to_requeue(messages: Iterable[Any]) -> None:
        try:
            requeue(messages)
        except native("redis", "dramatiq").RedisError:
            what = "could not put delayed jobs back: it is done when Redis is up again"
            _log.warning(what, exc_info=True)

    return try_to_requeue
