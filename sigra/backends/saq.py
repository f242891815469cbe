"""Carry jobs by SAQ: each worker is a function of its name in the user's own settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sigra import catalog
from sigra.backends.external import native
from sigra.backends.loop import answered, wait_for, within
from sigra.backends.none_known import warn_if_none
from sigra.backends.producing import SAMPLE, able_to, require_json, sending
from sigra.backends.registering import expect
from sigra.backends.saq_connect import Connection, queue_of
from sigra.backends.saq_run import named, native_job
from sigra.backends.saq_watch import watch, watch_consumers
from sigra.job import Job

_saq = native("saq", "saq")

_TIMEOUT = 10.0
"""Seconds after which a server that does not answer is down; SAQ itself would wait for ever."""


class SaqBackend:
    """Send jobs through a SAQ queue; ``saq app.settings`` runs them.

    ``queue``: your own, by default SAQ's default one; its consumer lists ``functions`` beside
    its own in the settings. ``others``: further ones, for a job's option ``queue`` to name.
    ``heartbeat``: the seconds without a heartbeat after which SAQ's sweep takes a job's
    consumer for dead. Raises ``ValueError`` for a queue that pickles.
    """

    name = "saq"
    capabilities = able_to("queue", "unique")

    def __init__(self, queue: Any = None, *others: Any, heartbeat: int = 15) -> None:
        self.queue = _saq.Queue.from_url("redis://localhost") if queue is None else queue
        what = "SaqBackend takes SAQ queues"
        given = [expect(each, "serialize", what) for each in (self.queue, *others)]
        self._queues = {each.name: each for each in given}
        self._connections = {
            name: Connection(each, _TIMEOUT) for name, each in self._queues.items()
        }
        self._heartbeat = heartbeat
        watch_consumers()
        for each in self._queues.values():
            cure, written = "leave dump= and load= out", each.serialize(_saq.Job("", SAMPLE))
            require_json(written, f"the SAQ queue {each.name!r}", cure)
            watch(each)
            if not hasattr(each, "redis"):
                # On PostgreSQL SAQ treats a finished job's key as held within the same second.
                self.capabilities -= {"unique"}
        if all(hasattr(each, "pool") or hasattr(each, "redis") for each in self._queues.values()):
            self.capabilities |= able_to("at_least_once")  # but not SAQ's by HTTP

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Send the jobs from outside of event loops, by the queue's loop or one of our own."""
        queue = queue_of(self._queues, jobs[0])
        wait_for(self.name, self._connections[queue.name].loop(), self._send(queue, jobs))

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Send the jobs by this event loop, or by the one that the queue is connected in."""
        queue = queue_of(self._queues, jobs[0])
        await within(self.name, self._connections[queue.name].loop(), self._send(queue, jobs))

    async def _send(self, queue: Any, jobs: Sequence[Job]) -> None:
        with sending(self.name):
            await self._connections[queue.name]()
        with sending(self.name, jobs, commits=hasattr(queue, "pool")):
            for job in jobs:
                native = native_job(job, queue, self._heartbeat)
                taken = await answered(queue.enqueue(native), _TIMEOUT)
                job.accept(native_id=native.key, duplicate=taken is None)

    @property
    def functions(self) -> list[tuple[str, Any]]:
        """Return what SAQ's settings take as ``functions``: all workers known now, by name."""
        warn_if_none("SAQ fails each job of one", "import them before the settings")
        return [(each.name, named(each.name)) for each in catalog.definitions()]
