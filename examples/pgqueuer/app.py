"""Invoices are sent by PgQueuer's own consumer, on behalf of who asked for them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pgqueuer import PgQueuer
from pgqueuer.adapters.connections import create_asyncpg_pool

from sigra import AuditEvent, AuditScope, Failure, Ok, configure, log_safe, tenant_worker
from sigra.backends.pgqueuer import PgQueuerBackend


@tenant_worker(name="invoices.send", max_attempts=5, backoff=10)
def send(scope: AuditScope, invoice: str, lines: int = 1) -> Ok | Failure:
    """Send an invoice; it is the entrypoint invoices.send in PgQueuer's tables and dashboard."""
    if lines < 1:
        return Failure("nothing to send")
    log_safe("invoice.sent", scope, target_id=invoice)
    return Ok(invoice)


@asynccontextmanager
async def main() -> AsyncIterator[PgQueuer]:
    """Make what ``pgq run app:main`` runs; its workers become entrypoints beside your own."""
    async with create_asyncpg_pool() as pool:
        pgq = PgQueuer.from_asyncpg_pool(pool)
        try:
            with configure(backend=PgQueuerBackend(pgq), audit_schema=AuditEvent):
                yield pgq
        finally:
            pool.terminate()  # a close() may wait for ever for a connection that the server ended
