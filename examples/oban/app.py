"""Invoices are sent by Oban's own consumer, on behalf of who asked for them."""

from sigra import AuditEvent, AuditScope, Failure, Ok, configure, log_safe, tenant_worker
from sigra.backends.oban import ObanBackend

configure(backend=ObanBackend(), audit_schema=AuditEvent)


@tenant_worker(name="invoices.send", max_attempts=5, backoff=10)
def send(scope: AuditScope, invoice: str, lines: int = 1) -> Ok | Failure:
    """Send an invoice; Oban's table and Oban Web show it as invoices.send."""
    if lines < 1:
        return Failure("nothing to send")
    log_safe("invoice.sent", scope, target_id=invoice)
    return Ok(invoice)
