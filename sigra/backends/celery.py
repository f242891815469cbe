"""Carry jobs by Celery: each worker is a task of its name in the user's own app."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from sigra.backends.celery_run import TASK, run
from sigra.backends.celery_send import SURELY, Lent, countdown, on_rabbitmq, own_app, queue_of
from sigra.backends.celery_settle import Settle
from sigra.backends.celery_unknown import KeepUnknown, unknown_queue_of
from sigra.backends.envelope import MARK, pack
from sigra.backends.kombu_json import fit, refuse_pickle
from sigra.backends.producing import able_to, seconds_until, sending
from sigra.backends.registering import expect, register_with
from sigra.definition import Definition
from sigra.errors import EnqueueError
from sigra.job import Job


class CeleryBackend:
    """Send jobs through a Celery app; ``celery -A app worker`` runs them.

    ``app``: your own, whose routes, limits and other tasks stay as they are; by default
    Celery's current one. ``note_begins``: note each job at the broker while it runs. A job
    that kills its whole consumer each time is then begun ``max_attempts`` times, otherwise once
    more. Jobs whose worker a consumer had not imported wait in ``unknown_queue``: after the deploy,
    start ``celery -A app worker -Q`` for it. Raises ``ValueError`` for an app that pickles.
    """

    name = "celery"
    capabilities = able_to("queue")

    def __init__(self, app: Any = None, *, note_begins: bool = True) -> None:
        self.app = own_app(app)
        refuse_pickle(expect(self.app, "steps", "CeleryBackend takes a Celery app").conf)
        if on_rabbitmq(self.app.conf):
            self.capabilities |= able_to("at_least_once")
        self._note_begins = note_begins
        self.unknown_queue = unknown_queue_of(self.app)
        self.app.steps["consumer"] |= {KeepUnknown, Settle}
        register_with(self.app, self._register)

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Send the jobs, over one connection; a broker that is down is tried three times.

        Each has arrived when it returns: RabbitMQ has confirmed it, or Redis answered.
        """
        with sending(self.name, jobs), Lent(self.app) as own:
            for job in jobs:
                self._send(job, own)
                job.accept(native_id=job.id)

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Do the same in a thread: Celery itself only blocks."""
        await asyncio.to_thread(self.enqueue, jobs)

    def _send(self, job: Job, own: Any) -> None:
        kwargs, task = fit(pack(job)), self.app.tasks[job.worker]
        if not hasattr(task, MARK):  # Celery keeps the task that came first
            reason = f"the app has a task of its own that is named {job.worker!r}: rename one"
            raise EnqueueError(self.name, reason)
        task.apply_async(
            args=(),  # as ``delay`` passes them: a task class of the app's own may ask for them
            kwargs=kwargs,
            kwargsrepr=str(kwargs)[:1024],  # Celery's own way to make it is slow
            task_id=job.id,
            countdown=countdown(self.app, seconds_until(job.options)),
            producer=own,
            **SURELY,
            **queue_of(job, self.app.conf),
        )

    def _register(self, definition: Definition) -> None:
        # Elastic's agent names a run by these of the worker's function.
        named = {each: getattr(definition.function, each) for each in ("__module__", "__name__")}
        self.app.task(run, name=definition.name, note_begins=self._note_begins, **named, **TASK)
