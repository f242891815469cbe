"""The consumer of test_celery: ``celery --workdir tests/queues -A celery_app worker``."""

from __future__ import annotations

import json
import os

import consumer_side
from celery import Celery
from celery.signals import worker_process_init

from sigra.backends.celery import CeleryBackend

app = Celery("sigra_tests")
app.conf.update(json.loads(os.environ["SIGRA_CELERY"]))
backend = CeleryBackend(app)
app.task(name="native.note")(consumer_side.note)


@worker_process_init.connect
def _own_sink(**_):
    consumer_side.record_events()
