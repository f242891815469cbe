"""A second delivery of one attempt is legitimate, and is not kept quiet."""

from __future__ import annotations

import logging
import threading
from contextvars import copy_context

from sigra.conclude import log_attempt
from sigra.context import Running

_KEPT = 10_000
_lock = threading.Lock()
_begun: dict[tuple[str, int, int], int] = {}


def report_again(attempt: Running, counted: int) -> None:
    """Log a warning, with the job's ids, where this attempt was delivered before.

    ``counted``: how often, by the queue's count. Where that counts nothing, this process
    knows the last 10,000 attempts that it was given itself.
    """
    key = attempt.job.id, attempt.attempt, attempt.snoozes
    with _lock:
        earlier = _begun.pop(key, 0)
        _begun[key] = earlier + 1
        if len(_begun) > _KEPT:
            del _begun[next(iter(_begun))]
    earlier = max(earlier, counted)
    if earlier:
        what = f"was delivered again: this is delivery {earlier + 1} of the attempt"
        log_attempt(attempt, copy_context(), logging.WARNING, what)
