"""Run an attempt in a thread of an event loop; where no thread can be started, wait for one."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from contextlib import suppress
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
    loop, answer, refused = asyncio.get_running_loop(), Future[T](), False
    try:
        doing = loop.run_in_executor(executor, _call, answer, copy_context(), perform, [attempt])
    except RuntimeError as error:
        if str(error) != _REFUSED:
            raise
        # It is in the executor's queue all the same, and the next thread that is free runs it.
        doing, refused = asyncio.wrap_future(answer), True
        log_attempt(attempt, copy_context(), logging.WARNING, _WAITS)
    try:
        while refused and not (await asyncio.wait({doing}, timeout=_AGAIN))[0]:
            _ask_again(loop, executor)
        return await doing
    finally:
        answer.cancel()  # at once, where this wait was cut off
        with suppress(RuntimeError):  # its loop is closed, and this wait is only thrown away
            doing.cancel()
        del answer, doing  # which hold an error, which holds this frame


def _ask_again(loop: asyncio.AbstractEventLoop, executor: Executor | None) -> None:
    """Have the executor start a thread if there can be one.

    Not without a look before: on Python 3.11 an executor counts what it took and could start no
    thread for as a thread that is free, and would start ever fewer.
    """
    try:
        threading.Thread(target=int, daemon=True).start()
        loop.run_in_executor(executor, int)
    except RuntimeError as error:
        if str(error) != _REFUSED:
            raise


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
        answer.set_result(result)
    except BaseException as error:
        answer.set_exception(error)
        raise
    finally:
        del answer  # which holds the error, which holds this frame
    return result
