"""Row 15: a queue that has no place for context carries it all the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sigra import AuditScope, JobInfo, SyncBackend, configure, tenant_worker
from sigra.backends.envelope import pack
from sigra.backends.external import consume
from sigra.job import Job

TENANT = {"organization_id": "42", "actor_id": "7", "impersonating_from": "1"}
wire: list[str] = []


class OnlyText(SyncBackend):
    """A queue that takes a name and one text, and nothing beside."""

    name = "text"

    def enqueue(self, jobs: Any) -> None:
        wire.extend(json.dumps(pack(job)) for job in jobs)


@tenant_worker
def close(scope: AuditScope, job: JobInfo, n: int) -> Any:
    return scope, job, n


@pytest.fixture
def sent() -> Job:
    wire.clear()
    with configure(backend=OnlyText()):
        return close.new({**TENANT, "n": 1}, max_attempts=4)


def test_scope_and_args_come_out_of_one_text(sent: Job) -> None:
    """Headers, metadata or a second table are not needed."""
    scope, _, n = consume(json.loads(wire[0]), close.definition, "text").verdict.value
    assert (AuditScope.build(actor_id=7, organization_id=42, impersonating_from=1), 1) == (scope, n)


def test_the_job_s_facts_come_out_of_it_too(sent: Job) -> None:
    """Id, attempts and time of enqueue are those of the producer's job."""
    _, job, _ = consume(json.loads(wire[0]), close.definition, "text").verdict.value
    assert (sent.id, 4, sent.enqueued_at) == (job.id, job.max_attempts, job.enqueued_at)
