"""Our in-process backends pass the conformance suite that we ship."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sigra import SyncBackend, ThreadBackend, configure
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
    patience = 10.0

    def __init__(self) -> None:
        self.backend = ThreadBackend(max_workers=2)

    def advance(self) -> None:
        time.sleep(0.01)


class TestSync(BackendContract):
    @pytest.fixture
    def harness(self) -> SyncHarness:
        return SyncHarness()


class TestThread(BackendContract):
    @pytest.fixture
    def harness(self) -> Iterator[ThreadHarness]:
        harness = ThreadHarness()
        yield harness
        assert harness.backend.close(5) == []
