"""Carry jobs by Django's tasks: each worker is a task of its name in django-tasks-db's table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from sigra.backends.django_insert import check_options, commits_each, insert, transaction
from sigra.backends.django_run import WORKER, task_of
from sigra.backends.external import native
from sigra.backends.producing import able_to, accept, sending
from sigra.backends.registering import expect
from sigra.job import Job

__all__ = ["DjangoBackend", "task_of"]

_tasks = native("django.tasks", "django")
_database = native("django_tasks_db.backend", "django")
_asgiref = native("asgiref.sync", "django")


class DjangoBackend:
    """Enqueue jobs as Django tasks; ``manage.py db_worker`` runs them.

    ``alias``: the entry of the setting ``TASKS``, whose ``BACKEND`` is
    ``django_tasks_db.DatabaseBackend``; any other raises ``ValueError``. A job joins the
    transaction that is open in the tasks' database, if any; with ``conn``
    (``django.db.connection``) there must be one.

    Once a consumer has begun a job, the task ``sigra.rescue`` runs in that queue for ever, twice
    in each ``OPTIONS["sigra_rescue_after"]`` seconds (300). It runs again what a consumer took
    longer ago than that, so every job must take less; a job whose consumer died comes back
    after 1 to 1.5 times as long. If a consumer dies just after it took ``sigra.rescue``, this
    stops until the next job of the queue begins.
    """

    name = "django"
    capabilities = able_to("queue", "priority", "conn", "at_least_once")

    def __init__(self, alias: str = "default") -> None:
        what = "DjangoBackend takes the alias of an entry of TASKS, a str"
        _require_database(expect(alias, "casefold", what, "pass its name"))
        self.alias = alias

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Insert all jobs or none, in the open transaction if there is one."""
        check_options(jobs, self.alias)
        with sending(self.name):
            _require_database(self.alias)  # a test may have put another in its place
            alone = commits_each(jobs)
        with sending(self.name, jobs, whole=True, commits=alone), transaction(jobs):
            ids = [insert(job, self.alias) for job in jobs]
        accept(jobs, ids)

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Do the same in the thread where Django runs sync code."""
        await _asgiref.sync_to_async(self.enqueue)(jobs)


def _require_database(alias: str) -> None:
    backend = _tasks.task_backends[alias]
    if not isinstance(backend, _database.DatabaseBackend):
        raise ValueError(
            f"TASKS[{alias!r}] is {type(backend).__module__}.{type(backend).__qualname__}, but "
            "DjangoBackend takes django-tasks-db's alone: set its BACKEND to "
            "'django_tasks_db.DatabaseBackend' and add 'django_tasks_db' to INSTALLED_APPS"
        )


def __getattr__(name: str) -> Any:
    """Return a worker's task: the path in a row of the table names it as an attribute."""
    if not name.startswith(WORKER):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return task_of(unquote(name.removeprefix(WORKER).replace(":", ".")))
