"""Carry jobs by PgQueuer: each worker is an entrypoint of its name, and PostgreSQL the queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sigra import catalog
from sigra.backend import SCHEDULING, Capability
from sigra.backends.envelope import pack
from sigra.backends.external import Consumed, aconsume, native
from sigra.backends.jsonb import writable
from sigra.backends.loop import submit
from sigra.backends.pgqueuer_drivers import AsyncDriver, Driver, PooledDriver
from sigra.backends.producing import is_async, raise_not_sent, unique_key
from sigra.errors import EnqueueError, InvalidArgsError
from sigra.execute import in_event_loop
from sigra.json import dumps, loads

if TYPE_CHECKING:
    from sigra.definition import Definition
    from sigra.job import Job

_pgqueuer = native("pgqueuer", "pgqueuer")
_queries = native("pgqueuer.queries", "pgqueuer")

_HEADER = "sigra"
"""The header in which a job's counters travel, since PgQueuer counts retries alone."""

_NOTE = "UPDATE {table} SET headers = $2::jsonb, attempts = attempts - $3 WHERE id = $1"


class PgQueuerBackend:
    """Send jobs through PgQueuer; ``pgq run app:main`` runs them.

    ``native``: in a consumer the ``PgQueuer`` that ``main`` yields, whose entrypoints the
    workers become; in a producer that, its ``Queries`` or its ``SyncQueries``; by default
    connections of our own to ``PGDSN``. ``conn``: an open connection, of psycopg (sync or
    async) or asyncpg. A job that failed for good is held, as ``pgq failed`` shows.
    """

    name = "pgqueuer"
    capabilities = frozenset[Capability]((*(SCHEDULING - {"queue"}), "conn", "native"))

    def __init__(self, native: Any = None) -> None:
        if native is None:
            native = _queries.SyncQueries(PooledDriver())
        self._loop = asyncio.get_running_loop() if in_event_loop() else None
        self._native, self._known = native, set[str]()
        self._queries = getattr(native, "queries", native)
        if hasattr(native, "entrypoint"):
            catalog.subscribe(self._register)

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Insert the jobs in one statement, or raise ``EnqueueError`` and insert none."""
        conn = jobs[0].options.conn
        try:
            queries = self._on(conn)
            if isinstance(queries, _queries.SyncQueries):
                ids = queries.enqueue(**_rows(jobs))
            elif in_event_loop() or self._loop is None or conn is not None:
                raise EnqueueError(self.name, "the connection is async; use await .anew(...)")
            else:
                ids = submit(self._loop, queries.enqueue(**_rows(jobs))).result()
            _accept(jobs, ids)
        except Exception as error:
            raise_not_sent(self.name, error)

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Do the same without blocking the loop."""
        try:
            queries = self._on(jobs[0].options.conn)
            if isinstance(queries, _queries.SyncQueries):
                await asyncio.to_thread(self.enqueue, jobs)
            else:
                _accept(jobs, await queries.enqueue(**_rows(jobs)))
        except Exception as error:
            raise_not_sent(self.name, error)

    def _on(self, conn: Any) -> Any:
        """Return the queries that write by the caller's connection, or by our own."""
        if conn is None:
            return self._queries
        names = self._queries.qbq  # of the tables
        if not is_async(conn):
            return _queries.SyncQueries(Driver(conn), qbq=names)
        driver = _pgqueuer.AsyncpgDriver if hasattr(conn, "fetch") else AsyncDriver
        return _queries.Queries(driver(conn), qbq=names)

    def _register(self, definition: Definition) -> None:
        name = definition.name
        if name not in self._known:  # else defined anew: the worker is looked up when it runs
            entrypoint = self._native.entrypoint(name, accepts_context=True, on_failure="hold")
            entrypoint(self._run)
            self._known.add(name)

    async def _run(self, job: Any, context: Any) -> None:
        definition = catalog.lookup(job.entrypoint)
        counts = (job.headers or {}).get(_HEADER) or {}
        deliveries = counts.get("deliveries", 0)
        await self._note(job, {**counts, "deliveries": deliveries + 1})
        consumed = await aconsume(
            _read(job),
            definition,
            self.name,
            native_id=str(job.id),
            failures=counts.get("failures"),
            snoozes=counts.get("snoozes"),
            deliveries=deliveries,
        )
        await self._translate(job, context, consumed, counts)

    async def _translate(
        self, job: Any, context: Any, consumed: Consumed, counts: Mapping[str, Any]
    ) -> None:
        verdict, error = consumed.verdict, consumed.verdict.error
        if verdict.state in ("retryable", "scheduled"):
            following = consumed.following() if consumed.delivery else counts
            counts = {name: following.get(name) for name in ("failures", "snoozes")}
            await self._note(job, counts, spared=verdict.state == "scheduled")
            reason = None if error is None else str(writable(error))
            raise _pgqueuer.RetryRequested(timedelta(seconds=verdict.delay), reason)
        if verdict.state == "cancelled":
            context.cancellation.cancel()  # which PgQueuer looks at when we return
        elif error is not None:
            await self._note(job, {})  # who queues it again by hand, has all attempts anew
            raise writable(error)

    async def _note(self, job: Any, counts: Mapping[str, Any], *, spared: bool = False) -> None:
        """Write what the next delivery has to know; ``spared``: the retry counts for none."""
        statement = _NOTE.format(table=self._queries.qbq.qualified.queue_table)
        headers = dumps({**(job.headers or {}), _HEADER: counts}).decode()
        try:
            await self._queries.driver.execute(statement, job.id, headers, int(spared))
        except Exception as error:  # the database went away: no fault of the job
            raise _pgqueuer.RetryRequested(timedelta(seconds=1)) from error


def _rows(jobs: Sequence[Job]) -> dict[str, Any]:
    options, count = jobs[0].options, len(jobs)  # of a batch only the unique keys differ
    wait = options.wait(time.time())
    rows: dict[str, Any] = {
        "entrypoint": [jobs[0].worker] * count,
        "payload": [dumps(pack(job)) for job in jobs],
        "priority": [options.priority] * count,
        "execute_after": [timedelta(seconds=wait)] * count if wait else None,
    }
    if options.unique is not None:
        rows |= {"dedupe_key": [unique_key(job) for job in jobs], "on_conflict": "skip"}
    return rows


def _accept(jobs: Sequence[Job], ids: Sequence[int | None]) -> None:
    for job, id in zip(jobs, ids, strict=True):
        job.accept(native_id=None if id is None else str(id), duplicate=id is None)


def _read(job: Any) -> dict[str, Any]:
    payload = loads(job.payload or b"{}")
    if not isinstance(payload, dict):
        reason = f"args are a JSON object, not {type(payload).__qualname__}"
        raise InvalidArgsError("$", reason, job.entrypoint)
    return payload
