"""Carry jobs by RQ: each is a call of ``run``, described by its worker's name."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sigra.backends.external import native
from sigra.backends.producing import SAMPLE, able_to, due_at, require_json, sending
from sigra.backends.registering import expect
from sigra.backends.rq_run import run
from sigra.backends.rq_send import WORKER, native_job, send, send_once
from sigra.job import Job

__all__ = ["RQBackend", "run"]

_rq = native("rq", "rq")
_redis = native("redis", "rq")


class RQBackend:
    """Send jobs through an RQ queue; ``rq worker --with-scheduler --serializer json`` runs them.

    ``queue``: your own, made with ``serializer="json"``; a job's option ``queue`` names
    another one on the same connection. By default RQ's own default queue at ``RQ_REDIS_URL``.
    RQ's maintenance brings back a job whose consumer died: a failed attempt if the job had
    begun, none if it had only been taken. Raises ``ValueError`` for a queue that pickles.
    """

    name = "rq"
    capabilities = able_to("queue", "at_least_once")

    def __init__(self, queue: Any = None) -> None:
        if queue is None:
            url = os.environ.get("RQ_REDIS_URL", "redis://127.0.0.1:6379/0")
            queue = _rq.Queue(connection=_redis.Redis.from_url(url), serializer="json")
        expect(queue, "serializer", "RQBackend takes an RQ Queue")
        cure = "make it with Queue(..., serializer='json') and start 'rq worker --serializer json'"
        require_json(queue.serializer.dumps(SAMPLE), "this RQ queue", cure)
        self.queue = queue

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Send the jobs in one transaction: all of them, or none."""
        with sending(self.name, jobs, whole=True), self.queue.connection.pipeline() as pipeline:
            for job in jobs:
                self._send(job, pipeline)
            send_once(pipeline, self.queue, jobs[-1].id)
        for job in jobs:
            job.accept(native_id=job.id)

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Do the same in a thread: RQ itself only blocks."""
        await asyncio.to_thread(self.enqueue, jobs)

    def _send(self, job: Job, pipeline: Any) -> None:
        queue = self._queue(job.options.queue)
        send(queue, native_job(queue, job), due_at(job.options), pipeline)

    def _queue(self, name: str | None) -> Any:
        own = self.queue
        if name is None or name == own.name:
            return own
        kept = "connection", "serializer", "is_async", "job_class", "death_penalty_class"
        same = {each: getattr(own, each) for each in kept}
        return type(own)(name, default_timeout=own._default_timeout, **same)


if not TYPE_CHECKING:  # or a type checker would take any name

    def __getattr__(name: str) -> Any:
        """Return ``run`` by the name that a job in RQ's store has for it."""
        if not name.startswith(WORKER):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return run
