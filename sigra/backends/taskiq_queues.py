"""Have a taskiq broker lose no job to a queue that it does not have, or that somebody deleted.

RabbitMQ sends back what no queue takes, and then confirms it; taskiq ignores what comes back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sigra.backends.taskiq_run import add
from sigra.errors import InvalidOptionError
from sigra.job import Job


def check_queue(broker: Any, job: Job) -> None:
    """Raise ``InvalidOptionError`` for a queue that the broker does not have."""
    queue = job.options.queue
    if queue is None:
        return
    known = {each.name for each in getattr(broker, "_task_queues", ())}
    known |= {getattr(broker, "queue_name", None), *getattr(broker, "additional_streams", ())}
    if queue not in known:
        reason = (
            f"this broker has no queue {queue!r}: create it with that queue, in its consumer too"
        )
        raise InvalidOptionError("queue", reason, job.worker)


def surely_kick(broker: Any) -> None:
    """Send a job that RabbitMQ sends back once more, after its queues are made anew.

    In ``taskiq scheduler`` too. If it comes back again, the broker raises ``RuntimeError``. On
    servers other than RabbitMQ, and for the application's own tasks, nothing changes.
    """
    kick = broker.kick

    async def kick_surely(message: Any) -> None:
        task = broker.find_task(message.task_name)
        ours = task is not None and task.original_func.__module__ == add.__module__
        if not ours or "delay" in message.labels:  # a delaying exchange sends all back
            await kick(message)
        elif await _comes_back(broker, kick, message):
            await broker._declare_queues(broker.write_channel)
            if await _comes_back(broker, kick, message):
                raise RuntimeError(
                    f"no queue on RabbitMQ took the message of {message.task_name!r}"
                )

    # Only once: an outer wrapper would see sent back what an inner one has sent again already.
    if hasattr(broker, "write_channel") and kick.__module__ != __name__:
        broker.kick = kick_surely


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
