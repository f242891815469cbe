"""Start a taskiq broker, and keep its loop: its connections work only in the one it started in."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

from sigra.backends.external import native
from sigra.backends.loop import Together, answered
from sigra.backends.registering import expect
from sigra.backends.taskiq_held import Held
from sigra.backends.taskiq_received import keep_unknown
from sigra.backends.taskiq_refuse import refuse_pickle
from sigra.backends.taskiq_run import LABELS
from sigra.backends.taskiq_stream import is_stream, keep_awake, notes_of

_Events = native("taskiq", "taskiq").TaskiqEvents


def results_of(broker: Any) -> Any:
    """Return a broker's store of results; ``TypeError`` for what is no broker."""
    return expect(broker, "result_backend", "TaskiqBackend takes a taskiq broker").result_backend


class Startup:
    """Start the broker, when it is called, unless the application has done that.

    ``loop``: the one that it was started in, or None. ``timeout``: seconds after which a
    broker that does not answer is down.
    """

    def __init__(self, broker: Any, schedules: Any, timeout: float) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._broker, self._schedules, self._timeout = broker, schedules, timeout
        self._together = Together()
        for event in (_Events.CLIENT_STARTUP, _Events.WORKER_STARTUP):
            broker.add_event_handler(event, self._started)
        broker.add_event_handler(_Events.CLIENT_SHUTDOWN, self._stopped)

    async def __call__(self) -> None:
        """Return once the broker is started: then its queues are there."""
        await self._together(self._start if self.loop is None else None)

    async def _start(self) -> None:
        try:
            await answered(self._broker.startup(), self._timeout)
        except BaseException:
            self.loop = None
            raise

    def _started(self, _: Any) -> None:
        for part in (self._broker, self._broker.result_backend):
            refuse_pickle(part)  # its serializer, formatter or store may have been set since
        keep_unknown(self._broker, self._schedules)
        self.loop = asyncio.get_running_loop()
        if self._broker.is_worker_process:
            self._awake = _begin_work(self._broker, self._schedules)

    def _stopped(self, _: Any) -> None:
        self.loop = None  # who sends next, as after a test's lifespan, starts the broker anew


def _begin_work(broker: Any, schedules: Any) -> asyncio.Task[None] | None:
    """Add what a consumer of taskiq's lacks; the caller must keep a reference to the result."""
    stopped = _Events.WORKER_SHUTDOWN
    broker.add_event_handler(stopped, lambda _: notes_of(broker, schedules).clear())
    loop, stop = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)
    if callable(stop) and sys.platform != "win32":
        # Set by taskiq alone, it does not wake the loop, and an idle consumer would not end.
        loop.add_signal_handler(signal.SIGTERM, stop, signal.SIGTERM, None)
    if not is_stream(broker):
        return None
    return loop.create_task(keep_awake(broker, LABELS, Held(broker)))
