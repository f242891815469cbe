"""How the conformance suite talks to the backend under test."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sigra.backend import Backend
from sigra.ids import time_of, uuid7
from sigra.testing.contract_workers import EVENTS, RECORD

if TYPE_CHECKING:
    from sigra.job import Job
    from sigra.proxy import Worker


_BRIEF = "{worker} (job {job_id}, attempt {attempt} of {max_attempts}, {snoozes} snoozes)"
_TIME = len("01890a5d-ac96-774b")
"""How many characters of an id are its time."""

_SHOWN = 3_000
"""How many characters of a consumer's output a failure shows, the last ones."""


class Harness(Protocol):
    """What a test file offers to the suite: access to its queue."""

    @property
    def backend(self) -> Backend:
        """Return what jobs are enqueued on."""
        ...

    @property
    def patience(self) -> float:
        """Return the seconds after which a job that did not arrive counts as lost."""
        ...

    def advance(self) -> None:
        """Do what lets due and future jobs run: drain a virtual clock, or wait a moment."""

    def send(self, name: str, payload: Mapping[str, Any]) -> str:
        """Send a payload to the task ``name`` by the queue's own API; return its native id.

        Called only where the backend declares the capability ``native``.
        """
        ...


class ConsumerHarness(Harness, Protocol):
    """A harness of a queue whose jobs run in a consumer process of their own.

    If it has an attribute ``output``, the text that the consumer wrote, a failure shows its end.
    """

    @property
    def concurrency(self) -> int:
        """Return how many jobs the consumer runs at once."""
        ...

    @property
    def alive(self) -> bool:
        """Tell whether the consumer's process runs."""
        ...

    def start(self) -> None:
        """Start the consumer and return once it takes jobs."""

    def stop(self) -> None:
        """End it as its operator does for a deploy, and return once it has ended."""

    def kill(self) -> None:
        """End it and its children by SIGKILL, whatever they are doing."""

    def failed(self, native_id: str) -> str | None:
        """Return the error with which the queue shows the job as failed or cancelled, or None.

        From the queue's own record of it; from the consumer's log where it keeps none.
        """
        ...

    def kept(self, native_id: str) -> bool:
        """Tell whether the queue still holds the job: waiting, or among its dead ones."""
        ...


class TransactingHarness(ConsumerHarness, Protocol):
    """A harness of a queue whose backend declares the capability ``conn``."""

    def transact(
        self, worker: Worker[..., Any], args: Mapping[str, Any], *, commit: bool, awaited: bool
    ) -> Job:
        """Enqueue a job with ``conn=`` a connection of its own, then commit or roll back.

        ``awaited``: by ``await worker.anew(...)``, with a connection that this takes.
        Of ``worker`` use ``new`` and ``anew`` alone: it may stand for a batch.
        """
        ...


class RoutingHarness(ConsumerHarness, Protocol):
    """A harness of a queue whose backend declares the capability ``queue``."""

    @property
    def other_queue(self) -> str:
        """Return the name of a second queue, by which a job can be enqueued."""
        ...

    def serving(self, queue: str) -> AbstractContextManager[object]:
        """Run a consumer that takes the jobs of this queue alone, until the block ends.

        The suite also has two of them run at once.
        """
        ...


class Journal:
    """What the suite's workers wrote down, in whatever process they ran.

    Jobs that an earlier test made or saw are left out: one that failed may have left a delayed
    job behind, and where the consumer was killed, the queue may deliver a job again at any time.
    """

    def __init__(self, folder: Path) -> None:
        self._record, self._events = folder / "record.jsonl", folder / "events.jsonl"
        self._begin, self._earlier = {self._record: 0, self._events: 0}, set[str]()
        self._since = _now()
        for path in self._begin:
            path.touch()
        os.environ[RECORD], os.environ[EVENTS] = str(self._record), str(self._events)

    def runs(self, worker: str | None = None) -> list[dict[str, Any]]:
        """Return what the bodies recorded, of one worker or of all."""
        return [line for line in self._lines(self._record) if worker in (None, line["worker"])]

    def runs_of(self, *jobs: Job) -> list[dict[str, Any]]:
        """Return what the bodies of these jobs recorded."""
        ids = {job.id for job in jobs}
        return [run for run in self.runs() if run["job_id"] in ids]

    def events(self, action: str | None = None) -> list[dict[str, Any]]:
        """Return the audit events, of one action or of all."""
        return [line for line in self._lines(self._events) if action in (None, line["action"])]

    def audited(self, action: str) -> set[str]:
        """Return the ids of the jobs that wrote an audit event of this action."""
        return {event["job_id"] for event in self.events(action)}

    def clear(self) -> None:
        """Forget what was recorded, and ignore what jobs that were made by now still record."""
        self._since = _now()
        for path in self._begin:
            complete = self._complete(path)
            self._earlier |= {line["job_id"] for line in _parsed(complete) if line["job_id"]}
            self._begin[path] += len(complete)

    def wait(self, harness: Harness, done: Callable[[], bool], what: str) -> None:
        """Advance the queue until ``done()``; fail after the harness's patience."""
        deadline, late = time.monotonic() + harness.patience, False
        while not done():
            if late:
                raise AssertionError(
                    f"waited {harness.patience} s for {what}; {self._state(harness)}"
                )
            harness.advance()
            late = time.monotonic() > deadline

    def _state(self, harness: Harness) -> str:
        found = [_counted(self.runs())]
        if strays := [run for run in _parsed(self._complete(self._record)) if self._is_old(run)]:
            found.append(f"meanwhile jobs of earlier tests had {_counted(strays)}")
        if self.runs() and not self._events.stat().st_size:
            found.append("no audit event has come yet: the consumer has to call record_events()")
        if not getattr(harness, "alive", True):
            found.append("the consumer's process has ended")
        if output := getattr(harness, "output", ""):
            found.append(f"the consumer's output ends so:\n{output[-_SHOWN:]}")
        return "; ".join(found)

    def _lines(self, path: Path) -> list[dict[str, Any]]:
        return [line for line in _parsed(self._complete(path)) if not self._is_old(line)]

    def _is_old(self, line: Mapping[str, Any]) -> bool:
        id = str(line["job_id"])
        return id in self._earlier or (time_of(id) is not None and id < self._since)

    def _complete(self, path: Path) -> bytes:
        """Return the lines of this case that are written to their end."""
        with path.open("rb") as file:
            file.seek(self._begin[path])
            data = file.read()
        return data[: data.rfind(b"\n") + 1]


def _now() -> str:
    """Return how ids begin from now on; no earlier one does, nor is greater.

    Those of one tick of the clock, up to 16 ms on Windows, have no order: wait for the next, but
    not for ever, for a test may have frozen the clock.
    """
    before = uuid7()[:_TIME]
    for _ in range(100):
        if (now := uuid7()[:_TIME]) != before:
            return now
        time.sleep(0.001)
    return before


def _counted(runs: list[dict[str, Any]]) -> str:
    """Say how many runs there were, and show the last of them."""
    last = ", ".join(_BRIEF.format_map(run) for run in runs[-3:])
    return f"{len(runs)} runs{last and f', the last: {last}'}"


def _parsed(lines: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.splitlines()]
