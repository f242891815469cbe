"""Carry jobs by taskiq: each worker is a task of its name on the user's own broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sigra.backends.envelope import pack
from sigra.backends.loop import answered, wait_for, within
from sigra.backends.producing import able_to, seconds_until, sending
from sigra.backends.registering import register_with
from sigra.backends.taskiq_queues import check_queue, surely_kick
from sigra.backends.taskiq_received import Formatter
from sigra.backends.taskiq_refuse import refuse_dependencies, refuse_pickle, refuse_unwritable
from sigra.backends.taskiq_run import LABELS, AsyncKicker, add, send
from sigra.backends.taskiq_startup import Startup, results_of
from sigra.backends.taskiq_stream import is_stream
from sigra.definition import Definition
from sigra.job import Job


class TaskiqBackend:
    """Send jobs through a taskiq broker; ``taskiq worker app:broker`` runs them.

    ``broker``: your own, of a kind that acknowledges (``RedisStreamBroker``,
    ``AioPikaBroker``). ``schedules``: the source from which ``taskiq scheduler`` sends what
    is due later; without one, ``delay``, ``run_at`` and retries are refused, and a snoozed
    job waits in its consumer. ``queue``: the queue of jobs that name none. ``timeout``: the
    seconds after which a broker that does not answer counts as down. Raises ``ValueError`` if
    messages, schedules or results are not JSON, or ``schedules`` takes no schedules.
    """

    name = "taskiq"
    capabilities = able_to("queue", "at_least_once")

    def __init__(
        self, broker: Any, schedules: Any = None, *, queue: str | None = None, timeout: float = 10.0
    ) -> None:
        for part in (broker, schedules, results_of(broker)):
            refuse_pickle(part)
        refuse_unwritable(schedules)
        if not (is_stream(broker) or hasattr(broker, "write_channel")):
            self.capabilities -= {"at_least_once"}  # neither Redis streams nor RabbitMQ
        if schedules is None:
            self.capabilities &= {"queue", "native", "at_least_once"}
        self.broker, self.schedules = broker, schedules
        self._queue, self._timeout = queue, timeout
        self._startup = Startup(broker, schedules, timeout)
        broker.with_formatter(Formatter(broker, schedules))
        surely_kick(broker, schedules)
        register_with(broker, self._register)

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Send the jobs from outside of event loops, by the broker's loop or one of our own."""
        check_queue(self.broker, jobs[0])
        wait_for(self.name, self._startup.loop, self._send(jobs))

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Send the jobs by the loop that the broker was started in, or by one of our own.

        Not by the caller's loop, which may end before the process does.
        """
        check_queue(self.broker, jobs[0])
        await within(self.name, self._startup.loop, self._send(jobs))

    async def _send(self, jobs: Sequence[Job]) -> None:
        with sending(self.name):
            await self._startup()
        with sending(self.name, jobs):
            for job in jobs:
                delay, queue = seconds_until(job.options), job.options.queue or self._queue
                labels = LABELS if queue is None else {**LABELS, "queue_name": queue}
                kicker = AsyncKicker(job.worker, self.broker, dict(labels)).with_task_id(job.id)
                kicker = kicker.with_schedule_id(job.id)  # by which its user can cancel it
                await answered(send(kicker, self.schedules, pack(job), delay), self._timeout)
                job.accept(native_id=job.id)

    def _register(self, definition: Definition) -> None:
        refuse_dependencies(definition)
        add(self.broker, self.schedules, definition.name)
