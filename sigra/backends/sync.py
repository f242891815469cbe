"""Run each job inline, once; keep the rest for drain() and its virtual clock."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Sequence
from datetime import datetime

from sigra.backends.inprocess import CAPABILITIES
from sigra.backends.inprocess.interrupt import interrupts
from sigra.backends.inprocess.pump import Pump
from sigra.backends.inprocess.ticket import LocalTicket
from sigra.backends.orm_thread import execute_in_thread, run_in_place
from sigra.context import Attempt, running
from sigra.errors import EnqueueError
from sigra.execute import aexecute, execute, in_event_loop
from sigra.ids import in_child
from sigra.job import FINISHED, Job
from sigra.options import PLAIN
from sigra.verdict import Verdict

_order = itertools.count().__next__
_lock = threading.Lock()  # one for all, so that a forked child can free it
in_child(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]
Until = float | datetime | None


class SyncBackend:
    """Run jobs in the caller's thread, inside ``.new()``; the default, and fit for tests.

    A job enqueued inside a job runs when that one ends; what is not due waits for ``drain()``.
    """

    name = "sync"
    capabilities = CAPABILITIES

    def __init__(self) -> None:
        self._ahead, self._together = 0.0, (-1.0, -1.0)
        self._scheduled: list[tuple[float, int, int, Job, LocalTicket]] = []
        self._unique: dict[tuple[str, str], Job] = {}

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Run the jobs that are due, in order; keep the others for ``drain()``."""
        for job in jobs:
            if job.definition.is_async:
                self._refuse_in_loop()
        outer = self._pump() if running.get() is not None else None
        pump = outer or Pump(self)
        # In a batch with a unique key, no job may end before the last one is taken.
        apart = outer is None and jobs[0].options.unique is None
        for job in jobs:
            if (ticket := self._take(job, pump)) is not None and apart:
                self._run(job, ticket, pump)
            elif ticket is not None:
                heapq.heappush(pump.waiting, (-job.options.priority, _order(), job, ticket))
        if not apart and (outer is None or not pump.open) and (left := pump.take()) is not None:
            self._run(*left, pump)  # the job that enqueues may have ended: then nobody else does

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Do the same: async functions on this loop, the others in a thread beside it."""
        self._require_loop()
        outer = self._pump()
        pump = outer or Pump(self)
        apart = outer is None and jobs[0].options.unique is None
        for job in jobs:
            if (ticket := self._take(job, pump)) is None:
                continue
            heapq.heappush(pump.waiting, (-job.options.priority, _order(), job, ticket))
            if apart:
                await self._arun_waiting(pump)
        if outer is None or not pump.open:
            await self._arun_waiting(pump)

    def drain(self, until: Until = None, *, limit: int = 10_000) -> list[Job]:
        """Run the jobs that come due, stepping a virtual clock instead of waiting.

        ``until``: seconds ahead or an aware datetime; None runs what is due by now.
        Stops after ``limit`` runs and leaves the rest for the next drain. Returns the jobs
        in the order in which they ran, each once for each of its runs. Raises ``ValueError``
        for a bad ``until`` or ``limit``, and ``EnqueueError`` if an async worker is due while an
        event loop runs here: await ``adrain()`` then.
        """
        (start, target), ran = self._span(until, limit), list[Job]()
        while len(ran) < limit and (due := self._pop(target, inline=True)) is not None:
            moment, job, ticket = due
            self._run(job, ticket, Pump(self, max(start, moment), ran, limit))
        return ran

    async def adrain(self, until: Until = None, *, limit: int = 10_000) -> list[Job]:
        """Do the same as ``drain`` inside a running event loop."""
        self._require_loop()
        (start, target), ran = self._span(until, limit), list[Job]()
        while len(ran) < limit and (due := self._pop(target)) is not None:
            moment, job, ticket = due
            pump = Pump(self, max(start, moment), ran, limit)
            heapq.heappush(pump.waiting, (0, 0, job, ticket))
            await self._arun_waiting(pump)
        return ran

    def _pump(self) -> Pump | None:
        """Return the pump of the job that runs here on this backend, if one does."""
        pump = getattr(running.get(), "pump", None)
        return pump if type(pump) is Pump and pump.backend is self and pump.open else None

    def _take(self, job: Job, pump: Pump) -> LocalTicket | None:
        """Accept a job; return its ticket if it is to run now, None if it is not."""
        # Before another thread can see its unique key: a duplicate is given the same ticket.
        job.ticket = ticket = LocalTicket("available", False)  # noqa: FBT003 - faster than by keyword
        options = job.options
        if options is not PLAIN:
            now = pump.now()
            due = options.due(now)
            if self._is_duplicate(job):
                return None
            if due > now or options.conn is not None:  # RecordingBackend's alone
                ticket.move("scheduled" if due > now else "available")
                delay = None if options.run_at is not None else options.delay or 0.0
                self._schedule(job, ticket, due, delay)
                return None
        return ticket

    def _run(self, job: Job, ticket: LocalTicket, pump: Pump) -> None:
        """Run a job and then, one after the other, those that its body has enqueued."""
        pump.open = True
        while True:
            verdict = None
            try:
                ticket.move("executing")
                attempt = Attempt(job, ticket.failures + 1, ticket.snoozes, None, pump)
                verdict = execute(attempt, run_in_place)
                self._settle(job, ticket, verdict, pump)
            except BaseException as error:  # while it was logged, audited or noted, not the body's
                waiting = (entry[-1] for entry in self._scheduled)
                if ticket.state() in ("available", "executing"):
                    self._settle(job, ticket, Verdict("discarded", error=error), pump)
                elif verdict and ticket.verdict is None and ticket not in waiting:
                    self._schedule(job, ticket, pump.now() + verdict.delay, verdict.delay)
                pump.leave()
                raise
            if verdict.error is not None:
                self._pass_on(verdict.error, pump)
            if (following := pump.take()) is None:
                return
            job, ticket = following

    async def _arun_waiting(self, pump: Pump) -> None:
        while (following := pump.take()) is not None:
            job, ticket = following
            ticket.move("executing")
            attempt = Attempt(job, ticket.failures + 1, ticket.snoozes, None, pump)
            perform = aexecute if job.definition.is_async else execute_in_thread
            try:
                verdict = await perform(attempt)
            except BaseException as error:
                self._settle(job, ticket, Verdict("discarded", error=error), pump)
                pump.leave()  # it was cancelled with whoever awaited; these were not begun
                raise
            self._settle(job, ticket, verdict, pump)
            if verdict.error is not None:
                self._pass_on(verdict.error, pump)

    @staticmethod
    def _pass_on(error: BaseException, pump: Pump) -> None:
        """Raise what interrupts the caller, and leave to ``drain()`` what waits."""
        if interrupts(error):
            pump.leave()
            raise error

    def _settle(self, job: Job, ticket: LocalTicket, verdict: Verdict, pump: Pump) -> None:
        if pump.ran is not None:
            pump.ran.append(job)
        if job.options.unique is not None and verdict.state in FINISHED:
            self._unique.pop((job.worker, job.options.unique), None)
        if not ticket.settle(verdict):
            self._schedule(job, ticket, pump.now() + verdict.delay, verdict.delay)

    def _schedule(
        self, job: Job, ticket: LocalTicket, due: float, delay: float | None = None
    ) -> None:
        with _lock:
            # What is delayed alike, one after the other, is due together: priority decides then.
            if delay is not None:
                first, alike = self._together
                if delay != alike or not 0.0 <= due - first < 0.01:
                    self._together = due, delay
                due = self._together[0]
            heapq.heappush(self._scheduled, (due, -job.options.priority, _order(), job, ticket))

    def _is_duplicate(self, job: Job) -> bool:
        if job.options.unique is None:
            return False
        first = self._unique.setdefault((job.worker, job.options.unique), job)
        if first is not job:
            job.accept(native_id=first.id, ticket=first.ticket, duplicate=True)
        return first is not job

    def _now(self) -> float:
        return time.time() + self._ahead

    def _span(self, until: Until, limit: int) -> tuple[float, float]:
        """Return the virtual time, and that up to which to drain; check what was passed."""
        if type(limit) is bool or not isinstance(limit, int) or limit < 0:
            raise ValueError(f"limit must be an int that is not negative, not {limit!r}")
        now, until = self._now(), 0 if until is None else until
        if isinstance(until, datetime):
            if until.utcoffset() is None:
                raise ValueError("until must be an aware datetime, or seconds ahead")
            return now, max(now, until.timestamp())
        if type(until) is bool or not isinstance(until, (int, float)) or not 0 <= until < 1e308:
            kinds = "finite seconds ahead (not negative), or an aware datetime"
            raise ValueError(f"until must be {kinds}, not {until!r}")
        return now, now + until

    def _pop(self, target: float, inline: bool = False) -> tuple[float, Job, LocalTicket] | None:
        """Take the next job due by ``target``; advance the clock to it, or else to ``target``."""
        with _lock:
            if not self._scheduled or self._scheduled[0][0] > target:
                self._ahead = max(self._ahead, target - time.time())
                return None
            due, _, _, job, ticket = self._scheduled[0]
            if inline and job.definition.is_async:  # it stays: it cannot run here
                self._refuse_in_loop()
            heapq.heappop(self._scheduled)
            self._ahead = max(self._ahead, due - time.time())
            return due, job, ticket

    def _refuse_in_loop(self) -> None:
        if in_event_loop():
            reason = "an async worker cannot run inside a running loop: await .anew() or .adrain()"
            raise EnqueueError(self.name, reason)

    def _require_loop(self) -> None:
        if not in_event_loop():
            reason = "no asyncio event loop runs here: call .new() or .drain()"
            raise EnqueueError(self.name, reason)
