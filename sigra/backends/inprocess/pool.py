"""Threads that run the jobs of one agenda, and the bounded queue in front of them."""

from __future__ import annotations

import contextlib
import math
import threading
import time
import weakref
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from sigra.backends.inprocess.agenda import Agenda, closing_words, unconcluded
from sigra.backends.inprocess.alarm import LONGEST_WAIT, Alarm
from sigra.backends.inprocess.convoy import let_pass
from sigra.backends.inprocess.crew import Crew
from sigra.backends.inprocess.frames import empty_frames
from sigra.backends.inprocess.line import Line, Turn
from sigra.backends.orm_thread import execute_apart
from sigra.context import Attempt, running
from sigra.errors import EnqueueError
from sigra.job import FINISHED

if TYPE_CHECKING:
    from sigra.backend import Backend
    from sigra.backends.inprocess.agenda import Entry
    from sigra.job import Job


class Pool:
    """Run jobs in up to ``size`` threads, started as they are needed.

    ``bound``: how many jobs may wait to run. ``owner``: the backend; when nobody has it any more,
    the threads end once no job is left. ``phase`` goes from "open" by "draining" to "closed"; in
    a forked child, a pool that it inherited is "lost".
    """

    def __init__(self, owner: Backend, size: int, bound: int) -> None:
        self.name, self.bound = owner.name, bound
        self.phase: Literal["open", "draining", "closed", "lost"] = "open"
        self._agenda = Agenda()
        self._running: dict[int, Entry] = {}
        self._crew = Crew(owner.name, size, self._work)
        self._owner = weakref.ref(owner, self._crew.disturb)
        self._make_locks()

    def _make_locks(self) -> None:
        self._lock = threading.Lock()
        self._line = Line(self._lock)
        self._quiet = threading.Condition(self._lock)
        self._alarm = Alarm(f"sigra-{self.name}-timer", self._ring)

    def runs_here(self) -> bool:
        """Tell whether this code is the body of a job of this pool."""
        attempt = running.get()
        return attempt is not None and attempt.pump is self

    def offer(self, jobs: Sequence[Job]) -> bool:
        """Take all jobs if there is room for them now; else take none and return False.

        A batch larger than the bound has room while nothing waits. A job's own children always
        have room, even while the pool drains: everything else may be waiting for their parent.
        Raises ``EnqueueError`` once the pool is closed.
        """
        let_pass(self._lock)
        with self._lock:
            if self.phase != "open" or self._line or not self._has_room(jobs):
                inside = self.runs_here()
                self._refuse_closed(inside)
                if not inside:
                    return False
            self._add(jobs)
        return True

    def take(self, jobs: Sequence[Job], timeout: float | None, turn: Turn) -> None:
        """Stand in line until there is room, then take all jobs; none once ``turn`` is given up.

        Raises ``EnqueueError`` when ``timeout`` seconds have passed or the pool closes.
        """

        def go_in() -> bool:
            self._refuse_closed(inside=False)
            if room := self._has_room(jobs):
                self._add(jobs)
            return room

        if not self._line.stand(turn, timeout, go_in):
            reason = f"its queue of {self.bound} jobs stayed full for {timeout:g} s"
            raise EnqueueError(self.name, reason)

    def close(self, timeout: float | None) -> list[Job]:
        """Finish what is due within ``timeout`` seconds, end the threads, return the rest."""
        if self.runs_here():
            raise RuntimeError("close() inside a job of this backend would wait for itself")
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        with self._lock:
            if self.phase == "open":
                self.phase = "draining"
            self._line.call()
            while self.phase == "draining":
                self._agenda.promote()
                self._crew.wake(len(self._agenda))
                left = deadline - time.monotonic()
                if left <= 0 or not (self._agenda or self._running):
                    return self._end("closed", "its backend was closed")
                self._quiet.wait(min(left, LONGEST_WAIT))
        return []

    def lose(self) -> None:
        """Forget all, in a forked child: the threads and the jobs are its parent's."""
        self._make_locks()  # a thread that held the old ones at the fork does not exist here
        with self._lock:
            for _, ticket in self._running.values():
                ticket.lose("it runs in the process that this one was forked from")
            self._end("lost", "it belongs to the process that this one was forked from")

    def _end(self, phase: Literal["closed", "lost"], why: str) -> list[Job]:
        """Give up what waits; return what runs, which may still finish, and what waited.

        What has finished is not returned, though its thread may not have let go of it yet.
        """
        self.phase = phase
        waiting = self._agenda.leave()
        for _, ticket in waiting:
            (ticket.lose if phase == "lost" else ticket.give_up)(why)
        self._crew.dismiss()
        self._quiet.notify_all()
        self._alarm.stop()
        left = *self._running.values(), *waiting
        return [job for job, ticket in left if ticket.verdict is None]

    def _refuse_closed(self, inside: bool) -> None:
        if not (self.phase == "open" or (inside and self.phase == "draining")):
            raise EnqueueError(self.name, "it was closed; make a new ThreadBackend()")

    def _has_room(self, jobs: Sequence[Job]) -> bool:
        waiting = len(self._agenda)
        if not waiting or waiting + len(jobs) <= self.bound:
            return True
        needed = self._agenda.need(jobs)
        return not needed or waiting + needed <= self.bound

    def _add(self, jobs: Sequence[Job]) -> None:
        if not self._crew.count:
            self._crew.start(1)  # or raise, before any job is taken
        self._agenda.take(jobs)
        self._serve()
        if not self._alarm.set_if_possible(self._agenda.next_due(), tell=self.phase == "open"):
            self._crew.wake(1)  # which then waits for that time itself

    def _serve(self) -> None:
        """Wake or start a thread for each job that is due, as far as there may be threads."""
        crew = self._crew
        if crew.idle:
            crew.wake(self._unserved())
        if crew.count < crew.size:
            crew.start(self._unserved())

    def _unserved(self) -> int:
        """Count the due jobs that no awake thread is going to take."""
        return len(self._agenda) - (self._crew.count - self._crew.idle - len(self._running))

    def _ring(self) -> float:
        """Make due what is due, wake threads for it, and return when the next job comes due."""
        with self._lock:
            self._agenda.promote()
            with contextlib.suppress(EnqueueError):
                self._serve()
            return self._agenda.next_due()

    def _work(self) -> None:
        me = threading.get_ident()
        while (entry := self._next(me)) is not None:
            # Nothing of a finished job is kept while its thread sleeps.
            empty_frames(self._perform(entry))
            del entry

    def _next(self, me: int) -> Entry | None:
        """Sleep until there is a job for this thread; None once the pool is closed."""
        while True:
            let_pass(self._lock)
            with self._lock:
                self._running.pop(me, None)
                if self.phase not in ("open", "draining"):
                    return None
                entry = self._agenda.pop()
                if entry is not None:
                    self._running[me] = entry
                    if self._line:
                        self._line.call()
                    return entry
                is_left = self._owner() is None and self._agenda.next_due() == math.inf
                if is_left and not self._running:
                    self._end("closed", "nobody has its backend any more")
                if self.phase == "draining" and not self._running:
                    self._quiet.notify_all()
                self._crew.idle += 1
                wait = self._alarm.silent_until(self._agenda.next_due())
            if not self._crew.sleep(wait):
                with self._lock:
                    self._crew.rise()
                    self._agenda.promote()
                    self._serve()

    def _perform(self, entry: Entry) -> BaseException | None:
        job, ticket = entry
        ticket.move("executing")
        attempt = Attempt(job, ticket.failures + 1, ticket.snoozes, None, self)
        attempt.closing = partial(closing_words, self)
        try:
            verdict = execute_apart(attempt)
        except BaseException as error:
            # Not an error of the body, which execute() handles; the thread must go on.
            verdict = unconcluded(job, error)
        if verdict.state in FINISHED:
            if job.options.unique is not None:
                with self._lock:
                    self._agenda.release(job)
            # After the key is free: whoever waits for the result may enqueue with it again.
            ticket.settle(verdict)
            return verdict.error
        with self._lock:
            del self._running[threading.get_ident()]  # it waits again, and close() returns it once
            self._agenda.settle(job, ticket, verdict)
            if self.phase in ("closed", "lost"):
                for _, given_up in self._agenda.leave():
                    given_up.give_up("its backend was closed")
            else:
                self._alarm.set_if_possible(self._agenda.next_due(), tell=self.phase == "open")
        return verdict.error
