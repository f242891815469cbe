"""Make all runs of a job at once where Celery itself runs it inside of ``.new()``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sigra.backends.celery_limit import settled
from sigra.backends.direct import refuse_direct
from sigra.backends.external import Consumed, failures_in, refuse_positional
from sigra.errors import brief
from sigra.job import FINISHED
from sigra.verdict import Verdict

_log = logging.getLogger("sigra.job")

MOST = 1000
"""Runs after which a job is given up that fails or snoozes each time."""

_GOES_ON = f"it has not ended after {MOST} runs"
_WAITS = "it waits for a deploy, and nothing is deployed meanwhile"


def run_through(
    task: Any,
    args: Sequence[Any],
    payload: Mapping[str, Any],
    run: Callable[[Any, Mapping[str, Any]], Consumed],
) -> Consumed:
    """Make one ``run(task, payload)``; if it is eager, one after another until the job has ended.

    Celery's own way is a run within a run, of which Python bears some dozens. A job that waits for
    a deploy is given up. Raises ``TypeError`` where the task was called, and not delivered.
    """
    request = task.request
    id = refuse_direct(task.name, None if request.called_directly else request.id)
    if args:
        return refuse_positional(task.name, id)
    consumed, made = run(task, payload), 1
    while task.request.is_eager and consumed.verdict.state not in FINISHED:
        if made == MOST or consumed.delivery is None:
            error = RuntimeError(_WAITS if consumed.delivery is None else _GOES_ON)
            what = f"job {brief(task.request.id)} of {task.name} is given up"
            _log.error("%s: %s", what, error)
            return replace(consumed, verdict=Verdict("discarded", error=error))
        settled()
        consumed.take_error()
        payload = consumed.following()
        task.request.retries = failures_in(payload)
        consumed, made = run(task, payload), made + 1
    return consumed
