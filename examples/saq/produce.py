"""Enqueue a job for each invoice number given, and one of SAQ's own."""

from __future__ import annotations

import asyncio
import sys

from app import close_invoice, queue


async def main() -> None:
    await queue.connect()
    for number in map(int, sys.argv[1:] or ["9"]):
        args = {"organization_id": "42", "actor_id": "7", "invoice_id": number}
        print(await close_invoice.anew(args, unique=str(number)))
    await queue.enqueue("ping")
    await queue.disconnect()


asyncio.run(main())
