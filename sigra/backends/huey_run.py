"""Run a job in huey's consumer, and tell huey what came of it."""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import partial
from typing import Any

from sigra.backends.envelope import MARK
from sigra.backends.external import Consumed, consume, native, refuse_positional
from sigra.backends.huey_again import insist, taken
from sigra.backends.native_error import error_text
from sigra.backends.orm_thread import execute_apart, execute_in_place

_api = native("huey.api", "huey")
_exceptions = native("huey.exceptions", "huey")

_registering = threading.Lock()


def task_of(huey: Any, worker: str) -> Any:
    """Return the task class of a worker, which looks the worker up when it runs.

    Raises ``ValueError`` where a native task of the huey has this name.
    """
    registry = huey._registry
    known = registry._registry.get(worker if "." in worker else f".{worker}")
    if getattr(known, "execute", None) is run:
        return known
    with _registering:
        module, _, name = worker.rpartition(".")
        facts = {"execute": run, "__module__": module, "worker": worker, "huey": huey}
        known = registry._registry.get(f"{module}.{name}")
        if getattr(known, "execute", None) is not run:
            known = type(name, (_api.Task,), facts)
            registry.register(known)
    return known


def read(huey: Any, data: bytes) -> Any:
    """Read a task; make a class for one whose worker is not imported here: huey would drop it."""
    message = huey.serializer.deserialize(data)
    if MARK in (message.kwargs or ()):
        task_of(huey, message.name.removeprefix("."))
    task = huey._registry.create_task(message)
    return taken(task) if type(task).execute is run else task


def run(task: Any) -> None:
    """Run a job: the body of every worker's task."""
    if task.args:
        consumed = refuse_positional(task.worker, task.id)
    else:
        by = execute_in_place if task.huey.immediate else execute_apart
        consumed = consume(task.kwargs, task.worker, "huey", native_id=task.id, execute=by)
    _settle(task, consumed)


def _settle(task: Any, consumed: Consumed) -> None:
    verdict, error = consumed.verdict, consumed.verdict.error
    match verdict.state:
        case "retryable" | "scheduled":
            task.kwargs = consumed.following()
            with suppress(Exception):  # huey does it next, and if it cannot, drops the job
                insist(task.huey, partial(task.huey.delete, task.revoke_id))
            raise _exceptions.RetryTask(verdict.state, delay=verdict.delay or None) from error
        case "cancelled":
            raise _exceptions.CancelExecution(str(error), retry=False) from error
        case "discarded":
            # Not the error itself: SystemExit would end huey's thread, RetryTask have it retried.
            raise RuntimeError(error_text(error)) from error
