"""Insert jobs into django-tasks-db's table, each as a task, in a transaction if need be."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

from sigra.backends.django_rescue import rows
from sigra.backends.django_run import task_of
from sigra.backends.envelope import pack
from sigra.backends.external import native
from sigra.backends.jsonb import fit
from sigra.backends.producing import NO_TRANSACTION, check_texts, due_at
from sigra.errors import InvalidOptionError, brief
from sigra.job import Job

_tasks = native("django.tasks", "django")
_limits = native("django.tasks.base", "django")
_db = native("django.db", "django")
_settings = native("django.conf", "django").settings


def check_options(jobs: Sequence[Job], alias: str) -> None:
    """Raise ``InvalidOptionError`` for a priority or a queue that Django's tasks do not have."""
    for job in jobs:
        if job.options.queue is not None:
            _check_queue(job, job.options.queue, alias)
        if abs(job.options.priority) > _limits.TASK_MAX_PRIORITY:
            reason = "it must be from -100 to 100, the range of Django's tasks"
            raise InvalidOptionError("priority", reason, job.worker)


def _check_queue(job: Job, queue: str, alias: str) -> None:
    known, table = _tasks.task_backends[alias].queues, rows()
    if known and queue not in known:
        names = ", ".join(sorted(known))
        reason = f"TASKS[{alias!r}] has no queue {brief(queue)!r}; it has {names}"
        raise InvalidOptionError("queue", reason, job.worker)
    if _db.connections[table.db].vendor == "postgresql":
        check_texts(job, table.model._meta.get_field("queue_name").max_length)


def transaction(jobs: Sequence[Job]) -> AbstractContextManager[Any]:
    """Return the context in which jobs are inserted: a transaction if there are several.

    Raises ``InvalidOptionError`` for a ``conn`` that no job can be part of.
    """
    conn, batch = jobs[0].options.conn, len(jobs) > 1
    if conn is None and not batch:
        return nullcontext()
    database = rows().db
    if conn is not None:
        own = _db.connections[database]
        if conn != own:
            reason = (
                f"it must be this thread's django.db.connections[{database!r}], where tasks are"
            )
            raise InvalidOptionError("conn", reason, jobs[0].worker)
        if own.get_autocommit():
            raise InvalidOptionError("conn", NO_TRANSACTION, jobs[0].worker)
    return _db.transaction.atomic(using=database) if batch else nullcontext()


def commits_each(jobs: Sequence[Job]) -> bool:
    """Tell whether the statement that inserts a job is a transaction of its own."""
    return len(jobs) == 1 and not _db.connections[rows().db].in_atomic_block


def insert(job: Job, alias: str) -> Any:
    """Enqueue a job as its worker's task; return the row's id.

    ``alias``: the entry of ``TASKS``.
    """
    options, due = job.options, due_at(job.options)
    task = _placed(job.worker, alias, options.queue, options.priority)
    if due is not None:
        run_after = due if _settings.USE_TZ else due.astimezone().replace(tzinfo=None)
        task = task.using(run_after=run_after)
    return task.enqueue(**fit(pack(job))).id


@cache
def _placed(worker: str, alias: str, queue: str | None, priority: int) -> Any:
    return task_of(worker).using(backend=alias, queue_name=queue, priority=priority)
