"""The statement that puts jobs into procrastinate's table."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sigra.backends.envelope import pack
from sigra.backends.jsonb import fit
from sigra.backends.producing import due_at, unique_key

if TYPE_CHECKING:
    from sigra.job import Job

# In one statement, so that it sees a job as waiting or as running and never as neither,
# and without an error, which would end the caller's transaction.
_DEFER_UNIQUE = """
INSERT INTO procrastinate_jobs
    (queue_name, task_name, priority, lock, queueing_lock, args, scheduled_at)
SELECT job.* FROM unnest(%(jobs)s::procrastinate_job_to_defer_v1[]) AS job
WHERE NOT EXISTS (
    SELECT 1 FROM procrastinate_jobs AS held
    WHERE held.queueing_lock = job.queueing_lock AND held.status IN ('todo', 'doing'))
ON CONFLICT (queueing_lock) WHERE status = 'todo' DO NOTHING
RETURNING id, queueing_lock
"""


def insert(jobs: Sequence[Job]) -> dict[str, Any]:
    """Return the query and its arguments, as a connector takes them."""
    query = _DEFER_UNIQUE
    if jobs[0].options.unique is None:
        query = import_module("procrastinate.sql").queries["defer_jobs"]
    return {"query": query, "jobs": [_native(job) for job in jobs]}


def _native(job: Job) -> Any:
    options = job.options
    return import_module("procrastinate.types").JobToDefer(
        queue_name=options.queue or "default",
        task_name=job.worker,
        priority=options.priority,
        lock=None,
        queueing_lock=unique_key(job),
        args=fit(pack(job)),
        scheduled_at=due_at(options),
    )
