"""Invoices are sent by procrastinate's own worker, on behalf of who asked for them."""

import os

import procrastinate

from sigra import AuditEvent, AuditScope, Failure, Ok, configure, log_safe, tenant_worker
from sigra.backends.procrastinate import ProcrastinateBackend

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["DATABASE"]))
configure(backend=ProcrastinateBackend(app), audit_schema=AuditEvent)


@tenant_worker(name="invoices.send", max_attempts=5, backoff=10)
def send(scope: AuditScope, invoice: str, lines: int = 1) -> Ok | Failure:
    """Send an invoice; it appears as invoices.send in procrastinate's shell and tables."""
    if lines < 1:
        return Failure("nothing to send")
    log_safe("invoice.sent", scope, target_id=invoice)
    return Ok(invoice)
