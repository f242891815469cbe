"""What the consumer of test_django imports only when a job asks for it."""

from __future__ import annotations

import consumer_side
from django.tasks import task

from sigra import tenant_worker
from sigra.testing import contract_workers


@tenant_worker
def lazily_found(scope, args):
    contract_workers.record(scope, args)


@task
def note(text):
    consumer_side.note(text)
