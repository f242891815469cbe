"""Have procrastinate's consumer fetch any row, where one that it cannot read or log ended it.

What it could read stays as it was: native tasks have such args, and queries such answers.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from typing import Any

from sigra.backends.envelope import MARK
from sigra.backends.external import native
from sigra.json import get_referents

_procrastinate = native("procrastinate", "procrastinate")
_psycopg = native("psycopg", "procrastinate")
_JSON = [_psycopg.postgres.types[name].oid for name in ("json", "jsonb")]

_DEEPEST = 256
"""How many levels Python's recursion limit allows where procrastinate logs the args."""

_REFUSED = {"no object, or too deep": math.inf}
"""Args that ``unpack`` refuses."""


def fetch_any(app: Any, add: Callable[[str], object]) -> None:
    """Have a consumer of the app fetch any row; call ``add`` with the name of each job's worker."""
    fetch = app.job_manager.fetch_job
    if fetch.__module__ == __name__:
        return

    async def fetch_loggable(*args: Any, **options: Any) -> Any:
        # Asked each time: Django's consumer has another connector than its producers.
        is_read = isinstance(app.connector, _procrastinate.PsycopgConnector)
        if is_read:
            _read_any(app.connector)
        job = await fetch(*args, **options)
        if job and is_read:
            job = job.evolve(task_kwargs=_loggable(job.task_kwargs))
        if job and MARK in job.task_kwargs:
            add(job.task_name)
        return job

    app.job_manager.fetch_job = fetch_loggable


def _read_any(connector: Any) -> None:
    """Have a connector read any JSON, in what way it is set to."""
    own = connector._get_cursor
    if own.__module__ == __name__:
        return

    @asynccontextmanager
    async def get_cursor(*args: Any, **options: Any) -> AsyncIterator[Any]:
        async with own(*args, **options) as cursor:
            for oid in _JSON:
                loader = cursor.adapters.get_loader(oid, _psycopg.pq.Format.TEXT)
                cursor.adapters.register_loader(oid, _surely(loader))
            yield cursor

    connector._get_cursor = get_cursor


@lru_cache(8)
def _surely(loader: Any) -> Any:
    """Return the loader as one that reads a value, whatever it is, without an error.

    One would end each consumer that fetches the row. An int beyond Python's limit of digits is
    infinite, and what is nested too deep is what ``unpack`` refuses.
    """

    class Surely(loader):  # type: ignore[misc]
        def load(self, data: Any) -> Any:
            with suppress(Exception):
                return super().load(data)
            with suppress(RecursionError):
                return json.loads(bytes(data), parse_int=_read_int)
            return {**_REFUSED}

    return Surely


def _read_int(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def _loggable(args: Any) -> Any:
    """Return a row's args, or, if a queue could not log them, what ``unpack`` refuses too."""
    return args if isinstance(args, Mapping) and not _is_deep(args) else {**_REFUSED}


def _is_deep(args: Any) -> bool:
    near = [args]
    for _ in range(_DEEPEST):
        # Of an object that the application's own JSON makes, a reader would go through all modules.
        near = [each for each in get_referents(*near) if isinstance(each, (dict, list))]
    return bool(near)
