"""Note in procrastinate's rows what the next runs of jobs need to know."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from sigra.backends.begin import ThisRun
from sigra.backends.external import native
from sigra.backends.insist import insist
from sigra.backends.jsonb import fit

_procrastinate = native("procrastinate", "procrastinate")

_COUNT = """
UPDATE procrastinate_jobs SET args = %(args)s::jsonb, attempts = %(attempts)s
WHERE id = %(id)s AND status = 'doing'
"""


def rows_in_memory(connector: Any) -> dict[int, dict[str, Any]] | None:
    """Return the rows of procrastinate's connector for tests, which takes no SQL of ours."""
    in_memory = native("procrastinate.testing", "procrastinate").InMemoryConnector
    return connector.jobs if isinstance(connector, in_memory) else None


async def note(context: Any, payload: Mapping[str, Any], attempts: int) -> None:
    """Write what the next run has to know; procrastinate adds one to attempts as this run ends.

    Raises ``AgainError`` if it cannot be written: the run then counts as one that died.
    """
    facts = {"args": fit(payload), "attempts": attempts - 1, "id": context.job.id}
    if (rows := rows_in_memory(context.app.connector)) is not None:
        rows[context.job.id] |= facts
        return
    write = partial(context.app.connector.execute_query_async, _COUNT, **facts)
    away = _procrastinate.exceptions.ConnectorException
    writing = asyncio.ensure_future(insist(write, away))
    try:
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await writing  # a stop comes too late to cut it off
    except away as error:
        raise AgainError("could not be noted in the database", 1.0) from error


def begin_notes(context: Any, payload: Mapping[str, Any], this_run: ThisRun) -> dict[str, Any]:
    """Return what ``aconsume`` takes as ``note`` and ``waits``.

    A rescue adds one to a job's attempts, and that counts as begun; so one that waits has one less.
    """
    write, attempts = partial(note, context, payload), context.job.attempts

    async def waits() -> None:
        this_run.has_begun = False
        with suppress(AgainError):
            await write(attempts)

    async def begins() -> None:
        await write(attempts + 1)
        if this_run.is_cut_off:
            raise asyncio.CancelledError
        this_run.has_begun = True

    return {"note": begins, "waits": waits}


class AgainError(Exception):
    """Have the job run again after ``delay`` seconds; procrastinate logs it with a traceback."""

    def __init__(self, why: str, delay: float) -> None:
        super().__init__(f"the job {why}, and runs again in {delay:g} s")
        self.delay = delay
