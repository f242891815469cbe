"""What threads and event loops wait on until a job has its verdict."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import suppress

from sigra.verdict import Verdict


class Arrival(Future[Verdict]):
    """A future that event loops too can wait on, and that keeps nothing of a wait that ended.

    The callbacks of a plain one cannot be taken back: each wait would leave its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._waiting: set[asyncio.Future[None]] = set()

    def set_result(self, result: Verdict) -> None:
        """Keep the verdict and wake whoever waits; ``InvalidStateError`` if there is one."""
        super().set_result(result)
        for waiter in self._waiting.copy():
            with suppress(RuntimeError):  # its loop was closed
                waiter.get_loop().call_soon_threadsafe(_wake, waiter)

    async def wait(self, timeout: float | None) -> Verdict:
        """Return the verdict once it is there; ``TimeoutError`` after ``timeout`` seconds."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            if not self.done():  # asked only now: what comes from here on wakes this waiter
                with suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await waiter
        finally:
            self._waiting.discard(waiter)
        return self.result(0)  # the verdict may have come as the time was over


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():  # it may have been cancelled meanwhile
        waiter.set_result(None)
