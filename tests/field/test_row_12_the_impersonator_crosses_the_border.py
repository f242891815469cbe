"""Row 12: impersonating_from is in the envelope, the scope and each event."""

from __future__ import annotations

import json

from sigra import AuditEvent, AuditScope, Identity, log_safe, tenant_args, tenant_worker
from sigra.backends.envelope import pack
from sigra.backends.external import consume
from sigra.testing import AuditLog, RecordingBackend

TENANT = {"organization_id": "42", "actor_id": "7", "impersonating_from": "1"}


@tenant_worker(audit_schema=AuditEvent, action="invoice.close")
def close(scope: AuditScope) -> Identity | None:
    log_safe("invoice.read", scope)
    return scope.impersonating_from


def test_it_is_in_the_envelope_and_the_scope(sigra_backend: RecordingBackend) -> None:
    """After a round trip through JSON the consumer's scope has the impersonator."""
    payload = json.loads(json.dumps(pack(close.new(TENANT))))
    assert Identity("1") == consume(payload, close.definition, "test").verdict.value


def test_it_is_in_every_event(audit_log: AuditLog) -> None:
    """The body's own event and the lifecycle's name the impersonator as the actor."""
    close.new(TENANT)
    assert [("invoice.read", "1", "7"), ("invoice.close", "1", "7")] == [
        (event.action, event.actor_id, event.effective_user_id) for event in audit_log
    ]


def test_it_is_handed_on_to_children() -> None:
    """tenant_args of the scope has it too."""

    @tenant_worker
    def parent(scope: AuditScope) -> Identity | None:
        assert tenant_args(scope) == TENANT
        return scope.impersonating_from

    assert Identity("1") == parent.new(TENANT).result()
