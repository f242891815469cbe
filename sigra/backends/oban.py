"""Carry jobs by Oban: each worker is one of its name, and PostgreSQL the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from sigra.backends.external import native
from sigra.backends.oban_insert import check_conn, cursor_below, insert, native_job, pool_like
from sigra.backends.oban_instance import instance
from sigra.backends.oban_run import register_all, stand_in
from sigra.backends.producing import able_to, accept, is_async, sending
from sigra.errors import EnqueueError
from sigra.job import Job

_telemetry = native("oban.telemetry", "oban")


class ObanBackend:
    """Send jobs through Oban; ``oban start --queues default:10 --cron-modules app`` runs them.

    ``oban``: the name of the ``Oban`` instance, as its own decorators take it: in a producer
    your own, in a consumer the one that ``oban start`` makes. ``conn``: an open connection of
    psycopg, sync or async, or an async connection or session of SQLAlchemy. ``priority`` goes
    from 0, the soonest, down to -9.
    """

    name = "oban"
    capabilities = able_to("queue", "priority", "conn", "at_least_once")

    def __init__(self, oban: str = "Oban") -> None:
        if not isinstance(oban, str):
            raise TypeError(f"ObanBackend takes the name of an Oban, not {type(oban).__qualname__}")
        self._oban = oban
        _telemetry.detach("sigra")
        _telemetry.attach("sigra", ["oban.job.start"], stand_in)
        register_all()

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Insert the jobs in one transaction, by connections that block."""
        check_conn(jobs[0])
        natives, conn = [native_job(job) for job in jobs], jobs[0].options.conn
        if conn is not None and is_async(conn):
            raise EnqueueError(self.name, "conn is async; use await .anew(..., conn=conn)")
        with sending(self.name, jobs, whole=True):
            if conn is not None:
                insert(self._instance, natives, conn)
            else:
                with pool_like(self._pool).connection() as conn, conn.transaction():
                    insert(self._instance, natives, conn)
        accept(jobs, [each.id for each in natives])

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Insert the jobs in one transaction, by the instance's own pool if it is open."""
        check_conn(jobs[0])
        conn = jobs[0].options.conn
        with sending(self.name, jobs, whole=True):
            if self._pool.closed if conn is None else not is_async(conn):
                await asyncio.to_thread(self.enqueue, jobs)
                return
            natives = [native_job(job) for job in jobs]
            if conn is not None:
                await self._instance.enqueue_many(natives, conn=await cursor_below(jobs[0]))
            elif len(natives) == 1:  # one statement, which needs no transaction of ours
                await self._instance.enqueue_many(natives)
            else:
                async with self._pool.connection() as conn, conn.transaction():
                    await self._instance.enqueue_many(natives, conn=conn)
        accept(jobs, [each.id for each in natives])

    @property
    def _instance(self) -> Any:
        return instance(self._oban)

    @property
    def _pool(self) -> Any:
        return self._instance._query._pool
