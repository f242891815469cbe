"""A module of workers that the consumer of test_django imports only when a job asks for it."""

from __future__ import annotations

import os

from django.tasks import task

from sigra import tenant_worker
from sigra.testing import contract_workers


@tenant_worker
def lazily_found(scope, args):
    contract_workers._record(scope, args)


if not os.environ.get("SIGRA_CONSUMER"):

    @tenant_worker
    def unknown(scope):
        raise AssertionError("no consumer knows it")


@task
def note(text):
    """Be a task of the application's own, which Sigra knows nothing of."""
    with open(os.environ["SIGRA_NATIVE_NOTES"], "a") as notes:
        notes.write(text + "\n")
