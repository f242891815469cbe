"""Run a job in taskiq's consumer, and tell taskiq what came of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

from sigra.backends.direct import refuse_direct
from sigra.backends.external import Consumed, aconsume, native, refuse_positional
from sigra.backends.native_error import error_text
from sigra.backends.taskiq_limit import coming_again, lasting, to_the_end
from sigra.backends.taskiq_stream import begin_notes, notes_of
from sigra.errors import brief

_taskiq = native("taskiq", "taskiq")
_CONTEXT = _taskiq.TaskiqDepends(_taskiq.Context)
_NoResultError = native("taskiq.exceptions", "taskiq").NoResultError
AsyncKicker = native("taskiq.kicker", "taskiq").AsyncKicker

_log = logging.getLogger("sigra.job")

# Taskiq's retry middlewares must not retry a job, and it is acknowledged only when it has run.
LABELS = {"retry_on_error": False, "ack_type": "when_executed"}

_RECONNECT = 2.0


async def run(context: Any, schedules: Any, payload: Mapping[str, Any]) -> Any:
    """Run a job: the body of every worker's task."""
    name, id = context.message.task_name, context.message.task_id
    notes = notes_of(context.broker, schedules)
    async with coming_again(payload, partial(_send_again, context, schedules)) as this_run:
        with to_the_end():  # else one that is cut off at once would come again for ever
            before = await notes.begin(id)
        facts: Any = {"native_id": id, "deliveries": before or None}  # or the envelope's count
        facts |= begin_notes(notes, id, before, this_run)
        consumed = await aconsume(payload, name, "taskiq", **facts)
    with to_the_end():
        await notes.end(id, comes_again=consumed.verdict.state in ("retryable", "scheduled"))
        return await _settle(context, schedules, consumed)


async def _settle(context: Any, schedules: Any, consumed: Consumed) -> Any:
    verdict = consumed.verdict
    if verdict.state in ("retryable", "scheduled"):
        await _send_again(context, schedules, consumed.following(), verdict.delay)
        # Of this run alone: by it OpenTelemetry's middleware tells it from one that failed.
        context.message.labels["retry_on_error"] = True
        raise _NoResultError
    if isinstance(verdict.error, _NoResultError):
        # The body's own: taskiq would keep no result, for which somebody may wait.
        raise RuntimeError(error_text(verdict.error)) from verdict.error
    return verdict.unwrap()


async def _send_again(
    context: Any, schedules: Any, payload: Mapping[str, Any], delay: float
) -> None:
    """Send the next run before this one is acknowledged; try until the broker takes it."""
    message = context.message
    while True:
        try:
            kicker = AsyncKicker(message.task_name, context.broker, lasting(message))
            await send(kicker.with_task_id(message.task_id), schedules, payload, delay)
            return
        except Exception:
            what = "could not send the next run of job %s to the broker: trying again"
            _log.exception(what, brief(message.task_id))
            await asyncio.sleep(_RECONNECT)


async def send(kicker: Any, schedules: Any, payload: Mapping[str, Any], delay: float) -> None:
    """Send a message, or have it sent in ``delay`` seconds; without ``schedules`` wait here."""
    if delay and schedules is not None:
        due = datetime.now(timezone.utc) + timedelta(seconds=delay)
        await kicker.schedule_by_time(schedules, due, **payload)
        return
    if delay:
        await asyncio.sleep(delay)
    await kicker.kiq(**payload)


def add(broker: Any, schedules: Any, name: str) -> None:
    """Add to the broker a task that runs the worker of that name.

    Raises ``ValueError`` if the broker has one of that name that is not a worker's.
    """
    known = broker.local_task_registry.get(name)
    if known is not None and not is_ours(known):
        raise ValueError(f"this taskiq broker has a task of its own named {name!r}; rename one")

    async def body(*given: Any, sigra_context: Any = _CONTEXT, **payload: Any) -> Any:
        message = getattr(sigra_context, "message", None)  # taskiq gives its context, a call none
        id = refuse_direct(name, message and message.task_id)
        if given:
            return refuse_positional(name, id).verdict.unwrap()
        return await run(sigra_context, schedules, payload)

    broker.register_task(body, task_name=name, **LABELS)


def is_ours(task: Any) -> bool:
    """Tell whether a broker's task is one that ``add`` made."""
    return bool(task.original_func.__module__ == __name__)
