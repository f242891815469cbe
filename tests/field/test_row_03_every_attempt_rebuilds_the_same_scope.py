"""Row 3: a retry, a snooze and a redelivery run for whom the first attempt ran."""

from __future__ import annotations

import json
from typing import Any

from sigra import AuditScope, Failure, Snooze, SyncBackend, configure, current_job, tenant_worker
from sigra.backends.envelope import pack
from sigra.backends.external import consume

TENANT = {"organization_id": "42", "actor_id": "7", "impersonating_from": "1"}
SCOPE = AuditScope.build(actor_id=7, organization_id=42, impersonating_from=1)
seen: list[AuditScope] = []


@tenant_worker(max_attempts=3, backoff=5)
def close(scope: AuditScope) -> Any:
    seen.append(scope)
    job = current_job()
    assert job is not None
    return Snooze(5) if not job.snoozes else Failure("again")


def test_every_attempt_in_process_has_the_same_scope() -> None:
    """A snooze and three attempts later it is still the same tenant, actor and impersonator."""
    seen.clear()
    backend = SyncBackend()
    with configure(backend=backend):
        close.new(TENANT)
        backend.drain(60)
    assert [SCOPE] * 4 == seen


def test_every_attempt_over_a_wire_has_the_same_scope() -> None:
    """The payload of the next attempt, through JSON, rebuilds the scope again."""
    seen.clear()
    with configure(backend=SyncBackend()):
        payload = pack(close.new(TENANT))
    seen.clear()
    for _ in range(4):
        payload = json.loads(json.dumps(payload))
        payload = consume(payload, close.definition, "test").following()
    assert [SCOPE] * 4 == seen
