"""Carry jobs by Django's tasks: each worker is a task of its name in django-tasks-db's table."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from sigra import catalog
from sigra.backend import Capability
from sigra.backends.envelope import MARK, pack
from sigra.backends.external import WAIT_FOR_DEPLOY, consume, native, sending
from sigra.backends.jsonb import fit, unfit
from sigra.errors import EnqueueError, InvalidOptionError, UnknownWorkerError

if TYPE_CHECKING:
    from sigra.definition import Definition
    from sigra.job import Job

_tasks = native("django.tasks", "django")
_limits = native("django.tasks.base", "django")
_database = native("django_tasks_db.backend", "django")
_db = native("django.db", "django")
_settings = native("django.conf", "django").settings
_asgiref = native("asgiref.sync", "django")

_log = logging.getLogger("sigra.job")

_PATH = "worker:"
_RESCUE = "rescue"
_RESCUE_AFTER = 300.0


class DjangoBackend:
    """Enqueue jobs as Django tasks; ``manage.py db_worker`` runs them.

    ``alias``: the entry of the setting ``TASKS``, whose ``BACKEND`` is
    ``django_tasks_db.DatabaseBackend``. A job becomes part of the open transaction of the
    tasks' database; ``conn`` (``django.db.connection``) says that it has to. A job whose
    consumer died runs again ``OPTIONS["sigra_rescue_after"]`` seconds after it began, or up
    to half as long again (by default 300; more than the longest job takes). The task
    ``sigra.rescue`` looks for such jobs. Raises ``ValueError`` for another backend.
    """

    name = "django"
    capabilities: frozenset[Capability] = frozenset(
        {"queue", "priority", "delay", "run_at", "max_attempts", "backoff", "conn", "native"}
    )

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
        with sending(self.name):
            database = _db.router.db_for_write(_rows())
            conn = jobs[0].options.conn
            if conn is not None and conn != _db.connections[database]:
                reason = f"conn is not this thread's django.db.connections[{database!r}]"
                raise EnqueueError(self.name, f"{reason}, where the tasks are kept")
            with _db.transaction.atomic(using=database):
                tasks = [self._task(job) for job in jobs]
                sent = zip(jobs, tasks, strict=True)
                ids = [str(task.enqueue(**fit(pack(job))).id) for job, task in sent]
                _watch(tasks[0])  # a batch is of one worker and for one queue
        for job, native_id in zip(jobs, ids, strict=True):
            job.accept(native_id=native_id)

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Do the same in the thread where Django runs sync code."""
        await _asgiref.sync_to_async(self.enqueue)(jobs)

    def _task(self, job: Job) -> Any:
        options = job.options
        due = options.run_at
        if options.delay is not None:
            due = datetime.now(timezone.utc) + timedelta(seconds=options.delay)
        return task_of(job.worker).using(
            backend=self.alias,
            queue_name=options.queue,
            priority=options.priority,
            run_after=None if due is None else _moment(due),
        )


@cache
def task_of(worker: str) -> Any:
    """Return the native task of the worker of that name: what hand-built jobs are sent by."""

    def run(context: Any, /, **payload: Any) -> None:
        _run(worker, context, payload)

    # A path has no dots after the module's name: Django takes the last for the attribute's.
    path = worker.replace("%", "%25").replace(":", "%3A").replace(".", ":")
    run.__module__, run.__qualname__, run.__name__ = __name__, _PATH + path, worker
    return _native_task(run)


@cache
def _rescuer() -> Any:
    def rescue(context: Any, /) -> None:
        _rescue(context)

    rescue.__module__, rescue.__qualname__, rescue.__name__ = __name__, _RESCUE, "sigra.rescue"
    return _native_task(rescue)


