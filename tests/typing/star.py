"""A user's file that imports every name at once."""

from sigra import *  # noqa: F403


@tenant_worker(name="typing.star", audit_schema=AuditEvent)  # noqa: F405
def close(scope: AuditScope, invoice: int) -> Ok | Failure:  # noqa: F405
    log_safe("invoice.close", scope, target_id=invoice)  # noqa: F405
    return Ok(invoice)  # noqa: F405


job: Job = close.new({"organization_id": None, "actor_id": None, "invoice": 1})  # noqa: F405
