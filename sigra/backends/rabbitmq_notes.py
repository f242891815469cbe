"""Note on RabbitMQ which jobs are begun: one message for each begin, in a few queues.

RabbitMQ cannot change a message, and its mark ``redelivered`` does not tell the jobs that a dead
consumer had begun from those that it had only fetched. So each job that begins leaves a note,
and takes it away when it ends: a job that comes again and has a note was running.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import random
from typing import Any
from weakref import WeakKeyDictionary
from zlib import crc32

SLOTS = 64
"""How many queues share the notes: enough that each holds few, which are read to find one, and not
more, because RabbitMQ needs milliseconds to make a queue."""

WEEK = 7 * 24 * 3600
"""Seconds for which a note that nobody takes away is kept."""

# A queue of another type drops a message that was read and put back a few times.
_KEPT = {"x-message-ttl": WEEK * 1000, "x-queue-type": "classic"}
_declared = WeakKeyDictionary[Any, set[str]]()


@dataclass(frozen=True, slots=True)
class QueueNotes:
    """The notes of the jobs of ``queue``, each of which says how often its job was begun.

    ``get``: returns the tag and the body of a queue's next message, or None, by a client's channel.
    ``publish``: writes a message into a queue, and returns when RabbitMQ has it.
    """

    queue: str
    get: Callable[[Any, str], tuple[int, bytes] | None]
    publish: Callable[[Any, str, bytes], object]

    def begin(self, channel: Any, id: str, lost: int, again: bool) -> int:
        """Replace the job's notes by a new one; return how often the job was begun before.

        ``lost``: the least that this can be. ``again``: whether there may be notes of the job.
        """
        slot, older = self._slot(channel, id), dict[int, int]()
        for _ in _tries(8) if again else ():
            if older := self._read(channel, slot, id):
                break
        before = max(lost, *older.values(), 0)
        self.publish(channel, slot, b"%d %s" % (before + 1, _key(id)))
        for tag in older:
            channel.basic_ack(tag)
        return before

    def end(self, channel: Any, id: str, begun: int | None) -> None:
        """Take away the note that the job was begun ``begun`` times; for None, any that it has."""
        slot = self._slot(channel, id)
        for _ in _tries(8 if begun is None else 50):
            found = self._read(channel, slot, id, begun)
            for tag in found:
                channel.basic_ack(tag)
            if found:
                return

    def _slot(self, channel: Any, id: str) -> str:
        """Return the queue for the job's notes; declare it if this channel has not yet."""
        slot = f"{self.queue}.begun.{crc32(_key(id)) % SLOTS}"
        declared = _declared.setdefault(channel, set())
        if slot not in declared:
            channel.queue_declare(slot, durable=True, auto_delete=False, arguments=_KEPT)
            declared.add(slot)
        return slot

    def _read(self, channel: Any, slot: str, id: str, wanted: int | None = None) -> dict[int, int]:
        """Return, by tag, the counts in the job's notes, or in the wanted one; put others back."""
        found, others = dict[int, int](), list[int]()
        while wanted not in found.values() and (note := self.get(channel, slot)):
            tag, (begun, _, of) = note[0], note[1].partition(b" ")
            if of == _key(id) and wanted in (None, int(begun)):
                found[tag] = int(begun)
            else:
                others.append(tag)
        for tag in others:
            channel.basic_reject(tag, requeue=True)
        return found


def _key(id: str) -> bytes:
    return id.encode("utf-8", "replace")


def _tries(most: int) -> Iterator[None]:
    """Wait a random time between tries: another consumer may have read the note to put it back."""
    yield
    for _ in range(most - 1):
        time.sleep(random() / 25)
        yield
