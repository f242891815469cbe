"""Make SAQ's job of one of ours, run it in SAQ's consumer, and tell SAQ what came of it."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from functools import partial
from typing import Any

from sigra.backends.cut_off import by_saq
from sigra.backends.direct import refuse_direct
from sigra.backends.envelope import pack
from sigra.backends.external import Consumed, aconsume, ends_in, failures_in, native
from sigra.backends.native_error import error_text
from sigra.backends.producing import due_at, unique_key
from sigra.backends.saq_begin import begin_notes
from sigra.backends.saq_ended import end, go_on, had_ended, settle
from sigra.backends.saq_lost import AGAIN, beat, heartbeat_for, heartbeat_of
from sigra.backends.saq_write import GoneError
from sigra.job import Job

_saq = native("saq", "saq")

_KEEP_DEAD = 365 * 24 * 3600
"""Seconds that a failed job is kept; SAQ itself would forget it after ten minutes."""


def native_job(job: Job, queue: Any, heartbeat: int) -> Any:
    """Return the job as one of SAQ's; ``heartbeat``: seconds, see ``SaqBackend``."""
    options, due = job.options, due_at(job.options)
    return _saq.Job(
        job.worker,
        kwargs=pack(job),
        key=unique_key(job) or job.id,
        scheduled=0 if due is None else math.ceil(due.timestamp()),
        timeout=0,
        retries=options.max_attempts + 1,  # one more, to refuse what kills consumers
        retry_delay=AGAIN,
        ttl=_KEEP_DEAD,
        **heartbeat_for(queue, heartbeat),
    )


async def run(context: dict[str, Any], /, **payload: Any) -> None:
    """Run a job: the body of every worker's function."""
    job, worker = context["job"], context["worker"]
    job.retry_delay = AGAIN
    if await had_ended(job):
        return
    attempts = job.attempts
    lost = max(0, attempts - 1 - ends_in(payload))
    facts: Any = {"native_id": job.key, "cut_off": partial(by_saq, worker, job), "deliveries": lost}
    facts |= begin_notes(job)
    work = asyncio.ensure_future(aconsume(payload, job.function, "saq", **facts))
    every = pause = heartbeat_of(job) / 3
    try:
        while not (await asyncio.wait({work}, timeout=pause or None))[0]:
            pause = every if await beat(job) else min(every, AGAIN)
    except asyncio.CancelledError:
        stops = worker.event.is_set()
        work.cancel()
        await asyncio.wait({work})
        if stops:  # only now: what begins meanwhile is written as an attempt
            job.attempts = attempts - 1  # SAQ runs it again: this is none
        raise
    with suppress(GoneError):  # it is another's to write what comes of it
        await _settle(job, work.result())
    settle(job)


def named(name: str) -> Any:
    """Return ``run`` under a worker's name, by which SAQ knows a function that comes alone."""

    async def own(context: dict[str, Any], /, **payload: Any) -> None:
        job = context.get("job")
        refuse_direct(name, job.key if job and job.function == name else None)
        await run(context, **payload)

    own.__qualname__ = name
    return own


async def _settle(job: Any, consumed: Consumed) -> None:
    verdict = consumed.verdict
    error = None if verdict.error is None else error_text(verdict.error)
    match verdict.state:
        case "retryable" | "scheduled":
            job.kwargs = consumed.following()
            job.attempts = failures_in(job.kwargs)
            job.retry_delay = verdict.delay + 1.0  # SAQ cuts fractions off; this run must be over
            await go_on(job, error)
        case _:
            job.kwargs = consumed.by_hand(job.attempts)  # for the button in SAQ's page
            soon = type(job).ttl
            if verdict.state == "completed":
                job.ttl = soon
            elif job.ttl == soon:  # it completed before this run by hand, or SAQ's own API sent it
                job.ttl = _KEEP_DEAD
            await end(job, verdict.state, error)
