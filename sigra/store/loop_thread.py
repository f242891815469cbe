"""The thread in which an asynchronous driver's event loop runs."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")


class _Executor(ThreadPoolExecutor):
    """Work in the calling thread where no other takes work any more, as at the exit.

    A driver looks up a server's name by it, also for events that are written only then.
    """

    def submit(self, work: Callable[..., T], /, *args: Any, **keywords: Any) -> Future[T]:
        """Do the work, in another thread if there can be one."""
        try:
            return super().submit(work, *args, **keywords)
        except RuntimeError:
            done: Future[T] = Future()
            try:
                done.set_result(work(*args, **keywords))
            except Exception as error:
                done.set_exception(error)
            return done


class LoopThread(threading.Thread):
    """The thread of an event loop, and the engine whose connections belong to that loop."""

    def __init__(self, given: AsyncEngine, engine: AsyncEngine) -> None:
        super().__init__(name="sigra-audit-store", daemon=True)
        self.given, self.engine = given, engine
        # Windows' default loop is none that psycopg can use.
        windows = sys.platform == "win32"
        self.loop = asyncio.SelectorEventLoop() if windows else asyncio.new_event_loop()
        self.loop.set_default_executor(_Executor())

    def start(self) -> None:
        """Start it; raise ``RuntimeError`` where no thread can be started now."""
        try:
            super().start()
        except RuntimeError:
            self.loop.close()
            raise

    def run(self) -> None:
        """Run the loop until it is stopped."""
        self.loop.run_forever()
        self.loop.close()
