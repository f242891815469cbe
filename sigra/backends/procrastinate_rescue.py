"""Run jobs again that procrastinate holds to be running although they are not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from sigra.backends.external import native
from sigra.backends.insist import insist
from sigra.backends.procrastinate_notes import rows_in_memory
from sigra.errors import brief

_procrastinate = native("procrastinate", "procrastinate")

_log = logging.getLogger("sigra.job")

RESCUE = "sigra.rescue"
"""The periodic task that brings back the jobs of a worker that died."""

_FIRST = 2**31 - 1  # the largest that its column holds: no backlog keeps the look waiting

_FORGOTTEN = 30.0
"""Seconds after which procrastinate itself forgets a worker that is silent."""

_LET_GO = """
UPDATE procrastinate_jobs SET worker_id = NULL
WHERE id = %(id)s AND status = 'doing' AND worker_id = %(worker)s
"""
# In one statement with the look at its consumer: since this rescue read the job, another one may
# have brought it back, and a living consumer may have it. Only one job waits under a lock: another
# stays as it is until that one has begun, or the error would end the look.
_QUEUE_AGAIN = """
UPDATE procrastinate_jobs lost SET attempts = attempts + 1, scheduled_at = now(),
    status = (CASE WHEN abort_requested THEN 'failed' ELSE 'todo' END)::procrastinate_job_status
WHERE id = %(id)s AND status = 'doing' AND (worker_id IS NULL OR worker_id IN (
    SELECT id FROM procrastinate_workers
    WHERE last_heartbeat < now() - make_interval(secs => %(after)s)))
AND (abort_requested OR NOT EXISTS (SELECT FROM procrastinate_jobs waiting
    WHERE waiting.status = 'todo' AND waiting.queueing_lock = lost.queueing_lock))
"""
_FORGET = """
DELETE FROM procrastinate_jobs
WHERE task_name = %(name)s AND (status = 'succeeded' OR id = ANY(%(dead)s))
"""

_letting_go = set[asyncio.Task[None]]()


def let_go(context: Any, whole: asyncio.Task[Any]) -> None:
    """Give up a job whose end procrastinate could not write, as if its consumer had died.

    Otherwise it would count as running, and hold its unique key, while the consumer lives.
    """
    error = None if whole.cancelled() else whole.exception()
    if not isinstance(error, _procrastinate.exceptions.ConnectorException):
        return
    job = context.job
    unwritten = "could not record the end of job %s: it runs again"
    _log.error(unwritten, brief(str(job.id)), exc_info=error)
    facts = {"id": job.id, "worker": job.worker_id}
    write = partial(context.app.connector.execute_query_async, _LET_GO, **facts)
    task = whole.get_loop().create_task(insist(write))
    _letting_go.add(task)
    task.add_done_callback(_letting_go.discard)


def look_for_lost(app: Any, after: float | None, is_ours: Callable[[Any, str], bool]) -> None:
    """Have the app look every 10 seconds for jobs whose consumer has been silent for ``after``.

    With None it does not.
    """
    if after is None:
        return

    async def rescue(context: Any, timestamp: int) -> None:  # noqa: ARG001
        if rows_in_memory(context.app.connector) is not None:
            return  # its jobs are lost with its process
        manager, dead = context.app.job_manager, []
        write = context.app.connector.execute_query_async
        for job in await manager.get_stalled_jobs(seconds_since_heartbeat=after):
            if is_ours(context.app, job.task_name):
                await write(_QUEUE_AGAIN, id=job.id, after=after)
            elif job.task_name == RESCUE:  # its consumer died while it looked
                dead.append(job.id)
        await write(_FORGET, name=RESCUE, dead=dead)

    # A worker that starts forgets those that are silent for longer: all that they run is lost then.
    getattr(app, "worker_defaults", {}).setdefault("stalled_worker_timeout", max(after, _FORGOTTEN))
    if RESCUE not in app.tasks:
        own = {"queueing_lock": RESCUE, "priority": _FIRST}
        task = app.task(name=RESCUE, pass_context=True, **own)(rescue)
        app.periodic(cron="* * * * * */10")(task)
        _survive(app.job_manager)


def _survive(manager: Any) -> None:
    """Have a consumer leave out a look that it cannot defer: procrastinate would stop it."""
    defer = manager.defer_periodic_job

    async def defer_or_not(job: Any, **options: Any) -> Any:
        try:
            return await defer(job=job, **options)
        except _procrastinate.exceptions.ConnectorException:
            if job.task_name != RESCUE:
                raise
            _log.warning("could not defer %s, which is due again in 10 s", RESCUE, exc_info=True)
            return None

    manager.defer_periodic_job = defer_or_not
