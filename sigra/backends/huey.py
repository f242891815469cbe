"""Carry jobs by huey: each worker is a task of its name in the user's own huey."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import timezone
from functools import partial
from typing import Any

from sigra.backends.envelope import pack
from sigra.backends.huey_again import write_surely
from sigra.backends.huey_file import FileStorage, huey_on
from sigra.backends.huey_json import JSONSerializer
from sigra.backends.huey_run import read, task_of
from sigra.backends.producing import SAMPLE, able_to, due_at, require_json, sending
from sigra.backends.registering import expect, register_with
from sigra.definition import Definition
from sigra.job import Job

__all__ = ["FileStorage", "HueyBackend", "JSONSerializer"]


class HueyBackend:
    """Send jobs through a huey; ``huey_consumer app.huey`` runs them.

    ``huey``: your own, made with ``serializer=JSONSerializer()``; its other tasks stay as they
    are. By default one on the SQLite file that the environment variable ``SIGRA_HUEY_FILE``
    names, else on ``sigra-huey.db`` in the current folder; a killed consumer loses no job of
    it. Start its consumer with ``HueyBackend().huey``. Raises ``ValueError`` for a huey that
    pickles.
    """

    name = "huey"
    capabilities = able_to("at_most_once")

    def __init__(self, huey: Any = None) -> None:
        if huey is None:
            huey = huey_on(os.environ.get("SIGRA_HUEY_FILE") or "sigra-huey.db")
        expect(huey, "storage", "HueyBackend takes a Huey")
        cure = "make it with serializer=sigra.backends.huey.JSONSerializer()"
        require_json(huey.serializer.serialize(SAMPLE), "this huey", cure)
        self.huey, self.embedded = huey, isinstance(huey.storage, FileStorage)
        if huey.storage.priority:
            self.capabilities |= able_to("priority")
        if self.embedded:
            self.capabilities = (self.capabilities - {"at_most_once"}) | able_to("at_least_once")
            huey.on_shutdown("sigra.release")(huey.storage.release)
            huey.execute = huey.storage.surely(huey.execute)
        else:
            write_surely(huey)
        huey.deserialize_task = partial(read, huey)
        register_with(huey, self._register)

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Send the jobs: to a file all of them or none, elsewhere one by one."""
        whole = self.huey.storage.transaction() if self.embedded else nullcontext()
        with sending(self.name, jobs), whole:
            for job in jobs:
                self.huey.enqueue(self._native(job))
                if not self.embedded:
                    job.accept(native_id=job.id)
        for job in jobs:
            job.accept(native_id=job.id)

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Do the same in a thread: huey itself only blocks."""
        await asyncio.to_thread(self.enqueue, jobs)

    def _native(self, job: Job) -> Any:
        kind, eta = task_of(self.huey, job.worker), due_at(job.options)
        if eta is not None:  # by the clock that huey goes by, and without its zone
            eta = eta.astimezone(timezone.utc if self.huey.utc else None).replace(tzinfo=None)
        return kind(kwargs=pack(job), id=job.id, eta=eta, priority=job.options.priority or None)

    def _register(self, definition: Definition) -> None:
        task_of(self.huey, definition.name)
