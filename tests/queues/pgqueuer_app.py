"""The app that the tests' consumer loads: ``pgq run pgqueuer_app:main``."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import consumer_side
import pgqueuer
from pgqueuer.adapters.connections import create_asyncpg_pool

from sigra import AuditEvent, configure, log_safe, tenant_worker
from sigra.backends.pgqueuer import PgQueuerBackend
from sigra.testing import contract_workers


@tenant_worker(name="pgqueuer_app.parent")
def parent(scope, args):
    """Enqueue from a thread of the consumer, whose connections belong to its loop."""
    contract_workers.echo.new({**args, "by": "thread"})


@tenant_worker(name="pgqueuer_app.parent_async")
async def parent_async(scope, args):
    await contract_workers.echo.anew({**args, "by": "loop"})


@tenant_worker(name="pgqueuer_app.says")
def says(scope, text):
    raise ValueError(text.encode().decode("unicode-escape"))


@tenant_worker(name="pgqueuer_app.asks")
def asks(scope, grouped):
    """Fail by PgQueuer's own word for a retry."""
    error = pgqueuer.RetryRequested(reason="said so")
    raise ExceptionGroup("of a task group", [error]) if grouped else error


@tenant_worker(name="pgqueuer_app.alone", audit_schema=AuditEvent)
async def alone(scope):
    """Run for a while, beside no other of its kind."""
    log_safe("contract.begun", scope)
    await asyncio.sleep(0.1)
    log_safe("contract.ended", scope)


@asynccontextmanager
async def main():
    if threads := os.environ.get("SIGRA_TEST_THREADS"):
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(int(threads)))
    async with create_asyncpg_pool(consumer_side.URL) as pool:
        pgq = pgqueuer.PgQueuer.from_asyncpg_pool(pool)

        @pgq.entrypoint("native.note")
        async def note(job):
            consumer_side.note(job.payload.decode())

        try:
            with configure(backend=PgQueuerBackend(pgq)):
                pgq.qm.entrypoint_registry[alone.name].parameters.concurrency_limit = 1
                yield pgq
        finally:
            pool.terminate()
