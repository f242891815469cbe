"""Row 7: an event names the actor of the scope it was given, whatever runs around it."""

from __future__ import annotations

import asyncio

from sigra import AuditEvent, AuditScope, SyncBackend, configure, log_safe, tenant_worker
from sigra.testing import AuditLog


@tenant_worker(audit_schema=AuditEvent)
def inner(scope: AuditScope) -> None:
    log_safe("step.inner", scope)


@tenant_worker(audit_schema=AuditEvent)
def outer(scope: AuditScope) -> None:
    log_safe("step.before", scope)
    inner.new({"organization_id": "42", "actor_id": "8"})
    inner(AuditScope.build(actor_id="9", organization_id="42"))
    log_safe("step.after", scope)


def test_a_nested_job_changes_nobody_s_actor(audit_log: AuditLog) -> None:
    """Before and after an inner job and an inner call, the outer actor is the outer actor."""
    outer.new({"organization_id": "42", "actor_id": "7"})
    assert [
        ("step.before", "7"),
        ("step.inner", "9"),
        ("step.after", "7"),
        ("step.inner", "8"),
    ] == [(event.action, event.actor_id) for event in audit_log]


@tenant_worker(audit_schema=AuditEvent)
async def turn(scope: AuditScope, n: str) -> None:
    for _ in range(3):
        await asyncio.sleep(0)
    log_safe("step.turn", scope, target_id=n)


def test_jobs_that_take_turns_keep_their_actors(audit_log: AuditLog) -> None:
    """Interleaved on one loop, each event names the actor of its own job."""

    async def main() -> None:
        args = [{"organization_id": "42", "actor_id": str(n), "n": str(n)} for n in range(5)]
        await asyncio.gather(*(turn.anew(item) for item in args))

    with configure(backend=SyncBackend()):
        asyncio.run(main())
    assert {(str(n), str(n)) for n in range(5)} == {(e.target_id, e.actor_id) for e in audit_log}
