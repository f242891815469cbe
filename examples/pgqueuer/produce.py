"""Enqueue in the transaction that makes the invoice: both are there, or neither."""

import os

import psycopg
from app import send

from sigra import configure
from sigra.backends.pgqueuer import PgQueuerBackend

TENANT = {"organization_id": "acme", "actor_id": "ann"}
configure(backend=PgQueuerBackend())  # connections of its own to PGDSN

job = send.new({**TENANT, "invoice": "2026-001"})
print("enqueued", job.id, "as job", job.native_id)

twin = send.new({**TENANT, "invoice": "2026-002"}, unique="2026-002", delay=3600)
again = send.new({**TENANT, "invoice": "2026-002"}, unique="2026-002", delay=3600)
print("a second one under the key is a duplicate:", again.duplicate)

with psycopg.connect(os.environ["PGDSN"]) as conn:
    conn.execute("CREATE TEMPORARY TABLE invoice (id text)")
    conn.execute("INSERT INTO invoice VALUES ('2026-003')")
    send.new({**TENANT, "invoice": "2026-003"}, conn=conn)
    conn.rollback()
    print("rolled back: no invoice, and no job")
