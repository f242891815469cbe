"""The threads of a pool: started as they are needed, and asleep while there is nothing to do."""

from __future__ import annotations

import queue
from collections.abc import Callable

from sigra.backends.inprocess.alarm import start_thread
from sigra.errors import EnqueueError


class Crew:
    """Up to ``size`` threads that run ``work``. Its owner holds a lock around all but ``sleep``.

    ``name`` is the backend's. ``count``: how many threads there are. ``idle``: how many of them
    sleep, and were sent no token.
    """

    def __init__(self, name: str, size: int, work: Callable[[], None]) -> None:
        self.size, self.count, self.idle = size, 0, 0
        self._name, self._work = name, work
        self._tokens: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.disturb = self._tokens.put  # wakes a thread whose sleep is then no wake()'s to end

    def start(self, wanted: int) -> None:
        """Start up to ``wanted`` threads more; ``EnqueueError`` if there is none at all."""
        for _ in range(min(wanted, self.size - self.count)):
            try:
                start_thread(self._work, f"sigra-{self._name}")
            except RuntimeError as error:
                if self.count:
                    return
                raise EnqueueError(self._name, "no thread can be started") from error
            self.count += 1

    def wake(self, wanted: int) -> None:
        """Wake up to ``wanted`` idle threads, each by a token of its own."""
        for _ in range(min(wanted, self.idle)):
            self.idle -= 1
            self._tokens.put(None)

    def dismiss(self) -> None:
        """Wake all threads, for good."""
        for _ in range(self.count):
            self._tokens.put(None)

    def sleep(self, seconds: float | None) -> bool:
        """Sleep as an idle thread, for so many seconds at most; tell whether a token ended it."""
        try:
            return self._tokens.get(timeout=seconds) is None
        except queue.Empty:
            return False

    def rise(self) -> None:
        """Be idle no more, after a sleep that no token ended; one may have come since."""
        self.idle -= not self.sleep(0)
