"""Have a job's child process end before its consumer looks what came of it at a hard time limit.

Celery's pool by itself first says that the job was cut off, and then ends the child, which may
meanwhile have sent the job's next run.
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
"""Seconds for which a child goes on that is told to end as it settles a job: its consumer kills it
after a tenth of a second."""

_ENDS = 1.0
"""Seconds in which a child that is killed has ended."""

_settled_by = 0.0


def look_at_the_limit(pool: Any) -> None:
    """Have a consumer's pool do so, if it has processes and Celery's event loop reads from them."""
    pool = getattr(pool, "_pool", None)
    if hasattr(pool, "_fileno_to_outq") and not isinstance(pool.on_hard_timeout, partial):
        pool.on_hard_timeout = partial(_on_hard_timeout, pool, pool.on_hard_timeout)
        pool._timeout_handler.on_hard_timeout = pool.on_hard_timeout  # as a warm stop has it


def _on_hard_timeout(pool: Any, tell: Any, job: Any) -> None:
    """Tell of a job that was cut off, once its process has ended and nothing came of it."""
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
    """Read what a child has written, as the loop would, which may be amid a message."""
    readers, file = _asynchronous.get_event_loop().readers, process.outqR_fd
    while file in readers and process.outq._reader.poll(0):
        read, args = readers[file]
        if isgenerator(read):
            next(read, None)
        else:
            read(*args)


def settling() -> None:
    """Let a child that is told to end from now on first send what it sends, and say so.

    Its consumer would else send the job again beside it.
    """
    global _settled_by
    if signal.getsignal(signal.SIGTERM) is _process._shutdown_cleanup:
        _process.maybe_setsignal(signal.SIGTERM, _end_when_settled)  # a thread may not
    _settled_by = time.monotonic() + _SETTLES


def _end_when_settled(signum: int, frame: Any) -> None:
    if (left := _settled_by - time.monotonic()) > 0:
        later = Timer(left, os.kill, (os.getpid(), signum))
        later.daemon = True
        later.start()
    else:
        _process._shutdown_cleanup(signum, frame)
