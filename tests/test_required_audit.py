"""A worker that requires its audit does nothing that no sink has taken note of."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from amounts import MANY

from sigra import (
    AuditEvent,
    JobFailedError,
    SyncBackend,
    audit_stats,
    configure,
    log_safe,
    tenant_worker,
    worker,
)
from sigra.testing import AuditLog

ARGS = {"organization_id": "42", "actor_id": "7"}
JOBS = 1_000 if MANY else 100


class Disk:
    """A sink that raises while it is full, from ``write`` or, as one that queues, from ``flush``."""

    def __init__(self, full: bool = True, *, queues: bool = False) -> None:
        self.full, self.queues = full, queues
        self.events: list[AuditEvent] = []

    def write(self, event: AuditEvent, record: Any) -> None:
        if self.full and not self.queues:
            raise OSError("no space left")
        self.events.append(event)

    def flush(self) -> None:
        if self.full:
            raise OSError("no space left")

    def close(self) -> None: ...


@pytest.fixture
def backend() -> Iterator[SyncBackend]:
    backend = SyncBackend()
    with configure(backend=backend):
        yield backend


ran: list[str] = []


@tenant_worker(audit_schema=AuditEvent, audit_required=True, max_attempts=2, backoff=1)
def pay(scope: Any, args: Any) -> None:
    ran.append(scope.active_organization.id)


@tenant_worker(audit_required=True)
async def refund(scope: Any, args: Any) -> None:
    ran.append(scope.active_organization.id)


@tenant_worker(audit_schema=AuditEvent)
def read(scope: Any, args: Any) -> None:
    ran.append(scope.active_organization.id)


@pytest.fixture(autouse=True)
def _reset() -> None:
    ran.clear()


@pytest.mark.parametrize("queues", [False, True])
def test_while_no_sink_can_write_no_body_runs(
    backend: SyncBackend, caplog: pytest.LogCaptureFixture, queues: bool
) -> None:
    """Of many jobs none runs its body, each is failed and says so, and each is counted."""
    caplog.set_level(logging.CRITICAL + 1, "sigra")  # tracebacks take longer than the jobs
    before = audit_stats().failed
    with configure(sinks=[Disk(queues=queues), Disk()]):
        jobs = [pay.new(ARGS, max_attempts=1) for _ in range(JOBS)]
    assert [] == ran
    assert {"discarded"} == {job.state for job in jobs}
    for job in jobs:
        with pytest.raises(JobFailedError) as caught:
            job.result()
        assert str(caught.value.reason).startswith(
            "no sink took the audit_required event: tests.test_required_audit.Disk raised "
            "builtins.OSError; tests.test_required_audit.Disk raised builtins.OSError"
        )
    assert JOBS == audit_stats().failed - before


@worker(audit_required=True)
def sweep(args: Any) -> None:
    ran.append("swept")


def test_a_tenant_agnostic_worker_may_require_it_too(backend: SyncBackend) -> None:
    """Its body does not run while no sink writes; then the system has begun it, for no one."""
    disk = Disk()
    with configure(sinks=[disk]):
        assert ("discarded", []) == (sweep.new({}).state, ran)
        disk.full = False
        job = sweep.new({})
    assert ["swept"] == ran
    (event,) = disk.events
    assert ("sigra.job.begun", "system", None, job.id) == (
        event.action, event.actor_type, event.organization_id, event.job_id,
    )  # fmt: skip


async def arefund() -> Any:
    return await refund.anew(ARGS)


def test_an_async_body_waits_for_it_too(backend: SyncBackend) -> None:
    """An async worker's body does not run either, on its own loop or on the caller's."""
    import asyncio

    with configure(sinks=[Disk()]):
        assert "discarded" == refund.new(ARGS).state
        assert "discarded" == asyncio.run(arefund()).state
    assert [] == ran


def test_one_sink_that_writes_is_enough(backend: SyncBackend) -> None:
    """The body runs where one sink of several has the beginning, with the job's ids."""
    disk = Disk(full=False)
    with configure(sinks=[Disk(), disk]):
        job = pay.new(ARGS)
    event = disk.events[0]
    assert ["42"] == ran
    assert ("sigra.job.begun", "42", "7", job.id, 1) == (
        event.action, event.organization_id, event.actor_id, event.job_id, event.attempt,
    )  # fmt: skip


@tenant_worker(audit_schema=AuditEvent, audit_required=True, action="invoice.close")
def close(scope: Any, args: Any) -> None:
    log_safe("invoice.begin", scope)


def test_beginning_body_and_end_are_three_events(backend: SyncBackend) -> None:
    """A store that drops a second event of one id keeps each of them."""
    disk = Disk(full=False)
    with configure(sinks=[disk]):
        close.new(ARGS)
    actions = ["sigra.job.begun", "invoice.begin", "invoice.close"]
    assert actions == [event.action for event in disk.events]
    assert 3 == len({event.event_id for event in disk.events})


