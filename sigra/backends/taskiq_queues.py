"""Have a taskiq broker lose no job that it cannot send: its server refuses it, or has no queue.

RabbitMQ sends back what no queue takes, and then confirms it; taskiq ignores what comes back. And
``taskiq scheduler`` tries once to send what is due, and then not until it is started anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from sigra.backends.envelope import MARK
from sigra.backends.taskiq_due import Due
from sigra.backends.taskiq_run import is_ours
from sigra.errors import InvalidOptionError, brief
from sigra.job import Job

_log = logging.getLogger("sigra.job")

_AGAIN = 2.0


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
    return is_ours(task)


async def _kick(broker: Any, kick: Callable[[Any], Any], message: Any) -> None:
    labels, ours = message.labels, _is_job(broker, message)
    if ours and "queue_name" in labels:  # which a broker may be set to look for by another name
        labels[getattr(broker, "_label_for_routing", "queue_name")] = labels["queue_name"]
    if not (ours and hasattr(broker, "write_channel")) or "delay" in labels:
        await kick(message)  # a delaying exchange sends all back
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


def queues_of(broker: Any) -> list[str]:
    """Return the names by which a broker's queues are labelled, its default one first."""
    streams = [getattr(broker, "queue_name", None), *getattr(broker, "additional_streams", ())]
    queues = [
        name
        for each in getattr(broker, "_task_queues", ())
        for name in (each.routing_key or each.name, each.name)
    ]
    return [name for name in (*streams, *queues) if name]
