"""Run jobs where Django's ORM has the connection of whoever waits for them.

A connection belongs to a thread. Another thread's does not see what a test's transaction holds,
nobody closes it when it broke, and a test's database cannot be dropped while it is open.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context
from importlib import import_module
from typing import Any

from sigra.context import Running
from sigra.execute import contain, execute, in_event_loop
from sigra.verdict import Verdict


def in_django() -> bool:
    """Tell whether this process has Django's ORM."""
    return "django.db" in sys.modules


def runner() -> Callable[..., Any] | None:
    """Return what ``execute`` is to run coroutines by in this thread."""
    return run_coroutine if in_django() and not in_event_loop() else None


def run_coroutine(coroutine: Coroutine[Any, Any, Any], context: Context) -> Any:
    """Run a coroutine to its end in a loop beside this thread, which does its queries.

    So does Django with its own tasks. Whatever interrupts the wait ends the coroutine too.
    """
    begun: list[tuple[asyncio.AbstractEventLoop, Any]] = []

    async def body() -> tuple[Any, BaseException | None]:
        begun.append((asyncio.get_running_loop(), asyncio.current_task()))
        return await contain(coroutine)

    try:
        value, raised = context.run(import_module("asgiref.sync").async_to_sync(body))
    except BaseException:
        for loop, task in begun:
            if not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)
        raise
    if raised is not None:
        raise raised
    return value


async def execute_in_thread(attempt: Running) -> Verdict:
    """Run one attempt of a plain function, and leave the event loop free."""
    if not in_django():
        return await asyncio.to_thread(execute, attempt)
    here = import_module("asgiref.sync").sync_to_async(execute)
    verdict: Verdict = await here(attempt, run_coroutine)
    return verdict
