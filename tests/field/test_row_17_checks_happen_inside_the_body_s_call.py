"""Row 17: no hook before the run is relied upon to stop the body."""

from __future__ import annotations

from typing import Any

import pytest

from sigra import AuditScope, MissingArgError, current_job, tenant_worker
from sigra.backends.external import consume
from sigra.context import Attempt
from sigra.execute import execute
from sigra.job import Job
from sigra.json import freeze
from sigra.options import PLAIN

ran: list[Any] = []


@tenant_worker
def close(scope: AuditScope, args: dict[str, Any]) -> None:
    ran.append(scope)


@pytest.fixture(autouse=True)
def fresh() -> None:
    ran.clear()


def test_consuming_stops_a_bad_job() -> None:
    """The call that a native task makes checks before it runs, in one piece."""
    assert ("discarded", []) == (consume({}, close.definition, "test").verdict.state, ran)


def test_even_the_bare_execution_stops_it() -> None:
    """A backend that forgot to check still does not run the body without a scope."""
    job = Job(close.definition, freeze({"actor_id": None}, 1000), PLAIN, "test")
    verdict = execute(Attempt(job, 1, 0))
    assert (MissingArgError, []) == (type(verdict.error), ran)


def test_restoring_needs_no_hook_after_the_run() -> None:
    """When the one call returns the context is as before, the body having raised or not."""

    @tenant_worker
    def broken(scope: AuditScope) -> None:
        raise SystemExit

    consume({"organization_id": None, "actor_id": None}, broken.definition, "test")
    assert None is current_job()
