"""Note at the broker which jobs are begun and not ended.

Celery's brokers say that a message comes again, but neither how often nor whether the
consumer that died with it had begun it. So a job leaves a note when it begins and takes it
away when it ends: a job that comes again and has a note was running.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sigra.backends.celery_notes import InQueues, InRedis
from sigra.backends.celery_send import RETRY_POLICY, Own, connection_of
from sigra.backends.envelope import MARK
from sigra.backends.external import native
from sigra.errors import brief

_signals = native("celery.signals", "celery")

_log = logging.getLogger("sigra.job")


@contextmanager
def begun_before(task: Any, lost: int) -> Iterator[int]:
    """Note that a job begins; yield how often this run of it began before and never ended.

    ``lost``: the same by Celery's own count, which has only the runs that died with a child
    process.
    """
    request = task.request
    if request.is_eager:
        yield 0
        return
    id, before, noted = str(request.id), lost, False
    again = lost > 0 or bool((request.delivery_info or {}).get("redelivered"))
    broker = _broker_of(task.app)
    try:
        if again or (task.note_begins and broker.keeps_notes):
            before = broker.call(broker.notes.begin, id, lost, again)
            noted = True
    except Exception:
        _log.warning("job %s runs, but its start could not be counted", brief(id), exc_info=True)
    yield before
    try:
        if noted:
            broker.call(broker.notes.end, id, before + 1)
    except Exception:
        _log.warning(
            "could not delete the start note of job %s: it expires", brief(id), exc_info=True
        )


def _forget_revoked(sender: Any, request: Any, terminated: bool, **_: Any) -> None:
    """Take away the note of a job that a revoke killed."""
    if terminated and getattr(sender, MARK, False):
        broker = _broker_of(sender.app)
        broker.call(broker.notes.end, request.id, None)


_signals.task_revoked.connect(_forget_revoked)


class _Broker:
    """A process's own connection for notes, which its threads use in turns."""

    def __init__(self, app: Any) -> None:
        self._connection, self._channel = connection_of(app), None
        self._errors = self._connection.connection_errors + self._connection.channel_errors
        self._lock = threading.Lock()
        driver = self._connection.transport.driver_type
        self.notes = InRedis() if driver == "redis" else InQueues(app.conf.task_default_queue)
        self.keeps_notes = driver in ("redis", "amqp")

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call with the channel; with a new one if the broker has closed it meanwhile."""
        with self._lock:
            if self._channel is not None:
                try:
                    return self._call(function, *args)
                except self._errors:
                    pass
            return self._call(function, *args)

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            if self._channel is None:
                self._connection.ensure_connection(**RETRY_POLICY)
                self._channel = self._connection.channel()
            return function(self._channel, *args)
        except BaseException:
            self._channel = None  # it may be in the middle of an answer
            self._connection.collect()
            raise


_broker_of = Own(_Broker)
