"""Carry jobs by Django's tasks: each worker is a task of its name in django-tasks-db's table."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any
from urllib.parse import unquote

from sigra.backends.django_rescue import due_in, rows
from sigra.backends.django_run import WORKER, task_of
from sigra.backends.envelope import pack
from sigra.backends.external import native
from sigra.backends.jsonb import fit
from sigra.backends.producing import able_to, sending
from sigra.errors import EnqueueError, InvalidOptionError
from sigra.job import Job

__all__ = ["DjangoBackend", "task_of"]

_tasks = native("django.tasks", "django")
_limits = native("django.tasks.base", "django")
_database = native("django_tasks_db.backend", "django")
_db = native("django.db", "django")
_timezone = native("django.utils.timezone", "django")
_settings = native("django.conf", "django").settings
_asgiref = native("asgiref.sync", "django")


class DjangoBackend:
    """Enqueue jobs as Django tasks; ``manage.py db_worker`` runs them.

    ``alias``: the entry of the setting ``TASKS``, whose ``BACKEND`` is
    ``django_tasks_db.DatabaseBackend``. A job becomes part of the open transaction of the
    tasks' database; ``conn`` (``django.db.connection``) says that it has to.

    Once a consumer has begun a job, the task ``sigra.rescue`` runs in that queue twice in
    ``OPTIONS["sigra_rescue_after"]`` seconds (300), for ever. What a consumer took longer ago
    than that is run again, so let the longest job take less: a job of a consumer that died
    comes back after one to one and a half times as long. A consumer that dies in the instant
    in which it took ``sigra.rescue`` ends that, until the next job of the queue begins. Raises
    ``ValueError`` for another backend.
    """

    name = "django"
    capabilities = able_to("queue", "priority", "conn", "at_least_once")

    def __init__(self, alias: str = "default") -> None:
        backend = _tasks.task_backends[alias]
        if not isinstance(backend, _database.DatabaseBackend):
            raise ValueError(
                f"TASKS[{alias!r}] is {type(backend).__qualname__}, which has no consumers: set "
                "its BACKEND to 'django_tasks_db.DatabaseBackend' and add 'django_tasks_db' to "
                "INSTALLED_APPS"
            )
        self.alias = alias

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Insert all jobs or none, in the transaction that is open, if one is."""
        for job in jobs:
            if abs(job.options.priority) > _limits.TASK_MAX_PRIORITY:
                reason = "Django's tasks have priorities from -100 to 100"
                raise InvalidOptionError("priority", reason, job.worker)
        with sending(self.name), self._transaction(jobs):
            ids = [str(self._native(job).enqueue(**fit(pack(job))).id) for job in jobs]
        for job, native_id in zip(jobs, ids, strict=True):
            job.accept(native_id=native_id)

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Do the same in the thread where Django runs sync code."""
        await _asgiref.sync_to_async(self.enqueue)(jobs)

    def _transaction(self, jobs: Sequence[Job]) -> AbstractContextManager[Any]:
        conn, batch = jobs[0].options.conn, len(jobs) > 1
        if conn is None and not batch:
            return nullcontext()
        database = rows().db
        if conn is not None and conn != _db.connections[database]:
            reason = f"conn is not this thread's django.db.connections[{database!r}]"
            raise EnqueueError(self.name, f"{reason}, where the tasks are kept")
        return _db.transaction.atomic(using=database) if batch else nullcontext()

    def _native(self, job: Job) -> Any:
        options = job.options
        task = _placed(job.worker, self.alias, options.queue, options.priority)
        if options.delay is not None:
            return task.using(run_after=due_in(options.delay))
        due = options.run_at
        if due is not None:
            return task.using(run_after=due if _settings.USE_TZ else _timezone.make_naive(due))
        return task


@cache
def _placed(worker: str, alias: str, queue: str | None, priority: int) -> Any:
    return task_of(worker).using(backend=alias, queue_name=queue, priority=priority)


def __getattr__(name: str) -> Any:
    """Make the task that the path in a row of the table names."""
    if not name.startswith(WORKER):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return task_of(unquote(name.removeprefix(WORKER).replace(":", ".")))
