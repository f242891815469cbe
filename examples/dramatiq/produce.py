"""Enqueue a job for each invoice number given, and one of Dramatiq's own."""

from __future__ import annotations

import sys

from app import close_invoice, ping

for number in map(int, sys.argv[1:] or ["9"]):
    print(close_invoice.new({"organization_id": "42", "actor_id": "7", "invoice_id": number}))
ping.send()
