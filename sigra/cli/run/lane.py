"""How the jobs of one command reach a backend, make progress there, and end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sigra.backend import Backend
from sigra.backends.asyncio import AsyncioBackend
from sigra.backends.sync import SyncBackend
from sigra.backends.thread import ThreadBackend
from sigra.cli.run.follow import FollowingBackend
from sigra.enqueue import Enqueuer
from sigra.job import FINISHED

if TYPE_CHECKING:
    from sigra.definition import Definition

_FOREVER = 1e12
"""Seconds: no snooze is longer."""

_PATIENCE = 1_000
"""How often each unfinished job may snooze on a virtual clock before one of them has to end."""

_FEW = 100
"""As many jobs have the patience of these: one may look once a second for a day."""


class Lane:
    """Enqueue a worker's jobs on a backend that runs them by itself, and wait for them."""

    file: str | None = None
    """The file in which unfinished jobs stay, for the next run to finish them."""
    stuck: str | None = None
    """Why the jobs that are left will not end, once that is certain enough."""

    def __init__(self, definition: Definition, inner: Backend) -> None:
        self.backend = self._follow(inner)
        # What the command line names wins over what the decorator chose.
        self._enqueuer = Enqueuer(replace(definition, backend=self.backend))

    def new(self, args: Mapping[str, Any]) -> None:
        """Do what the worker's ``.new()`` does, and raise what it raises."""
        self._enqueuer.new(args)

    def all_read(self) -> None:
        """Take note that the last line was read."""

    def keep_below(self, limit: int, hurried: Callable[[], bool]) -> None:
        """Wait until fewer than ``limit`` jobs are unfinished, or ``hurried()`` is true."""
        pause = 0.001
        left = self.backend.settle()
        while left >= limit:
            if hurried() or not self._step(pause):
                return
            before, left = left, self.backend.settle(all_of_them=True)
            pause = 0.001 if left < before else min(pause * 2, 0.05)

    def close(self, timeout: float | None) -> None:
        """Let the backend finish what it can within ``timeout`` seconds, and close it."""
        # sync has nothing to close, and a queue is still used by others.
        if isinstance(self.backend.inner, ThreadBackend):
            self.backend.inner.close(timeout)
        self.backend.settle(all_of_them=True)

    def _follow(self, inner: Backend) -> FollowingBackend:
        return FollowingBackend(inner)

    def _step(self, pause: float) -> bool:
        """Let the jobs run for ``pause`` seconds; return False if none will make progress."""
        time.sleep(pause)
        return True


class SyncLane(Lane):
    """Run jobs inside ``new``, and later ones by the virtual clock of ``drain()``."""

    _in_vain = 0

    def _step(self, pause: float) -> bool:
        del pause  # nothing is waited for
        inner = self.backend.inner
        if self.stuck is not None or not isinstance(inner, SyncBackend):
            return False
        ran = inner.drain(_FOREVER, limit=50)
        states = [job.state for job in ran]
        ended = not FINISHED.isdisjoint(states)
        self._in_vain = 0 if ended else self._in_vain + states.count("scheduled")
        # Nothing waits here, so what they wait for may never come: they would run for ever.
        most = _PATIENCE * max(_FEW, self.backend.unfinished)
        if self._in_vain >= most and self.backend.only_snooze():
            self.stuck = (
                f"the jobs left only snooze: none of the last {self._in_vain:,} runs ended one. If "
                "they wait for something outside the command, run them with --backend thread"
            )
        return bool(ran)


class LoopLane(Lane):
    """Run jobs on an event loop of their own, in a thread beside the one that reads."""

    def __init__(self, definition: Definition, inner: Backend) -> None:
        super().__init__(definition, inner)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._turn, name="sigra-loop", daemon=True).start()

    def new(self, args: Mapping[str, Any]) -> None:
        """Do what the worker's ``.anew()`` does on the loop, and raise what it raises."""
        asyncio.run_coroutine_threadsafe(self._enqueuer.anew(args), self._loop).result()

    def close(self, timeout: float | None) -> None:
        """Close the backend on its loop, then stop the loop."""
        if isinstance(self.backend.inner, AsyncioBackend):
            ending = self.backend.inner.aclose(timeout)
            asyncio.run_coroutine_threadsafe(ending, self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self.backend.settle(all_of_them=True)

    def _turn(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()
