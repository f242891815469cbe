"""Let Dramatiq interrupt a job's body, plain or async, and nothing else.

Its time limit and its notice of a stop are exceptions that are raised in the worker's thread,
wherever that is by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any

from sigra.backends.external import native
from sigra.backends.green import run_by_turns
from sigra.backends.orm_thread import execute_apart
from sigra.context import Attempt
from sigra.verdict import Verdict

_middleware = native("dramatiq.middleware", "dramatiq")
Interrupt = _middleware.Interrupt

_LOOK = 0.1
"""Seconds after which a thread that only waits is to see an interrupt: as Dramatiq's own."""


def execute(attempt: Attempt) -> Verdict:
    """Run one attempt, whose body Dramatiq may interrupt."""
    return execute_apart(attempt, _run_coroutine)


def interrupt_no_more(broker: Any, message: Any) -> None:
    """End the time limit and the notice of a stop: what follows the body must not be cut off."""
    for each in broker.middleware:
        if isinstance(each, (_middleware.TimeLimit, _middleware.ShutdownNotifications)):
            each.after_process_message(broker, message)


def _run_coroutine(coroutine: Coroutine[Any, Any, Any], context: Context) -> Any:
    return run_by_turns(_awake(coroutine), context)


async def _awake(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Await the coroutine on a loop that wakes often: while it waits, it is not interrupted."""
    _wake()
    return await coroutine


def _wake() -> None:
    asyncio.get_running_loop().call_later(_LOOK, _wake)
