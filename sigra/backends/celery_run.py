"""Run a job in Celery's consumer, and tell Celery what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sigra.backends.celery_begun import begun_before
from sigra.backends.celery_eager import run_through
from sigra.backends.celery_limit import settled, settling
from sigra.backends.celery_retry import retry
from sigra.backends.celery_send import SURELY, Lent, countdown
from sigra.backends.envelope import MARK
from sigra.backends.external import Consumed, consume, failures_in, native
from sigra.backends.kombu_json import fit, unfit
from sigra.backends.native_error import error_text
from sigra.backends.orm_thread import execute_in_consumer, execute_in_place

_exceptions = native("celery.exceptions", "celery")
_process = native("billiard.common", "celery")

# ``retry_on_worker_lost``: when a child process dies, Celery sends the message again with one
# retry more, by which such deliveries are counted. None of these settings retries a failure.
TASK = {
    "acks_late": True,
    "reject_on_worker_lost": True,
    "retry_on_worker_lost": True,
    "autoretry_for": (),  # even if the app's own class of tasks has some
    "retry": retry,
    "max_retries": None,
    "default_retry_delay": 1,
    "serializer": "json",
    "ignore_result": True,  # else every .new() would talk to the result backend too
    "store_errors_even_if_ignored": True,
    "shared": False,
    "bind": True,
    MARK: True,  # an attribute that tells our tasks from the user's
}
"""What Celery is told of every worker's task."""


def run(task: Any, /, *args: Any, **kwargs: Any) -> None:
    """Run a job: the body of every worker's task."""
    try:
        consumed = run_through(task, args, unfit(kwargs), _consume)
        _settle(task, consumed)
    except _exceptions.SoftTimeLimitExceeded as error:
        # Outside of the body: it comes again as if its process had died.
        raise _exceptions.Reject(error_text(error), requeue=True) from error
    finally:
        settled()


def _consume(task: Any, payload: Mapping[str, Any]) -> Consumed:
    id, lost = task.request.id, max(0, task.request.retries - failures_in(payload))
    _process.clear_terminate_handler_fired()  # set if an earlier job survived being told to end
    with begun_before(task, lost) as before:
        facts: Any = {"native_id": id, "cut_off": _cut_off, "deliveries": before}
        by = execute_in_place if task.request.is_eager else execute_in_consumer
        consumed = consume(payload, task.name, "celery", execute=by, **facts)
        if _cut_off() and consumed.verdict.state not in ("completed", "cancelled"):
            raise SystemExit  # as if it had died: its note stays, nothing is sent
        settling()
    return consumed


def _cut_off() -> str:
    """Return words for the log if this child was told to end: by a time limit, a revoke, a stop.

    If not, "". If so, the consumer's main process settles the job, and may kill the child.
    """
    told = _process.terminate_handler_fired()
    return "; its process is told to end, and its consumer settles it" if told else ""


def _settle(task: Any, consumed: Consumed) -> None:
    verdict, text = consumed.verdict, "".join(map(error_text, consumed.take_error()))
    match verdict.state:
        case "retryable":
            _send_again(task, consumed)
            raise _exceptions.Retry(text, when=verdict.delay)
        case "scheduled":
            _send_again(task, consumed)
            raise _exceptions.Ignore
        case "cancelled" | "discarded":
            # Shown as failed, and dead-lettered where the queue has an exchange for that.
            raise _exceptions.Reject(text, requeue=False)


def _send_again(task: Any, consumed: Consumed) -> None:
    """Send the next run to where this one came from, under the same id."""
    payload = consumed.following()
    again = task.signature_from_request(
        args=(),
        kwargs=fit(payload),
        countdown=countdown(task.app, consumed.verdict.delay),
        retries=failures_in(payload),
    )
    try:
        with Lent(task.app) as own:
            again.apply_async(producer=own, **SURELY)
    except Exception as error:
        # Not acknowledged: the broker delivers this run again when it is back.
        raise _exceptions.Reject(error_text(error), requeue=True) from error
