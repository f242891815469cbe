"""Note that a job begins, or waits for a thread, and whether a run that is cut off had begun."""

from __future__ import annotations

from typing import Any

from sigra.backends.begin import ThisRun
from sigra.backends.taskiq_stream import Notes


def begin_notes(notes: Notes, id: str, before: int, this_run: ThisRun) -> dict[str, Any]:
    """Return what ``aconsume`` takes as ``note`` and ``waits``: the begin is counted already."""

    async def waits() -> None:
        this_run.has_begun = False
        await notes.count(id, before)

    async def note() -> None:
        await notes.count(id, before + 1)
        this_run.has_begun = True

    return {"note": note, "waits": waits}
