"""Row 16: whoever can write to the broker cannot forge a job's context."""

from __future__ import annotations

from sigra import AuditScope, Signing, SyncBackend, configure, tenant_worker
from sigra.backends.envelope import pack
from sigra.backends.external import consume

IDS = {"organization_id": "acme", "actor_id": "ann"}
KEYS = {"2026": b"a key of at least 32 random bytes"}
seen: list[AuditScope] = []


@tenant_worker(name="row_16.read")
def read(scope: AuditScope) -> None:
    seen.append(scope)


def test_a_job_with_another_organization_does_not_run() -> None:
    """The ids are verified before anything is parsed out of the envelope."""
    seen.clear()
    with configure(backend=SyncBackend(), signing=Signing(KEYS, "2026", "billing")):
        payload = pack(read.new(IDS, delay=60))
        forged = {**payload, "signed": payload["signed"].replace('"acme"', '"evil"')}
        assert payload != forged
        assert "discarded" == consume(forged, read.definition, "test").verdict.state
        assert [] == seen
        assert "completed" == consume(payload, read.definition, "test").verdict.state
        assert [AuditScope.build(actor_id="ann", organization_id="acme")] == seen
