"""Have ``taskiq scheduler`` send few jobs at a time, and delete the schedule of each it has sent.

taskiq begins to send all that is due at one time, and deletes the schedules after that: a
scheduler that is killed in between sends all of it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from sigra.backends.envelope import MARK

_FEW = 8
_LONG = 2.0


class Due:
    """The jobs that a scheduler sends, and the source of schedules that it has them from."""

    def __init__(self, broker: Any, schedules: Any) -> None:
        self._broker, self._schedules = broker, schedules
        self._few = asyncio.Semaphore(_FEW)

    def has(self, message: Any) -> bool:
        """Tell whether a message is a job whose only run from its schedule this is."""
        # Our envelope is only ever scheduled once; plain args may be by a cron of the user's.
        return MARK in self._broker.formatter.loads(message.message).kwargs

    async def send(self, message: Any, kick: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Send a job by ``kick``, and delete its schedule; one that hangs makes way for others."""
        async with self._few:
            sending = asyncio.ensure_future(self._send(message, kick()))
            try:
                await asyncio.wait({sending}, timeout=_LONG)
            except asyncio.CancelledError:
                sending.cancel()
                raise
        await sending

    async def _send(self, message: Any, kicked: Coroutine[Any, Any, None]) -> None:
        await kicked
        with suppress(Exception):  # if there is one: taskiq deletes it too, and says why it cannot
            await self._schedules.delete_schedule(message.labels["schedule_id"])
