"""What the consumer of test_django imports only when a job asks for it."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import consumer_side
from asgiref.sync import sync_to_async
from django.db import connection
from django.tasks import task
from django.tasks.signals import task_finished
from django_tasks_db.models import DBTaskResult

from sigra import Snooze, tenant_worker
from sigra.testing import contract_workers


@tenant_worker
def lazily_found(scope, args):
    contract_workers.record(scope, args)


@tenant_worker
async def queries(scope, args):
    """Note in which thread the ORM would run."""
    thread = await sync_to_async(threading.current_thread)()
    contract_workers.record(scope, args, main=thread is threading.main_thread())


@tenant_worker
async def sees(scope, task_id):
    """Tell whether there is such a task."""
    return await DBTaskResult.objects.filter(id=task_id).aexists()


@tenant_worker
async def deletes(scope, task_id):
    """Delete a task, if there is one."""
    await DBTaskResult.objects.filter(id=task_id).adelete()


@tenant_worker
def sees_plainly(scope, task_id):
    """Tell whether there is such a task."""
    return DBTaskResult.objects.filter(id=task_id).exists()


def ask(query):
    """Return what the database says, on the connection that queries have here."""
    with connection.cursor() as cursor:
        return cursor.execute(query).fetchone()[0]


@tenant_worker
def asks(scope, query):
    return ask(query)


@tenant_worker
async def asks_on_a_loop(scope, query):
    return await sync_to_async(ask)(query)


@tenant_worker
def dies_as_it_is_put_off(scope, args, job, marker):
    """Snooze once; the first time the consumer is killed once the next run is queued."""
    contract_workers.record(scope, args)
    if job.snoozes:
        return None
    if not Path(marker).exists():
        Path(marker).touch()
        DBTaskResult.set_successful = _die_unless_with_it
        task_finished.connect(_die, weak=False)
    return Snooze(1)


_set_successful = DBTaskResult.set_successful


def _die_unless_with_it(*args):
    """End the row in the transaction that queues the next run, but not later by itself."""
    if not connection.in_atomic_block:
        _die()
    _set_successful(*args)


def _die(**_):
    os.kill(os.getpid(), signal.SIGKILL)


@task
def note(text):
    consumer_side.note(text)
