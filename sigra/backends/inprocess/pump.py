"""The jobs that a call of ``.new()`` on the sync backend runs before it returns."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sigra.backends.inprocess.ticket import LocalTicket
    from sigra.backends.sync import SyncBackend
    from sigra.job import Job


class Pump:
    """The jobs that one ``.new()`` sets off: the one enqueued and those its body enqueues.

    ``drain()`` gives the virtual ``moment``, at which the clock stands meanwhile, the list of
    jobs that ``ran``, and its ``limit``. While it is ``open``, what is put in will be run; a
    thread or task that outlives its job finds it closed.
    """

    __slots__ = ("backend", "limit", "moment", "open", "ran", "waiting")

    def __init__(
        self, backend: SyncBackend, moment: float | None = None,
        ran: list[Job] | None = None, limit: int = 0,
    ) -> None:  # fmt: skip
        self.backend, self.moment, self.ran, self.limit = backend, moment, ran, limit
        self.open = True
        self.waiting: list[tuple[int, int, Job, LocalTicket]] = []

    def now(self) -> float:
        """Return the virtual time."""
        return self.backend._now() if self.moment is None else self.moment

    def take(self) -> tuple[Job, LocalTicket] | None:
        """Take out the next job; close, and return None, if there is none or ``limit`` have run."""
        while True:
            if not self.waiting:
                self.open = False
                if not self.waiting:  # again: a thread may have put one in before
                    return None
            try:
                _, _, job, ticket = heapq.heappop(self.waiting)
            except IndexError:
                continue
            if self.ran is None or len(self.ran) < self.limit:
                self.open = True
                return job, ticket
            self.backend._schedule(job, ticket, self.now())

    def leave(self) -> None:
        """Leave to ``drain()`` what waits."""
        self.ran, self.limit = [], 0
        self.take()
