"""In a warm stop, keep the jobs that a child process was given and has not yet said to have begun.

By itself Celery's pool forgets them, though the children run them. So it does not hear that they
end, and the broker delivers them again.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from sigra.backends.envelope import MARK
from sigra.backends.external import native

_CLOSE = native("celery.bootsteps", "celery").CLOSE
_state = native("celery.worker.state", "celery")


def keep_given(consumer: Any) -> None:
    """Have a consumer's pool do so, if it has processes and Celery's event loop reads from them."""
    pool = consumer.pool
    if hasattr(getattr(pool, "_pool", None), "_fileno_to_outq"):
        flush = pool.flush
        if not isinstance(flush, partial):  # else it has connected anew
            pool.flush = partial(_flush, consumer, flush)


def _flush(consumer: Any, flush: Any) -> None:
    pool = consumer.pool._pool
    given = [job for job in pool._cache.values() if _is_given(job)] if _stops(consumer) else []
    try:
        for job in given:
            job._accepted = True
            if (writer := job._writer()) in pool._active_writers:
                pool._flush_writer(job._write_to, writer)  # else its child waits for the rest of it
        flush()
    finally:
        for job in given:
            job._accepted = False  # its child says so soon


def _stops(consumer: Any) -> bool:
    """Tell a warm stop from a cold one, and from a lost connection: what ran then comes again."""
    cold = _state.should_terminate not in (None, False)
    return consumer.controller.blueprint.state == _CLOSE and not cold


def _is_given(job: Any) -> bool:
    request = getattr(job._error_callback, "__self__", None)
    ours = getattr(getattr(request, "task", None), MARK, False)
    return bool(ours and job._write_to is not None and not job._accepted)
