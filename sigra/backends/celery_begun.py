"""Count how often a message that a broker delivers again was begun since it did so first.

Celery's brokers say that a message comes again, but neither how often nor whether the
consumer that died with it had begun it. So every begin of such a message leaves a mark in a
queue of its own, and its end removes them. A first delivery costs nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sigra.errors import brief

_log = logging.getLogger("sigra.job")

_EXPIRES_MS = 24 * 3600 * 1000
"""Milliseconds after which RabbitMQ drops the marks of a message that was never seen again."""


@contextmanager
def begun_before(app: Any, request: Any) -> Iterator[int]:
    """Yield how often a message's job was begun before, unless that was its first delivery."""
    if not (request.delivery_info or {}).get("redelivered"):
        yield 0
        return
    marks = f"sigra.begun.{request.id}"
    before = 0
    try:
        before = _mark(app, marks)
    except Exception:
        _log.warning("job %s runs uncounted", brief(request.id), exc_info=True)
    yield before
    try:
        with app.producer_or_acquire() as producer:
            producer.channel.queue_purge(marks)  # deletes it on Redis
            producer.channel.queue_delete(marks)
    except Exception:
        _log.warning("the marks of job %s are left over", brief(request.id), exc_info=True)


def _mark(app: Any, marks: str) -> int:
    """Leave one more mark; return how many there were."""
    with app.producer_or_acquire() as producer:
        found = producer.channel.queue_declare(
            marks, durable=True, auto_delete=False, arguments={"x-expires": _EXPIRES_MS}
        )
        producer.publish({}, routing_key=marks, exchange="", serializer="json")
    return int(found.message_count)
