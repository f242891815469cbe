"""Run jobs again whose Django consumer died: this is what the task ``sigra.rescue`` does."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from importlib import import_module
from typing import Any

from sigra.backends.envelope import MARK, add_delivery
from sigra.backends.external import native
from sigra.backends.jsonb import fit, writable
from sigra.errors import brief
from sigra.verdict import Verdict

_db = native("django.db", "django")
_limits = native("django.tasks.base", "django")
_timezone = native("django.utils.timezone", "django")

_log = logging.getLogger("sigra.job")

RESCUE = "sigra.rescue"
_AFTER = 300.0


def watch(task: Any, rescue: Any) -> None:
    """Enqueue the task ``rescue`` in the queue of ``task``, unless it waits there already."""
    rescue = rescue.using(
        backend=task.backend, queue_name=task.queue_name, priority=_limits.TASK_MAX_PRIORITY
    )
    if not _rows_of(rescue).filter(status="READY").exists():
        send_again(rescue, {}, _after(task) / 2)


def count_delivery(row: Any) -> None:
    """Write one more delivery into the row: if this consumer dies, the next one sees it."""
    payload = row.args_kwargs["kwargs"]
    if MARK in payload:
        add_delivery(payload)
        row.save(update_fields=["args_kwargs"])


def rescue(own: Any, path: str) -> None:
    """Queue again the jobs whose task's path begins with ``path`` and that began too long ago."""
    watch(own, own)  # first: this consumer may die too
    earlier = {"started_at__lte": due_in(-_after(own))}
    jobs = rows().running().filter(backend_name=own.backend, task_path__startswith=path, **earlier)
    lost = jobs.filter(args_kwargs__kwargs__sigra__isnull=False)
    for row in lost:
        what = "job %s runs again: its consumer died, or it took longer than sigra_rescue_after"
        _log.error(what, brief(str(row.id)))
        lost.filter(id=row.id).update(status="READY")
    _rows_of(own).filter(**earlier).exclude(status="FAILED").delete()


def go_on(result: Any, payload: Mapping[str, Any], verdict: Verdict) -> None:
    """Enqueue the next run of a job, and end this run's row in the same transaction.

    Otherwise, if the consumer died before Django ends the row, ``rescue`` would run the job again
    beside its next run.
    """
    row = result.db_result
    with _db.transaction.atomic(using=rows().db):
        if verdict.error is None:
            row.set_successful(None)
        else:
            row.set_failed(writable(verdict.error))
        send_again(result.task, payload, verdict.delay)
    _keep(row)


def end(result: Any, payload: Mapping[str, Any], error: BaseException) -> None:
    """End a failed job's row, with what a run that somebody asks for by hand is to have.

    In one transaction: if the consumer died in between, ``rescue`` would run the job again.
    """
    row, kept = result.db_result, fit(payload)
    if type(kept.get("deliveries")) is int:
        kept["deliveries"] = 0  # of a job that was refused unread too
    with suppress(_db.Error):
        with _db.transaction.atomic(using=rows().db):
            row.set_failed(error)
            row.args_kwargs["kwargs"] = kept
            row.save(update_fields=["args_kwargs"])
        _keep(row)


def _keep(row: Any) -> None:
    """Keep Django from ending the row too: it would undo what somebody has made of it since."""
    row.set_failed = row.set_successful = lambda _: None


@contextmanager
def lost_if_unwritten(row: Any) -> Iterator[None]:
    """If the database fails in the block, leave the job as if its consumer had died.

    Django itself would mark it as failed if the database is back by then, and it would not run
    again.
    """
    try:
        yield
    except _db.Error:
        what = "could not write the state of job %s: it is rescued as if its consumer had died"
        _log.exception(what, brief(str(row.id)))
        row.status, row.set_failed = "RUNNING", lambda _: None
        raise


def send_again(task: Any, payload: Mapping[str, Any], seconds: float) -> None:
    """Enqueue the task once more, due in ``seconds``."""
    task.using(run_after=due_in(seconds)).enqueue(**fit(payload))


def due_in(seconds: float) -> Any:
    """Return now plus ``seconds``; with a time zone if Django's settings use them."""
    return _timezone.now() + timedelta(seconds=seconds)


def rows() -> Any:
    """Return the table's rows; its model is there only once Django's apps are loaded."""
    model = import_module("django_tasks_db.models").DBTaskResult
    return model.objects.using(_db.router.db_for_write(model))  # no replica, which may lag


def _rows_of(task: Any) -> Any:
    return rows().filter(
        backend_name=task.backend, queue_name=task.queue_name, task_path=task.module_path
    )


def _after(task: Any) -> float:
    seconds: float = task.get_backend().options.get("sigra_rescue_after", _AFTER)
    return seconds
