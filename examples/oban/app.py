"""Invoices are sent by Oban's own consumer, on behalf of who asked for them."""

import oban

from sigra import AuditEvent, AuditScope, Failure, Ok, configure, log_safe, tenant_worker
from sigra.backends.oban import ObanBackend
from sigra.workers import afor_each_organization

configure(backend=ObanBackend(), audit_schema=AuditEvent)


@tenant_worker(name="invoices.send", max_attempts=5, backoff=10)
def send(scope: AuditScope, invoice: str, lines: int = 1) -> Ok | Failure:
    """Send an invoice; Oban's table and Oban Web show it as invoices.send."""
    if lines < 1:
        return Failure("nothing to send")
    log_safe("invoice.sent", scope, target_id=invoice)
    return Ok(invoice)


@tenant_worker(name="invoices.remind", action="invoices.remind")
def remind(scope: AuditScope) -> None:
    """Remind an organization of its open invoices; its event's actor is the system."""


@oban.worker(cron="* * * * *")
class RemindAll:
    """Make a job for each organization at every minute, by Oban's own scheduler."""

    async def process(self, job: oban.Job) -> None:
        await afor_each_organization(remind, ["42", "43"])
