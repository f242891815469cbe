"""Have a taskiq broker lose no job that it cannot send: its server refuses it, or has no queue.

RabbitMQ sends back what no queue takes, and then confirms it; taskiq ignores what comes back. And
``taskiq scheduler`` tries once to send what is due, and then not until it is started anew. And a
consumer is to lose no job by odd labels.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from sigra.backends.envelope import MARK
from sigra.backends.taskiq_due import Due
from sigra.backends.taskiq_run import LABELS, add
from sigra.errors import InvalidOptionError, brief
from sigra.job import Job

_log = logging.getLogger("sigra.job")

_AGAIN = 2.0

_LONGEST = 10_000
"""Characters of a task's name and id: RabbitMQ breaks the connection that sends far longer ones."""


def check_queue(broker: Any, job: Job) -> None:
    """Raise ``InvalidOptionError`` for a queue that the broker does not have."""
    queue = job.options.queue
    if queue is None:
        return
    if queue not in queues_of(broker):
        reason = (
            f"this broker has no queue {queue!r}: create it with that queue, in its consumer too"
        )
        raise InvalidOptionError("queue", reason, job.worker)


def surely_kick(broker: Any, schedules: Any) -> None:
    """Send a job that RabbitMQ sends back once more, after its queues are made anew.

    If it comes back again, the broker raises ``RuntimeError``. ``taskiq scheduler`` tries until
    the broker takes the job. For the application's own tasks nothing changes.
    """
    kick, due = broker.kick, Due(broker, schedules)

    async def kick_surely(message: Any) -> None:
        send = partial(_kick, broker, kick, message)
        insists = broker.is_scheduler_process and _is_job(broker, message)
        if insists and due.has(message):
            send = partial(due.send, message, send)
        while True:
            try:
                await send()
                return
            except Exception:
                if not insists:
                    raise
                what = "could not send job %s, which is due, to the broker: trying again"
                _log.exception(what, brief(message.task_id))
            await asyncio.sleep(_AGAIN)

    # Only once: an outer wrapper would see sent back what an inner one has sent again already.
    if kick.__module__ != __name__:
        broker.kick = kick_surely


def _is_job(broker: Any, message: Any) -> bool:
    task = broker.find_task(message.task_name)
    if task is None:  # a scheduler need not import the workers
        return MARK.encode() in message.message
    return bool(task.original_func.__module__ == add.__module__)


async def _kick(broker: Any, kick: Callable[[Any], Any], message: Any) -> None:
    sends_back = hasattr(broker, "write_channel") and "delay" not in message.labels
    if not sends_back or not _is_job(broker, message):  # a delaying exchange sends all back
        await kick(message)
    elif await _comes_back(broker, kick, message):
        await broker._declare_queues(broker.write_channel)
        if await _comes_back(broker, kick, message):
            raise RuntimeError(f"no queue on RabbitMQ took the message of {message.task_name!r}")


async def _comes_back(broker: Any, kick: Callable[[Any], Any], message: Any) -> bool:
    """Send a message; tell whether RabbitMQ sent it back."""
    await broker.write_channel.ready()  # it may just be connecting again
    channel, back = await broker.write_channel.get_underlay_channel(), set[str]()

    def note(returned: Any) -> None:
        back.add(returned.header.properties.headers["task_id"])

    channel.on_return_callbacks.add(note)
    try:
        await kick(message)
    finally:
        channel.on_return_callbacks.discard(note)
    return message.task_id in back


class Formatter:
    """Have a task for each job that comes: taskiq would drop one whose worker is not imported.

    And have its labels as they must be, whatever the message says. By others taskiq would raise an
    error and never acknowledge it, or its next run could not be sent, or not to a queue of ours.
    """

    def __init__(self, broker: Any, schedules: Any) -> None:
        self._broker, self._schedules, self._own = broker, schedules, broker.formatter

    def dumps(self, message: Any) -> Any:
        """Write a message as the broker's own formatter does."""
        return self._own.dumps(message)

    def loads(self, message: bytes) -> Any:
        """Read a message; if it is a job without a task here, add one."""
        loaded, find = self._own.loads(message), self._broker.find_task
        if MARK in loaded.kwargs and len(loaded.task_name + loaded.task_id) > _LONGEST:
            raise ValueError(f"the task's name and id have over {_LONGEST} characters: no job's do")
        if MARK in loaded.kwargs and find(loaded.task_name) is None:
            add(self._broker, self._schedules, loaded.task_name)
        task = find(loaded.task_name)
        if task is not None and task.original_func.__module__ == add.__module__:
            self._correct(loaded)
        return loaded

    def _correct(self, message: Any) -> None:
        labels, types = message.labels, message.labels_types or {}
        queues = queues_of(self._broker)
        queue = labels.get("queue_name")
        if queues and not any(_takes(each, queue) for each in queues):
            labels["queue_name"] = queues[0]
            if queue is not None:
                what = "job %s names a queue that its consumer does not have: taken as of %s"
                _log.warning(what, brief(message.task_id), queues[0])
        labels.update(LABELS)
        for name in ("queue_name", *LABELS):
            types.pop(name, None)  # by which taskiq would read it as of another type


def _takes(known: str, queue: Any) -> bool:
    """Tell whether a queue of that name, or bound by that pattern of RabbitMQ's, is the one."""
    pattern = re.escape(known)
    for sign, meaning in ((r"\.\#", r"(\..*)?"), (r"\#", ".*"), (r"\*", "[^.]*")):
        pattern = pattern.replace(sign, meaning)
    return known == queue or (isinstance(queue, str) and bool(re.fullmatch(pattern, queue)))


def queues_of(broker: Any) -> list[str]:
    """Return the names by which a broker's queues are labelled, its default one first."""
    streams = [getattr(broker, "queue_name", None), *getattr(broker, "additional_streams", ())]
    queues = [
        name
        for each in getattr(broker, "_task_queues", ())
        for name in (each.routing_key or each.name, each.name)
    ]
    return [name for name in (*streams, *queues) if name]
