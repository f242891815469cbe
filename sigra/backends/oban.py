"""Carry jobs by Oban: each worker is one of its name, and PostgreSQL the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from sigra import catalog
from sigra.backends.envelope import pack
from sigra.backends.external import native
from sigra.backends.jsonb import fit
from sigra.backends.oban_blocking import insert, pool_like
from sigra.backends.oban_run import register, stand_in
from sigra.backends.producing import able_to, due_at, is_async, require_conn, sending
from sigra.errors import EnqueueError, InvalidOptionError
from sigra.job import Job

_oban = native("oban", "oban")
_telemetry = native("oban.telemetry", "oban")


class ObanBackend:
    """Send jobs through Oban; ``oban start --cron-modules app`` runs them.

    ``oban``: the name of the ``Oban`` instance, as its own decorators take it: the
    producer's, or in a consumer the one that ``oban start`` makes. ``conn``: an open
    connection of psycopg, sync or async, or SQLAlchemy's async one or session.
    ``priority`` is 0, the soonest, to -9.
    """

    name = "oban"
    capabilities = able_to("queue", "priority", "conn", "at_least_once")

    def __init__(self, oban: str = "Oban") -> None:
        self._oban = oban
        _telemetry.detach("sigra")
        _telemetry.attach("sigra", ["oban.job.start"], stand_in)
        catalog.subscribe(register)

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Insert the jobs in one transaction, by connections that block."""
        _check_conn(jobs[0])
        natives, conn = [_native(job) for job in jobs], jobs[0].options.conn
        if conn is not None and is_async(conn):
            raise EnqueueError(self.name, "conn is async; use await .anew(..., conn=conn)")
        with sending(self.name):
            if conn is not None:
                insert(self._instance, natives, conn)
            else:
                with pool_like(self._pool).connection() as conn, conn.transaction():
                    insert(self._instance, natives, conn)
        _accept(jobs, natives)

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Insert the jobs in one transaction, by the instance's own pool if it is open."""
        _check_conn(jobs[0])
        conn = jobs[0].options.conn
        with sending(self.name):
            if self._pool.closed if conn is None else not is_async(conn):
                await asyncio.to_thread(self.enqueue, jobs)
                return
            natives = [_native(job) for job in jobs]
            if conn is not None:
                if hasattr(conn, "get_raw_connection") and not conn.in_transaction():
                    await conn.begin()  # SQLAlchemy's own: Oban goes past it, to the driver
                await self._instance.enqueue_many(natives, conn=conn)
            elif len(natives) == 1:  # one statement, which needs no transaction of ours
                await self._instance.enqueue_many(natives)
            else:
                async with self._pool.connection() as conn, conn.transaction():
                    await self._instance.enqueue_many(natives, conn=conn)
        _accept(jobs, natives)

    @property
    def _instance(self) -> Any:
        return _oban.Oban.get_instance(self._oban)

    @property
    def _pool(self) -> Any:
        return self._instance._query._pool


def _check_conn(job: Job) -> None:
    wanted = "psycopg, or an async one or session of SQLAlchemy"
    require_conn(job, wanted, "pgconn", "fetchone", "get_raw_connection", "sync_session")


def _native(job: Job) -> Any:
    options = job.options
    if not -9 <= options.priority <= 0:
        reason = f"Oban's 0, the soonest, to 9 are 0 to -9 here; not {options.priority}"
        raise InvalidOptionError("priority", reason, job.worker)
    return _oban.Job(
        job.worker,
        queue=options.queue or "default",
        args=fit(pack(job)),
        max_attempts=options.max_attempts,
        priority=-options.priority,
        scheduled_at=due_at(options),
    )


def _accept(jobs: Sequence[Job], natives: Sequence[Any]) -> None:
    for job, native_job in zip(jobs, natives, strict=True):
        job.accept(native_id=str(native_job.id))
