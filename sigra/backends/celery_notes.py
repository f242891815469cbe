"""The notes of jobs that are begun: keys in Redis, messages in a few queues on RabbitMQ."""

from __future__ import annotations

import sys
import time
from typing import Any
from zlib import crc32

_WEEK = 7 * 24 * 3600
_KEPT = {"x-message-ttl": _WEEK * 1000}


class InRedis:
    """A key for each job, which says how often that was begun."""

    def begin(self, channel: Any, id: str, lost: int, again: bool) -> tuple[int, int]:
        """Leave a note; return how often the job was begun before, and how many notes it has.

        ``lost``: how often it was at least. ``again``: whether there may be notes of it.
        """
        key, before = f"sigra.begun.{id}", lost
        if again:  # not GET, for which kombu forgets its global_keyprefix
            before = max(lost, int(channel.client.set(key, lost, ex=_WEEK, get=True) or 0))
        channel.client.set(key, before + 1, ex=_WEEK)
        return before, 1

    def end(self, channel: Any, id: str, notes: int | None) -> None:  # noqa: ARG002
        """Take the job's notes away, however many there are for None."""
        channel.client.delete(f"sigra.begun.{id}")


class InQueues:
    """A message for each begin, with how often the job was begun by then.

    They are in a few queues, by the jobs' ids, so that few have to be read to find one:
    RabbitMQ needs milliseconds to make a queue.
    """

    slots = 16

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._channel: Any = None
        self._declared = set[str]()

    def begin(self, channel: Any, id: str, lost: int, again: bool) -> tuple[int, int]:
        """Do the same; wait until RabbitMQ has the note."""
        slot, found = self._slot(channel, id), list[int]()
        for pause in (0, 0.02, 0.05) if again else ():
            time.sleep(pause)  # another consumer may just be reading one
            found = found or _find(channel, slot, id)
        before = max(lost, *found, 0)
        note = channel.prepare_message(f"{before + 1} {id}", content_encoding="utf-8")
        publish = getattr(channel, "basic_publish_confirm", channel.basic_publish)
        publish(note, exchange="", routing_key=slot)
        return before, len(found) + 1

    def end(self, channel: Any, id: str, notes: int | None) -> None:
        """Do the same."""
        slot = self._slot(channel, id)
        wanted = sys.maxsize if notes is None else notes
        for _ in range(10):
            wanted -= len(_find(channel, slot, id, wanted))
            if notes is None or wanted <= 0:
                return
            time.sleep(0.02)  # another consumer may just be reading one

    def _slot(self, channel: Any, id: str) -> str:
        """Return the job's queue, which is there."""
        slot = f"{self._queue}.begun.{crc32(id.encode('utf-8', 'replace')) % self.slots}"
        if channel is not self._channel:
            self._channel, self._declared = channel, set()
        if slot not in self._declared:
            channel.queue_declare(slot, durable=True, auto_delete=False, arguments=_KEPT)
            self._declared.add(slot)
        return slot


def _find(channel: Any, slot: str, id: str, wanted: int | None = None) -> list[int]:
    """Read a job's notes, taking away as many as are wanted; put the others back."""
    found, others = list[int](), list[Any]()
    while wanted is None or len(found) < wanted:
        message = channel.basic_get(slot)
        if message is None:
            break
        body = message.body if isinstance(message.body, str) else message.body.decode()
        begun, _, of = body.partition(" ")
        if of == id:
            found.append(int(begun))
        if of == id and wanted is not None:
            channel.basic_ack(message.delivery_tag)
        else:
            others.append(message.delivery_tag)
    for tag in others:
        channel.basic_reject(tag, requeue=True)
    return found
