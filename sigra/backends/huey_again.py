"""Have huey's server take a job's next run even if it takes no writes for a moment.

huey takes a task out of its queue before it runs it, and out of its schedule before it queues it:
one that it then cannot write is lost.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from sigra.backends.insist import WAITS

_TAKEN = "sigra_taken"


def taken(task: Any) -> Any:
    """Note that a consumer has taken a task out of its huey's storage; return it."""
    setattr(task, _TAKEN, True)
    return task


def write_surely(huey: Any) -> None:
    """Have a consumer of a huey try again to write what it has taken, and a producer at once."""
    for name in ("enqueue", "add_schedule"):
        write = getattr(huey, name)
        if getattr(write, "func", None) is not _write:  # else a second backend has come
            setattr(huey, name, partial(_write, write))


def _write(write: Callable[[Any], Any], task: Any) -> Any:
    if not hasattr(task, _TAKEN):
        return write(task)
    return insist(partial(write, task))


def insist(write: Callable[[], Any]) -> Any:
    """Write, and try again up to five times what the server surely did not take."""
    for wait in WAITS:
        try:
            return write()
        except Exception as error:
            if not _is_refused(error):
                raise
        time.sleep(wait)
    return write()


def _is_refused(error: Exception) -> bool:
    """Tell whether a server answered that it does not write, or gave no connection.

    If a connection breaks, the server may have written: a second try would then run a job twice.
    """
    redis = sys.modules.get("redis")
    if redis is None or not isinstance(error, (redis.ConnectionError, redis.TimeoutError)):
        return True
    refused = isinstance(error.__context__, ConnectionRefusedError)
    return refused or isinstance(error, redis.exceptions.BusyLoadingError)
