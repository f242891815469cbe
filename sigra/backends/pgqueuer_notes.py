"""Note in the rows of PgQueuer's jobs what their next deliveries need to know."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container, Mapping
from datetime import timedelta
from itertools import count
from typing import Any, TypeAlias

from sigra.backends.external import native
from sigra.backends.insist import insist
from sigra.backends.registering import expect
from sigra.errors import brief
from sigra.json import dumps

_pgqueuer = native("pgqueuer", "pgqueuer")
_inmemory = native("pgqueuer.adapters.inmemory", "pgqueuer")

_log = logging.getLogger("sigra.job")

_HEADER = "sigra"
"""The header in which a job's counters travel, because PgQueuer itself counts only retries."""

_AGAIN = "again"

_NOTE = """UPDATE {table} AS job
SET headers = note.headers::jsonb, attempts = note.attempts
FROM unnest($1::bigint[], $2::text[], $3::int[]) AS note (id, headers, attempts)
WHERE job.id = note.id"""

_UNCHANGED = "SELECT 1 FROM {table} WHERE id = $1 AND updated = $2"
"""Whether a consumer that took a job still has it: taking and queueing change ``updated``."""

_Row: TypeAlias = tuple[int, str, int]


def own_queries(native: Any) -> Any:
    """Return the queries of a ``PgQueuer``, or the ones that are given.

    Raises ``TypeError`` if they keep jobs in memory: those have no row for what a run leaves.
    So it does for what has no queries, such as a URL.
    """
    queries = getattr(native, "queries", native)
    if isinstance(queries, _inmemory.InMemoryQueries):
        raise TypeError(
            "PgQueuerBackend needs PostgreSQL, not PgQueuer.in_memory(); without a server use "
            "sigra.SyncBackend, or in tests the fixture sigra_backend"
        )
    what = "PgQueuerBackend takes PgQueuer, Queries or SyncQueries"
    return expect(queries, "driver", what, "without one it connects to PGDSN")


def counts_of(job: Any) -> Mapping[str, Any]:
    """Return the counts noted of a job; if it ended and was queued by hand, those for that run.

    PgQueuer then sets its attempts to 0; not if a consumer died before PgQueuer wrote the end.
    """
    counts: Mapping[str, Any] = (job.headers or {}).get(_HEADER) or {}
    return counts[_AGAIN] if _AGAIN in counts and job.attempts == 0 else counts


class Notes:
    """Write what the next deliveries of jobs have to know into the headers of their rows.

    PgQueuer starts the jobs of a batch together: the notes of their begins are written in one
    statement. Each end is written alone, because PgQueuer's heartbeats lock rows meanwhile.
    """

    def __init__(self, queries: Any) -> None:
        self._driver = queries.driver
        self._statement = _NOTE.format(table=queries.qbq.qualified.queue_table)
        self._begun: list[_Row] = []
        self._written: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    async def begin(self, job: Any, counts: Mapping[str, Any]) -> None:
        """Write the counts, in one statement with those of other jobs that begin now."""
        self._begun.append(_row(job, counts, job.attempts))
        if self._written is None:
            self._written = asyncio.get_running_loop().create_task(self._write_begun())
        await asyncio.shield(self._written)

    async def write(self, job: Any, counts: Mapping[str, Any], attempts: int) -> None:
        """Write the counts, and ``attempts`` as PgQueuer's own count, to which a retry adds one."""
        await self._write([_row(job, counts, attempts)])

    async def write_end(
        self, job: Any, counts: Mapping[str, Any], again: Mapping[str, Any]
    ) -> None:
        """Write the counts, and ``again``: those for the case that the job is queued by hand."""
        await self.write(job, {**counts, _AGAIN: again}, job.attempts + 1)

    async def _write_begun(self) -> None:
        async with self._writing:  # what begins meanwhile is the next statement
            rows, self._begun, self._written = self._begun, [], None
            await self._write(rows)

    async def _write(self, rows: list[_Row]) -> None:
        columns = [*map(list, zip(*rows, strict=True))]
        try:
            await insist(lambda: self._driver.execute(self._statement, *columns))
        except Exception as error:  # the database went away: no fault of the job
            raise _pgqueuer.RetryRequested(timedelta(seconds=1)) from error


def surely_retry(queries: Any, ours: Container[str]) -> None:
    """Have the next run of a job queued even if the database is away for a moment.

    By itself PgQueuer tries that once, and then holds the job as failed. A job whose next run
    still cannot be queued is left as if its consumer had died: it comes back.

    ``ours``: the names of the entrypoints that run workers; for others nothing changes.
    """
    retry = queries.retry_job
    unchanged = _UNCHANGED.format(table=queries.qbq.qualified.queue_table)

    async def retry_surely(job: Any, *args: Any) -> None:
        if job.entrypoint not in ours:
            await retry(job, *args)
            return
        tries = count()

        async def once() -> None:
            # If an answer was lost, the next run is queued, and a consumer may have begun it.
            if not next(tries) or await queries.driver.fetch(unchanged, job.id, job.updated):
                await retry(job, *args)

        try:
            await insist(once)
        except Exception:
            what = (
                "could not queue the next run of job %s: it comes back as if its consumer had died"
            )
            _log.exception(what, brief(str(job.id)))

    queries.retry_job = retry_surely


def _row(job: Any, counts: Mapping[str, Any], attempts: int) -> _Row:
    return job.id, dumps({**(job.headers or {}), _HEADER: counts}).decode(), attempts
