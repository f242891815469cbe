"""A bounded queue in front of a database: many events in one transaction."""

from __future__ import annotations

import atexit
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from itertools import islice
from threading import TIMEOUT_MAX
from time import monotonic
from typing import Any, Generic, TypeVar

from sigra.store.errors import (
    REENTERED,
    AuditBacklogError,
    AuditLostError,
    AuditSinkClosedError,
)
from sigra.store.forking import PerProcess
from sigra.store.stall import Stall

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batching:
    """When a batching sink writes, and how much it holds.

    It writes when ``size`` events wait, when the first has waited ``seconds``, and at the end of
    each job. At most ``queue`` events wait. When the queue is full, a caller waits up to
    ``timeout`` seconds for room; if there is none, the event has failed.
    """

    size: int = 500
    seconds: float = 1.0
    queue: int = 10_000
    timeout: float = 5.0

    def __post_init__(self) -> None:
        if not (type(self.size) is type(self.queue) is int and 1 <= self.size <= self.queue):
            raise ValueError(
                f"size and queue must be ints, size from 1 to queue, not {self.size!r} and "
                f"{self.queue!r}"
            )
        for name, value in (("seconds", self.seconds), ("timeout", self.timeout)):
            if type(value) not in (int, float) or not 0 <= value <= TIMEOUT_MAX:
                raise ValueError(f"{name} must be a number of seconds from 0 on, not {value!r}")
        if self.seconds == 0:
            raise ValueError("seconds must be positive")


class Batch(Generic[T]):
    """Events that wait, in order, and the thread that writes them.

    ``write`` writes some of them. If it raises, because the database is at fault, they stay and
    are tried again. ``lost`` is given those that ``close`` could not write, and why. ``who`` is
    the class that the log names.
    """

    def __init__(
        self,
        settings: Batching,
        write: Callable[[Sequence[T]], None],
        lost: Callable[[Sequence[T], Exception], None],
        who: type,
    ) -> None:
        if not isinstance(settings, Batching):
            kind = type(settings).__qualname__
            raise TypeError(f"batch must be a Batching, as Batching(size=500), or None, not {kind}")
        self._settings, self._write, self._lost, self._who = settings, write, lost, who
        self._closed = False
        self._process = PerProcess()
        # A weak reference, which keeps neither it nor its sink alive until the exit.
        self._close_at_exit = partial(_close_at_exit, weakref.ref(self))
        atexit.register(self._close_at_exit)
        self._renew()

    def _renew(self) -> None:
        # Called in a forked child too, which begins empty: the parent writes what waits.
        self._waiting: deque[T] = deque()
        # Taken directly: a handler of a signal may raise amid the methods of a condition.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._writing, self._writer = threading.RLock(), 0
        self._thread: threading.Thread | None = None
        self._stall = Stall(self._who)
        self._since = 0.0
        # A child of multiprocessing may not run what atexit was given, but it runs a list of
        # multiprocessing's own, which is empty when the child begins.
        util = sys.modules.get("multiprocessing.util")
        self._finalizer: Any = None
        if util is not None:
            self._finalizer = util.Finalize(None, self._close_at_exit, exitpriority=0)

    def add(self, item: T) -> None:
        """Queue an event; raise ``AuditBacklogError`` where there is no room in time."""
        self._process.check(self._renew)
        settings, waiting = self._settings, self._waiting
        with self._lock:
            if len(waiting) >= settings.queue and not self._changed.wait_for(
                lambda: self._closed or len(waiting) < settings.queue, self._patience()
            ):
                raise AuditBacklogError(len(waiting), settings.timeout)
            if self._closed:
                raise AuditSinkClosedError
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="sigra-audit-batch", daemon=True)
                # In no context: a thread may inherit one, and keep the job that logged first. If it
                # cannot be started, the next event tries again.
                Context().run(thread.start)
                self._thread = thread
            if not waiting:
                self._since = monotonic()
            waiting.append(item)
            if len(waiting) == 1 or len(waiting) == settings.size:
                self._changed.notify_all()

    def _patience(self) -> float:
        """Return the seconds to wait for room: none in the thread that makes it, when it logs."""
        return 0 if threading.current_thread() is self._thread else self._settings.timeout

    def flush(self) -> None:
        """Write what waits now, once no other thread is writing; raise if it fails."""
        self._check_reentry()
        if not self._waiting:
            return
        with self._writing:
            self._drain()

    def close(self) -> None:
        """Write what waits and end the thread; raise ``AuditLostError`` for what cannot be."""
        self._check_reentry()
        with self._lock:
            self._closed = True
            self._changed.notify_all()
        with self._writing:
            try:
                self._drain()
            except Exception as error:
                left = list(self._waiting)
                self._waiting.clear()
                self._lost(left, error)
                raise AuditLostError(len(left)) from error
        self._stall.ends()
        atexit.unregister(self._close_at_exit)
        if self._finalizer is not None:
            self._finalizer.cancel()

    def _check_reentry(self) -> None:
        """Raise ``RuntimeError`` in a signal's handler that has interrupted the thread that writes.

        It would wait for itself.
        """
        self._process.check(self._renew)  # first: a thread of the parent may have held a lock
        if self._writer == threading.get_ident():
            raise RuntimeError(REENTERED)

    def _drain(self) -> None:
        """Write what waits now. Items leave the queue once they are written, not before."""
        self._writer = threading.get_ident()
        try:
            self._write_waiting()
        finally:
            self._writer = 0

    def _write_waiting(self) -> None:
        waiting, changed = self._waiting, self._changed
        due = len(waiting)
        while due > 0:
            with self._lock:  # without the GIL, one that adds meanwhile would end the loop here
                some = list(islice(waiting, min(due, self._settings.size)))
            self._write(some)
            due -= len(some)
            with self._lock:
                for _ in some:
                    waiting.popleft()
                self._since = monotonic()
                changed.notify_all()

    def _run(self) -> None:
        while self._due():
            try:
                self.flush()
            except Exception as error:
                # They stay queued, and whoever finds the queue full is told. The database may be
                # down: it is tried again after ``seconds``.
                waiting = len(self._waiting)
                if waiting and not self._closed:
                    self._stall.goes_on(waiting, error)
                with self._lock:
                    self._changed.wait_for(lambda: self._closed, self._settings.seconds)
                if self._waiting:
                    continue
            if not self._closed:  # close() says it, if it is true then
                self._stall.ends()

    def _due(self) -> bool:
        """Wait until there is something to write; return False once the batch is closed."""
        settings, waiting = self._settings, self._waiting
        with self._lock:
            self._changed.wait_for(lambda: self._closed or waiting)
            left = max(self._since + settings.seconds - monotonic(), 0)
            self._changed.wait_for(lambda: self._closed or len(waiting) >= settings.size, left)
            return not self._closed


def _close_at_exit(batch: weakref.ref[Batch[Any]]) -> None:
    found = batch()
    if found is not None:
        found.close()
