"""Carry jobs by PgQueuer: each worker is an entrypoint of its name, and PostgreSQL the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from sigra.backends.external import native
from sigra.backends.loop import wait_for
from sigra.backends.pgqueuer_insert import PooledDriver, awrite, queries_for, write
from sigra.backends.pgqueuer_notes import Notes, own_queries, surely_retry
from sigra.backends.pgqueuer_run import run, watch_start
from sigra.backends.producing import able_to, sending
from sigra.backends.registering import register_with
from sigra.definition import Definition
from sigra.errors import EnqueueError
from sigra.execute import in_event_loop
from sigra.job import Job

_SyncQueries = native("pgqueuer.queries", "pgqueuer").SyncQueries


class PgQueuerBackend:
    """Send jobs through PgQueuer; ``pgq run app:main`` runs them.

    ``native``: in a consumer, the ``PgQueuer`` that ``main`` yields, to which each worker is
    added as an entrypoint. In a producer, the same, or ``Queries``, or ``SyncQueries``; by
    default Sigra connects to ``PGDSN``. ``conn``: an open connection of psycopg (sync or async)
    or asyncpg. A job that failed for good is held, as ``pgq failed`` shows.
    """

    name = "pgqueuer"
    capabilities = able_to("priority", "unique", "conn", "at_least_once")

    def __init__(self, native: Any = None) -> None:
        if native is None:
            native = _SyncQueries(PooledDriver())
        self._loop = asyncio.get_running_loop() if in_event_loop() else None
        self._native, self._known = native, set[str]()
        self._queries = own_queries(native)
        self._commits = not isinstance(self._queries.driver, PooledDriver)
        if hasattr(native, "entrypoint"):
            self._notes = Notes(self._queries)
            known = vars(native).setdefault("sigra_known", self._known)
            if known is self._known:
                surely_retry(self._queries, known)
            self._known = known  # those of the first backend, if this is a second one
            register_with(native, self._register)
            watch_start(native)

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Insert the jobs in one statement, or raise ``EnqueueError`` and insert none."""
        with sending(self.name, jobs, whole=True, commits=self._commits):
            queries = queries_for(jobs[0], self._queries)
            if isinstance(queries, _SyncQueries):
                write(queries, jobs)
            elif self._loop is None or queries is not self._queries:
                raise EnqueueError(self.name, "the connection is async; use await .anew(...)")
            else:
                wait_for(self.name, self._loop, self.aenqueue(jobs))

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Do the same without blocking the loop."""
        with sending(self.name, jobs, whole=True, commits=self._commits):
            queries = queries_for(jobs[0], self._queries)
            if isinstance(queries, _SyncQueries):
                await asyncio.to_thread(self.enqueue, jobs)
            else:
                await awrite(queries, jobs)

    def _register(self, definition: Definition) -> None:
        name = definition.name
        if name in self._known:
            return  # defined anew: the entrypoint looks its worker up when it runs
        entrypoint = self._native.entrypoint(name, accepts_context=True, on_failure="hold")
        entrypoint(partial(run, self._notes))
        self._known.add(name)
