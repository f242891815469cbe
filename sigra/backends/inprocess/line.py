"""The line of those who wait for room in a bounded queue: first come, first served."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from sigra.backends.inprocess.alarm import LONGEST_WAIT
from sigra.backends.inprocess.convoy import let_pass


class Turn(threading.Event):
    """A place in the line, set when whoever holds it is to look whether there is room."""

    given_up = False

    def give_up(self) -> None:
        """End the wait for it, also one that has not begun."""
        self.given_up = True
        self.set()


class Line(list[Turn]):
    """Turns in their order. Its owner holds ``lock`` around every call but that of ``stand``."""

    def __init__(self, lock: threading.Lock) -> None:
        super().__init__()
        self._lock = lock

    def stand(self, turn: Turn, timeout: float | None, go_in: Callable[[], bool]) -> bool:
        """Wait as the last until ``go_in()`` is true for the first, or the turn is given up.

        ``go_in`` is called under the lock, and what it raises is passed on. Return False once
        ``timeout`` seconds have passed in vain (None: never).
        """
        deadline = math.inf if timeout is None else monotonic() + timeout
        try:
            with self._lock:
                self.append(turn)
            while True:
                let_pass(self._lock)
                with self._lock:
                    turn.clear()
                    if turn.given_up or (self[0] is turn and go_in()):
                        return True
                left = deadline - monotonic()
                if left <= 0:
                    return False
                turn.wait(min(left, LONGEST_WAIT))
        finally:
            with self._lock:
                with suppress(ValueError):
                    self.remove(turn)
                self.call()

    def call(self) -> None:
        """Have the first look whether there is room; as it leaves, it calls the next."""
        if self:
            self[0].set()
