"""Keep threads that need one lock again and again out of each other's way."""

from __future__ import annotations

import sys
from threading import Lock
from time import sleep

_TURNS = 10 if sys.version_info < (3, 13) else 0


def let_pass(lock: Lock) -> None:
    """Let other threads run while a lock is held, a few times: ``with`` then rarely waits for it.

    Before Python 3.13 a thread that waits for a lock is given it first and the interpreter
    later, and holds the lock until then. So the next one has to wait too, and from there on each
    job costs several switches of threads: 45 us instead of 11 where four threads enqueue.
    """
    for _ in range(_TURNS):
        if not lock.locked():
            return
        sleep(0)
