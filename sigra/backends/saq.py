"""Carry jobs by SAQ: each worker is a function of its name in the user's own settings."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sigra import catalog
from sigra.backend import Capability
from sigra.backends.envelope import pack
from sigra.backends.external import Consumed, aconsume, failures_in, native
from sigra.backends.loop import own_loop, submit, within
from sigra.backends.producing import error_text, raise_not_sent, require_json, unique_key
from sigra.errors import EnqueueError, InvalidOptionError
from sigra.execute import in_event_loop

if TYPE_CHECKING:
    from sigra.job import Job

_saq = native("saq", "saq")

_log = logging.getLogger("sigra.job")

_KEEP_DEAD = 365 * 24 * 3600
"""Seconds that a failed job is kept; SAQ itself would forget it after ten minutes."""

_AGAIN = 1.0
"""Seconds after which SAQ runs a job again whose consumer stopped or died; without any it
would queue one that had been scheduled twice."""


class SaqBackend:
    """Send jobs through a SAQ queue; ``saq app.settings`` runs them.

    ``queue``: the user's own, whose consumer lists ``functions`` beside its own in the
    settings. ``others``: further ones, which a job's option ``queue`` names. By default
    SAQ's own default queue. ``heartbeat``: seconds without a sign of life after which SAQ's
    sweep takes a job's consumer for dead. Raises ``ValueError`` for a queue that pickles.
    """

    name = "saq"
    capabilities: frozenset[Capability] = frozenset(
        {"queue", "delay", "run_at", "max_attempts", "backoff", "unique", "native"}
    )

    def __init__(self, queue: Any = None, *others: Any, heartbeat: int = 15) -> None:
        self.queue = _saq.Queue.from_url("redis://localhost") if queue is None else queue
        self._queues = {each.name: each for each in (self.queue, *others)}
        self._heartbeat = heartbeat
        for each in self._queues.values():
            written, writer = each.serialize(_saq.Job("sigra")), f"the SAQ queue {each.name!r}"
            require_json(written, writer, "leave dump= and load= out")
            if not hasattr(each, "redis"):
                # On PostgreSQL SAQ takes a finished job's key for held within the same second.
                self.capabilities -= {"unique"}

    @property
    def functions(self) -> list[tuple[str, Any]]:
        """Return what SAQ's settings take: every worker that is known now, by its name."""
        return [(definition.name, _run) for definition in catalog.definitions()]

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Send the jobs from outside of event loops, by the queue's loop or one of our own."""
        if in_event_loop():
            raise EnqueueError(self.name, "SAQ only awaits: use 'await worker.anew(...)' in a loop")
        queue = self._queue(jobs[0])
        try:
            loop = queue.loop
        except RuntimeError:  # it was not connected anywhere
            loop = own_loop()
        try:
            submit(loop, self._send(queue, jobs)).result()
        except Exception as error:
            raise_not_sent(self.name, error, jobs)

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Send the jobs by this event loop, or by the one that the queue is connected in."""
        queue = self._queue(jobs[0])
        try:
            await within(queue.loop, self._send(queue, jobs))
        except Exception as error:
            raise_not_sent(self.name, error, jobs)

    def _queue(self, job: Job) -> Any:
        name = job.options.queue
        if name is not None and name not in self._queues:
            reason = f"no queue {name!r}; SaqBackend was given {', '.join(self._queues)}"
            raise InvalidOptionError("queue", reason, job.worker)
        return self._queues[name or self.queue.name]

    async def _send(self, queue: Any, jobs: Sequence[Job]) -> None:
        await queue.connect()
        for job in jobs:
            options, now = job.options, time.time()
            native = _saq.Job(
                job.worker,
                kwargs=pack(job),
                key=unique_key(job) or job.id,
                scheduled=math.ceil(options.due(now)) if options.wait(now) else 0,
                timeout=0,
                heartbeat=self._heartbeat,
                retries=options.max_attempts + 1,  # the last delivery of a killer is refused
                retry_delay=_AGAIN,
                ttl=_KEEP_DEAD,
            )
            taken = await queue.enqueue(native)
            job.accept(native_id=native.key, duplicate=taken is None)


async def _run(context: dict[str, Any], /, **payload: Any) -> None:
    """Be the body of every worker's function."""
    job, worker = context["job"], context["worker"]
    task, job.retry_delay = worker.job_task_contexts[job], _AGAIN
    lost = max(0, job.attempts - 1 - failures_in(payload))
    definition = catalog.lookup(job.function)
    work = asyncio.ensure_future(
        aconsume(payload, definition, SaqBackend.name, native_id=job.key, deliveries=lost)
    )
    try:
        while not (await asyncio.wait({work}, timeout=job.heartbeat / 3 or None))[0]:
            await _beat(job)
    except asyncio.CancelledError:
        if worker.event.is_set():
            job.attempts -= 1  # SAQ stops, and runs the job again: no attempt of its own
        work.cancel()
        await asyncio.wait({work})
        raise
    await _settle(job, task, work.result())


async def _beat(job: Any) -> None:
    try:
        await job.update()
    except Exception:
        _log.warning("job %s gave no sign of life to its queue", job.key, exc_info=True)


async def _settle(job: Any, task: dict[str, Any], consumed: Consumed) -> None:
    verdict, error = consumed.verdict, consumed.verdict.error
    if verdict.state == "completed":
        job.ttl = type(job).ttl
        return
    task["aborted"] = verdict.state  # what is so marked, SAQ does not complete
    text = None if error is None else error_text(error)
    if verdict.state in ("retryable", "scheduled"):
        job.kwargs = consumed.following()
        job.attempts = failures_in(job.kwargs)
        job.retry_delay = verdict.delay + 1.0  # SAQ cuts seconds off, and this run must be over
        await job.retry(text)
    else:
        cancelled = verdict.state == "cancelled"
        await job.finish(_saq.Status.ABORTED if cancelled else _saq.Status.FAILED, error=text)
