"""Tasks of one event loop that run the jobs of one agenda."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from sigra.backends.in_thread import in_thread
from sigra.backends.inprocess.agenda import (
    Agenda,
    closing_words,
    cut_off_words,
    report_unfinished,
    unconcluded,
)
from sigra.backends.inprocess.alarm import LONGEST_WAIT
from sigra.backends.inprocess.frames import empty_frames
from sigra.backends.inprocess.ticket import LocalTicket
from sigra.backends.orm_thread import aexecute_apart, execute_boxed
from sigra.context import Attempt, running
from sigra.errors import EnqueueError
from sigra.job import FINISHED

if TYPE_CHECKING:
    from sigra.backends.inprocess.agenda import Entry
    from sigra.job import Job

_MOST_THREADS = 32
_GRACE = 1.0
"""Seconds that a cancelled body has to end before close() stops waiting for it."""


class LoopTicket(LocalTicket):
    """Follow a job that runs on an event loop, without ever blocking such a loop."""

    __slots__ = ()

    def result(self, timeout: float | None) -> Any:
        """Return or raise what the job ended with; ``TimeoutError`` while it has not."""
        if self.verdict is None and self.waits and asyncio._get_running_loop() is not None:
            raise TimeoutError(
                f"the job is {self.state()}, and waiting here would stop the event loop that "
                "runs it: use 'await job.aresult()'"
            )
        return super().result(timeout)


class Desk:
    """Run jobs on ``loop``, up to ``concurrency`` at a time, sync functions in threads.

    ``name`` is the backend's. ``phase`` goes from "open" by "draining" to "closed", or
    to "lost" with its loop.
    """

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop, concurrency: int) -> None:
        self.name, self.loop, self.concurrency = name, loop, concurrency
        self.phase: Literal["open", "draining", "closed", "lost"] = "open"
        # The loop runs the agenda, but a sync body enqueues from its thread.
        self._lock = threading.Lock()
        self._agenda = Agenda(LoopTicket)
        self._runners: dict[asyncio.Task[None], Entry | None] = {}
        self._interrupted: list[Entry] = []
        # Empty: a body inherits nothing from whoever enqueued it.
        self._context = Context()
        self._executor: ThreadPoolExecutor | None = None
        self._will_fill = False
        self._alarm: Any = None  # a TimerHandle
        self._alarm_due = math.inf
        self._watch = self._watch_loop()
        self._begin_watch()

    def runs_here(self) -> bool:
        """Tell whether this code is the body of a job of this desk."""
        attempt = running.get()
        return attempt is not None and attempt.pump is self

    def take(self, jobs: Sequence[Job]) -> None:
        """Take all jobs or raise ``EnqueueError``; from a job's own thread too."""
        with self._lock:
            if self.phase != "open" and not (self.phase == "draining" and self.runs_here()):
                raise EnqueueError(self.name, "it was closed; make a new AsyncioBackend()")
            if asyncio._get_running_loop() is not self.loop:
                try:
                    self.loop.call_soon_threadsafe(self._fill, context=self._context)
                except RuntimeError as error:
                    raise EnqueueError(self.name, "the job's event loop is closed") from error
            else:
                self._fill_soon()
            self._agenda.take(jobs)

    async def close(self, timeout: float | None) -> list[Job]:
        """Finish what is due within ``timeout`` seconds and return the rest."""
        if self.runs_here():
            raise RuntimeError("aclose() inside a job of this backend would wait for itself")
        if self.phase == "open":
            self.phase = "draining"
        try:
            async with asyncio.timeout(timeout):
                while self._fill():
                    await asyncio.wait(self._runners, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            await self._interrupt()
        except asyncio.CancelledError:
            self.lose("closing it was cancelled")
            raise
        return self._end("closed", "its backend was closed")

    def lose(self, why: str) -> None:
        """Report the jobs that can run no more, because their loop does not."""
        if self.phase not in ("closed", "lost"):
            report_unfinished(self._end("lost", why), why)

    def _fill(self) -> bool:
        """Start runners for the jobs that are due; tell whether any runner is at work."""
        self._will_fill = False
        with self._lock:
            if self.phase not in ("open", "draining"):
                return False
            self._agenda.promote()
            wanted = min(len(self._agenda), self.concurrency - len(self._runners))
            due = self._agenda.next_due()
        for _ in range(wanted):
            # Not by the loop's task factory: an eager one would run it now, in this context.
            runner = asyncio.Task(self._run(), loop=self.loop, context=self._context)
            self._runners[runner] = None
            runner.add_done_callback(self._dismiss, context=self._context)
        if due < self._alarm_due:
            self._set_alarm(due)
        return bool(self._runners)

    def _set_alarm(self, due: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        wait = min(max(due - time.monotonic(), 0.0), LONGEST_WAIT)
        self._alarm = self.loop.call_later(wait, self._ring, context=self._context)
        self._alarm_due = due

    def _ring(self) -> None:
        self._alarm, self._alarm_due = None, math.inf
        self._fill()

    def _fill_soon(self) -> None:
        # Not at once: what is enqueued until then competes by priority.
        if not self._will_fill:
            self._will_fill = True
            self.loop.call_soon(self._fill, context=self._context)

    async def _run(self) -> None:
        me = asyncio.current_task()
        # A runner that was cancelled goes no further, even if its job swallowed that.
        while me is not None and not me.cancelling():
            with self._lock:
                entry = self._agenda.pop()
            if entry is None:
                # It no longer counts: a job that comes due from now on needs another runner.
                del self._runners[me]
                return
            self._runners[me] = entry
            empty_frames(await self._perform(*entry))
            self._runners[me] = None

    def _dismiss(self, runner: asyncio.Task[None]) -> None:
        """Note which job a runner had in hand when it was cancelled.

        The others wait for the next ``.new()``: where all tasks are cancelled, as
        asyncio.run() does at its end, no new one should begin.
        """
        entry = self._runners.pop(runner, None)
        if entry is not None:
            job, ticket = entry
            with self._lock:
                self._agenda.release(job)
            ticket.give_up("its task was cancelled")
            self._interrupted.append(entry)

    async def _perform(self, job: Job, ticket: LocalTicket) -> BaseException | None:
        ticket.move("executing")
        attempt = Attempt(job, ticket.failures + 1, ticket.snoozes, None, self)
        attempt.closing = partial(closing_words, self)
        attempt.cut_off = partial(cut_off_words, asyncio.current_task())
        try:
            if job.definition.is_async:
                verdict = await aexecute_apart(attempt)
            else:
                verdict = (await self._in_thread(attempt)).pop()
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            # Not an error of the body, which aexecute() handles; the loop must go on.
            verdict = unconcluded(job, error)
        with self._lock:
            if verdict.state not in FINISHED:
                self._agenda.settle(job, ticket, verdict)
            elif job.options.unique is not None:
                self._agenda.release(job)
        if verdict.state in FINISHED:
            ticket.settle(verdict)
        else:
            self._fill_soon()
        return verdict.error

    def _in_thread(self, attempt: Attempt) -> Coroutine[Any, Any, list[Any]]:
        size = min(self.concurrency, _MOST_THREADS)
        self._executor = self._executor or ThreadPoolExecutor(size, f"sigra-{self.name}")
        return in_thread(attempt, execute_boxed, self._executor)

    async def _interrupt(self) -> None:
        """Cancel what runs, and wait a moment for it to end."""
        for runner in self._runners:
            runner.cancel()
        if self._runners:
            await asyncio.wait(self._runners, timeout=_GRACE)

    def _end(self, phase: Literal["closed", "lost"], why: str) -> list[Job]:
        """Give up and return every job that is not finished."""
        with self._lock:
            self.phase = phase
            left = [*self._interrupted, *filter(None, self._runners.values())]
            left += self._agenda.leave()
        for _, ticket in left:
            ticket.give_up(why)
        self._interrupted.clear()
        if not self.loop.is_closed():
            for handle in filter(None, (self._alarm, *self._runners)):
                handle.cancel()
        if self._executor is not None:
            self._executor.shutdown(wait=False)
        return [job for job, _ in left]

    async def _watch_loop(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self.lose("its event loop ended")

    def _begin_watch(self) -> None:
        """Learn of the loop's end: asyncio.run() then closes the async generators that have begun.

        A task would learn of it too, but would show up among the application's own.
        """
        with contextlib.suppress(StopIteration):
            self._watch.__anext__().send(None)
