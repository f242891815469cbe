"""The app that the tests' consumer loads: ``pgq run pgqueuer_app:main``."""

from __future__ import annotations

from contextlib import asynccontextmanager

import consumer_side
import pgqueuer
from pgqueuer.adapters.connections import create_asyncpg_pool

from sigra import configure, tenant_worker
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


@asynccontextmanager
async def main():
    async with create_asyncpg_pool(consumer_side.URL) as pool:
        pgq = pgqueuer.PgQueuer.from_asyncpg_pool(pool)

        @pgq.entrypoint("native.note")
        async def note(job):
            consumer_side.note(job.payload.decode())

        with configure(backend=PgQueuerBackend(pgq)):
            yield pgq
