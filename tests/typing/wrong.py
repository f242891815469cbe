"""What a type checker refuses: each marked line, and no other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import sigra.audit
import sigra.backends.rq
import sigra.store
import sigra.testing
from sigra import (
    AuditEvent,
    AuditResult,
    AuditScope,
    Failure,
    Identity,
    Job,
    Snooze,
    Worker,
    configure,
    log_safe,
    request_scope_only,
    tenant_worker,
    worker,
)


@dataclass
class RequestScope:
    user: Identity | None
    active_organization: Identity | None
    roles: tuple[str, ...] = ()


class HasRoles(Protocol):
    @property
    def roles(self) -> tuple[str, ...]: ...


@request_scope_only
def authorize(scope: RequestScope) -> bool:
    return bool(scope.roles)


@request_scope_only
async def authorize_later(scope: RequestScope) -> bool:
    return bool(scope.roles)


def authorize_by_shape(scope: HasRoles) -> bool:
    return bool(scope.roles)


@tenant_worker(audit_schema=AuditEvent)
def close(scope: AuditScope, invoice_id: int, notify: bool = False) -> int:
    authorize(scope)  # wrong: a worker's scope is no request scope
    authorize_by_shape(scope)  # wrong: nor has it the shape of one
    scope.roles  # wrong: it has no roles
    scope.user.id  # wrong: there may be no user
    scope.tenant = None  # wrong: it cannot be given more
    scope.user = None  # wrong: nor other ids
    return invoice_id


@worker
async def sweep(days: int = 30) -> int:
    return days


async def uses_async(scope: AuditScope) -> None:
    await authorize_later(scope)  # wrong: the async guard keeps its types
    days: str = await sweep()  # wrong: it returns an int
    await sweep(days="3")  # wrong: days is an int
    print(days)


def uses(scope: AuditScope, request: RequestScope, result: AuditResult, job: Job) -> None:
    close(scope, "9")  # wrong: invoice_id is an int
    close(scope)  # wrong: invoice_id is missing
    close(request, 9)  # wrong: a request scope is no worker's scope
    close(scope, 9, inform=True)  # wrong: there is no such parameter
    text: str = close(scope, 9)  # wrong: it returns an int
    close.new()  # wrong: args are missing
    close.new([("invoice_id", 9)])  # wrong: args are a mapping
    close.new({}, retries=3)  # wrong: there is no such option
    close.new_many([], delay="5")  # wrong: seconds or a timedelta
    worker(max_attempts="3")  # wrong: attempts are counted
    close.new_many({"invoice_id": 9})  # wrong: new_many takes many
    close.enqueue({"invoice_id": 9})  # wrong: there is no such method
    result.staus  # wrong: a typo
    result.status = "emitted"  # wrong: a result is frozen
    log_safe("invoice.close", scope, target="9")  # wrong: the keyword is target_id
    log_safe("invoice.close", scope, outcome="ok")  # wrong: the word is success
    log_safe("invoice.close", scope, metadata="text")  # wrong: metadata is a mapping
    job.native  # wrong: it is called native_id
    job.result("5")  # wrong: timeout is a number
    print(text)


AuditScope.build("7", "42")  # wrong: ids are named, so that none is swapped
AuditScope.build(actor_id=7)  # wrong: absent is not None
AuditScope.build(actor_id=7.5, organization_id=None)  # wrong: a float is no id
Snooze("30")  # wrong: seconds are an int
Failure(why="text")  # wrong: it is called reason
configure(colour="red")  # wrong: there is no such setting
configure(sinks=[print])  # wrong: a function is no sink
configure(backend=42)  # wrong: a number is no backend
tenant_worker(close, 5)  # wrong: options are named
sigra.tenant_wroker  # wrong: a typo
sigra.audit.log_save  # wrong: another
sigra.store.SqlAuditSinc  # wrong: and another
sigra.testing.preform_job  # wrong: and one more
sigra.backends.rq.RQBackent  # wrong: and the last
any_worker: Worker[[str], str] = sweep  # wrong: another signature


class Derived(AuditScope):  # wrong: the scope is final
    pass