def _native_task(function: Any) -> Any:
    alias = next(iter(_tasks.task_backends))
    queues = _tasks.task_backends[alias].queues or {_tasks.DEFAULT_TASK_QUEUE_NAME}
    queue = min(queues, key=lambda name: (name != _tasks.DEFAULT_TASK_QUEUE_NAME, name))
    return _tasks.task(backend=alias, queue_name=queue, takes_context=True)(function)


def __getattr__(name: str) -> Any:
    """Return the task that the path in a row of the table names."""
    if name == _RESCUE:
        return _rescuer()
    if not name.startswith(_PATH):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return task_of(unquote(name.removeprefix(_PATH).replace(":", ".")))


def _run(worker: str, context: Any, payload: Mapping[str, Any]) -> None:
    """Be the body of every worker's task."""
    task, row = context.task_result.task, context.task_result.db_result
    _count_delivery(row)
    payload = unfit(payload)
    try:
        definition = _find(worker)
    except UnknownWorkerError as error:
        _log.error("job %s waits: %s", row.id, error)
        _send_again(task, payload, WAIT_FOR_DEPLOY)
        raise
    consumed = consume(payload, definition, DjangoBackend.name, native_id=str(row.id))
    verdict = consumed.verdict
    if verdict.state in ("retryable", "scheduled"):
        _send_again(task, consumed.following(), verdict.delay)
    verdict.unwrap()


def _count_delivery(row: Any) -> None:
    """Write down that the job begins, for the consumer after one that dies with it."""
    payload = row.args_kwargs["kwargs"]
    if MARK in payload:
        payload["deliveries"] = payload.get("deliveries", 0) + 1
        row.save(update_fields=["args_kwargs"])


def _rescue(context: Any) -> None:
    """Let the jobs of consumers that died run again, and look again while jobs are left."""
    own = context.task_result.task
    ours = _rows().objects.filter(task_path__startswith=f"{__name__}.{_PATH}")
    _watch(own)  # first: this consumer may die too
    limit = _moment(datetime.now(timezone.utc) - timedelta(seconds=_rescue_after(own)))
    lost = ours.running().filter(started_at__lte=limit, args_kwargs__kwargs__sigra__isnull=False)
    for row in lost:
        _log.error("job %s runs again: its consumer died, or takes too long", row.id)
        lost.filter(id=row.id, started_at=row.started_at).update(status="READY")
    own_rows = _rows().objects.filter(task_path=own.module_path, queue_name=own.queue_name)
    own_rows.successful().delete()
    if not ours.filter(status__in=("READY", "RUNNING")).exists():
        own_rows.filter(status="READY").delete()


def _watch(task: Any) -> None:
    """Have ``_rescue`` run soon on the task's queue, unless that is to come anyway."""
    rescue = _rescuer().using(
        backend=task.backend, queue_name=task.queue_name, priority=_limits.TASK_MAX_PRIORITY
    )
    waiting = _rows().objects.filter(
        task_path=rescue.module_path, queue_name=rescue.queue_name, status="READY"
    )
    if not waiting.exists():
        _send_again(rescue, {}, _rescue_after(task) / 2)


def _rescue_after(task: Any) -> float:
    seconds: float = task.get_backend().options.get("sigra_rescue_after", _RESCUE_AFTER)
    return seconds


def _send_again(task: Any, payload: Mapping[str, Any], seconds: float) -> Any:
    due = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    return task.using(run_after=_moment(due)).enqueue(**fit(payload))


def _find(worker: str) -> Definition:
    """Look the worker up; import its module first if need be, as Django does with tasks."""
    try:
        return catalog.lookup(worker)
    except UnknownWorkerError:
        try:
            import_module(worker.rpartition(".")[0] or worker)
        except ImportError as error:
            raise UnknownWorkerError(worker) from error
    return catalog.lookup(worker)


def _rows() -> Any:
    """Return the table's model, which is there only once Django's apps are loaded."""
    return import_module("django_tasks_db.models").DBTaskResult


def _moment(due: datetime) -> datetime:
    return due if _settings.USE_TZ else due.astimezone().replace(tzinfo=None)
