"""Invoices sent by jobs in a MariaDB table; run as a program it enqueues two of them."""

from sigra_mariadb import connect

from sigra import AuditEvent, AuditScope, Failure, Ok, configure, log_safe, tenant_worker

configure(backend="mariadb", audit_schema=AuditEvent)


@tenant_worker(name="invoices.send", max_attempts=5, backoff=10)
def send(scope: AuditScope, invoice: str) -> Ok | Failure:
    log_safe("invoice.sent", scope, target_id=invoice)
    return Ok(invoice)


if __name__ == "__main__":
    tenant = {"organization_id": "acme", "actor_id": "ann"}
    print("enqueued", send.new({**tenant, "invoice": "2026-001"}).native_id)
    with connect() as conn:
        send.new({**tenant, "invoice": "2026-002"}, conn=conn)
        conn.rollback()
    print("rolled back: no job")
