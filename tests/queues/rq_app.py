"""The consumer of test_rq: ``rq worker -c rq_app --path tests/queues``."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import consumer_side
from rq import Queue, Retry

from sigra import AuditScope, Snooze, tenant_worker
from sigra.testing.contract_workers import record

note = consumer_side.note


@tenant_worker(name="sigra.tests.dies_as_it_is_put_off")
def dies_as_it_is_put_off(scope: AuditScope, args: Any, job: Any, marker: str) -> Snooze | None:
    """Snooze once; the first time RQ, horse and worker, is killed as it comes to schedule that."""
    record(scope, args)
    if job.snoozes:
        return None
    if not Path(marker).exists():
        Path(marker).touch()
        Queue.schedule_job = _die
    return Snooze(1)


@tenant_worker(name="sigra.tests.snoozes_for_an_hour")
def snoozes_for_an_hour(scope: AuditScope, args: Any, job: Any) -> Snooze | None:
    record(scope, args)
    return None if job.snoozes else Snooze(3600)


@tenant_worker(name="sigra.tests.returns_rqs_word")
def returns_rqs_word(scope: AuditScope) -> Any:
    return Retry(max=1)


def _die(*_: Any, **__: Any) -> None:
    for pid in (os.getppid(), os.getpid()):
        os.kill(pid, signal.SIGKILL)
