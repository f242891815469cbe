"""Carry jobs by huey: each worker is a task of its name in the user's own huey."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from sigra import catalog
from sigra.backend import Capability
from sigra.backends.envelope import MARK, pack
from sigra.backends.external import WAIT_FOR_DEPLOY, consume, native
from sigra.backends.huey_file import FileStorage
from sigra.backends.huey_json import JSONSerializer
from sigra.backends.producing import raise_not_sent, require_json
from sigra.errors import EnqueueError, UnknownWorkerError

if TYPE_CHECKING:
    from sigra.job import Job

__all__ = ["FileStorage", "HueyBackend", "JSONSerializer"]

_api = native("huey.api", "huey")
_exceptions = native("huey.exceptions", "huey")

_AT_ONCE = nullcontext()

_log = logging.getLogger("sigra.job")


class HueyBackend:
    """Send jobs through a huey; ``huey_consumer app.huey`` runs them.

    ``huey``: the user's own, made with ``serializer=JSONSerializer()``, whose other tasks
    stay as they are. By default one on the SQLite file that the environment variable
    ``SIGRA_HUEY_FILE`` names, else ``sigra-huey.db`` in the current folder, from which a
    killed consumer loses no job; ``HueyBackend().huey`` is what its consumer is started
    with. Raises ``ValueError`` for a huey that pickles.
    """

    name = "huey"
    capabilities: frozenset[Capability] = frozenset(
        {"delay", "run_at", "max_attempts", "backoff", "native", "at_most_once"}
    )

    def __init__(self, huey: Any = None) -> None:
        if huey is None:
            huey = _on_file(os.environ.get("SIGRA_HUEY_FILE") or "sigra-huey.db")
        cure = "make it with serializer=sigra.backends.huey.JSONSerializer()"
        require_json(huey.serializer.serialize(["a"]), "this huey", cure)
        self.huey, self.embedded = huey, isinstance(huey.storage, FileStorage)
        if huey.storage.priority:
            self.capabilities |= frozenset[Capability](("priority",))
        if self.embedded:
            self.capabilities -= {"at_most_once"}
            huey.on_shutdown("sigra.release")(huey.storage.release)
        self._registering = threading.Lock()
        huey.deserialize_task = self._read
        catalog.subscribe(lambda definition: self._register(definition.name))

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Send the jobs: on a file all of them or none, elsewhere one by one."""
        try:
            with self.huey.storage.transaction() if self.embedded else _AT_ONCE:
                for job in jobs:
                    self.huey.enqueue(self._task(job))
                    if not self.embedded:
                        job.accept(native_id=job.id)
        except Exception as error:
            raise_not_sent(self.name, error, jobs)
        for job in jobs:
            job.accept(native_id=job.id)

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Do the same in a thread: huey itself only blocks."""
        await asyncio.to_thread(self.enqueue, jobs)

    def _task(self, job: Job) -> Any:
        options, eta = job.options, None
        if options.delay is not None or options.run_at is not None:
            eta = _api.normalize_time(options.run_at, options.delay, self.huey.utc)
        kind = self._register(job.worker)
        return kind(kwargs=pack(job), id=job.id, eta=eta, priority=options.priority or None)

    def _register(self, worker: str) -> Any:
        """Return the task class of a worker, which looks the worker up when it runs."""
        registry = self.huey._registry
        known = registry._registry.get(worker if "." in worker else f".{worker}")
        if getattr(known, "execute", None) is _execute:
            return known
        with self._registering:
            module, _, name = worker.rpartition(".")
            facts = {"execute": _execute, "__module__": module, "worker": worker}
            known = registry._registry.get(f"{module}.{name}")
            if getattr(known, "execute", None) is not _execute:
                known = type(name, (_api.Task,), facts)
                registry.register(known)  # ValueError where a native task has this name
        return known

    def _read(self, data: bytes) -> Any:
        """Read a task; keep one whose worker is not imported here, which huey would drop."""
        message = self.huey.serializer.deserialize(data)
        if MARK in (message.kwargs or ()):
            self._register(message.name.removeprefix("."))
        return self.huey._registry.create_task(message)


def _execute(task: Any) -> None:
    """Be the body of every worker's task."""
    if task.args:
        raise TypeError(f"give the args of {task.worker} by name: no worker takes them by position")
    try:
        definition = catalog.lookup(task.worker)
    except UnknownWorkerError as unknown:
        _log.error("job %s waits: %s", task.id, unknown)
        raise _exceptions.RetryTask(str(unknown), delay=WAIT_FOR_DEPLOY) from unknown
    consumed = consume(task.kwargs, definition, HueyBackend.name, native_id=task.id)
    verdict, error = consumed.verdict, consumed.verdict.error
    if verdict.state in ("retryable", "scheduled"):
        task.kwargs = consumed.following()
        raise _exceptions.RetryTask(verdict.state, delay=verdict.delay or None) from error
    if verdict.state == "cancelled":
        raise _exceptions.CancelExecution(str(error), retry=False) from error
    if error is not None:
        # Not the error itself: SystemExit ends huey's thread, and huey retries its own RetryTask.
        raise RuntimeError(f"{type(error).__qualname__}: {error}") from error


def _on_file(file: str) -> Any:
    try:
        return _api.Huey(
            "sigra", serializer=JSONSerializer(), storage_class=FileStorage, filename=file
        )
    except sqlite3.Error as error:
        reason = f"{file} is no SQLite file that can be written ({error})"
        raise EnqueueError(HueyBackend.name, f"{reason}; name one by SIGRA_HUEY_FILE") from error
