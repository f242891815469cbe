"""Count in Redis the jobs that are begun, and have taskiq look for lost ones."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from sigra.backends.begin import ThisRun
from sigra.backends.external import native
from sigra.backends.taskiq_held import Held
from sigra.errors import brief

_log = logging.getLogger("sigra.job")

_BEGUN = "sigra:begun:"
_WEEK = 7 * 24 * 3600
_WAKE = "sigra.wake"
"""A task that does nothing: taskiq looks for what a dead consumer held after it receives one."""


def is_stream(broker: Any) -> bool:
    """Tell whether a broker reads a Redis stream."""
    return hasattr(broker, "connection_pool") and hasattr(broker, "idle_timeout")


class Notes:
    """Notes in Redis of the jobs that are begun and not ended; without ``pool`` there are none.

    A stream's own count includes deliveries that a consumer fetched and did not begin.
    """

    def __init__(self, pool: Any) -> None:
        redis = native("redis.asyncio", "taskiq").Redis
        self._redis: Any = None if pool is None else redis(connection_pool=pool)
        self._ended: list[str] = []
        self._clearing: asyncio.Task[None] | None = None
        self._deletes = asyncio.Lock()

    async def begin(self, id: str) -> int:
        """Note that a job begins; return how often it began before and never ended."""
        if self._redis is None:
            return 0
        key, ended, self._ended = _BEGUN + id, self._ended, []
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                if ended:
                    pipeline.delete(*ended)
                *_, begun, _ = await pipeline.incr(key).expire(key, _WEEK).execute()
        except Exception:
            self._ended += ended
            _log.warning(
                "job %s runs, but its start could not be counted", brief(id), exc_info=True
            )
            return 0
        return int(begun) - 1

    async def count(self, id: str, begun: int) -> None:
        """Note how often a job has begun: once less while it waits for a thread."""
        try:
            if self._redis is not None:
                await self._redis.set(_BEGUN + id, begun, ex=_WEEK)
        except Exception:
            _log.warning("could not update the start count of job %s", brief(id), exc_info=True)

    async def end(self, id: str, *, comes_again: bool) -> None:
        """Take a job's note away: now if it comes again, else at the next begin, or in a second."""
        if self._redis is None:
            return
        if comes_again:
            await self._delete([_BEGUN + id])
            return
        self._ended.append(_BEGUN + id)
        if self._clearing is None or self._clearing.done():  # or cancelled, as its loop ended
            self._clearing = asyncio.get_running_loop().create_task(self._clear_soon())

    async def _clear_soon(self) -> None:
        await asyncio.sleep(1)
        self._clearing = None
        await self.clear()

    async def clear(self) -> None:
        """Take away the notes of all jobs that have ended; return when they are gone."""
        async with self._deletes:
            ended, self._ended = self._ended, []
            if ended:
                await self._delete(ended)

    async def _delete(self, keys: list[str]) -> None:
        try:
            await self._redis.delete(*keys)
        except Exception:
            _log.warning(
                "could not delete the start notes of ended jobs: they expire", exc_info=True
            )


_notes = WeakKeyDictionary[Any, Notes]()


def notes_of(broker: Any, schedules: Any) -> Notes:
    """Return where a broker's jobs are noted: in its own Redis, or in that of its schedules."""
    if broker not in _notes:
        pool = getattr(broker, "connection_pool", getattr(schedules, "_connection_pool", None))
        _notes[broker] = Notes(pool)
    return _notes[broker]


def begin_notes(notes: Notes, id: str, before: int, this_run: ThisRun) -> dict[str, Any]:
    """Return what ``aconsume`` takes as ``note`` and ``waits``: the begin is counted already."""

    async def waits() -> None:
        this_run.has_begun = False
        await notes.count(id, before)

    async def note() -> None:
        await notes.count(id, before + 1)
        this_run.has_begun = True

    return {"note": note, "waits": waits}


async def keep_awake(broker: Any, labels: Mapping[str, Any], held: Held) -> None:
    """Three times in ``idle_timeout``, refresh what is held; send a message while any is pending.

    Taskiq looks for what a dead consumer held only after it received something new.
    """
    wake = broker.register_task(_nothing, task_name=_WAKE, **labels)
    redis = native("redis.asyncio", "taskiq").Redis(connection_pool=broker.connection_pool)
    streams = [broker.queue_name, *broker.additional_streams]
    while True:
        await asyncio.sleep(broker.idle_timeout / 3000)
        try:
            await held.refresh()
            pending = [await redis.xpending(each, broker.consumer_group_name) for each in streams]
            if any(each["pending"] for each in pending):
                await wake.kiq()
        except Exception:
            what = "could not look for lost jobs of queue %s: trying again"
            _log.warning(what, broker.queue_name, exc_info=True)


async def _nothing() -> None:
    """Do nothing: it is enough that the message was received."""
