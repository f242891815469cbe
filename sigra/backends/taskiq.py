"""Carry jobs by taskiq: each worker is a task of its name on the user's own broker."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from sigra import catalog
from sigra.backend import Capability
from sigra.backends.envelope import MARK, pack
from sigra.backends.external import WAIT_FOR_DEPLOY, aconsume, native
from sigra.backends.loop import own_loop, submit, within
from sigra.backends.producing import raise_not_sent, require_json
from sigra.backends.taskiq_stream import counted, is_stream, keep_awake
from sigra.errors import EnqueueError, InvalidOptionError
from sigra.execute import in_event_loop

if TYPE_CHECKING:
    from sigra.definition import Definition
    from sigra.job import Job

_taskiq = native("taskiq", "taskiq")
_AsyncKicker = native("taskiq.kicker", "taskiq").AsyncKicker
_NoResultError = native("taskiq.exceptions", "taskiq").NoResultError
_CONTEXT = _taskiq.TaskiqDepends(_taskiq.Context)

_log = logging.getLogger("sigra.job")

UNKNOWN = "sigra.unknown"
"""The task that keeps jobs whose worker a consumer has not imported."""

WAKE = "sigra.wake"
"""The task that does nothing, after which taskiq looks for what a dead consumer held."""

# Taskiq's retry middlewares have no say, and a job is acknowledged only when it has run.
_LABELS = {"retry_on_error": False, "ack_type": "when_executed"}
_RECONNECT = 2.0


class TaskiqBackend:
    """Send jobs through a taskiq broker; ``taskiq worker app:broker`` runs them.

    ``broker``: the user's own, of a kind that acknowledges (``RedisStreamBroker``,
    ``AioPikaBroker``). ``schedules``: the source from which ``taskiq scheduler`` sends what
    is due later; without one ``delay``, ``run_at`` and retries are refused, and a snoozed
    job waits in its consumer. ``queue``: where jobs go that name none. ``timeout``: seconds
    after which a broker that does not answer is down. Raises ``ValueError`` where messages
    or schedules are not JSON.
    """

    name = "taskiq"
    capabilities: frozenset[Capability] = frozenset(
        {"queue", "delay", "run_at", "max_attempts", "backoff", "native"}
    )

    def __init__(
        self,
        broker: Any,
        schedules: Any = None,
        *,
        queue: str | None = None,
        timeout: float = 10.0,
    ) -> None:
        cure = "set broker.with_serializer(JSONSerializer())"
        require_json(broker.serializer.dumpb([1]), "this taskiq broker", cure)
        if schedules is None:
            self.capabilities = frozenset({"queue", "native"})
        elif hasattr(schedules, "_serializer"):
            cure = f"make it {type(schedules).__name__}(..., serializer=JSONSerializer())"
            require_json(schedules._serializer.dumpb([1]), "this taskiq schedule source", cure)
        self.broker, self.schedules = broker, schedules
        self._queue, self._timeout = queue, timeout
        self._pool = getattr(
            broker, "connection_pool", getattr(schedules, "_connection_pool", None)
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        for event in (_taskiq.TaskiqEvents.CLIENT_STARTUP, _taskiq.TaskiqEvents.WORKER_STARTUP):
            broker.add_event_handler(event, self._started)
        broker.with_formatter(_Formatter(broker))
        self._add(UNKNOWN, self._keep)
        self._add(WAKE, _nothing)
        catalog.subscribe(self._register)

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Send the jobs from outside of event loops, by the broker's loop or one of our own."""
        if in_event_loop():
            reason = "taskiq only awaits: use 'await worker.anew(...)' in an event loop"
            raise EnqueueError(self.name, reason)
        self._check_queue(jobs[0])
        try:
            submit(self._loop or own_loop(), self._send(jobs)).result()
        except Exception as error:
            raise_not_sent(self.name, error, jobs)

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Send the jobs by this event loop, or by the one that the broker was started in."""
        self._check_queue(jobs[0])
        try:
            await within(self._loop, self._send(jobs))
        except Exception as error:
            raise_not_sent(self.name, error, jobs)

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

    async def _send(self, jobs: Sequence[Job]) -> None:
        if self._loop is None:
            await self._start()
        for job in jobs:
            delay, queue = job.options.wait(time.time()), job.options.queue or self._queue
            labels = _LABELS if queue is None else {**_LABELS, "queue_name": queue}
            async with asyncio.timeout(self._timeout):
                await self._kick(job.worker, job.id, labels, pack(job), delay)
            job.accept(native_id=job.id)

    async def _start(self) -> None:
        """Start a broker that the application did not, so that its queues are there."""
        try:
            async with asyncio.timeout(self._timeout):
                await self.broker.startup()
        except BaseException:
            self._loop = None
            raise

    def _started(self, _: Any) -> None:
        self._loop = asyncio.get_running_loop()
        if not self.broker.is_worker_process:
            return
        stop = signal.getsignal(signal.SIGTERM)
        if callable(stop) and sys.platform != "win32":
            # By itself it does not wake the loop, and an idle worker would not end.
            self._loop.add_signal_handler(signal.SIGTERM, stop, signal.SIGTERM, None)
        if is_stream(self.broker):
            wake = self.broker.find_task(WAKE).kiq
            self._awake = self._loop.create_task(keep_awake(self.broker, wake))

    async def _kick(
        self,
        worker: str,
        id: str,
        labels: Mapping[str, Any],
        payload: Mapping[str, Any],
        delay: float,
    ) -> None:
        kicker = _AsyncKicker(worker, self.broker, dict(labels)).with_task_id(id)
        if delay and self.schedules is not None:
            due = datetime.now(timezone.utc) + timedelta(seconds=delay)
            await kicker.schedule_by_time(self.schedules, due, **payload)
            return
        if delay:
            await asyncio.sleep(delay)
        channel = getattr(self.broker, "write_channel", None)
        if channel is not None:
            await channel.ready()  # RabbitMQ's, which may be about to be restored
        await kicker.kiq(**payload)

    def _register(self, definition: Definition) -> None:
        name = definition.name
        known = self.broker.local_task_registry.get(name)
        if known is not None and known.original_func.__module__ != __name__:
            raise ValueError(f"the task {name!r} of this taskiq broker is not a worker's")
        self._add(name, self._run)

    def _add(self, name: str, body: Callable[[Any, dict[str, Any]], Awaitable[Any]]) -> None:
        async def run(sigra_context: Any = _CONTEXT, **payload: Any) -> Any:
            return await body(sigra_context.message, payload)

        self.broker.register_task(run, task_name=name, **_LABELS)

    async def _run(self, message: Any, payload: dict[str, Any]) -> Any:
        async with counted(self._pool, message.task_id) as before:
            consumed = await aconsume(
                payload,
                catalog.lookup(message.task_name),
                self.name,
                native_id=message.task_id,
                deliveries=before,
            )
        verdict = consumed.verdict
        if verdict.state in ("retryable", "scheduled"):
            await self._send_again(message, message.task_name, consumed.following(), verdict.delay)
        return verdict.unwrap()

    async def _keep(self, message: Any, payload: dict[str, Any]) -> None:
        """Have a job looked at again later, whose worker is not imported here."""
        _log.error("job %s waits: no worker is named %r", message.task_id, payload["worker"])
        await self._send_again(message, payload["worker"], payload, WAIT_FOR_DEPLOY)

    async def _send_again(
        self, message: Any, name: str, payload: Mapping[str, Any], delay: float
    ) -> None:
        """Send the next run, before this one is acknowledged, as soon as the broker takes it."""
        while True:
            try:
                await self._kick(name, message.task_id, message.labels, payload, delay)
            except Exception:
                _log.exception("job %s cannot go on yet: no broker", message.task_id)
                await asyncio.sleep(_RECONNECT)
            else:
                raise _NoResultError


async def _nothing(_message: Any, _payload: dict[str, Any]) -> None:
    """Be a message that is received."""


class _Formatter:
    """Give jobs whose worker is not imported here, which taskiq would drop, to ``UNKNOWN``."""

    def __init__(self, broker: Any) -> None:
        self._broker, self._own = broker, broker.formatter

    def dumps(self, message: Any) -> Any:
        return self._own.dumps(message)

    def loads(self, message: bytes) -> Any:
        loaded = self._own.loads(message)
        if MARK in loaded.kwargs and self._broker.find_task(loaded.task_name) is None:
            loaded.task_name = UNKNOWN
        return loaded
