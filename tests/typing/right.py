"""What a user's code may say, and a type checker lets pass."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_type

from sigra import (
    AuditEvent,
    AuditResult,
    AuditScope,
    Backend,
    Cancel,
    Failure,
    Identity,
    Job,
    JobInfo,
    Ok,
    Sink,
    Snooze,
    SyncBackend,
    TenantWorker,
    ThreadBackend,
    Worker,
    configure,
    current_job,
    fetch_arg,
    log_safe,
    request_scope_only,
    tenant_args,
    tenant_worker,
    worker,
)


@dataclass
class RequestScope:
    user: Identity | None
    active_organization: Identity | None
    roles: tuple[str, ...] = ()


@request_scope_only
def authorize(scope: RequestScope, permission: str) -> bool:
    return permission in scope.roles


@request_scope_only
async def authorize_later(scope: RequestScope) -> bool:
    return bool(scope.roles)


@tenant_worker(audit_schema=AuditEvent, action="invoice.close", max_attempts=3)
def close(scope: AuditScope, invoice_id: int, notify: bool = False) -> Snooze | None:
    result = log_safe("invoice.close", scope, target_id=invoice_id, metadata={"notify": notify})
    assert_type(result, AuditResult)
    if result.status == "failed" and result.event is not None:
        print(result.reason, result.event.event_id, result.redacted)
    return Snooze(30) if notify else None


@tenant_worker
def canonical(scope: AuditScope, args: Mapping[str, Any], job: JobInfo) -> Ok | Failure | Cancel:
    fetch_arg(args, "invoice_id")
    canonical.new({**tenant_args(scope), "parent": job.id}, queue="mail", delay=5)
    organization = scope.active_organization
    return Ok(organization.id) if organization is not None else Cancel("nobody's")


@worker
async def sweep(days: int = 30) -> int:
    job = current_job()
    return days if job is None else job.attempt


class Billing:
    @staticmethod
    @tenant_worker
    def under(scope: AuditScope, n: int) -> int:
        return n


def plain_calls(scope: AuditScope, request: RequestScope) -> None:
    assert_type(close(scope, 9, notify=True), Snooze | None)
    assert_type(Billing.under(scope, 3), int)
    assert_type(authorize(request, "close"), bool)
    handlers: list[Callable[[AuditScope, int], object]] = [close, Billing.under]
    print(handlers)


async def awaited_calls(request: RequestScope) -> None:
    assert_type(await sweep(days=3), int)
    assert_type(await authorize_later(request), bool)
    waiting: Awaitable[int] = sweep()
    await waiting
    assert_type(await sweep.anew({"days": 3}), Job)
    assert_type(await sweep.anew_many([{"days": 3}]), list[Job])


def enqueues(request: RequestScope) -> None:
    job = close.new({**tenant_args(request), "invoice_id": 9})
    assert_type(job, Job)
    assert_type(job.id, str)
    assert_type(close.new_many([]), list[Job])
    options: dict[str, Any] = {"queue": "mail"}
    close.new({}, delay=timedelta(minutes=1), backoff=lambda attempt: 2.0**attempt, **options)
    if job.state == "completed":
        print(job.result(timeout=5))


def waits_for(job: Job, sync: SyncBackend) -> None:
    assert job.state == "scheduled"
    sync.drain(until=60)
    assert job.state == "completed"


def takes_any_worker(any_worker: Worker[..., Any], of_tenant: TenantWorker[..., Any]) -> str:
    return any_worker.name + of_tenant.definition.name


def starts_each(workers: Sequence[Worker[..., object]]) -> None:
    for one in workers:
        one.new({})


takes_any_worker(close, close)
starts_each([close, sweep, canonical, Billing.under])
takes_any_worker(sweep, canonical)
coroutine_function: Callable[[], Coroutine[Any, Any, int]] = sweep


class Printing:
    def write(self, event: AuditEvent, record: Any) -> None:
        print(event.action, record)

    def close(self) -> None: ...


sink: Sink = Printing()
backend: Backend = SyncBackend()
with configure(backend=ThreadBackend(max_workers=2), sinks=[sink], backends={"mail": backend}):
    pass
configure(on_audit_failure=lambda result: print(result.reason))
AuditScope.build(actor_id=7, organization_id="42", impersonating_from=None)
