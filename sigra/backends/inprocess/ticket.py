"""How an in-process backend answers for a job: its counters, state and result."""

from __future__ import annotations

import threading
from concurrent.futures import InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sigra.backends.inprocess.arrival import Arrival
from sigra.ids import in_child
from sigra.json import type_qualname
from sigra.verdict import Verdict

if TYPE_CHECKING:
    from sigra.job import State

_creating = threading.Lock()  # one for all, so that a forked child can free it
in_child(after_in_child=_creating._at_fork_reinit)  # type: ignore[attr-defined]


class LocalTicket:
    """Follow one job inside this process.

    ``waits``: whether ``result()`` may block until another thread finishes the job. If nothing
    else would run it, ``result()`` raises ``TimeoutError`` at once.
    """

    __slots__ = (
        "_failed_by", "_future", "_given_up", "_state", "failures", "snoozes", "verdict", "waits"
    )  # fmt: skip

    def __init__(self, state: State, waits: bool = True) -> None:
        self._state: State = state
        self.waits = waits
        self.failures = 0
        self.snoozes = 0
        self.verdict: Verdict | None = None
        self._future: Arrival | None = None
        self._given_up: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # in another process nothing tells how the job goes on

    def __deepcopy__(self, memo: object) -> LocalTicket:
        return self

    def state(self) -> State:
        """Say where the job stands: in the state that goes with the verdict once there is one."""
        return self._state if (verdict := self.verdict) is None else verdict.state

    def move(self, state: State) -> None:
        """Note that the job is now in ``state``, which is not a final one."""
        self._state = state

    def settle(self, verdict: Verdict) -> bool:
        """Note what an attempt came to; tell whether the job is finished."""
        state = verdict.state
        if state == "retryable":
            self.failures += 1
            self._failed_by = type_qualname(type(verdict.error))  # the error itself holds frames
        elif state == "scheduled":
            self.snoozes += 1
        else:
            self.verdict = verdict
        self._state = state
        # No lock is needed: whoever waits stores the future before it reads the verdict.
        if self.verdict is not None and self._future is not None:
            self._resolve(self._future, verdict)
        return self.verdict is not None

    def give_up(self, why: str) -> None:
        """Stop waiting: ``result()`` raises ``TimeoutError`` from now on, in calls under way too.

        The state stays as it is; a verdict that comes after all still counts.
        """
        self._given_up = f"the job is {self._standing()} and was not finished: {why}"
        self.waits = False
        if self._future is not None:
            self._resolve(self._future, self._unfinished())

    def lose(self, why: str) -> None:
        """Do the same in a forked child, where nobody waits any more.

        A thread of the parent may hold the lock of what this waits for; here nothing would free it.
        """
        self._future = None
        self.give_up(why)

    def result(self, timeout: float | None) -> Any:
        """Return or raise what the job ended with; ``TimeoutError`` while it has not."""
        if self.verdict is not None:
            return self.verdict.unwrap()
        if not self.waits:
            return self._unfinished().unwrap()
        try:
            verdict = self._waiter().result(timeout)
        except TimeoutError:
            raise self._late(timeout) from None
        return verdict.unwrap()

    async def aresult(self, timeout: float | None) -> Any:
        """Do the same without blocking the loop."""
        if self.verdict is None and self.waits:
            try:
                verdict = await self._waiter().wait(timeout)
            except TimeoutError:
                raise self._late(timeout) from None
            return verdict.unwrap()
        return (self.verdict or self._unfinished()).unwrap()

    def _unfinished(self) -> Verdict:
        text = self._given_up or (
            f"the job is {self._standing()}: on the sync backend, a job that is scheduled or "
            "retryable runs in drain(), and one that another job enqueued runs when that one ends"
        )
        return Verdict(self._state, error=TimeoutError(text))

    def _late(self, timeout: float | None) -> TimeoutError:
        now = f"the job is {self._standing()} after {timeout} s"
        return TimeoutError(f"{now}: wait longer, or ask for its state later")

    def _standing(self) -> str:
        """Return the state in words, and why the job is to be run again."""
        if self._state != "retryable":
            return self._state
        return f"retryable (attempt {self.failures} ended with {self._failed_by})"

    def _waiter(self) -> Arrival:
        with _creating:
            if self._future is None:
                self._future = Arrival()
        if self.verdict is not None:
            self._resolve(self._future, self.verdict)
        elif not self.waits:
            self._resolve(self._future, self._unfinished())
        return self._future

    @staticmethod
    def _resolve(future: Arrival, verdict: Verdict) -> None:
        # Outside our lock: the future has its own, which Ctrl-C in a wait for it may leave held.
        with suppress(InvalidStateError):  # it was resolved before
            future.set_result(verdict)
