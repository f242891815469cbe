"""Our in-process backends pass the conformance suite that we ship."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sigra import AsyncioBackend, Job, SyncBackend, ThreadBackend, configure
from sigra.backend import Capability
from sigra.backends.envelope import pack
from sigra.backends.external import consume
from sigra.execute import in_event_loop
from sigra.testing import BackendContract
from sigra.testing.contract_workers import record_events
from sigra.testing.harness import Journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path)
    with configure():
        sink = record_events()
        yield journal
        sink.close()


class SyncHarness:
    patience = 5.0

    def __init__(self) -> None:
        self.backend = SyncBackend()

    def advance(self) -> None:
        self.backend.drain(2)


class ThreadHarness:
    patience = 60.0

    def __init__(self) -> None:
        self.backend = ThreadBackend(max_workers=2)

    def advance(self) -> None:
        time.sleep(0.01)


class TestSync(BackendContract):
    @pytest.fixture
    def harness(self) -> SyncHarness:
        return SyncHarness()


class PoorHarness(SyncHarness):
    def __init__(self, *capabilities: Capability) -> None:
        super().__init__()
        self.backend.capabilities = frozenset(capabilities)


class TestNothing(BackendContract):
    """A backend that declares nothing is asked for nothing that it cannot."""

    @pytest.fixture
    def harness(self) -> SyncHarness:
        return PoorHarness()


class TestLittle(BackendContract):
    """Each case asks for all that it uses: retries, say, at a moment that is said, or by a key."""

    @pytest.fixture(params=["max_attempts", "delay", "unique"])
    def harness(self, request: pytest.FixtureRequest) -> SyncHarness:
        return PoorHarness(request.param)


class TestThread(BackendContract):
    delay = 0.2

    @pytest.fixture
    def harness(self) -> Iterator[ThreadHarness]:
        harness = ThreadHarness()
        yield harness
        assert harness.backend.close(60) == []


class LoopBackend(AsyncioBackend):
    """The asyncio backend, fed from the test's thread; all else is its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(concurrency=2)
        self.loop = loop

    def enqueue(self, jobs: Sequence[Job]) -> None:
        if in_event_loop():
            super().enqueue(jobs)
        else:
            asyncio.run_coroutine_threadsafe(self.aenqueue(jobs), self.loop).result()

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        if asyncio.get_running_loop() is self.loop:
            await super().aenqueue(jobs)
        else:
            sending = asyncio.run_coroutine_threadsafe(super().aenqueue(jobs), self.loop)
            await asyncio.wrap_future(sending)


class AsyncioHarness(ThreadHarness):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.backend = LoopBackend(loop)


class TestAsyncio(BackendContract):
    delay = 0.2

    @pytest.fixture
    def harness(self) -> Iterator[AsyncioHarness]:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        harness = AsyncioHarness(loop)
        yield harness
        closing = asyncio.run_coroutine_threadsafe(harness.backend.aclose(60), loop)
        assert closing.result() == []
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Queue:
    """A backend of somebody else's, which is its own harness.

    ``hasty``: it runs at once what is for later. ``deaf``: it forgets what ``.anew()`` sends.
    """

    name = "queue"
    capabilities = frozenset[Capability](["delay", "run_at", "max_attempts", "backoff"])
    patience = 60.0

    def __init__(self, fault: str = "") -> None:
        self.fault, self.backend = fault, self
        self.jobs: list[tuple[float, str, dict[str, Any]]] = []

    def enqueue(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.put(job.options.wait(time.time()), job.worker, pack(job))
            job.accept()

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        if self.fault != "deaf":
            self.enqueue(jobs)

    def put(self, delay: float, worker: str, payload: dict[str, Any]) -> None:
        self.jobs.append((0.0 if self.fault == "hasty" else time.time() + delay, worker, payload))

    def advance(self) -> None:
        time.sleep(0.01)
        for due in [job for job in self.jobs if job[0] <= time.time()]:
            self.jobs.remove(due)
            consumed = consume(due[2], due[1], self.name)
            if consumed.verdict.state in ("retryable", "scheduled"):
                self.put(consumed.verdict.delay, due[1], consumed.following())


def test_what_came_while_the_machine_stood_still_is_not_missed(journal: Journal) -> None:
    """Once its patience is over the suite looks again before it says that nothing came."""
    came: list[bool] = []
    stalled = SimpleNamespace(patience=0.0, advance=lambda: came.append(True))
    journal.wait(stalled, lambda: bool(came), "the job")
    with pytest.raises(AssertionError, match="for another"):
        journal.wait(stalled, lambda: False, "another")


@pytest.mark.parametrize(
    ("fault", "case"),
    [
        ("hasty", "test_a_delayed_job_runs_later"),
        ("hasty", "test_a_snoozed_job_runs_later"),
        ("hasty", "test_a_failed_job_runs_again_later"),
        ("deaf", "test_an_asynchronous_batch_arrives_whole"),
    ],
)
def test_a_backend_that_breaks_a_promise_fails_the_suite(
    journal: Journal, fault: str, case: str
) -> None:
    """It is told by the case of that promise, which one that keeps it passes."""
    with configure(backend=(queue := Queue())):
        getattr(TestThread(), case)(queue, journal)
    journal.clear()
    queue = Queue(fault)
    queue.patience = 0.2
    with configure(backend=queue), pytest.raises(AssertionError, match="due|waited"):
        getattr(TestThread(), case)(queue, journal)
