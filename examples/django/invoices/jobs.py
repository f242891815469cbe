"""Invoices are sent by Django's own worker, on behalf of who asked for them."""

from sigra import AuditScope, Failure, Snooze, log_safe, tenant_worker

from .models import Invoice


@tenant_worker(max_attempts=3, backoff=10)
def send(scope: AuditScope, invoice: str, job) -> Failure | Snooze | None:
    """Send an invoice; the table of tasks shows it as invoices.jobs.send."""
    if job.snoozes == 0:
        return Snooze(2)  # the printer is not ready yet
    if not Invoice.objects.filter(number=invoice).update(sent=True):
        return Failure("there is no such invoice")
    log_safe("invoice.sent", scope, target_id=invoice)
    return None
