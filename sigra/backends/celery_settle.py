"""Settle the message of a job that Celery would keep, or would take off the queue too soon."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from functools import cache
from typing import Any

from sigra import catalog
from sigra.backends.celery_limit import look_at_the_limit
from sigra.backends.celery_stop import keep_given
from sigra.backends.envelope import MARK
from sigra.backends.external import native
from sigra.backends.kombu_json import refuse_pickle
from sigra.errors import brief

_Step = native("celery.bootsteps", "celery").StartStopStep
_symbol_by_name = native("kombu.utils.imports", "celery").symbol_by_name
_ExceptionInfo = native("billiard.einfo", "celery").ExceptionInfo
_exceptions = native("celery.exceptions", "celery")

_log = logging.getLogger("sigra.job")
_turns = threading.Lock()


class Settle(_Step):  # type: ignore[misc, valid-type]
    """Have a consumer acknowledge or reject our jobs in two cases where Celery does it wrong.

    Celery writes to the result backend first. If that is down, it would keep the messages until
    the consumer ends, take no others once it holds as many as it prefetches, and run these jobs
    again. And it would drop a job with attempts left whose process a hard time limit ends.
    """

    def __init__(self, consumer: Any, **_: Any) -> None:
        refuse_pickle(consumer.app.conf)  # it may have been set after the backend was made
        _refuse_natives(consumer.app.tasks)
        for task in consumer.app.tasks.values():
            if getattr(task, MARK, False):
                task.Request = _settling(_symbol_by_name(task.Request))
                task.max_retries = None  # an annotation for all tasks would end ours too soon

    def start(self, consumer: Any) -> None:
        """Prepare the pool, which has its processes by now."""
        look_at_the_limit(consumer.pool)
        keep_given(consumer)


def _refuse_natives(tasks: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if a task of the app's own would run a worker's jobs."""
    for definition in catalog.definitions():
        if not hasattr(tasks[definition.name], MARK):  # Celery keeps the task that came first
            raise ValueError(
                f"this app has a task of its own named {definition.name!r}, which would get the "
                "worker's jobs: rename one"
            )


@cache
def _settling(request: Any) -> Any:
    """Return the app's own class of Celery requests, with ``_Settling`` between it and Celery's."""
    if issubclass(request, _Settling):
        return request
    celerys = _symbol_by_name("celery.worker.request:Request")
    ours = type("Request", (_Settling, celerys), {})
    return ours if request is celerys else type("Request", (request, ours), {})


class _Settling:
    __slots__ = ()
    _cut_off = False

    def on_timeout(self: Any, soft: bool, timeout: float) -> None:
        """Settle what a hard time limit cuts off, unless ``on_failure`` has: gevent needs it."""
        if soft:
            super().on_timeout(soft, timeout)  # type: ignore[misc]
        else:
            _Settling.on_failure(self, _info(_exceptions.TimeLimitExceeded(timeout)))

    def on_failure(self: Any, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Do what Celery does; if that raises, settle the message here unless it is settled.

        What a hard time limit cuts off is sent again, and counted, as if its process had died;
        Celery kills that process a tenth of a second later, whatever it does then.
        """
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, _exceptions.TimeLimitExceeded):
            if self._is_settled():
                return None
            limit = "Hard time limit (%ss) exceeded for %s[%s]"
            _log.error(limit, *error.args, self.task.name, brief(self.id))
            exc_info = _info(_exceptions.WorkerLostError(repr(error)))
        try:
            return super().on_failure(exc_info, *args, **kwargs)  # type: ignore[misc]
        except MemoryError:
            raise
        except Exception:
            _log.exception("Celery could not record the outcome of job %s", brief(self.id))
        if isinstance(error, _exceptions.Reject):
            return self.reject(requeue=error.requeue)
        return self.acknowledge()  # revoked, or sent again

    def _is_settled(self: Any) -> bool:
        """Tell whether a cut-off job ended just in time, was cancelled, or is reported twice.

        In a warm stop two threads look at the limits. After a cold stop has cancelled a job,
        the broker has it back when the consumer ends.
        """
        with _turns:
            told, self._cut_off = self._cut_off, True
        ended = self.acknowledged and self.task.acks_late
        return bool(told or ended or self._already_revoked or self._already_cancelled)


def _info(error: Exception) -> Any:
    """Return an exception in the form in which Celery's pool reports it."""
    try:
        raise error
    except Exception:
        return _ExceptionInfo()
