"""Carry jobs by taskiq: each worker is a task of its name on the user's own broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from sigra import catalog
from sigra.backends.envelope import pack
from sigra.backends.external import native
from sigra.backends.loop import Together, answered, wait_for, within
from sigra.backends.producing import able_to, sending
from sigra.backends.taskiq_json import refuse_pickle
from sigra.backends.taskiq_queues import surely_kick
from sigra.backends.taskiq_run import LABELS, AsyncKicker, Formatter, add, begin_work, send
from sigra.backends.taskiq_stream import is_stream
from sigra.definition import Definition
from sigra.errors import InvalidOptionError
from sigra.job import Job

_taskiq = native("taskiq", "taskiq")


class TaskiqBackend:
    """Send jobs through a taskiq broker; ``taskiq worker app:broker`` runs them.

    ``broker``: the user's own, of a kind that acknowledges (``RedisStreamBroker``,
    ``AioPikaBroker``). ``schedules``: the source from which ``taskiq scheduler`` sends what
    is due later; without one ``delay``, ``run_at`` and retries are refused, and a snoozed
    job waits in its consumer. ``queue``: where jobs go that name none. ``timeout``: seconds
    after which a broker that does not answer is down. Raises ``ValueError`` if messages,
    schedules or results are not JSON.
    """

    name = "taskiq"
    capabilities = able_to("queue", "at_least_once")

    def __init__(
        self, broker: Any, schedules: Any = None, *, queue: str | None = None, timeout: float = 10.0
    ) -> None:
        for part in (broker, schedules, broker.result_backend):
            refuse_pickle(part)
        if not (is_stream(broker) or hasattr(broker, "write_channel")):
            self.capabilities -= {"at_least_once"}  # neither Redis streams nor RabbitMQ
        if schedules is None:
            self.capabilities &= {"queue", "native", "at_least_once"}
        self.broker, self.schedules = broker, schedules
        self._queue, self._timeout = queue, timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        self._together = Together()
        for event in (_taskiq.TaskiqEvents.CLIENT_STARTUP, _taskiq.TaskiqEvents.WORKER_STARTUP):
            broker.add_event_handler(event, self._started)
        broker.with_formatter(Formatter(broker, schedules))
        surely_kick(broker)
        catalog.subscribe(self._register)

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Send the jobs from outside of event loops, by the broker's loop or one of our own."""
        self._check_queue(jobs[0])
        wait_for(self.name, self._loop, self._send(jobs))

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Send the jobs by the loop that the broker was started in, or by one of our own.

        Not by this one, which may end before the process does.
        """
        self._check_queue(jobs[0])
        await within(self.name, self._loop, self._send(jobs))

    async def _send(self, jobs: Sequence[Job]) -> None:
        with sending(self.name, jobs):
            await self._together(self._start if self._loop is None else None)
            for job in jobs:
                delay, queue = job.options.wait(time.time()), job.options.queue or self._queue
                labels = LABELS if queue is None else {**LABELS, "queue_name": queue}
                kicker = AsyncKicker(job.worker, self.broker, dict(labels))
                sent = send(kicker.with_task_id(job.id), self.schedules, pack(job), delay)
                await answered(sent, self._timeout)
                job.accept(native_id=job.id)

    def _check_queue(self, job: Job) -> None:
        """Refuse a queue that this broker does not have, where jobs would be lost."""
        broker, queue = self.broker, job.options.queue
        if queue is None:
            return
        known = {each.name for each in getattr(broker, "_task_queues", ())}
        known |= {getattr(broker, "queue_name", None), *getattr(broker, "additional_streams", ())}
        if queue not in known:
            reason = f"this broker has no queue {queue!r}: make it with one, in its consumer too"
            raise InvalidOptionError("queue", reason, job.worker)

    async def _start(self) -> None:
        """Start a broker that the application did not, so that its queues are there."""
        try:
            await answered(self.broker.startup(), self._timeout)
        except BaseException:
            self._loop = None
            raise

    def _started(self, _: Any) -> None:
        refuse_pickle(self.broker.result_backend)  # which may have been set since
        self._loop = asyncio.get_running_loop()
        if self.broker.is_worker_process:
            self._awake = begin_work(self.broker, self.schedules)

    def _register(self, definition: Definition) -> None:
        name, known = definition.name, self.broker.local_task_registry.get(definition.name)
        if known is not None and known.original_func.__module__ != add.__module__:
            raise ValueError(f"the task {name!r} of this taskiq broker is not a worker's")
        add(self.broker, self.schedules, name)
