"""What becomes of a job that taskiq itself cuts off, by a label ``timeout``."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sigra.backends.envelope import MARK, add_delivery
from sigra.backends.external import native

_anyio = native("anyio", "taskiq")

_AGAIN = 1.0


@asynccontextmanager
async def coming_again(
    payload: Mapping[str, Any], send: Callable[[Mapping[str, Any], float], Awaitable[None]]
) -> AsyncIterator[None]:
    """Send a job that is cut off once more, counted as one whose consumer died.

    Taskiq acknowledges it as it does one that ended. A consumer's stop, by which RabbitMQ or
    Redis delivers again what was running, passes through.
    """
    try:
        yield
    except asyncio.CancelledError:
        if MARK in payload and _anyio.current_effective_deadline() == -math.inf:
            again = dict(payload)
            add_delivery(again)
            with to_the_end():
                await send(again, _AGAIN)
        raise


def to_the_end() -> Any:
    """Return a context in which that label cuts nothing off any more."""
    return _anyio.CancelScope(shield=True)
