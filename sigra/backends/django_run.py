"""Run a job in Django's consumer, and tell Django what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any

from sigra.backends.django_rescue import (
    RESCUE,
    count_delivery,
    end,
    go_on,
    lost_if_unwritten,
    rescue,
    watch,
)
from sigra.backends.envelope import MARK
from sigra.backends.external import Consumed, consume, native
from sigra.backends.jsonb import unfit, writable
from sigra.backends.orm_thread import execute_in_place
from sigra.catalog import find
from sigra.errors import UnknownWorkerError
from sigra.job import FINISHED

_tasks = native("django.tasks", "django")

WORKER = "worker:"
"""What stands before a worker's name in the path of its task, after the backend's module."""

_MODULE = "sigra.backends.django"


@cache
def task_of(worker: str) -> Any:
    """Return the Django task of the worker of that name; hand-built jobs are sent by it too."""

    def body(context: Any, /, **payload: Any) -> None:
        result = context.task_result
        if worker == RESCUE:
            rescue(result.task, f"{_MODULE}.{WORKER}")
        else:
            run(worker, result, payload)

    # No dots after the module's name: Django takes what follows the last for the attribute.
    path = worker.replace("%", "%25").replace(":", "%3A").replace(".", ":")
    body.__module__, body.__qualname__, body.__name__ = _MODULE, WORKER + path, worker
    alias, queue = next(iter(_tasks.task_backends)), _tasks.DEFAULT_TASK_QUEUE_NAME
    queues = _tasks.task_backends[alias].queues or {queue}
    queue = queue if queue in queues else min(queues)  # it has to be one of them
    return _tasks.task(backend=alias, queue_name=queue, takes_context=True)(body)


def run(worker: str, result: Any, payload: Mapping[str, Any]) -> None:
    """Run a job: the body of every worker's task."""
    with lost_if_unwritten(result.db_result):
        watch(result.task, task_of(RESCUE))
        count_delivery(result.db_result)
    with suppress(UnknownWorkerError):
        # The worker's module is imported if need be, as Django does for its own tasks.
        find(worker, worker.rpartition(".")[0] or worker)
    facts: Any = {"native_id": str(result.db_result.id), "execute": execute_in_place}
    consumed = consume(unfit(payload), worker, "django", **facts)
    _settle(result, consumed)


def _settle(result: Any, consumed: Consumed) -> None:
    verdict = consumed.verdict
    if verdict.state in ("retryable", "scheduled"):
        with lost_if_unwritten(result.db_result):
            go_on(result, consumed.following(), verdict)
    if verdict.error is None:
        return
    error = writable(verdict.error)
    if verdict.state in FINISHED and MARK in consumed.payload:
        end(result, consumed.by_hand(0), error)
    # Django then shows this row as failed; a retry goes on in a row of its own.
    raise error
