"""Our in-process backends pass the conformance suite that we ship."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sigra import AsyncioBackend, Job, SyncBackend, ThreadBackend, configure
from sigra.backend import Capability
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
