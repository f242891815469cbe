"""Follow jobs from when they are enqueued to their end, and keep none after it."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sigra.backend import Backend, Capability
from sigra.context import running
from sigra.job import FINISHED

if TYPE_CHECKING:
    from sigra.job import Job

Entry = tuple["Job", int | None]
"""A job, and the number of the line that it came from; None where a job enqueued it."""


class FollowingBackend:
    """Wrap a backend and count what becomes of the jobs that it takes.

    ``counts``: jobs by state, and "enqueued", "duplicate", "child" (enqueued by a job),
    "retried" and "snoozed" (times). ``line``: the number of the line whose job is
    enqueued next. On a backend that cannot tell what became of a job, ``follows`` is
    False and only "enqueued" counts.
    """

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self.name: str = inner.name
        self.capabilities: frozenset[Capability] = inner.capabilities
        self.follows = "result" in inner.capabilities
        self.counts: Counter[str] = Counter()
        self.line = 0
        self._open: deque[Entry] = deque()
        self._refused = set["Job"]()
        self._lock = threading.Lock()

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Hand the jobs to the backend and follow them."""
        with self._following(jobs):
            self.inner.enqueue(jobs)

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Do the same without blocking the running event loop."""
        with self._following(jobs):
            await self.inner.aenqueue(jobs)

    @property
    def unfinished(self) -> int:
        """Return how many jobs were not seen to end."""
        return len(self._open)

    def unfinished_lines(self) -> list[int]:
        """Return the numbers of the lines whose jobs were not seen to end."""
        return sorted(line for _, line in list(self._open) if line is not None)

    def only_snooze(self) -> bool:
        """Tell whether no job waits for its first run or for a retry."""
        jobs = [job for job, _ in list(self._open)]
        return all(getattr(job.ticket, "snoozes", 0) and job.state == "scheduled" for job in jobs)

    def settle(self, *, all_of_them: bool = False) -> int:
        """Count the jobs that have ended and let go of them; return how many are left.

        Jobs end roughly in order, so that looking at the oldest is enough most of the
        time; ``all_of_them`` looks at each.
        """
        for _ in range(len(self._open)):
            entry = self._open.popleft()
            if self._conclude(entry[0]):
                continue
            if not all_of_them:
                self._open.appendleft(entry)
                break
            self._open.append(entry)
        return len(self._open)

    @contextmanager
    def _following(self, jobs: Sequence[Job]) -> Iterator[None]:
        entries = self._note(jobs)
        try:
            yield
        except BaseException:
            # settle() lets go of them: in another thread, it may hold one right now.
            self._refused.update(job for job, _ in entries)
            raise
        with self._lock:
            self.counts["enqueued"] += len(jobs)

    def _note(self, jobs: Sequence[Job]) -> list[Entry]:
        # Before the backend gets them: on sync they run inside its enqueue().
        inside = running.get() is not None
        entries: list[Entry] = [(job, None if inside else self.line) for job in jobs]
        if inside:
            with self._lock:
                self.counts["child"] += len(jobs)
        if self.follows:
            self._open.extend(entries)
        return entries

    def _conclude(self, job: Job) -> bool:
        """Count a job if it has ended, by what its ticket says; tell whether to let go of it."""
        if job in self._refused:
            self._refused.discard(job)
            return True
        if job.duplicate:
            self.counts["duplicate"] += 1
            return True
        if job.ticket is None or job.state not in FINISHED:
            return False
        self.counts[job.state] += 1
        self.counts["retried"] += getattr(job.ticket, "failures", 0)
        self.counts["snoozed"] += getattr(job.ticket, "snoozes", 0)
        return True
