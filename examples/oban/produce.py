"""Enqueue from code that blocks, and in the transaction that makes the invoice."""

import asyncio
import os

from app import send
from oban import Oban
from psycopg_pool import AsyncConnectionPool

TENANT = {"organization_id": "acme", "actor_id": "ann"}

pool = AsyncConnectionPool(os.environ["OBAN_DSN"], open=False)
Oban(pool=pool)  # which ObanBackend finds by its name, as Oban's own workers do

job = send.new({**TENANT, "invoice": "2026-001"})
print("enqueued", job.id, "as job", job.native_id)
send.new({**TENANT, "invoice": "2026-002"}, delay=3600)


async def main() -> None:
    async with pool, pool.connection() as conn:
        await conn.execute("CREATE TEMPORARY TABLE invoice (id text)")
        await conn.execute("INSERT INTO invoice VALUES ('2026-003')")
        await send.anew({**TENANT, "invoice": "2026-003"}, conn=conn)
        await conn.rollback()
        print("rolled back: no invoice, and no job")


asyncio.run(main())
