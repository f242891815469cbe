"""Refuse a direct call of what a queue runs for a worker: no job was delivered for it.

It would take the job of whoever calls for its own, and settle that.
"""

from __future__ import annotations

from typing import Any

from sigra.context import running


def refuse_direct(worker: str, delivered: Any) -> Any:
    """Return the id of the worker's job that was ``delivered`` here.

    Raises ``TypeError`` for a call: it is None then, because no job was delivered, or that job's
    body runs already, and calls what runs it.
    """
    attempt = running.get()
    if delivered is None or (attempt is not None and attempt.job.id == delivered):
        raise TypeError(
            f"a direct call runs no job of {worker}: call the worker itself, which is its "
            "function, or enqueue a job with .new()"
        )
    return delivered
