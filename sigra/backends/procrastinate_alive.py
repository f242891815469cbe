"""Send heartbeats for a consumer that is stopping: procrastinate itself no longer does."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

_log = logging.getLogger("sigra.job")

_EVERY = 2.0
"""Seconds; it should be a small part of ``rescue_after``, by default 30."""

_running: dict[Any, tuple[set[asyncio.Task[Any]], asyncio.Task[None]]] = {}
"""Which jobs each consumer of this process has, and what sends its heartbeats."""


def keep_alive(context: Any, whole: asyncio.Task[Any]) -> None:
    """Keep other consumers from taking this one for dead until the job has ended."""
    manager, worker = context.app.job_manager, context.job.worker_id
    if worker is None:
        return
    if (manager, worker) not in _running:
        tasks = set[asyncio.Task[Any]]()
        beating = asyncio.create_task(_beat(manager, worker, tasks))
        _running[manager, worker] = tasks, beating
    tasks, _ = _running[manager, worker]
    tasks.add(whole)
    whole.add_done_callback(tasks.discard)


async def _beat(manager: Any, worker: int, tasks: set[asyncio.Task[Any]]) -> None:
    try:
        while True:
            await asyncio.sleep(_EVERY)
            if not tasks:
                return
            try:
                await manager.update_heartbeat(worker)
            except Exception:
                what = "could not send the heartbeat of procrastinate worker %s, which is stopping"
                _log.warning(what, worker, exc_info=True)
    finally:
        del _running[manager, worker]
