"""A thread that rings when the time has come."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from contextvars import Context

_log = logging.getLogger("sigra.job")

LONGEST_WAIT = 3600.0
"""Seconds after which a waiter looks at the clock again: a lock takes no arbitrary timeout."""


class Alarm:
    """Call ``ring`` from a thread of its own at the time that was set.

    ``ring`` returns the next time, infinity for none. Times are the monotonic clock's.
    ``due`` is the time that is set.
    """

    def __init__(self, name: str, ring: Callable[[], float]) -> None:
        self._name, self._ring = name, ring
        self.due = math.inf
        self._stopped = self._started = False
        self._changed = threading.Condition(threading.Lock())

    def set(self, due: float) -> None:
        """Ring at ``due``, unless it is to ring sooner; start the thread with the first one."""
        with self._changed:
            if due >= self.due or self._stopped:
                return
            if not self._started:
                start_thread(self._keep, self._name)
                self._started = True
            self.due = due  # not before there is a thread that rings
            self._changed.notify()

    def set_if_possible(self, due: float, *, tell: bool) -> bool:
        """Do the same; where there can be no thread now, log it if ``tell``, and return False."""
        if due < self.due:
            try:
                self.set(due)
            except RuntimeError:
                if tell:
                    _log.exception("could not start the thread that waits for scheduled jobs")
                return False
        return True

    def silent_until(self, due: float) -> float | None:
        """Return the seconds until ``due`` if nothing rings by then; None if it does."""
        return None if self.due <= due else min(max(due - time.monotonic(), 0.0), LONGEST_WAIT)

    def stop(self) -> None:
        """End the thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _keep(self) -> None:
        while True:
            with self._changed:
                while not self._stopped and (left := self.due - time.monotonic()) > 0:
                    self._changed.wait(min(left, LONGEST_WAIT))
                if self._stopped:
                    return
                self.due = math.inf
            self.set(self._ring())


def start_thread(target: Callable[[], None], name: str) -> None:
    """Start a daemon thread that inherits no context; ``RuntimeError`` if there can be none."""
    # Without the GIL it inherits, and keeps, the context in which it is started.
    Context().run(threading.Thread(target=target, name=name, daemon=True).start)
