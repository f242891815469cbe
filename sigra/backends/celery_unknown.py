"""Keep jobs whose worker a consumer of Celery's has not imported; Celery would drop them."""

from __future__ import annotations

import logging
import time
from typing import Any

from sigra.backends.celery_send import SURELY, Lent
from sigra.backends.envelope import MARK
from sigra.backends.external import native
from sigra.backends.native_error import error_text
from sigra.errors import brief

_Step = native("celery.bootsteps", "celery").Step

_log = logging.getLogger("sigra.job")

_PAUSE = 0.1
"""Seconds to wait at each job that a consumer of ``unknown_queue`` does not know either."""

_HELD = 5.0
"""Seconds for which a consumer holds a job that it could not send on, before it puts it back."""

_TRAVELS = ("priority", "correlation_id", "reply_to")


def unknown_queue_of(app: Any) -> str:
    """Return the name of the queue in which unknown jobs wait for a deploy."""
    return f"{app.conf.task_default_queue}.unknown"


class KeepUnknown(_Step):  # type: ignore[misc, valid-type]
    """Have a consumer send unknown jobs on, unchanged, before it acknowledges them.

    Not by the signal ``task_unknown``: that comes after Celery has thrown the message away.
    """

    def __init__(self, consumer: Any, **_: Any) -> None:
        drop, queue = consumer.on_unknown_task, unknown_queue_of(consumer.app)

        def keep(body: Any, message: Any, unknown: KeyError) -> None:
            if not _is_ours(message):
                drop(body, message, unknown)
                return
            id = message.properties.get("correlation_id")
            if message.delivery_info.get("routing_key") == queue:
                time.sleep(_PAUSE)  # it goes to that queue's end
            else:
                waits = (
                    "job %s waits in queue %s: no worker is named %s; "  # unknown: KeyError(name)
                    "import its module in a consumer, and start one with -Q %s"
                )
                _log.error(waits, brief(id), queue, unknown, queue)
            try:
                _send_on(consumer, queue, message)
            except Exception as error:
                told = "job %s could not be moved to queue %s yet: %s"
                _log.error(told, brief(id), queue, error_text(error))
                _hold(consumer, message)
            else:
                message.ack_log_error(_log, consumer.connection_errors)

        consumer.on_unknown_task = keep


def _is_ours(message: Any) -> bool:
    try:
        body = message.payload
        kwargs = body["kwargs"] if isinstance(body, dict) else body[1]  # dict: of protocol 1
    except Exception:
        return False  # it cannot be read: Celery itself will say so
    return isinstance(kwargs, dict) and MARK in kwargs


def _send_on(consumer: Any, queue: str, message: Any) -> None:
    try:
        _publish(consumer.app, queue, message)
    except consumer.channel_errors:  # RabbitMQ has no such queue, or no longer
        known = consumer.app.amqp.queues
        if queue not in known:
            known.add(known.new_missing(queue))  # as its consumer will declare it
        _publish(consumer.app, queue, message, known[queue])


def _publish(app: Any, queue: str, message: Any, *declare: Any) -> None:
    headers, properties = message.headers, message.properties
    with Lent(app) as own:
        own.publish(
            message.body,
            exchange="",
            routing_key=queue,
            declare=declare,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            compression=headers.get("compression"),
            headers=headers,
            retry=True,
            **SURELY,
            **{name: properties[name] for name in _TRAVELS if name in properties},
        )


def _hold(consumer: Any, message: Any) -> None:
    """Put a message back after ``_HELD`` seconds, in which other messages are taken."""
    qos = consumer.qos
    qos.increment_eventually()

    def put_back() -> None:
        qos.decrement_eventually()
        if consumer.qos is qos:  # else its connection was lost, and the broker has it back
            message.reject_log_error(_log, consumer.connection_errors, requeue=True)

    consumer.timer.call_after(_HELD, consumer.call_soon, (put_back,))
