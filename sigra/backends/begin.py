"""Tell a queue when a job begins: one that still waits for a thread of the loop has not begun."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from time import monotonic
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from sigra.backends.in_thread import in_thread
from sigra.backends.orm_thread import aexecute_apart, execute_boxed
from sigra.context import Attempt
from sigra.verdict import Verdict

Note: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


class ThisRun:
    """What is known of a run when it is cut off.

    ``has_begun`` is False while it waits for a thread. ``is_cut_off``: it must not begin any more.
    """

    has_begun, is_cut_off = True, False


_MOMENT = 0.05
"""Seconds in which a free thread takes a job; before they have passed, no wait is written."""

_busy = WeakKeyDictionary[asyncio.AbstractEventLoop, bool]()
"""By loop: whether its last job waited longer for a thread, as the next one probably will."""


def is_busy() -> bool:
    """Tell whether a plain function may have to wait for a thread of this loop's."""
    return _busy.get(asyncio.get_running_loop(), True)


async def execute_noted(attempt: Attempt, note: Note | None, waits: Note | None) -> Verdict:
    """Run one attempt on this loop, a plain function in a thread. Notes: see ``aconsume``."""
    if attempt.job.definition.is_async:
        if note is not None and waits is None:
            await note()
        return await aexecute_apart(attempt)
    if note is None:
        return (await in_thread(attempt, execute_boxed)).pop()
    begin = _Begin(note, waits)
    try:
        return (await in_thread(attempt, begin.then)).pop()
    finally:
        await begin.over()


class _Begin:
    """What is written about one job before its thread runs the body."""

    def __init__(self, note: Note, waits: Note | None) -> None:
        self._note, self._waits = note, waits
        self._loop, self._lock = asyncio.get_running_loop(), threading.Lock()
        self._taken = self._over = False
        self._waiting: asyncio.Task[None] | None = None
        self._noting: Future[None] | None = None
        self._since, self._waited = monotonic(), 0.0
        self._timer = self._loop.call_later(0.0 if is_busy() else _MOMENT, self._wait)

    def _wait(self) -> None:
        with self._lock:
            if self._waits is not None and not self._taken:
                self._waiting = self._loop.create_task(self._waits())

    def then(self, box: list[Attempt]) -> list[Verdict]:
        """Run the attempt in this thread, once its begin is noted; see ``execute_boxed``."""
        self._waited = monotonic() - self._since
        with self._lock:
            self._taken = True
            if not self._over and (self._waits is None or self._waiting is not None):
                self._noting = asyncio.run_coroutine_threadsafe(self._write(), self._loop)
        if self._noting is not None:
            self._noting.result()
        elif self._over:
            raise asyncio.CancelledError  # nobody waits for its outcome any more
        return execute_boxed(box)

    async def _write(self) -> None:
        if self._waiting is not None:
            await asyncio.wait({self._waiting})
        if not self._over:
            await self._note()
            if self._over and self._waits is not None:
                await self._waits()  # it was cut off meanwhile, and so has not begun after all
        if self._over:
            raise asyncio.CancelledError

    async def over(self) -> None:
        """Keep a job that was cut off from beginning; return when nothing is being written."""
        self._timer.cancel()
        with self._lock:
            self._over = True
        if self._taken:
            _busy[self._loop] = self._waited > _MOMENT
        if self._noting is not None:
            noting = asyncio.wrap_future(self._noting)
            await asyncio.shield(asyncio.gather(noting, return_exceptions=True))
        elif self._waiting is not None:
            await asyncio.wait({self._waiting})
