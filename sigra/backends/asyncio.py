"""Run jobs as tasks of the event loop that enqueues them."""

from __future__ import annotations

import asyncio
import atexit
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sigra.backends.inprocess import CAPABILITIES
from sigra.backends.inprocess.agenda import check_timeout
from sigra.backends.inprocess.desk import Desk
from sigra.context import running
from sigra.errors import EnqueueError
from sigra.ids import in_child
from sigra.registry import resolve_backend

if TYPE_CHECKING:
    from sigra.job import Job


class AsyncioBackend:
    """Run jobs on the running event loop, up to ``concurrency`` at a time.

    Async functions run as tasks, sync ones in threads beside the loop; both may enqueue. Raises
    ``ValueError`` unless ``concurrency`` is an int of at least 1.

    Each loop has jobs of its own, so one instance can serve several loops, one after another or
    in several threads. The queue has no bound, and its name is only a label. A body runs in a
    context of its own, which inherits nothing from whoever enqueued it.

    ``await backend.aclose()`` before a loop ends; otherwise a warning is logged for each
    unfinished job. On an event loop's thread, ``job.result()`` raises ``TimeoutError`` while
    the job is unfinished: ``await job.aresult()`` instead.
    """

    name = "asyncio"
    capabilities = CAPABILITIES

    def __init__(self, concurrency: int = 100) -> None:
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise ValueError(f"concurrency must be an int of at least 1, not {concurrency!r}")
        self._concurrency = concurrency
        self._desks: dict[asyncio.AbstractEventLoop, Desk] = {}
        _backends.add(self)

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Take all jobs for the running loop, or raise ``EnqueueError``."""
        self._desk().take(jobs)

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Do the same; nothing in it waits."""
        self._desk().take(jobs)

    async def aclose(self, timeout: float | None = None) -> list[Job]:
        """Finish what is due on this loop, and return the jobs that were not finished.

        Due are the jobs that wait for their turn, what these enqueue, and retries whose time
        has come. What still runs after ``timeout`` seconds (None: as long as it takes) is
        cancelled, or left to its thread. Returns these jobs, then those that wait, then those
        scheduled, snoozed or to be retried later; their ``result()`` raises ``TimeoutError``.

        From now on ``.new()`` raises ``EnqueueError`` on this loop; only the shared instance
        behind the name "asyncio" opens again. Raises ``RuntimeError`` inside a job.
        """
        check_timeout(timeout)
        return await self._open(asyncio.get_running_loop()).close(timeout)

    def _desk(self) -> Desk:
        loop = asyncio._get_running_loop()
        if loop is not None:
            desk = self._desks.get(loop)
            return desk if desk is not None and desk.phase == "open" else self._open(loop)
        # A sync body enqueues from its thread onto the loop that its job belongs to.
        attempt = running.get()
        home = attempt.pump if attempt is not None else None
        if isinstance(home, Desk) and self._desks.get(home.loop) is home:
            return home
        raise EnqueueError(
            self.name,
            "no event loop runs in this thread: call .new() or 'await .anew()' from a "
            "coroutine, or use backend 'thread' where there is none",
        )

    def _open(self, loop: asyncio.AbstractEventLoop) -> Desk:
        desk = self._desks.get(loop)
        if desk is not None and (
            desk.phase in ("open", "draining")
            or (desk.phase == "closed" and resolve_backend(self.name) is not self)
        ):
            return desk
        self._forget_closed_loops()
        desk = self._desks[loop] = Desk(self.name, loop, self._concurrency)
        return desk

    def _forget_closed_loops(self) -> None:
        """Report the jobs of loops that were closed by other means than asyncio.run."""
        for loop, desk in list(self._desks.items()):
            # Where another thread comes upon it too, one of them reports.
            if loop.is_closed() and self._desks.pop(loop, None) is not None:
                desk.lose("its event loop was closed")


_backends: weakref.WeakSet[AsyncioBackend] = weakref.WeakSet()


@atexit.register
def _report_at_exit() -> None:
    for backend in list(_backends):
        for desk in list(backend._desks.values()):
            desk.lose("the interpreter exits")


def _start_afresh() -> None:
    """Let a forked child forget its parent's loops, and not report their jobs as its own."""
    for backend in list(_backends):
        backend._desks.clear()


in_child(after_in_child=_start_afresh)
