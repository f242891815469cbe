"""Keep the notes of jobs that are begun: keys in Redis, messages in a few queues on RabbitMQ."""

from __future__ import annotations

from functools import partial
from typing import Any

from sigra.backends.rabbitmq_notes import WEEK, QueueNotes


class InRedis:
    """Keep a key for each job: how often it was begun. It is called as ``QueueNotes`` is."""

    def begin(self, channel: Any, id: str, lost: int, again: bool) -> int:
        """Replace the job's note by a new one; return how often it was begun before."""
        key, before = f"sigra.begun.{id}", lost
        if again:  # not GET: kombu adds no global_keyprefix to its key
            before = max(lost, int(channel.client.set(key, lost, ex=WEEK, get=True) or 0))
        channel.client.set(key, before + 1, ex=WEEK)
        return before

    def end(self, channel: Any, id: str, begun: int | None) -> None:  # noqa: ARG002
        """Take the job's note away."""
        channel.client.delete(f"sigra.begun.{id}")


def _get(channel: Any, slot: str) -> tuple[int, bytes] | None:
    message = channel.basic_get(slot)
    return None if message is None else (message.delivery_tag, message.body)


def _publish(channel: Any, slot: str, note: bytes) -> None:
    channel.basic_publish(channel.prepare_message(note), exchange="", routing_key=slot)


InQueues = partial(QueueNotes, get=_get, publish=_publish)
