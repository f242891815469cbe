"""Warn of a consumer that starts and knows no worker, where its queue would not say so."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from sigra import catalog

_log = logging.getLogger("sigra.job")


def warn_if_none(consequence: str, cure: str) -> None:
    """Log a warning if no worker is known."""
    if not catalog.definitions():
        _log.warning("this consumer knows no worker: %s; %s", consequence, cure)


def warn_at_start(
    app: Any, start: str, consequence: str, cure: str, load: Callable[[], Any] = int
) -> None:
    """Have an app's async method ``start`` do so once ``load`` has imported the app's modules."""
    begin = getattr(app, start, None)
    if not inspect.iscoroutinefunction(begin) or begin.__module__ == __name__:
        return  # it cannot be started, or a second backend has come

    async def warn_and_begin(*args: Any, **options: Any) -> Any:
        load()
        warn_if_none(consequence, cure)
        return await begin(*args, **options)

    setattr(app, start, warn_and_begin)
