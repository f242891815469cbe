"""Run an attempt in a thread of an event loop; where no thread can be started, wait for one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from contextvars import Context, copy_context
from typing import TypeVar

from sigra.conclude import log_attempt
from sigra.context import Attempt

T = TypeVar("T")

_AGAIN = 1.0
"""Seconds after which it is tried again whether a thread can be started."""

_REFUSED = "can't start new thread"
"""What CPython says then. It raises the same type where an executor was shut down."""

_WAITS = (
    "waits: no thread can be started for it (is there a limit of processes and threads, as "
    "ulimit -u or a container's pids limit?)"
)


async def in_thread(
    attempt: Attempt, perform: Callable[[list[Attempt]], T], executor: Executor | None = None
) -> T:
    """Return what ``perform`` returns in a thread of the executor (None: the loop's own).

    It is given the attempt in a box, to be popped: the frames of an executor hold what they pass.
    """
    loop, work, told = asyncio.get_running_loop(), (copy_context(), perform, [attempt]), False
    while True:
        answer = Future[T]()
        try:
            doing = loop.run_in_executor(executor, _call, answer, *work)
        except RuntimeError as error:
            # It is in the executor's queue all the same, and the next free thread would run it.
            if not str(error).startswith(_REFUSED):
                raise
            if not answer.cancel():
                return await asyncio.wrap_future(answer)  # a thread has just taken it
        else:
            return await doing
        if not told:
            log_attempt(attempt, copy_context(), logging.WARNING, _WAITS)
            told = True
        await asyncio.sleep(_AGAIN)


def _call(
    answer: Future[T],
    context: Context,
    perform: Callable[[list[Attempt]], T],
    box: list[Attempt],
) -> T:
    if not answer.set_running_or_notify_cancel():
        raise CancelledError
    try:
        result = context.run(perform, box)
    except BaseException as error:
        answer.set_exception(error)
        raise
    answer.set_result(result)
    return result
