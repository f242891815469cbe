"""Keep jobs whose worker a consumer of Celery's has not imported; Celery would drop them."""

from __future__ import annotations

import logging
from typing import Any

from sigra.backends.celery_send import RETRY_POLICY, producer
from sigra.backends.envelope import MARK
from sigra.backends.external import native
from sigra.errors import brief

_Step = native("celery.bootsteps", "celery").Step

_log = logging.getLogger("sigra.job")

_TRAVELS = ("priority", "correlation_id", "reply_to")


def unknown_queue_of(app: Any) -> str:
    """Return the name of the queue in which such jobs wait for a deploy."""
    return f"{app.conf.task_default_queue}.unknown"


class KeepUnknown(_Step):  # type: ignore[misc, valid-type]
    """Have a consumer send such jobs on, just as they are, before it acknowledges them.

    Not by the signal ``task_unknown``, which comes when Celery has thrown the message away.
    """

    def __init__(self, consumer: Any, **_: Any) -> None:
        drop = consumer.on_unknown_task

        def keep(body: Any, message: Any, error: Exception) -> None:
            if not _is_ours(message):
                drop(body, message, error)
                return
            try:
                _send_on(consumer.app, message)
            except Exception:  # it is not acknowledged, and so delivered again
                _log.exception("a job whose worker is not known here waits at the broker")
            else:
                message.ack_log_error(_log, consumer.connection_errors)

        consumer.on_unknown_task = keep


def _is_ours(message: Any) -> bool:
    try:
        body = message.payload
        kwargs = body["kwargs"] if isinstance(body, dict) else body[1]  # dict: of protocol 1
    except Exception:
        return False  # it cannot be read, which Celery itself will say
    return isinstance(kwargs, dict) and MARK in kwargs


def _send_on(app: Any, message: Any) -> None:
    known, queue = app.amqp.queues, unknown_queue_of(app)
    headers, properties = message.headers, message.properties
    with producer(app) as own:
        own.publish(
            message.body,
            exchange="",
            routing_key=queue,
            declare=[known.get(queue) or known.new_missing(queue)],
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            compression=headers.get("compression"),
            headers=headers,
            retry=True,
            retry_policy=RETRY_POLICY,
            **{name: properties[name] for name in _TRAVELS if name in properties},
        )
    id, name = properties.get("correlation_id"), headers.get("task")
    _log.error("job %s waits in queue %s: no worker is named %r", brief(id), queue, name)
