"""Report that an attempt was delivered again, which a queue is allowed to do."""

from __future__ import annotations

import logging
import threading
from contextvars import copy_context

from sigra.conclude import log_attempt
from sigra.context import Attempt
from sigra.job import Job

_KEPT = 10_000
_lock = threading.Lock()
_known: dict[str, tuple[int, int, bool]] = {}
"""By a job's id: the highest attempt plus snoozes that came, how often that came, and whether the
job ended. The key is the id alone, because a replay may change counts that are not signed."""


def report_again(attempt: Attempt, counted: int) -> None:
    """Log a warning, with the job's ids, if this attempt came before, or its job had ended.

    ``counted``: how often it came before, by the queue's count. This process also remembers the
    last 10,000 jobs that it was given itself.
    """
    id, turn = attempt.job.id, attempt.number + attempt.snoozes
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
            what = "was delivered again: it had already ended in an earlier attempt"
        log_attempt(attempt, copy_context(), logging.WARNING, what)


def note_end(job: Job) -> None:
    """Remember that the job has ended: no attempt of it should follow."""
    with _lock:
        last, times, _ = _known.get(job.id, (0, 0, True))
        if times:
            _known[job.id] = last, times, True
