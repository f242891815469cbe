"""Run jobs in threads whose Django ORM connections somebody closes.

A connection belongs to a thread. The thread that waits for a job has one that sees what a test's
transaction holds; Django or the queue closes it when it broke or is too old. Jobs in threads of
ours have other connections: these are closed here, or a broken one would stay broken for good.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, copy_context
from importlib import import_module
from typing import Any

from sigra.backends.green import run_by_turns
from sigra.backends.in_thread import in_thread
from sigra.context import Attempt
from sigra.execute import aexecute, contain, execute, in_event_loop
from sigra.verdict import Verdict


def in_django() -> bool:
    """Tell whether this process has Django's ORM, and settings for it."""
    return "django.db" in sys.modules and sys.modules["django.conf"].settings.configured


def run_in_place(coroutine: Coroutine[Any, Any, Any], context: Context) -> Any:
    """Run a coroutine to its end and, with Django, all its queries in this thread.

    As Django does with its own tasks: the loop is in a thread beside this one. Whatever interrupts
    the wait also ends the coroutine, after its last queries are done.
    """
    if not in_django() or in_event_loop():
        return run_by_turns(coroutine, context)
    asgiref, ended = import_module("asgiref.sync"), Future[None]()
    begun: list[tuple[asyncio.AbstractEventLoop, Any]] = []

    async def body() -> tuple[Any, list[BaseException]]:
        begun.append((asyncio.get_running_loop(), asyncio.current_task()))
        try:
            return await contain(coroutine)
        finally:
            ended.set_result(None)

    try:
        value, raised = context.run(asgiref.async_to_sync(body))
    except BaseException:
        for loop, task in begun:
            queries = asgiref.AsyncToSync.loop_thread_executors.get(loop)
            with suppress(RuntimeError):  # it has just ended, or has its queries done elsewhere
                loop.call_soon_threadsafe(task.cancel)
                if queries is not None:
                    queries.run_until_future(ended)
        # By a query asgiref took the loop for one to send this thread's next coroutine to. While it
        # ends it still takes one, and never runs it.
        asgiref.SyncToAsync.threadlocal.main_event_loop = None
        raise
    if raised:
        raise raised.pop()
    return value


async def execute_in_thread(attempt: Attempt) -> Verdict:
    """Run one attempt of a plain function, and leave the event loop free."""
    if not in_django():
        return await in_thread(attempt, _in_place)
    verdict: Verdict = await import_module("asgiref.sync").sync_to_async(execute_in_place)(attempt)
    return verdict


def execute_in_place(attempt: Attempt) -> Verdict:
    """Run one attempt in this thread, and all its queries on this thread's connection."""
    return execute(attempt, run_in_place)


def _in_place(box: list[Attempt]) -> Verdict:
    return execute_in_place(box.pop())


def execute_in_consumer(attempt: Attempt, run: Callable[..., Any] = run_by_turns) -> Verdict:
    """Run one attempt in a thread whose connection the queue itself closes.

    The queue does not know of the connection of an event loop in this thread. ``run``: see
    ``execute``.
    """
    if attempt.job.definition.is_async and in_django() and not in_event_loop():
        run_by_turns(_close_the_loops(), copy_context())
    return execute(attempt, run)


def execute_apart(attempt: Attempt, run: Callable[..., Any] = run_by_turns) -> Verdict:
    """Run one attempt in a thread that nobody else looks after."""
    if not in_django():
        return execute(attempt, run)
    close: Callable[[], None] = sys.modules["django.db"].close_old_connections
    close()
    try:
        return execute_in_consumer(attempt, run)
    finally:
        close()


def execute_boxed(box: list[Attempt]) -> list[Verdict]:
    """Run the attempt in the box, in a thread; return its verdict in one, to be popped.

    So the frames of an executor, which hold its arguments and its result, hold empty boxes.
    """
    return [execute_apart(box.pop())]


async def aexecute_apart(attempt: Attempt) -> Verdict:
    """Run one attempt of an async function on this loop."""
    if in_django():
        # In a context of its own: asgiref marks it, and a loop's jobs may share one.
        closing = asyncio.get_running_loop().create_task(_close_the_loops(), context=copy_context())
        await closing
    return await aexecute(attempt)


async def _close_the_loops() -> None:
    """Close those of the one thread in which asgiref does the queries of all loops.

    Only before an attempt: at its end the closing could be cut off, and the attempt with it.
    """
    with suppress(RuntimeError):  # it is waiting for this job, whose queries it will refuse too
        close = sys.modules["django.db"].close_old_connections
        await import_module("asgiref.sync").sync_to_async(close)()
