"""The event loop in which an async-only queue's connections live, reached from elsewhere."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from functools import cache
from typing import Any, TypeAlias

from sigra.backends.producing import sending
from sigra.errors import EnqueueError
from sigra.execute import in_event_loop

Work: TypeAlias = Coroutine[Any, Any, Any]


@cache
def own_loop() -> asyncio.AbstractEventLoop:
    """Return a loop of our own, in a thread, for producers that have none."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="sigra-loop", daemon=True).start()
    return loop


def submit(loop: asyncio.AbstractEventLoop, work: Work) -> Future[Any]:
    """Have ``loop``, which runs in another thread, do the work.

    Raises ``RuntimeError`` if it no longer runs: the connections that it had are lost.
    """
    if not loop.is_running():
        work.close()
        raise RuntimeError("the event loop that this queue was connected in has ended")
    return asyncio.run_coroutine_threadsafe(work, loop)


def wait_for(backend: str, loop: asyncio.AbstractEventLoop | None, work: Work) -> Any:
    """Have ``loop`` (None: the one of our own) do the work, and return what comes of it.

    Raises ``EnqueueError`` in a thread whose own loop runs, which would stand still.
    """
    if in_event_loop():
        work.close()
        raise EnqueueError(backend, "it only awaits: use 'await worker.anew(...)' in an event loop")
    return _submitted(backend, loop or own_loop(), work).result()


async def within(backend: str, loop: asyncio.AbstractEventLoop | None, work: Work) -> Any:
    """Have ``loop`` (None: the running one) do the work, and await it."""
    if loop is None or loop is asyncio.get_running_loop():
        return await work
    return await asyncio.wrap_future(_submitted(backend, loop, work))


def _submitted(backend: str, loop: asyncio.AbstractEventLoop, work: Work) -> Future[Any]:
    with sending(backend):
        return submit(loop, work)
