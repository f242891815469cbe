"""What PgQueuer's consumer runs for a job, and what came of it in PgQueuer's words."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypeAlias

from sigra.backends.external import Consumed, aconsume, native
from sigra.backends.insist import insist
from sigra.backends.jsonb import writable
from sigra.errors import InvalidArgsError
from sigra.json import dumps, loads

_pgqueuer = native("pgqueuer", "pgqueuer")

_HEADER = "sigra"
"""The header in which a job's counters travel, since PgQueuer counts retries alone."""

_NOTE = """UPDATE {table} AS job
SET headers = note.headers::jsonb, attempts = note.attempts
FROM unnest($1::bigint[], $2::text[], $3::int[]) AS note (id, headers, attempts)
WHERE job.id = note.id"""
_Row: TypeAlias = tuple[int, str, int]


async def run(notes: Notes, job: Any, context: Any) -> None:
    """Run a job: the body of every worker's entrypoint."""
    counts = (job.headers or {}).get(_HEADER) or {}
    deliveries = counts.get("deliveries", 0)
    await notes.begin(job, {**counts, "deliveries": deliveries + 1})
    consumed = await aconsume(
        _read(job),
        job.entrypoint,
        "pgqueuer",
        native_id=str(job.id),
        failures=counts.get("failures"),
        snoozes=counts.get("snoozes"),
        deliveries=deliveries,
        lost=counts.get("lost"),
    )
    await _settle(notes, job, context, consumed, counts)


async def _settle(
    notes: Notes, job: Any, context: Any, consumed: Consumed, counts: Mapping[str, Any]
) -> None:
    verdict, error = consumed.verdict, consumed.verdict.error
    match verdict.state:
        case "retryable" | "scheduled":
            following = consumed.following() if consumed.delivery else counts
            counts = {name: following.get(name) for name in ("failures", "snoozes", "lost")}
            await notes.write(job, counts, spared=verdict.state == "scheduled")
            reason = None if error is None else str(writable(error))
            raise _pgqueuer.RetryRequested(timedelta(seconds=verdict.delay), reason)
        case "cancelled":
            context.cancellation.cancel()  # which PgQueuer looks at when we return
        case "discarded" if error is not None:
            # Who queues it again by hand, has all attempts anew, and events of their own.
            again = {"snoozes": consumed.delivery.snoozes + 1} if consumed.delivery else {}
            await notes.write(job, again)
            raise writable(error)


class Notes:
    """What the next deliveries of jobs have to know, in the headers of their rows.

    PgQueuer starts the jobs of a batch together: what is noted of their begins is written in one
    statement. As they end each is written alone, for PgQueuer's heartbeats lock rows meanwhile.
    """

    def __init__(self, queries: Any) -> None:
        self._driver = queries.driver
        self._statement = _NOTE.format(table=queries.qbq.qualified.queue_table)
        self._begun: list[_Row] = []
        self._written: asyncio.Task[None] | None = None

    async def begin(self, job: Any, counts: Mapping[str, Any]) -> None:
        """Return when the counts are written, with those of the jobs that begin now too."""
        self._begun.append(_row(job, counts))
        if self._written is None:
            self._written = asyncio.get_running_loop().create_task(self._write_begun())
        await asyncio.shield(self._written)

    async def write(self, job: Any, counts: Mapping[str, Any], *, spared: bool = False) -> None:
        """Write the counts; ``spared``: the retry counts for none."""
        await self._write([_row(job, counts, spared)])

    async def _write_begun(self) -> None:
        rows, self._begun, self._written = self._begun, [], None
        await self._write(rows)

    async def _write(self, rows: list[_Row]) -> None:
        columns = [*map(list, zip(*rows, strict=True))]
        try:
            await insist(lambda: self._driver.execute(self._statement, *columns))
        except Exception as error:  # the database went away: no fault of the job
            raise _pgqueuer.RetryRequested(timedelta(seconds=1)) from error


def _row(job: Any, counts: Mapping[str, Any], spared: bool = False) -> _Row:
    headers = dumps({**(job.headers or {}), _HEADER: counts}).decode()
    return job.id, headers, job.attempts - spared


def _read(job: Any) -> dict[str, Any]:
    payload = loads(job.payload or b"{}")
    if not isinstance(payload, dict):
        reason = f"args are a JSON object, not {type(payload).__qualname__}"
        raise InvalidArgsError("$", reason, job.entrypoint)
    return payload
