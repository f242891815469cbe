"""Row 11: jobs that a release left in the queue are read by the next, and wait for it."""

from __future__ import annotations

from typing import Any

from sigra import AuditScope, tenant_worker
from sigra.backends.envelope import MARK, VERSION
from sigra.backends.external import consume


@tenant_worker
def close(scope: AuditScope, invoice_id: int, notify: bool = False) -> Any:
    return scope, invoice_id


QUEUED: dict[str, Any] = {
    MARK: 1,
    "id": "01890a5d-ac96-774b-bcce-b302099a8057",
    "worker": close.name,
    "args": {"organization_id": "42", "actor_id": "7", "invoice_id": 9},
    "queue": None,
    "priority": 0,
    "max_attempts": 3,
    "backoff": None,
    "enqueued_at": 1_700_000_000_000_000_000,
    "attempt": 2,
    "snoozes": 0,
}


def test_what_the_previous_release_wrote_runs() -> None:
    """A payload written out here word for word, as it lay in the queue, runs as it was meant."""
    done = consume(QUEUED, close.definition, "test")
    expected = (AuditScope.build(actor_id=7, organization_id=42), 9)
    assert ("completed", expected) == (done.verdict.state, done.verdict.value)


def test_what_the_next_release_wrote_is_left_for_it() -> None:
    """A consumer that is not updated yet puts the job back, untouched."""
    payload = {**QUEUED, MARK: VERSION + 1}
    done = consume(payload, close.definition, "test")
    assert ("scheduled", payload) == (done.verdict.state, done.following())


def test_a_parameter_that_was_added_with_a_default_is_no_break() -> None:
    """The queued job has no notify; the new function has a default for it."""
    assert "completed" == consume(QUEUED, close.definition, "test").verdict.state


def test_a_parameter_that_was_added_without_one_ends_the_job_by_name() -> None:
    """Where a deploy did break the call, the job ends unrun and says which arg it lacks."""

    @tenant_worker(name="row11.changed")
    def changed(scope: AuditScope, invoice_id: int, reason: str) -> None: ...

    verdict = consume(QUEUED, changed.definition, "test").verdict
    assert ("discarded", "$.reason") == (verdict.state, getattr(verdict.error, "path", None))
