"""Row 2: the next job on the same thread or loop never sees the one before."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from sigra import (
    AsyncioBackend,
    AuditScope,
    SyncBackend,
    ThreadBackend,
    configure,
    current_job,
    tenant_worker,
)

tenant: ContextVar[str] = ContextVar("tenant", default="unset")
ENDS: list[Any] = [None, ValueError, SystemExit, KeyboardInterrupt, GeneratorExit]


def args(organization_id: str, **more: Any) -> dict[str, Any]:
    return {"organization_id": organization_id, "actor_id": None, **more}


@tenant_worker
def soil(scope: AuditScope, end: int) -> str:
    before = tenant.get()
    tenant.set("left over")
    if ENDS[end] is not None:
        raise ENDS[end]
    return before


@tenant_worker
async def asoil(scope: AuditScope, end: int) -> str:
    before = tenant.get()
    tenant.set("left over")
    await asyncio.sleep(0)
    if ENDS[end] is not None:
        raise ENDS[end]
    return before


@pytest.mark.parametrize("end", range(len(ENDS)))
def test_on_the_caller_s_thread(end: int) -> None:
    """Inline, the caller's context is clean after any end, BaseException too."""
    with configure(backend=SyncBackend()):
        soil.new(args("1", end=end))
    assert ("unset", None) == (tenant.get(), current_job())


@pytest.mark.parametrize("end", range(len(ENDS)))
def test_on_a_pool_s_thread(end: int) -> None:
    """On a single thread that all jobs share, the next one starts clean."""
    pool = ThreadBackend(max_workers=1)
    with configure(backend=pool):
        soil.new(args("1", end=end))
        after = soil.new(args("2", end=0))
        assert "unset" == after.result(60)
    pool.close(60)


@pytest.mark.parametrize("end", range(len(ENDS)))
def test_on_a_loop(end: int) -> None:
    """On one loop, jobs that run side by side and after one another start clean."""

    async def main() -> list[str]:
        loop = AsyncioBackend()
        with configure(backend=loop):
            await asoil.anew(args("1", end=end))
            jobs = await asoil.anew_many([args(str(n), end=0) for n in range(5)])
            results = [await job.aresult(60) for job in jobs]
        await loop.aclose(60)
        return results

    assert ["unset"] * 5 == asyncio.run(main())
