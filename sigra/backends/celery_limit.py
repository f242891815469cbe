"""At a hard time limit, end the job's child process first and then look what came of the job.

By itself Celery's pool first says that the job was cut off and then ends the child, which may
have sent the job's next run meanwhile.
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

_settled_by = 0.0


def look_at_the_limit(pool: Any) -> None:
    """Have a pool do so, if it has processes and Celery's event loop reads from them."""
    pool = getattr(pool, "_pool", None)
    if hasattr(pool, "_fileno_to_outq") and not isinstance(pool.on_hard_timeout, partial):
        pool.on_hard_timeout = partial(_on_hard_timeout, pool, pool.on_hard_timeout)
        pool._timeout_handler.on_hard_timeout = pool.on_hard_timeout  # which a warm stop uses


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
    """Let this child, if it is told to end from now on, first send the next run and report it.

    Otherwise its consumer might send the job again too.
    """
    global _settled_by
    if signal.getsignal(signal.SIGTERM) is _process._shutdown_cleanup:
        _process.maybe_setsignal(signal.SIGTERM, _end_when_settled)  # no-op in a thread
    _settled_by = time.monotonic() + _SETTLES


def _end_when_settled(signum: int, frame: Any) -> None:
    if (left := _settled_by - time.monotonic()) > 0:
        later = Timer(left, os.kill, (os.getpid(), signum))
        later.daemon = True
        later.start()
    else:
        _process._shutdown_cleanup(signum, frame)
