"""Write what a job's next run depends on, even if the database is away for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

WAITS = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Seconds between the tries."""


async def insist(
    write: Callable[[], Awaitable[Any]],
    passing: type[Exception] | tuple[type[Exception], ...] = Exception,
) -> None:
    """Write, and try again up to five times; raise the last error, or the first not ``passing``.

    ``write``: it must have the same effect when done twice, because its answer may be lost.
    """
    for wait in WAITS:
        try:
            await write()
        except passing:
            await asyncio.sleep(wait)
        else:
            return
    await write()
