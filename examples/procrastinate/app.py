"""Invoices are sent by procrastinate's own worker, on behalf of who asked for them."""

import os

import procrastinate

from sigra import AuditEvent, AuditScope, Failure, Ok, configure, log_safe, tenant_worker
from sigra.backends.procrastinate import ProcrastinateBackend
from sigra.workers import afor_each_organization

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["DATABASE"]))
configure(backend=ProcrastinateBackend(app), audit_schema=AuditEvent)


@tenant_worker(name="invoices.send", max_attempts=5, backoff=10)
def send(scope: AuditScope, invoice: str, lines: int = 1) -> Ok | Failure:
    """Send an invoice; it appears as invoices.send in procrastinate's shell and tables."""
    if lines < 1:
        return Failure("nothing to send")
    log_safe("invoice.sent", scope, target_id=invoice)
    return Ok(invoice)


@tenant_worker(name="invoices.remind", action="invoices.remind")
def remind(scope: AuditScope) -> None:
    """Remind an organization of its open invoices; its event's actor is the system."""


@app.periodic(cron="* * * * *")
@app.task(name="invoices.remind_all")
async def remind_all(timestamp: int) -> None:
    """Make a job for each organization, once a tick however many schedulers there are."""
    await afor_each_organization(remind, ["42", "43"], tick=str(timestamp))
