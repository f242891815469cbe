"""Event loops in the greenlets of gevent or eventlet, of which one at a time runs in a thread.

So loops take turns. A loop that waits gives its turn away: another greenlet may run its own
meanwhile, or code that needs no loop.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import threading
from collections.abc import Coroutine
from contextlib import nullcontext
from contextvars import Context
from functools import cache
from typing import Any

from sigra.execute import run_coroutine


def run_by_turns(coroutine: Coroutine[Any, Any, Any], context: Context) -> Any:
    """Run a coroutine to its end on an event loop of its own, as ``execute`` does by default."""
    if not _in_greenlets():
        return run_coroutine(coroutine, context)
    try:
        with _turn():
            return run_coroutine(coroutine, context, new_event_loop)
    finally:
        coroutine.close()  # if the wait for a turn was interrupted, it never began


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a loop, to be run by ``run_forever``; on Windows too one that psycopg can use."""
    if _in_greenlets():
        return asyncio.SelectorEventLoop(_selector()())
    return asyncio.SelectorEventLoop() if sys.platform == "win32" else asyncio.new_event_loop()


def run_forever(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped."""
    with _turn() if _in_greenlets() else nullcontext():
        loop.run_forever()


def _in_greenlets() -> bool:
    """Tell whether other greenlets run where a loop waits."""
    gevent, eventlet = map(sys.modules.get, ("gevent.monkey", "eventlet.patcher"))
    if gevent is not None and gevent.is_module_patched("select"):
        return True
    return eventlet is not None and bool(eventlet.is_monkey_patched("select"))


@cache
def _turn() -> Any:
    """Return the lock that a loop holds unless it waits; patched, it is one between greenlets."""
    return threading.RLock()


@cache
def _selector() -> type[selectors.BaseSelector]:
    """Return the selector with which a loop waits, and gives its turn away meanwhile."""

    class Selector(selectors.DefaultSelector):
        def select(self, timeout: float | None = None) -> Any:
            loop = asyncio._get_running_loop()
            asyncio._set_running_loop(None)
            _turn().release()
            try:
                return super().select(timeout)
            finally:
                try:
                    _take_turn()
                finally:
                    asyncio._set_running_loop(loop)

    return Selector


def _take_turn() -> None:
    """Wait for the lock; raise what interrupts the wait, such as a time limit, once it is held."""
    interrupted: BaseException | None = None
    while True:
        try:
            _turn().acquire()
            break
        except BaseException as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted
