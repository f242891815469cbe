"""Carry jobs by Oban: each worker is one of its name, and PostgreSQL the queue."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sigra import catalog
from sigra.backend import Capability
from sigra.backends.envelope import MARK, pack
from sigra.backends.external import WAIT_FOR_DEPLOY, aconsume, native
from sigra.backends.jsonb import fit, unfit, writable
from sigra.backends.oban_blocking import insert, pool_like
from sigra.backends.producing import due_at, is_async, raise_not_sent
from sigra.errors import EnqueueError, InvalidOptionError, UnknownWorkerError

if TYPE_CHECKING:
    from sigra.definition import Definition
    from sigra.job import Job

_oban = native("oban", "oban")
_telemetry = native("oban.telemetry", "oban")
_workers = native("oban.worker", "oban")

_log = logging.getLogger("sigra.job")

_SNOOZES = "sigra_snoozes"
_LONGEST = 2**31 - 1
"""Seconds that fit the column; a greater number would stop Oban's acknowledgements."""


class ObanBackend:
    """Send jobs through Oban; ``oban start --cron-modules app`` runs them.

    ``oban``: the name of the ``Oban`` instance, as its own decorators take it: the
    producer's, or in a consumer the one that ``oban start`` makes. ``conn``: an open
    connection of psycopg, sync or async, or SQLAlchemy's async one or session.
    ``priority`` is 0, the soonest, to -9.
    """

    name = "oban"
    capabilities: frozenset[Capability] = frozenset(
        {"queue", "priority", "delay", "run_at", "max_attempts", "backoff", "conn", "native"}
    )

    def __init__(self, oban: str = "Oban") -> None:
        self._oban = oban
        _telemetry.detach("sigra")
        _telemetry.attach("sigra", ["oban.job.start"], _stand_in)
        catalog.subscribe(_register)

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Insert the jobs in one transaction, by connections that block."""
        natives, conn = [_native(job) for job in jobs], jobs[0].options.conn
        if conn is not None and is_async(conn):
            raise EnqueueError(self.name, "conn is async; use await .anew(..., conn=conn)")
        try:
            if conn is not None:
                insert(self._instance, natives, conn)
            else:
                with pool_like(self._pool).connection() as conn, conn.transaction():
                    insert(self._instance, natives, conn)
        except Exception as error:
            raise_not_sent(self.name, error)
        _accept(jobs, natives)

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Insert the jobs in one transaction, by the instance's own pool if it is open."""
        conn = jobs[0].options.conn
        try:
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
        except Exception as error:
            raise_not_sent(self.name, error)
        _accept(jobs, natives)

    @property
    def _instance(self) -> Any:
        return _oban.Oban.get_instance(self._oban)

    @property
    def _pool(self) -> Any:
        return self._instance._query._pool


class _Worker:
    """What Oban makes one of for each job of ours, and asks when to run it again."""

    def __init__(self) -> None:
        self._delay = 0

    async def process(self, job: Any) -> Any:
        """Run the job, and say in Oban's words what came of it."""
        try:
            definition = catalog.lookup(job.worker)
        except UnknownWorkerError as error:
            _log.error("job %s waits for a consumer that knows it: %s", job.id, error)
            return _oban.Snooze(_seconds(WAIT_FOR_DEPLOY))
        consumed = await aconsume(
            unfit(job.args),
            definition,
            ObanBackend.name,
            native_id=str(job.id),
            # Of the deliveries, those that were rescued killed their consumer: Oban counts
            # and ends them itself. What came from elsewhere brought counts of its own.
            failures=job.attempt - 1 - job.meta.get("rescued", 0) or None,
            snoozes=job.meta.get(_SNOOZES),
        )
        verdict, delivery = consumed.verdict, consumed.delivery
        if verdict.state == "scheduled":
            meta = {_SNOOZES: delivery.snoozes + 1} if delivery is not None else None
            return _oban.Snooze(_seconds(verdict.delay), meta)
        if verdict.state == "cancelled":
            return _oban.Cancel(str(verdict.error))
        if verdict.error is not None:
            if verdict.state == "discarded":
                job.max_attempts = job.attempt  # here alone: none is left, whatever Oban has
            self._delay = _seconds(verdict.delay)
            raise writable(verdict.error)
        return None

    def backoff(self, _: Any) -> int:
        """Return the seconds that the verdict said."""
        return self._delay


def _register(definition: Definition) -> None:
    known = _workers._registry.setdefault(definition.name, _Worker)
    if known is not _Worker:
        raise ValueError(f"Oban has a worker {definition.name!r} of its own; give ours a name=")


def _stand_in(_: str, metadata: dict[str, Any]) -> None:
    """Have a job wait whose worker is not imported; Oban itself would count a failure."""
    job = metadata["job"]
    if MARK in job.args and job.worker not in _workers._registry:
        with suppress(Exception):  # it is looked for as Oban does; what fails, waits
            _workers.resolve_worker(job.worker)
        _workers._registry.setdefault(job.worker, _Worker)


def _native(job: Job) -> Any:
    options = job.options
    if not -9 <= options.priority <= 0:
        reason = (
            f"Oban's are 0, the soonest, to 9, which are ours from 0 to -9; not {options.priority}"
        )
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


def _seconds(delay: float) -> int:
    return min(math.ceil(delay), _LONGEST)