@pytest.mark.parametrize(("full", "counted"), [(False, (1, 0)), (True, (0, 1))])
def test_a_beginning_is_counted_as_it_ended(
    backend: SyncBackend, full: bool, counted: tuple[int, int]
) -> None:
    """A sink that took it is one emitted event, and none that did is a failed one."""
    before = audit_stats()
    with configure(sinks=[Disk(full=full)]):
        pay.new(ARGS, max_attempts=1)
    after = audit_stats()
    assert counted == (after.emitted - before.emitted, after.failed - before.failed)


class Noted:
    """A record type of the application's own."""

    def __init__(self, action: str) -> None:
        self.action = action


@pytest.mark.parametrize(
    ("own", "configured", "used"),
    [(Noted, AuditEvent, Noted), (None, Noted, Noted), (None, None, AuditEvent)],
)
def test_a_beginning_is_recorded_by_the_schema_in_force(
    backend: SyncBackend, own: Any, configured: Any, used: Any
) -> None:
    """The worker's own, or else the configured one, or else the event itself."""
    records = []

    class Records(Disk):
        def write(self, event: AuditEvent, record: Any) -> None:
            records.append(type(record))

    made = tenant_worker(audit_required=True, audit_schema=own, name=f"required.{own}.{configured}")
    with configure(sinks=[Records(full=False)], audit_schema=configured):
        made(lambda scope, args: None).new(ARGS)
    assert [used] == records


def test_a_retry_runs_once_a_sink_can_write_again(backend: SyncBackend) -> None:
    """The refused attempt is an ordinary failed one, retried while attempts are left."""
    disk = Disk()
    with configure(sinks=[disk]):
        job = pay.new(ARGS)
        assert "retryable" == job.state
        disk.full = False
        backend.drain(60)
    assert ("completed", ["42"]) == (job.state, ran)


class Unmade:
    """A record type that can be made of no event."""

    def __init__(self, action: str) -> None:
        raise ValueError(action)


@tenant_worker(audit_schema=Unmade, audit_required=True)
def ship(scope: Any, args: Any) -> None:
    ran.append(scope.active_organization.id)


def test_a_schema_that_raises_is_no_sink_that_has_written(backend: SyncBackend) -> None:
    """Where the schema raises and every sink is down, no body runs."""
    with configure(sinks=[Disk(), Disk(queues=True)]):
        job = ship.new(ARGS)
    assert ("discarded", []) == (job.state, ran)


def test_a_schema_that_raises_holds_up_no_body(backend: SyncBackend) -> None:
    """Where it raises and a sink has the beginning all the same, the body runs."""
    with configure(sinks=[Disk(full=False)]):
        assert "completed" == ship.new(ARGS).state
    assert ["42"] == ran


def test_without_any_sink_no_body_runs(backend: SyncBackend) -> None:
    """Where no sink is configured there is none that could write."""
    before = audit_stats()
    with pytest.raises(JobFailedError) as caught:
        pay.new(ARGS, max_attempts=1).result()
    assert str(caught.value.reason).endswith("audit_required event: none is configured")
    assert ([], before.emitted, before.failed + 1) == (
        ran, audit_stats().emitted, audit_stats().failed,
    )  # fmt: skip


def test_an_audit_is_not_required_unless_asked_for(backend: SyncBackend) -> None:
    """Any other worker runs whatever its sinks do, and writes no event of its beginning."""
    log = AuditLog()
    with configure(sinks=[Disk(), log]):
        read.new(ARGS)
    assert (["42"], 0) == (ran, len(log))


@pytest.mark.parametrize("asked", [None, "", 0, "no", 1])
@pytest.mark.parametrize("make", [worker, tenant_worker])
def test_what_is_no_bool_asks_for_nothing_by_chance(make: Any, asked: Any) -> None:
    """A setting that is missing must not let the bodies run unrecorded."""
    with pytest.raises(TypeError, match="audit_required must be a bool, not"):
        make(audit_required=asked)(lambda scope: None)


def test_the_beginning_is_one_event_for_a_redelivered_attempt(backend: SyncBackend) -> None:
    """It has the same id when the attempt is run again, and another than the body's events."""
    from sigra.context import Attempt
    from sigra.execute import execute

    disk = Disk(full=False)
    with configure(sinks=[disk]):
        job = pay.new(ARGS)
        execute(Attempt(job, 1, 0))
        execute(Attempt(job, 2, 0))
    ids = [event.event_id for event in disk.events]
    assert ids[0] == ids[1] != ids[2]
