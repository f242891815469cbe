"""What carries jobs: our backends, and one of somebody else's with its harness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sigra import AsyncioBackend, Backend, Job, SyncBackend, ThreadBackend
from sigra.backend import Capability
from sigra.backends.celery import CeleryBackend
from sigra.backends.django import DjangoBackend
from sigra.backends.dramatiq import DramatiqBackend
from sigra.backends.huey import HueyBackend
from sigra.backends.oban import ObanBackend
from sigra.backends.pgqueuer import PgQueuerBackend
from sigra.backends.procrastinate import ProcrastinateBackend
from sigra.backends.rq import RQBackend
from sigra.backends.saq import SaqBackend
from sigra.backends.taskiq import TaskiqBackend
from sigra.testing import RecordingBackend
from sigra.testing.harness import ConsumerHarness


def of_queues(native: Any) -> None:
    celery: Backend = CeleryBackend(native)
    django: Backend = DjangoBackend()
    dramatiq: Backend = DramatiqBackend(native)
    huey: Backend = HueyBackend(native)
    oban: Backend = ObanBackend(native)
    pgqueuer: Backend = PgQueuerBackend(native)
    procrastinate: Backend = ProcrastinateBackend(native)
    rq: Backend = RQBackend(native)
    saq: Backend = SaqBackend(native)
    taskiq: Backend = TaskiqBackend(native)
    print(celery, django, dramatiq, huey, oban, pgqueuer, procrastinate, rq, saq, taskiq)


def in_process() -> None:
    aio: Backend = AsyncioBackend()
    recording: Backend = RecordingBackend()
    sync: Backend = SyncBackend()
    thread: Backend = ThreadBackend()
    print(aio, recording, sync, thread)


class SpoolBackend:
    name = "spool"
    capabilities: frozenset[Capability] = frozenset({"max_attempts", "backoff", "native"})

    def enqueue(self, jobs: Sequence[Job]) -> None: ...

    async def aenqueue(self, jobs: Sequence[Job]) -> None: ...


class SpoolHarness:
    """One whose backend has no ``conn``."""

    patience = 30
    concurrency = 1

    def __init__(self) -> None:
        self.backend = SpoolBackend()
        self.alive = False

    def advance(self) -> None: ...

    def send(self, name: str, payload: Mapping[str, Any]) -> str:
        return name

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...

    def failed(self, native_id: str) -> str | None:
        return None

    def kept(self, native_id: str) -> bool:
        return False


spool: Backend = SpoolBackend()
harness: ConsumerHarness = SpoolHarness()
