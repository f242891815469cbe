"""Write what a job's next run depends on, though the database may be away for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

_WAITS = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Seconds between the tries."""


async def insist(write: Callable[[], Awaitable[Any]], passing: type[Exception] = Exception) -> None:
    """Write until it succeeds; raise what the last try raised, or what is not ``passing``.

    ``write``: has the same effect when it is done twice, for its answer may have been cut off.
    """
    for wait in _WAITS:
        try:
            await write()
        except passing:
            await asyncio.sleep(wait)
        else:
            return
    await write()
