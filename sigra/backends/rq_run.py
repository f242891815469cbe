"""Run a job in RQ's consumer, and tell RQ what came of it."""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping
from typing import Any

from sigra.backends.direct import refuse_direct
from sigra.backends.envelope import MARK
from sigra.backends.external import Consumed, consume, native, refuse_positional
from sigra.backends.native_word import warn_of_native_word
from sigra.backends.orm_thread import execute_in_consumer, execute_in_place
from sigra.backends.rq_send import CUT_OFF, MODULE, PLACE, WORKER
from sigra.catalog import find

_rq, _timeouts = native("rq", "rq"), native("rq.timeouts", "rq")

_INSTEAD = {_rq.Retry: "Failure(reason) after a failure, and Snooze(seconds) to wait,"}

_BEGUN = "sigra_begun"
_ENDLESS = 10**9


def run(name: str, payload: Mapping[str, Any]) -> Any:
    """Run a job of the worker ``name``: an envelope, or the plain args of a hand-built job."""
    native = _rq.get_current_job()
    ours = native and native.func_name in (f"{PLACE}.run", f"{PLACE}.{WORKER}{name}")
    refuse_direct(name, native.id if ours else None)
    left, native.retries_left = native.retries_left, 0  # what is raised here is final
    if not isinstance(payload, Mapping):
        raise refuse_positional(name, native.id).take_error().pop()
    module = native.meta.get(MODULE)
    definition = find(name, module)
    native.retries_left = left  # what a time limit cuts off outside of the body comes again
    before = None
    if MARK in payload:
        before = native.connection.hincrby(native.key, _BEGUN, 1) - 1
        if before and _was_stopped(native):
            before = 0
    by = execute_in_place if native.worker_name == "sync" else execute_in_consumer
    facts: Any = {"native_id": native.id, "deliveries": before}
    consumed = consume(payload, definition, "rq", execute=by, **facts)
    if _has_rqs_limit():  # from here on things have to be done
        signal.alarm(0)
    _keep(module, native)
    return _settle(native, name, left, consumed)


run.__module__ = PLACE


def _has_rqs_limit() -> bool:
    """Tell whether the alarm is RQ's: with ``is_async=False`` it may be that of a test."""
    handler = signal.getsignal(signal.SIGALRM) if hasattr(signal, "SIGALRM") else None
    return isinstance(getattr(handler, "__self__", None), _timeouts.BaseDeathPenalty)


def _was_stopped(native: Any) -> bool:
    """Tell whether somebody stopped the last run with RQ's command, and then queued the job again.

    RQ killed the process of that run, so it does not count as one that died.
    """
    last = native.latest_result()
    return last is not None and (last.exc_string or "").startswith("Job stopped by user")


def _keep(module: Any, native: Any) -> None:
    """Have RQ write what the job's next run needs, whatever the body has done to RQ's job."""
    _ = native.args  # with its name: RQ cannot write one that was refreshed and not read since
    meta = native.meta or {}
    if module is not None and MODULE not in meta:
        native.meta = {**meta, MODULE: module}
        native.save_meta()


def _settle(native: Any, name: str, left: int | None, consumed: Consumed) -> Any:
    verdict, error = consumed.verdict, consumed.take_error()
    _write_at_once(native)
    match verdict.state:
        case "retryable" | "scheduled":
            following = consumed.following()
            # RQ saves both with the job when it queues that again.
            native.args = (name, following)
            native.retries_left = following.get("max_attempts", left)
            seconds = math.ceil(verdict.delay + CUT_OFF.total_seconds()) if verdict.delay else 0
            return _rq.Retry(max=_ENDLESS, interval=seconds)
    native.args = (name, consumed.by_hand(0))  # for "rq requeue", and buttons
    native.retries_left = 0  # what a callback of RQ's raises is not retried either
    if verdict.state != "completed":
        raise error.pop()
    warn_of_native_word(consumed, _INSTEAD)
    return None


def _write_at_once(native: Any) -> None:
    """Have RQ write, in one transaction, a job's new status and that no run of it is begun.

    By itself RQ marks a job as scheduled before it schedules it, and would never look again at
    one whose consumer is killed between the two.
    """

    def set_status(status: Any, pipeline: Any = None) -> None:
        if pipeline is not None:
            pipeline.hdel(native.key, _BEGUN)
            type(native).set_status(native, status, pipeline)
            if status in ("failed", "finished"):
                native.retries_left = 1  # for a run by hand whose worker dies before it begins

    native.set_status = set_status
