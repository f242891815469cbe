"""Send a job again that taskiq itself cuts off, because of its label ``timeout``.

And what labels its next run has.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sigra.backends.begin import ThisRun
from sigra.backends.envelope import MARK, add_delivery
from sigra.backends.external import native

_anyio = native("anyio", "taskiq")

_AGAIN = 1.0


@asynccontextmanager
async def coming_again(
    payload: Mapping[str, Any], send: Callable[[Mapping[str, Any], float], Awaitable[None]]
) -> AsyncIterator[ThisRun]:
    """Send a job again if taskiq cuts it off; one that had begun counts as if its consumer died.

    Taskiq acknowledges it as if it had ended. At a consumer's stop nothing is sent: RabbitMQ or
    Redis then delivers again what was running.
    """
    this_run = ThisRun()
    try:
        yield this_run
    except asyncio.CancelledError:
        if MARK in payload and _anyio.current_effective_deadline() == -math.inf:
            again = dict(payload)
            if this_run.has_begun:
                add_delivery(again)
            with to_the_end():
                await send(again, _AGAIN)
        raise


def to_the_end() -> Any:
    """Return a context in which the label ``timeout`` cuts nothing off."""
    return _anyio.CancelScope(shield=True)


def lasting(message: Any) -> dict[str, Any]:
    """Return the labels of a job's next run.

    Without the times that OpenTelemetry's middleware noted: a schedule makes texts of them, with
    which it cannot count, and it would fail once that run has ended.
    """
    return {key: it for key, it in message.labels.items() if not key.startswith("_taskiq_")}
