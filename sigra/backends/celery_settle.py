"""Settle the message of a job of which Celery could not write what came of it."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

from sigra.backends.envelope import MARK
from sigra.backends.external import native
from sigra.errors import brief

_Step = native("celery.bootsteps", "celery").Step
_symbol_by_name = native("kombu.utils.imports", "celery").symbol_by_name
_Reject = native("celery.exceptions", "celery").Reject

_log = logging.getLogger("sigra.job")


class Settle(_Step):  # type: ignore[misc, valid-type]
    """Have a consumer let go of our jobs also where its result backend is down.

    Celery writes there first. By itself it would keep their messages until it ends, take no
    others once it has as many as it fetches ahead, and run those again after that.
    """

    def __init__(self, consumer: Any, **_: Any) -> None:
        for task in consumer.app.tasks.values():
            if getattr(task, MARK, False):
                task.Request = _settling(_symbol_by_name(task.Request))


@cache
def _settling(request: Any) -> Any:
    """Return a class of Celery's requests, the app's own, that lets go of them."""
    return request if issubclass(request, _Settling) else type("Request", (_Settling, request), {})


class _Settling:
    __slots__ = ()

    def on_failure(self: Any, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Do what Celery does; then let go of the message, if that raised first."""
        try:
            return super().on_failure(exc_info, *args, **kwargs)  # type: ignore[misc]
        except MemoryError:
            raise
        except Exception:
            if self.acknowledged:
                raise
            _log.exception("Celery could not write what came of job %s", brief(self.id))
        error = exc_info.exception
        error = getattr(error, "exc", error)
        if isinstance(error, _Reject):
            return self.reject(requeue=error.requeue)
        return self.acknowledge()  # revoked, or sent again
