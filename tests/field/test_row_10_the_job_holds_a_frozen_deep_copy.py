"""Row 10: what changes after the enqueue does not reach the job."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from sigra import AuditScope, SyncBackend, ThreadBackend, configure, tenant_worker

go = threading.Event()


@tenant_worker
def read(scope: AuditScope, args: dict[str, Any]) -> Any:
    go.wait(60)
    return args["lines"][0]["price"]


def order() -> dict[str, Any]:
    return {"organization_id": "42", "actor_id": "7", "lines": [{"price": 1}]}


def test_a_waiting_job_on_a_pool_sees_what_was_enqueued() -> None:
    """On a pool the caller goes on and changes its data while the job waits."""
    go.clear()
    pool, args = ThreadBackend(max_workers=1), order()
    with configure(backend=pool):
        job = read.new(args)
        args["lines"][0]["price"] = 2
        args["lines"].clear()
        go.set()
        assert 1 == job.result(60)
    pool.close(60)


def test_a_scheduled_job_sees_what_was_enqueued() -> None:
    """Inline, a delayed job runs long after its args' owner changed them."""
    go.set()
    backend, args = SyncBackend(), order()
    with configure(backend=backend):
        job = read.new(args, delay=60)
        args["lines"][0]["price"] = 2
        backend.drain(60)
    assert 1 == job.result()


def test_one_job_cannot_change_what_the_next_attempt_sees() -> None:
    """A body that tries gets TypeError."""

    @tenant_worker
    def write(scope: AuditScope, args: dict[str, Any]) -> None:
        args["lines"][0]["price"] = 2

    with pytest.raises(TypeError, match="read-only"):
        write.new(order()).result()
