"""At a hard time limit, end the job's child process first, and only then see how the job ended.

By itself Celery's pool first reports that the job was cut off and then ends the child, which may
have sent the job's next run in between.
"""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from inspect import isgenerator
from threading import Timer
from typing import Any

from sigra.backends.envelope import MARK
from sigra.backends.external import native

_process = native("billiard.common", "celery")
_asynchronous = native("kombu.asynchronous", "celery")

_SETTLES = 0.08
"""Seconds for which a child that is told to end may go on settling a job: its consumer kills it
after a tenth of a second."""

_ENDS = 1.0
"""Seconds for which a killed child is waited for."""

_SOFT = getattr(signal, "SIGUSR1", None)
"""The signal of a soft time limit."""

_settled_by = 0.0
_soft_limit: Any = None


def look_at_the_limit(pool: Any) -> None:
    """Make a pool do so, if it has processes and Celery's event loop reads from them."""
    pool = getattr(pool, "_pool", None)
    if hasattr(pool, "_fileno_to_outq") and not isinstance(pool.on_hard_timeout, partial):
        look = partial(_on_hard_timeout, pool, pool.on_hard_timeout)
        pool._timeout_handler.on_hard_timeout = look  # which a warm stop uses
        pool.on_hard_timeout = partial(_unless_it_stops, pool, look)


def _unless_it_stops(pool: Any, look: Any, job: Any) -> None:
    """Look, but not in a warm stop, when another thread reads from the child at the same time."""
    if not pool._state:
        look(job)


def _on_hard_timeout(pool: Any, tell: Any, job: Any) -> None:
    """End the process of a job, and ``tell`` that the job was cut off unless it has ended."""
    process, _ = pool._process_by_pid(job._worker_pid)
    request = getattr(job._error_callback, "__self__", None)
    if process is None or not getattr(getattr(request, "task", None), MARK, False):
        tell(job)
        return
    _read(process)
    if job.ready():  # it had ended in time
        return
    pool._timeout_handler._trywaitkill(process)
    process.join(_ENDS)
    _read(process)
    tell(job)
    pool.maintain_pool()  # before the process that ended is given another job


def _read(process: Any) -> None:
    """Read what a child has written, by the loop's reader, which may have read half a message."""
    readers, file = _asynchronous.get_event_loop().readers, process.outqR_fd
    while file in readers and process.outq._reader.poll(0):
        read, args = readers[file]
        if isgenerator(read):
            next(read, None)
        else:
            read(*args)


def settling() -> None:
    """Let this child send the next run and report it, even if it is told to end meanwhile.

    If it ended in between, its consumer might send the job again too. Until ``settled`` is called,
    no soft time limit strikes either.
    """
    global _settled_by, _soft_limit
    if signal.getsignal(signal.SIGTERM) is _process._shutdown_cleanup:
        _process.maybe_setsignal(signal.SIGTERM, _end_when_settled)  # no-op in a thread
    _settled_by = time.monotonic() + _SETTLES
    if signal.getsignal(signal.SIGTERM) is _end_when_settled and _SOFT is not None:
        _soft_limit = signal.getsignal(_SOFT)
        _process.maybe_setsignal(_SOFT, signal.SIG_IGN)


def settled() -> None:
    """Let soft time limits strike again, in a child in which they did not."""
    global _soft_limit
    if _soft_limit is not None:
        _process.maybe_setsignal(_SOFT, _soft_limit)
        _soft_limit = None


def _end_when_settled(signum: int, frame: Any) -> None:
    if (left := _settled_by - time.monotonic()) > 0:
        later = Timer(left, os.kill, (os.getpid(), signum))
        later.daemon = True
        later.start()
    else:
        _process._shutdown_cleanup(signum, frame)
