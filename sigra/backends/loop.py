"""The event loop that holds an async-only queue's connections, reached from elsewhere."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from sigra.backends.green import new_event_loop, run_forever
from sigra.backends.producing import sending
from sigra.errors import EnqueueError
from sigra.execute import in_event_loop

Work: TypeAlias = Coroutine[Any, Any, Any]

_CURE = "connect it in each process, in a loop that lasts"
_ENDED = f"the event loop that this queue was connected in has ended: {_CURE}"
_FORKED = _ENDED.replace("has ended", "is in the process that this one was forked from")
_LOOK = 1.0
"""Seconds between the looks of a waiting thread at whether the loop is still there."""


_process_of = WeakKeyDictionary[asyncio.AbstractEventLoop, int]()
"""The process in which a loop was first seen: in one forked from it, it only seems to run."""


_own: dict[int, tuple[asyncio.AbstractEventLoop, threading.Event]] = {}
"""By process: the loop that Sigra made for it, and an event that is set when it runs."""


def own_loop() -> asyncio.AbstractEventLoop:
    """Return the loop that Sigra runs in a thread of this process, for producers that have none."""
    process = os.getpid()
    own = _own.get(process)
    if own is None:
        made = new_event_loop(), threading.Event()
        own = _own.setdefault(process, made)
        if own is made:
            _run(*made)
        else:
            made[0].close()  # another thread was faster
    loop, runs = own
    runs.wait()
    return loop


def _run(loop: asyncio.AbstractEventLoop, runs: threading.Event) -> None:
    _process_of[loop] = os.getpid()
    loop.call_soon(runs.set)
    try:
        threading.Thread(target=run_forever, args=(loop,), name="sigra-loop", daemon=True).start()
    except RuntimeError:  # there can be no thread now: the next call tries again
        del _own[os.getpid()]
        loop.close()
        runs.set()
        raise


def submit(loop: asyncio.AbstractEventLoop, work: Work) -> Future[Any]:
    """Have ``loop``, which runs in another thread, do the work.

    Raises ``RuntimeError`` if it does not run in this process, or no longer runs: its
    connections are lost.
    """
    forked = _process_of.setdefault(loop, os.getpid()) != os.getpid()
    if forked or not loop.is_running():
        work.close()
        raise RuntimeError(_FORKED if forked else _ENDED)
    return asyncio.run_coroutine_threadsafe(work, loop)


def of_plain_task() -> asyncio.AbstractEventLoop | None:
    """Return the loop by which asgiref runs a plain function in this thread, if it does."""
    asgiref = sys.modules.get("asgiref.sync")
    local = getattr(getattr(asgiref, "SyncToAsync", None), "threadlocal", None)
    if getattr(local, "main_event_loop_pid", None) != os.getpid():
        return None
    return getattr(local, "main_event_loop", None)


def one_that_runs(loop: asyncio.AbstractEventLoop | None) -> asyncio.AbstractEventLoop:
    """Return the loop if it runs, in whatever thread, else the one of this thread."""
    return loop if loop is not None and loop.is_running() else asyncio.get_running_loop()


async def answered(work: Work, seconds: float) -> Any:
    """Await the work of a queue; ``TimeoutError`` if there is no answer within so many seconds."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await work
    except TimeoutError:
        if limit.expired():
            raise TimeoutError(f"no answer within {seconds:g} s") from None
        raise


class Together:
    """Work that is begun once: whoever comes while it goes on awaits the same work."""

    def __init__(self) -> None:
        self._going: asyncio.Future[Any] | None = None

    async def __call__(self, begin: Callable[[], Work] | None) -> None:
        """Await the work that goes on; if none does, begin it, unless ``begin`` is None."""
        if self._going is not None and self._going.get_loop().is_closed():
            self._going = None  # its loop ended, and so did the work
        if self._going is None and begin is not None:
            self._going = asyncio.ensure_future(begin())
            self._going.add_done_callback(self._over)
        if self._going is not None:
            await asyncio.shield(self._going)

    def _over(self, _: object) -> None:
        self._going = None


def wait_for(backend: str, loop: asyncio.AbstractEventLoop | None, work: Work) -> Any:
    """Have ``loop`` (None: the one of our own) do the work, and return its result.

    Raises ``EnqueueError`` in a thread whose own loop runs, because it would block that loop.
    """
    if in_event_loop():
        work.close()
        raise EnqueueError(
            backend, "it is async only: use 'await worker.anew(...)' in an event loop"
        )
    with sending(backend):
        return outcome(*_submitted(loop, work))


async def within(backend: str, loop: asyncio.AbstractEventLoop | None, work: Work) -> Any:
    """Have ``loop``, which may be the running one (None: our own), do the work, and await it."""
    if loop is asyncio.get_running_loop():
        return await work
    with sending(backend):
        lasting, doing = _submitted(loop, work)
        answer = asyncio.wrap_future(doing)
        try:
            while not (await asyncio.wait({answer}, timeout=_LOOK))[0]:
                if lasting.is_closed() and not doing.done():
                    raise RuntimeError(_ENDED)  # and the work will never be done
            return answer.result()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                answer.cancel()  # which cancels the work
                raise
            raise RuntimeError(_ENDED) from None


def outcome(loop: asyncio.AbstractEventLoop, doing: Future[Any]) -> Any:
    """Wait for what ``loop`` does, and return its result.

    Raises ``RuntimeError`` if the loop ends first: it has then cancelled the work, or forgotten it.
    """
    while True:
        try:
            return doing.result(_LOOK)
        except CancelledError:
            raise RuntimeError(_ENDED) from None
        except TimeoutError:
            if doing.done():
                return doing.result()  # an error of its own, or just now
            if loop.is_closed():
                raise RuntimeError(_ENDED) from None


def _submitted(
    loop: asyncio.AbstractEventLoop | None, work: Work
) -> tuple[asyncio.AbstractEventLoop, Future[Any]]:
    try:
        loop = loop or own_loop()
        return loop, submit(loop, work)
    except RuntimeError:
        work.close()
        raise
