"""Run a job in PgQueuer's consumer, and tell PgQueuer what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

from sigra.backends.external import Consumed, aconsume, native
from sigra.backends.jsonb import writable
from sigra.backends.none_known import warn_at_start
from sigra.backends.pgqueuer_notes import Notes, counts_of
from sigra.errors import InvalidArgsError
from sigra.json import loads

_pgqueuer = native("pgqueuer", "pgqueuer")


async def run(notes: Notes, job: Any, context: Any) -> None:
    """Run a job: the body of every worker's entrypoint."""
    counts = counts_of(job)
    deliveries = counts.get("deliveries", 0)
    counts = {**counts, "deliveries": deliveries + 1}
    work = aconsume(
        _read(job),
        job.entrypoint,
        "pgqueuer",
        native_id=str(job.id),
        note=partial(notes.begin, job, counts),
        failures=counts.get("failures"),
        snoozes=counts.get("snoozes"),
        deliveries=deliveries,
        lost=counts.get("lost"),
    )
    await _settle(notes, job, context, await _unless_cut_off(work), counts)


async def _unless_cut_off(work: Coroutine[Any, Any, Consumed]) -> Consumed:
    """Run a job to its end, also where PgQueuer, which has lost its server, cancels it.

    PgQueuer would write down that somebody cancelled the job, and delete it.
    """
    running = asyncio.ensure_future(work)
    while not running.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({running})
    return running.result()


async def _settle(
    notes: Notes, job: Any, context: Any, consumed: Consumed, counts: Mapping[str, Any]
) -> None:
    verdict, error = consumed.verdict, consumed.verdict.error
    match verdict.state:
        case "retryable" | "scheduled":
            counts = _history(consumed.following() if consumed.delivery else counts)
            await notes.write(job, counts, job.attempts - (verdict.state == "scheduled"))
            reason = None if error is None else str(writable(error))
            raise _pgqueuer.RetryRequested(timedelta(seconds=verdict.delay), reason)
        case "cancelled":
            context.cancellation.cancel()  # which PgQueuer looks at when we return
        case "discarded" if error is not None:
            # A run by hand has all attempts again; by one snooze more its events get new ids.
            # If the job was not read, that run is the one that was due.
            delivery = consumed.delivery
            again = {"snoozes": delivery.snoozes + 1} if delivery else _history(counts)
            await notes.write_end(job, counts, again)
            raise _final(writable(error))


def _history(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is counted of earlier runs, without the deliveries of this one."""
    return {name: counts.get(name) for name in ("failures", "snoozes", "lost")}


def watch_start(native: Any) -> None:
    """Have a consumer warn if it starts without a worker."""
    warn_at_start(native, "run", "jobs of one wait", "import the workers' modules in that of main")


def _final(error: Exception) -> Exception:
    """Return the error itself, or one of its name and text where PgQueuer would retry the job."""
    asks: Any = _pgqueuer.RetryRequested
    group = isinstance(error, BaseExceptionGroup) and error.subgroup(asks)
    return RuntimeError(repr(error)) if isinstance(error, asks) or group else error


def _read(job: Any) -> dict[str, Any]:
    payload = loads(job.payload or b"{}")
    if not isinstance(payload, dict):
        reason = f"args are a JSON object, not {type(payload).__qualname__}"
        raise InvalidArgsError("$", reason, job.entrypoint)
    return payload
