"""Have procrastinate's consumer fetch any row, where one that it cannot read or log ended it.

What it could read stays as it was: native tasks have such args, and queries such answers.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

from sigra.backends.external import native
from sigra.json import get_referents

_psycopg = native("psycopg", "procrastinate")
_JSONB = _psycopg.postgres.types["jsonb"].oid

_DEEPEST = 256
"""How many levels Python's recursion limit allows where procrastinate logs the args."""

_REFUSED = {"no object, or too deep": math.inf}
"""Args that ``unpack`` refuses."""


def fetch_any(app: Any) -> None:
    """Have a consumer of the app fetch any row, unless its connector has JSON of its own."""
    if getattr(app.connector, "_json_loads", _read) is None:
        app.connector._json_loads = _read
        fetch = app.job_manager.fetch_job

        async def fetch_loggable(*args: Any, **options: Any) -> Any:
            job = await fetch(*args, **options)
            return job and job.evolve(task_kwargs=_loggable(job.task_kwargs))

        app.job_manager.fetch_job = fetch_loggable


def _read(data: bytes) -> Any:
    """Read a value as psycopg is set to, or else, whatever it is, without an error.

    One would end each consumer that fetches the row. An int beyond Python's limit of digits is
    infinite, and what is nested too deep is what ``unpack`` refuses.
    """
    try:
        loader = _psycopg.adapters.get_loader(_JSONB, _psycopg.pq.Format.TEXT)
        return loader(_JSONB).load(data)
    except Exception:
        with suppress(RecursionError):
            return json.loads(data, parse_int=_read_int)
    return {**_REFUSED}


def _read_int(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def _loggable(args: Any) -> Any:
    """Return a row's args, or, if a queue could not log them, what ``unpack`` refuses too."""
    return args if isinstance(args, dict) and not _is_deep(args) else {**_REFUSED}


def _is_deep(args: Any) -> bool:
    near = [args]
    return all(near := get_referents(*near) for _ in range(_DEEPEST))
