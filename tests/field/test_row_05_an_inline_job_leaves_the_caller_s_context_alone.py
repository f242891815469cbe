"""Row 5: eager mode does not overwrite the caller's own context."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import structlog

from sigra import AuditScope, SyncBackend, configure, tenant_worker

current: ContextVar[Any] = ContextVar("current")


@tenant_worker
def clear(scope: AuditScope) -> None:
    current.set("the job's")
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id="the job's")


@tenant_worker
async def aclear(scope: AuditScope) -> None:
    clear(scope)


TENANT = {"organization_id": "43", "actor_id": "8"}


def test_the_caller_s_value_is_the_same_object_after_an_inline_job() -> None:
    """What the request had set is still there, not an equal copy."""
    mine = object()
    token = current.set(mine)
    try:
        with configure(backend=SyncBackend()):
            clear.new(TENANT)
        assert mine is current.get()
    finally:
        current.reset(token)


def test_a_token_of_the_caller_still_resets() -> None:
    """The caller's own token is good after the job, which a replaced context would break."""
    outer = current.set("outer")
    inner = current.set("inner")
    with configure(backend=SyncBackend()):
        clear.new(TENANT)
    current.reset(inner)
    assert "outer" == current.get()
    current.reset(outer)


def test_the_caller_s_structlog_context_is_kept() -> None:
    """A job that clears structlog's context variables clears its own."""
    with structlog.contextvars.bound_contextvars(request_id="mine"):
        with configure(backend=SyncBackend()):
            clear.new(TENANT)
        assert {"request_id": "mine"} == structlog.contextvars.get_contextvars()


def test_the_same_holds_inside_a_loop() -> None:
    """await .anew() leaves the task's context as it was."""

    async def main() -> Any:
        mine = object()
        current.set(mine)
        await aclear.anew(TENANT)
        return current.get() is mine

    with configure(backend=SyncBackend()):
        assert asyncio.run(main())
