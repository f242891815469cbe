"""Enqueue a job for each invoice number given, and one of taskiq's own."""

from __future__ import annotations

import asyncio
import sys

from app import broker, close_invoice, ping


async def main() -> None:
    await broker.startup()
    for number in map(int, sys.argv[1:] or ["9"]):
        args = {"organization_id": "42", "actor_id": "7", "invoice_id": number}
        print(await close_invoice.anew(args))
    await ping.kiq()
    await broker.shutdown()


asyncio.run(main())
