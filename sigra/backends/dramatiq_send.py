"""Have a Dramatiq broker on RabbitMQ lose no job, neither to a deleted queue nor after a fork."""

from __future__ import annotations

import math
import threading
from functools import partial
from typing import Any
from weakref import WeakSet

from sigra.backends.external import native
from sigra.backends.producing import check_on_rabbitmq
from sigra.backends.rabbitmq_notes import SLOTS
from sigra.errors import InvalidOptionError
from sigra.ids import in_child
from sigra.job import Job

_middleware = native("dramatiq.middleware", "dramatiq")

_brokers = WeakSet[Any]()
_left: list[Any] = []

_UNCONFIRMED = "sigra_unconfirmed"
"""What a message that was sent and not confirmed has: the error of that. It does not travel."""


class OnceInAlarm(_middleware.Middleware):  # type: ignore[misc, name-defined]
    """Have Dramatiq send a job once to a RabbitMQ in an alarm: it would six times, and all arrive.

    That is where the application has set ``blocked_connection_timeout``; else Dramatiq waits.
    And what Dramatiq raises at its last try says what ended an earlier one, which may have arrived.
    """

    def before_enqueue(self, broker: Any, message: Any, _delay: object) -> None:
        """Have this thread's channel do so for a worker's message, and for no other."""
        if (known := getattr(broker.state, "channel", None)) is not None:
            vars(known).pop("basic_publish", None)  # of one that a middleware after this refused
        actor = broker.actors.get(message.actor_name)
        if actor is None or actor.fn.__module__ != "sigra.backends.dramatiq":
            return
        exceptions = native("pika.exceptions", "dramatiq")
        try:
            channel = broker.channel
        except exceptions.AMQPConnectionError as error:  # which Dramatiq would only log
            again = _middleware.MiddlewareError, exceptions.AMQPConnectionError
            earlier = vars(message).get(_UNCONFIRMED)
            raise type("AMQPConnectionError", again, {})(*error.args) from earlier
        channel.basic_publish = partial(_publish, broker, message, exceptions)


def _publish(broker: Any, message: Any, exceptions: Any, *args: Any, **options: Any) -> None:
    del broker.channel.basic_publish  # which this was, for one message
    try:
        broker.channel.basic_publish(*args, **options)
    except exceptions.ConnectionBlockedTimeout as error:  # which Dramatiq would try again
        del broker.connection
        raise native("dramatiq.errors", "dramatiq").ConnectionClosed(error) from error
    except exceptions.AMQPConnectionError as error:
        vars(message)[_UNCONFIRMED] = error
        raise


def surely_send(broker: Any) -> None:
    """Have RabbitMQ confirm each message, and each process send by connections of its own.

    Otherwise RabbitMQ silently drops what no queue takes; with this, Dramatiq makes a deleted
    queue anew. Connections made before do not ask for it, so each thread makes a new one.
    """
    if not getattr(broker, "confirm_delivery", True):
        broker.confirm_delivery, broker.state = True, threading.local()
    if not hasattr(broker, "connections"):
        return  # it is not on RabbitMQ
    if not any(isinstance(known, OnceInAlarm) for known in broker.middleware):
        broker.add_middleware(OnceInAlarm())
    _brokers.add(broker)


def queue_of(broker: Any, job: Job) -> str:
    """Return the queue that a job is sent to.

    Raises ``InvalidOptionError`` for one whose jobs would not run.
    """
    if (job.options.queue or "").endswith((".DQ", ".XQ")):
        reason = "it must not end in .DQ or .XQ, Dramatiq's own queues of delayed and dead messages"
        raise InvalidOptionError("queue", reason, job.worker)
    if hasattr(broker, "connections"):
        check_on_rabbitmq(job, f".begun.{SLOTS}")  # the longest that is added to its name
    return job.options.queue or str(broker.actors[job.worker].queue_name)


def millis(seconds: float) -> int | None:
    """Return a delay as Dramatiq takes it, None for none: by it no job begins before its time.

    One more, because Dramatiq cuts a fraction of a millisecond off the time that it adds this to.
    """
    return math.ceil(seconds * 1000) + 1 if seconds > 0 else None


def _leave_to_parent() -> None:
    """Have a forked process connect to RabbitMQ itself; its parent's connections stay open."""
    for broker in list(_brokers):
        _left.append((broker.state, broker.connections, broker.channels))
        broker.state, broker.connections, broker.channels = threading.local(), set(), set()


in_child(after_in_child=_leave_to_parent)
