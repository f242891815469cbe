"""Each backend that comes along."""

from __future__ import annotations

from typing import Any

from sigra import AsyncioBackend, Backend, SyncBackend, ThreadBackend
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
