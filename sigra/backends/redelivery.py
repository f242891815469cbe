"""Second deliveries of one attempt: they are legitimate, and reported."""

from __future__ import annotations

import logging
import threading
from contextvars import copy_context

from sigra.conclude import log_attempt
from sigra.context import Running
from sigra.job import Job

_KEPT = 10_000
_lock = threading.Lock()
_known: dict[str, tuple[int, int, bool]] = {}
"""By a job's id: how many attempts and snoozes it was at, how often it came so, and whether it
ended. Not by its counts: whoever replays a job may change those that no signature covers."""


def report_again(attempt: Running, counted: int) -> None:
    """Log a warning, with the job's ids, if this attempt, or its job's end, was seen before.

    ``counted``: how often, by the queue's count. Where that counts nothing, this process
    knows the last 10,000 jobs that it was given itself.
    """
    id, turn = attempt.job.id, attempt.attempt + attempt.snoozes
    with _lock:
        last, times, ended = _known.pop(id, (0, 0, False))
        earlier = times if ended or turn <= last else 0
        _known[id] = max(turn, last), earlier + 1, ended
        if len(_known) > _KEPT:
            del _known[next(iter(_known))]
    earlier = max(earlier, counted)
    if earlier:
        what = f"was delivered again: this is delivery {earlier + 1} of the attempt"
        if ended and turn > last:
            what = "was delivered again: it had come to its end in an attempt before"
        log_attempt(attempt, copy_context(), logging.WARNING, what)


def note_end(job: Job) -> None:
    """Remember that no attempt of the job is to follow."""
    with _lock:
        last, times, _ = _known.get(job.id, (0, 0, True))
        if times:
            _known[job.id] = last, times, True
