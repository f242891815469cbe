"""The jobs that an in-process backend has yet to finish: which runs next, and which later."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sigra.backends.inprocess.ticket import LocalTicket
from sigra.conclude import named_in_logs
from sigra.options import PLAIN
from sigra.verdict import Verdict

if TYPE_CHECKING:
    from sigra.job import Job, State

_log = logging.getLogger("sigra.job")

Entry = tuple["Job", "LocalTicket"]

_order = itertools.count().__next__


class Agenda:
    """Order jobs by priority and by time, and keep their ``unique`` keys.

    ``make_ticket`` makes a job's ticket from its first state. Not safe for threads: its
    owner holds a lock around every call. Its length is the number of jobs that are due.
    """

    __slots__ = ("_held", "_later", "_make_ticket", "_plain", "_ranked")

    def __init__(self, make_ticket: Callable[[State], LocalTicket] = LocalTicket) -> None:
        self._make_ticket = make_ticket
        # Due jobs: those of priority 0, by far the most, need no heap.
        self._plain: deque[Entry] = deque()
        self._ranked: list[tuple[int, int, Job, LocalTicket]] = []
        self._later: list[tuple[float, int, Job, LocalTicket]] = []
        self._held: dict[tuple[str, str], Job] = {}

    def __len__(self) -> int:
        return len(self._plain) + len(self._ranked)

    def need(self, jobs: Sequence[Job]) -> int:
        """Count the jobs that would be due at once: neither for later nor duplicates."""
        now, held = time.time(), self._held
        due = (job for job in jobs if not job.options.wait(now))
        return sum((job.worker, job.options.unique) not in held for job in due)

    def take(self, jobs: Sequence[Job]) -> None:
        """Accept every job, as due, for later or as a duplicate."""
        make_ticket, plain = self._make_ticket, self._plain
        for job in jobs:
            if job.options is PLAIN:
                # What accept() would do to a new job; this is the hot path.
                job.ticket = ticket = make_ticket("available")
                plain.append((job, ticket))
            else:
                self._take_optioned(job)

    def _take_optioned(self, job: Job) -> None:
        options = job.options
        if options.unique is not None:
            first = self._held.setdefault((job.worker, options.unique), job)
            if first is not job:
                job.accept(native_id=first.id, ticket=first.ticket, duplicate=True)
                return
        wait = options.wait(time.time())
        ticket = self._make_ticket("scheduled" if wait else "available")
        job.accept(ticket=ticket)
        self._place(job, ticket, wait)

    def pop(self) -> Entry | None:
        """Remove and return the due job that is to run next, or None if none is due."""
        if self._ranked and (self._ranked[0][0] < 0 or not self._plain):
            return heapq.heappop(self._ranked)[2:]
        return self._plain.popleft() if self._plain else None

    def settle(self, job: Job, ticket: LocalTicket, verdict: Verdict) -> None:
        """Record an attempt after which the job runs again, at once or later."""
        ticket.settle(verdict)
        self._place(job, ticket, verdict.delay)

    def release(self, job: Job) -> None:
        """Give up the ``unique`` key of a job that is finished."""
        key = (job.worker, job.options.unique or "")
        if self._held.get(key) is job:
            del self._held[key]

    def promote(self) -> None:
        """Make due the jobs whose time has come."""
        later, now = self._later, time.monotonic()
        while later and later[0][0] <= now:
            _, _, job, ticket = heapq.heappop(later)
            ticket.move("available")
            self._place(job, ticket, 0.0)

    def next_due(self) -> float:
        """Return when the next job comes due by the monotonic clock; infinity if none will."""
        return self._later[0][0] if self._later else math.inf

    def leave(self) -> list[Entry]:
        """Give up and return every job, in the order in which they would have run."""
        left = [entry[2:] for entry in sorted(self._ranked)]
        urgent = sum(entry[0] < 0 for entry in self._ranked)
        left[urgent:urgent] = self._plain
        left += [entry[2:] for entry in sorted(self._later)]
        self._plain.clear()
        self._ranked.clear()
        self._later.clear()
        self._held.clear()
        return left

    def _place(self, job: Job, ticket: LocalTicket, wait: float) -> None:
        priority = job.options.priority
        if wait > 0.0:
            heapq.heappush(self._later, (time.monotonic() + wait, _order(), job, ticket))
        elif priority:
            heapq.heappush(self._ranked, (-priority, _order(), job, ticket))
        else:
            self._plain.append((job, ticket))


def check_timeout(timeout: float | None) -> None:
    """Raise ``ValueError`` for a time to wait that is no number: it would never be over."""
    if timeout is not None and math.isnan(timeout):
        raise ValueError("timeout must be seconds, or None for as long as it takes, not nan")


def report_unfinished(jobs: Iterable[Job], why: str) -> None:
    """Log a warning for each job that this process will not finish."""
    for job in jobs:
        named, facts = named_in_logs(job)
        _log.warning("%s was not finished, %s: %s", named, job.state, why, extra=facts)


def closing_words(place: Any) -> str:
    """Return words for the log line of a job that ``place`` may run no more, "" if it is open."""
    if place.phase == "open":
        return ""
    if place.phase == "draining":
        return "; its backend is closing, and it may not run again"
    return "; its backend was closed, and it does not run again"


def cut_off_words(runner: Any) -> str:
    """Return words for the log line if ``runner``, a task or None, was cancelled; else ""."""
    cancelled = runner is not None and runner.cancelling()
    return "; it was cut off, and does not run again" if cancelled else ""


def unconcluded(job: Job, error: BaseException) -> Verdict:
    """Return the verdict on a job that could not be concluded: a log handler may have raised."""
    with contextlib.suppress(BaseException):  # it may raise again, and other jobs must go on
        what = "job %s of %s is discarded: handling its outcome raised"
        _log.error(what, job.id, job.worker, exc_info=error)
    return Verdict("discarded", error=error)
