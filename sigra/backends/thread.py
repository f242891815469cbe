"""Run jobs in a bounded pool of threads of this process."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401 - its exit hook ends executors: see _close_at_exit
import os
import threading
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sigra.backends.inprocess import CAPABILITIES
from sigra.backends.inprocess.agenda import check_timeout, report_unfinished
from sigra.backends.inprocess.line import Turn
from sigra.backends.inprocess.pool import Pool
from sigra.errors import EnqueueError
from sigra.ids import in_child
from sigra.registry import resolve_backend

if TYPE_CHECKING:
    from sigra.job import Job

_opening = threading.Lock()
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_exit_state = "unregistered"


class ThreadBackend:
    """Run jobs in up to ``max_workers`` threads, with every scheduling option.

    ``max_workers``: by default the number of cores plus four, at most 32. ``queue_size``: how
    many jobs may wait to run; jobs for later do not count. When it is full, ``.new()`` waits up
    to ``enqueue_timeout`` seconds (None: for ever) and then raises ``EnqueueError``. Raises
    ``ValueError`` unless the first two are ints of at least 1 and the timeout is a number, not
    negative.

    A batch goes in whole or not at all; one larger than ``queue_size`` goes in when nothing
    else waits. What a job enqueues on its own backend goes in at once, beyond ``queue_size``
    if need be, because the pool cannot wait for itself.

    The queue's name is only a label. A body runs in a context of its own, which inherits nothing
    from whoever enqueued it. A forked child starts with no jobs: its parent runs those it had. When
    nobody has the backend any more, its threads end once no job is left.
    """

    name = "thread"
    capabilities = CAPABILITIES

    def __init__(
        self,
        max_workers: int | None = None,
        queue_size: int = 10_000,
        enqueue_timeout: float | None = 10.0,
    ) -> None:
        # As concurrent.futures does: enough for jobs that mostly wait.
        size = min(32, (os.cpu_count() or 1) + 4) if max_workers is None else max_workers
        for option, value in (("max_workers", size), ("queue_size", queue_size)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{option} must be an int of at least 1, not {value!r}")
        seconds = 0 if enqueue_timeout is None else enqueue_timeout
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds >= 0:
            raise ValueError(
                f"enqueue_timeout must be seconds from 0 on, or None, not {enqueue_timeout!r}"
            )
        self._size, self._bound, self._timeout = size, queue_size, enqueue_timeout
        self._pool: Pool | None = None

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Take all jobs, waiting for room in the queue, or raise ``EnqueueError``."""
        pool = self._pool
        if pool is None or pool.phase != "open":
            pool = self._open()
        if not pool.offer(jobs):
            pool.take(jobs, self._timeout, Turn())

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Do the same; the loop goes on while there is no room."""
        pool = self._open()
        if pool.offer(jobs):
            return
        turn = Turn()
        try:
            await asyncio.to_thread(pool.take, jobs, self._timeout, turn)
        except asyncio.CancelledError:
            turn.give_up()
            raise

    def close(self, timeout: float | None = None) -> list[Job]:
        """Finish what is due, end the threads, and return the jobs that were not finished.

        Due are the jobs that wait for a thread, what these enqueue, and retries whose time has
        come. Returns those that still run or wait after ``timeout`` seconds (None: as long as it
        takes), then those scheduled, snoozed or to be retried later. Their ``result()`` raises
        ``TimeoutError``, but a job that still runs may finish. The interpreter's exit does the
        same, and logs a warning for each.

        From now on ``.new()`` raises ``EnqueueError``; only the shared instance behind the name
        "thread" opens again. Raises ``RuntimeError`` inside a job.
        """
        check_timeout(timeout)
        with _opening:
            if self._pool is None:
                self._pool = Pool(self, self._size, self._bound)
        return self._pool.close(timeout)

    def _open(self) -> Pool:
        with _opening:
            pool = self._pool
            draining = pool is not None and pool.phase == "draining"
            if pool is not None and (pool.phase == "open" or (draining and pool.runs_here())):
                return pool
            if _exit_state == "exiting":
                raise EnqueueError(self.name, "the interpreter is shutting down")
            if pool is not None and draining:
                return pool
            if pool is None or pool.phase == "lost" or resolve_backend(self.name) is self:
                _close_at_exit(self.name)
                pool = self._pool = Pool(self, self._size, self._bound)
                _pools.add(pool)
            return pool


def _close_at_exit(name: str) -> None:
    """Have the interpreter's exit close all pools, before it ends any thread.

    The hook of concurrent.futures, which ends all executors, came first and so runs after ours:
    jobs may need them.
    """
    global _exit_state
    if _exit_state == "unregistered":
        try:
            threading._register_atexit(_finish)  # type: ignore[attr-defined]
        except RuntimeError:
            _exit_state = "exiting"
        else:
            _exit_state = "registered"
    if _exit_state == "exiting":
        raise EnqueueError(name, "the interpreter is shutting down")


def _finish() -> None:
    global _exit_state
    timeout: float | None = None
    with _opening:  # a thread that opens one now has it closed too
        _exit_state, pools = "exiting", list(_pools)
    for pool in pools:
        try:
            left = pool.close(timeout)
        except KeyboardInterrupt:
            # Ctrl-C while it waits: end at once, and report what was not finished.
            timeout = 0.0
            left = pool.close(timeout)
        report_unfinished(left, "the interpreter exits")


def _start_afresh() -> None:
    """Let a forked child neither run its parent's jobs nor wait for its threads."""
    global _opening
    _opening = threading.Lock()
    for pool in list(_pools):
        if pool.phase != "closed":
            pool.lose()


in_child(after_in_child=_start_afresh)
