"""Threads that run the jobs of one agenda, and the bounded queue in front of them."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Literal

from sigra.agenda import Agenda, is_final, log
from sigra.context import Running, running
from sigra.errors import EnqueueError
from sigra.execute import execute
from sigra.ticket import LocalTicket
from sigra.verdict import Verdict

if TYPE_CHECKING:
    from sigra.agenda import Entry
    from sigra.job import Job

_LONGEST_WAIT = 3600.0
"""Seconds after which a thread that waits for the clock looks again: locks have a limit."""


class Pool:
    """Run jobs in up to ``size`` threads, started as they are needed.

    At most ``bound`` jobs wait to run before ``take`` makes its caller wait. ``name`` is
    the backend's. ``phase`` goes from "open" by "draining" to "closed"; a pool that a
    forked process inherited is "lost" there.
    """

    def __init__(self, name: str, size: int, bound: int) -> None:
        self.name, self.size, self.bound = name, size, bound
        self.phase: Literal["open", "draining", "closed", "lost"] = "open"
        self._agenda = Agenda(partial(LocalTicket, waits=True))
        self._running: dict[int, Job] = {}
        self._threads = 0
        # Threads that sleep and to which no token is under way.
        self._idle = 0
        self._tokens: queue.SimpleQueue[None] = queue.SimpleQueue()
        # Those who wait for room: first come, first served.
        self._line: deque[object] = deque()
        self._has_timer = False
        self._alarm = math.inf
        self._make_locks()

    def _make_locks(self) -> None:
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._sooner = threading.Condition(self._lock)
        self._quiet = threading.Condition(self._lock)

    def runs_here(self) -> bool:
        """Tell whether this code is the body of a job of this pool."""
        attempt = running.get()
        return attempt is not None and attempt.pump is self

    def offer(self, jobs: Sequence[Job]) -> bool:
        """Take all jobs if there is room for them now; else take none and return False.

        A batch larger than the bound has room while nothing waits. A job's own children
        always have room, and are taken while the pool drains too: their parent may be
        what everything else waits for. Raises ``EnqueueError`` once the pool is closed.
        """
        if self._threads < self.size:
            self._staff(len(jobs) - self._idle)
        with self._lock:
            if self.phase != "open" or self._line or not self._has_room(jobs):
                inside = self.runs_here()
                self._refuse_closed(inside)
                if not inside:
                    return False
            woken = self._add(jobs)
        for _ in range(woken):
            self._tokens.put(None)
        return True

    def take(self, jobs: Sequence[Job], timeout: float | None, turn: object) -> None:
        """Stand in line as ``turn`` until there is room, then take all jobs.

        Raises ``EnqueueError`` when ``timeout`` seconds have passed or the pool closes.
        Takes nothing once ``leave_line`` has removed ``turn``.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        with self._lock:
            self._line.append(turn)
            try:
                while turn in self._line:
                    self._refuse_closed(inside=False)
                    if self._line[0] is turn and self._has_room(jobs):
                        for _ in range(self._add(jobs)):
                            self._tokens.put(None)
                        return
                    left = deadline - time.monotonic()
                    if timeout is not None and left <= 0:
                        reason = f"its queue of {self.bound} jobs stayed full for {timeout:g} s"
                        raise EnqueueError(self.name, reason)
                    self._room.wait(min(left, _LONGEST_WAIT))
            finally:
                self._step_out(turn)

    def leave_line(self, turn: object) -> None:
        """Let ``take`` give up the wait of ``turn``."""
        with self._lock:
            self._step_out(turn)

    def close(self, timeout: float | None) -> list[Job]:
        """Finish what is due within ``timeout`` seconds, end the threads, return the rest."""
        if self.runs_here():
            raise RuntimeError("close() inside a job of this backend would wait for itself")
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        with self._lock:
            if self.phase == "open":
                self.phase = "draining"
            self._room.notify_all()
            while self.phase == "draining":
                self._agenda.promote()
                for _ in range(self._wake(len(self._agenda))):
                    self._tokens.put(None)
                left = deadline - time.monotonic()
                if left <= 0 or not (self._agenda or self._running):
                    return self._end("closed", "its backend was closed")
                self._quiet.wait(min(left, _LONGEST_WAIT))
        return []

    def lose(self) -> None:
        """Forget all, in a forked child: the threads and the jobs are its parent's."""
        # Whoever held the old locks at the fork is not here to release them.
        self._make_locks()
        with self._lock:
            self._end("lost", "it belongs to the process that this one was forked from")

    def _end(self, phase: Literal["closed", "lost"], why: str) -> list[Job]:
        """Give up and return what waits, after what runs, which may still finish."""
        self.phase = phase
        left = list(self._running.values())
        for job, ticket in self._agenda.leave():
            ticket.give_up(why)
            left.append(job)
        for _ in range(self._threads):
            self._tokens.put(None)
        for condition in (self._room, self._sooner, self._quiet):
            condition.notify_all()
        return left

    def _refuse_closed(self, inside: bool) -> None:
        if self.phase != "open" and not (inside and self.phase == "draining"):
            raise EnqueueError(self.name, "it was closed; make a new ThreadBackend()")

    def _has_room(self, jobs: Sequence[Job]) -> bool:
        waiting = len(self._agenda)
        if not waiting or waiting + len(jobs) <= self.bound:
            return True
        needed = self._agenda.need(jobs)
        return not needed or waiting + needed <= self.bound

    def _step_out(self, turn: object) -> None:
        if turn in self._line:
            self._line.remove(turn)
        self._room.notify_all()

    def _add(self, jobs: Sequence[Job]) -> int:
        """Take the jobs; return how many tokens to put, best with the lock released."""
        self._agenda.take(jobs)
        if self._agenda.next_due() < self._alarm:
            self._set_alarm()
        return self._wake(len(jobs)) if self._idle else 0

    def _wake(self, wanted: int) -> int:
        woken = min(wanted, self._idle)
        self._idle -= woken
        return woken

    def _staff(self, wanted: int) -> None:
        """Start up to ``wanted`` threads more; ``EnqueueError`` if there is none at all."""
        for _ in range(wanted):
            with self._lock:
                if self._threads >= self.size or self.phase not in ("open", "draining"):
                    return
                self._threads += 1
            try:
                _start(self._work, f"sigra-{self.name}")
            except RuntimeError as error:
                with self._lock:
                    self._threads -= 1
                    if self._threads:
                        return
                raise EnqueueError(self.name, "no thread can be started") from error

    def _set_alarm(self) -> None:
        """Have the timer look at the clock again: a job comes due sooner than it expects."""
        if not self._has_timer and self.phase == "open":
            _start(self._keep_time, f"sigra-{self.name}-timer")
            self._has_timer = True
        self._alarm = self._agenda.next_due()
        self._sooner.notify_all()

    def _keep_time(self) -> None:
        while True:
            with self._lock:
                if self.phase != "open":
                    return
                self._agenda.promote()
                due = len(self._agenda)
                woken = self._wake(due)
            for _ in range(woken):
                self._tokens.put(None)
            self._staff(due - woken)
            with self._lock:
                self._alarm = self._agenda.next_due()
                left = self._alarm - time.monotonic()
                if left > 0 and self.phase == "open":
                    self._sooner.wait(min(left, _LONGEST_WAIT))

    def _work(self) -> None:
        me = threading.get_ident()
        while (entry := self._next(me)) is not None:
            self._perform(*entry)
            # Nothing of a finished job is kept while its thread sleeps.
            del entry

    def _next(self, me: int) -> Entry | None:
        """Sleep until there is a job for this thread; None once the pool is closed."""
        while True:
            with self._lock:
                self._running.pop(me, None)
                if self.phase not in ("open", "draining"):
                    return None
                entry = self._agenda.pop()
                if entry is not None:
                    self._running[me] = entry[0]
                    if self._line:
                        self._room.notify_all()
                    return entry
                if self.phase == "draining" and not self._running:
                    self._quiet.notify_all()
                self._idle += 1
            self._tokens.get()

    def _perform(self, job: Job, ticket: LocalTicket) -> None:
        ticket.move("executing")
        try:
            verdict = execute(Running(job, ticket.failures + 1, ticket.snoozes, None, self))
        except BaseException as error:
            # Not the body's: execute() answers for that. Whatever it is, the thread stays.
            log.exception("job %s of %s could not be concluded", job.id, job.worker)
            verdict = Verdict("discarded", error=error)
        if is_final(verdict):
            if job.options.unique is not None:
                with self._lock:
                    self._agenda.release(job)
            # After the key is free: who waited for the result may enqueue with it again.
            ticket.settle(verdict)
            return
        with self._lock:
            self._agenda.settle(job, ticket, verdict)
            if self.phase in ("closed", "lost"):
                for _, given_up in self._agenda.leave():
                    given_up.give_up("its backend was closed")
            elif self._agenda.next_due() < self._alarm:
                self._set_alarm()


def _start(target: Callable[[], None], name: str) -> None:
    """Start a daemon thread with an empty context; closing at exit is our own affair."""
    threading.Thread(target=Context().run, args=(target,), name=name, daemon=True).start()
