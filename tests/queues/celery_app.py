"""The consumer of test_celery: ``celery --workdir tests/queues -A celery_app worker``."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import consumer_side
from celery import Celery, current_task
from celery.signals import worker_process_init

from sigra import AuditEvent, log_safe, tenant_worker
from sigra.backends.celery import CeleryBackend
from sigra.testing.contract_workers import record

app = Celery("sigra_tests")
app.conf.update(json.loads(os.environ["SIGRA_CELERY"]))
backend = CeleryBackend(app, note_begins="SIGRA_UNNOTED" not in os.environ)
CeleryBackend(app)  # a second one, which changes nothing
app.task(name="native.note")(consumer_side.note)


@worker_process_init.connect
def _own_sink(**_):
    consumer_side.record_events()


@tenant_worker(name="queues.kills_all")
def kills_all(scope, args):
    """Kill the consumer and not its child alone, which Celery would notice."""
    record(scope, args)
    time.sleep(args.get("seconds", 0))
    while "seconds" in args and _may_be_fetching():
        time.sleep(0.02)
    os.killpg(0, signal.SIGKILL)


@tenant_worker(name="queues.overruns", audit_schema=AuditEvent)
def overruns(scope, args, seconds=300, deaf=False, dies_after=None, told=None):
    """Take longer than the time limit, or less; ``deaf`` to the signal by which Celery says so.

    ``told``: the file in which it notes that signal, and goes on.
    """
    record(scope, args)
    log_safe("queues.overran", scope)
    if deaf:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if told is not None:
        signal.signal(signal.SIGTERM, lambda *_: Path(told).open("a").write("told\n"))
    if dies_after is not None:
        time.sleep(dies_after)
        os._exit(3)
    time.sleep(seconds)


@tenant_worker(name="queues.survives")
def survives(scope, args):
    """Go on when its process is told to end."""
    try:
        record(scope, args)
        time.sleep(300)
    except SystemExit:
        pass


@tenant_worker(name="queues.asks_celery")
def asks_celery(scope, args):
    """Have Celery retry, as a decorator of a code base with native tasks does."""
    record(scope, args)
    try:
        raise LookupError("not there yet")
    except LookupError as error:
        current_task.retry(exc=error, **args["how"])


def _may_be_fetching():
    """Tell whether kombu takes messages off Redis now or soon; one not noted yet would be lost."""
    if os.getpid() == os.getpgrp():
        return False  # it is the consumer itself, which fetches when this has ended
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        if not hasattr(channel, "client"):
            return False  # RabbitMQ has what it was not told of
        restored = time.time() - channel.visibility_timeout + 2  # what is as old will be soon
        waiting = channel.client.llen(app.conf.task_default_queue)
        return waiting + channel.client.zcount(channel.unacked_index_key, 0, restored) > 0
