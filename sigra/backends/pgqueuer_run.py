"""What PgQueuer's consumer runs for a job, and what came of it in PgQueuer's words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sigra.backends.external import Consumed, aconsume, native
from sigra.backends.jsonb import writable
from sigra.errors import InvalidArgsError
from sigra.json import dumps, loads

_pgqueuer = native("pgqueuer", "pgqueuer")

_HEADER = "sigra"
"""The header in which a job's counters travel, since PgQueuer counts retries alone."""

_NOTE = "UPDATE {table} SET headers = $2::jsonb, attempts = attempts - $3 WHERE id = $1"


async def run(queries: Any, job: Any, context: Any) -> None:
    """Be the body of every worker's entrypoint."""
    counts = (job.headers or {}).get(_HEADER) or {}
    deliveries = counts.get("deliveries", 0)
    await _note(queries, job, {**counts, "deliveries": deliveries + 1})
    consumed = await aconsume(
        _read(job),
        job.entrypoint,
        "pgqueuer",
        native_id=str(job.id),
        failures=counts.get("failures"),
        snoozes=counts.get("snoozes"),
        deliveries=deliveries,
    )
    await _settle(queries, job, context, consumed, counts)


async def _settle(
    queries: Any, job: Any, context: Any, consumed: Consumed, counts: Mapping[str, Any]
) -> None:
    verdict, error = consumed.verdict, consumed.verdict.error
    match verdict.state:
        case "retryable" | "scheduled":
            following = consumed.following() if consumed.delivery else counts
            counts = {name: following.get(name) for name in ("failures", "snoozes")}
            await _note(queries, job, counts, spared=verdict.state == "scheduled")
            reason = None if error is None else str(writable(error))
            raise _pgqueuer.RetryRequested(timedelta(seconds=verdict.delay), reason)
        case "cancelled":
            context.cancellation.cancel()  # which PgQueuer looks at when we return
        case "discarded" if error is not None:
            await _note(queries, job, {})  # who queues it again by hand, has all attempts anew
            raise writable(error)


async def _note(queries: Any, job: Any, counts: Mapping[str, Any], *, spared: bool = False) -> None:
    """Write what the next delivery has to know; ``spared``: the retry counts for none."""
    statement = _NOTE.format(table=queries.qbq.qualified.queue_table)
    headers = dumps({**(job.headers or {}), _HEADER: counts}).decode()
    try:
        await queries.driver.execute(statement, job.id, headers, int(spared))
    except Exception as error:  # the database went away: no fault of the job
        raise _pgqueuer.RetryRequested(timedelta(seconds=1)) from error


def _read(job: Any) -> dict[str, Any]:
    payload = loads(job.payload or b"{}")
    if not isinstance(payload, dict):
        reason = f"args are a JSON object, not {type(payload).__qualname__}"
        raise InvalidArgsError("$", reason, job.entrypoint)
    return payload
