"""The statement that puts jobs into procrastinate's table, and what its rows say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from sigra.backends.envelope import pack
from sigra.backends.jsonb import fit
from sigra.backends.producing import due_at, unique_key
from sigra.job import Job

# In one statement, so that it sees a job as waiting or as running and not as neither (unless it
# first waits for another producer's transaction, and a worker begins that one's job at once), and
# without an error, which would end the caller's transaction.
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


def accept(jobs: Sequence[Job], rows: Sequence[Mapping[str, Any]]) -> None:
    """Tell the jobs what the statement's rows say of them."""
    if jobs[0].options.unique is None:
        for job, row in zip(jobs, rows, strict=True):
            job.accept(native_id=str(row["id"]))
        return
    # One row for each lock that was free, and so for the first job that asked for it.
    ids = {row["queueing_lock"]: str(row["id"]) for row in rows}
    for job in jobs:
        native_id = ids.pop(unique_key(job), None)
        job.accept(native_id=native_id, duplicate=native_id is None)


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
