"""Have huey's server take a job's next run even if it takes no writes for a moment.

huey takes a task out of its queue before it runs it, and out of its schedule before it queues it:
one that it then cannot write is lost.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from threading import Event
from typing import Any

from sigra.backends.insist import WAITS

_TAKEN = "sigra_taken"
_STOP = "sigra_stop"

_PASSING = {"BusyLoadingError", "ClusterDownError", "ReadOnlyError", "TryAgainError"}
_WORDS = re.compile(r"connecting to |used memory|max number of clients|^(BUSY|MISCONF|NOREPLICAS) ")
"""Of errors that have no class in every release of a client of Redis."""

_LATEST = 5.0
"""Seconds for which a consumer that is told to stop still tries, for all its jobs together."""


class _Stop:
    """Wait as long as a consumer is not told to stop, and then for a few seconds more.

    ``flag``: huey's own, which says that.
    """

    def __init__(self, flag: Any) -> None:
        self._flag, self._end = flag, float("inf")

    def wait(self, seconds: float) -> bool:
        """Wait; tell whether there is time for another try."""
        begun = time.monotonic()
        if not self._flag.wait(seconds):
            return True
        now = time.monotonic()
        self._end = min(self._end, now + _LATEST)
        time.sleep(max(0.0, min(begun + seconds, self._end) - now))
        return now < self._end


def taken(task: Any) -> Any:
    """Note that a consumer has taken a task out of its huey's storage; return it."""
    setattr(task, _TAKEN, True)
    return task


def write_surely(huey: Any) -> None:
    """Have a consumer of a huey try again to write what it has taken, and a producer at once."""
    for name in ("enqueue", "add_schedule"):
        write = getattr(huey, name)
        if getattr(write, "func", None) is not _write:  # else a second backend has come
            setattr(huey, name, partial(_write, huey, write))
    create = huey.create_consumer
    if getattr(create, "func", None) is not _create:
        huey.create_consumer = partial(_create, huey, create)


def _create(huey: Any, create: Callable[..., Any], **options: Any) -> Any:
    consumer = create(**options)
    setattr(huey, _STOP, _Stop(consumer.stop_flag))
    return consumer


def _write(huey: Any, write: Callable[[Any], Any], task: Any) -> Any:
    if not hasattr(task, _TAKEN):
        return write(task)
    return insist(huey, partial(write, task))


def insist(huey: Any, write: Callable[[], Any]) -> Any:
    """Write, and try again up to five times what the server did not take and may take later.

    If the connection breaks, it may have taken it: a second try would then run a job twice.
    """
    stop = getattr(huey, _STOP, None) or _Stop(Event())
    for wait in WAITS:
        try:
            return write()
        except Exception as error:
            if not (_may_pass(error) and stop.wait(wait)):
                raise
    return write()


def _may_pass(error: Exception) -> bool:
    """Tell whether a server refused a write for the moment, or gave no connection."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    passes = isinstance(error, sqlite3.OperationalError) or not _PASSING.isdisjoint(kinds)
    return passes or _WORDS.search(str(error)) is not None
