"""Insert Oban's jobs by a connection that blocks: Oban itself only awaits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from inspect import isawaitable
from typing import Any

from sigra.backends.pool import OwnPool


@cache
def pool_like(pool: Any) -> Any:
    """Make a blocking pool like the instance's own."""
    conninfo, kwargs = _made(pool.conninfo), _made(pool.kwargs)
    return OwnPool(conninfo, kwargs=kwargs, max_size=pool.max_size, timeout=pool.timeout)


def _made(given: Any) -> Any:
    """Return what a pool is given, or a function that waits for what an async one makes of it."""
    return (lambda: asyncio.run(_awaited(given))) if callable(given) else given


async def _awaited(given: Any) -> Any:
    made = given()
    return await made if isawaitable(made) else made


def insert(oban: Any, natives: Sequence[Any], conn: Any) -> None:
    """Insert the jobs by the instance's own coroutine, which never waits here."""
    work = oban.enqueue_many(natives, conn=_Awaited(conn))
    with suppress(StopIteration):
        work.send(None)
        work.close()
        raise RuntimeError("Oban waited for something other than the connection that it was given")


class _Awaited:
    """Give a blocking connection, or its cursor, the form that Oban awaits."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def execute(self, *args: Any) -> _Awaited:
        return _Awaited(self._inner.execute(*args))

    async def fetchone(self) -> Any:
        return self._inner.fetchone()
