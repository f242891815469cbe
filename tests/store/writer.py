"""A writer in a process of its own: ``python writer.py URL NAME COUNT ORGANIZATIONS``.

It prints the id of each event once log_safe has said "emitted", and goes on until it is
killed, or has written COUNT events.
"""

from __future__ import annotations

import itertools
import os
import sys

import structlog

from sigra import AuditEvent, AuditScope, configure, log_safe
from sigra.store import SqlAuditSink


def main(url: str, name: str, count: int, organizations: int) -> None:
    structlog.configure(processors=[], logger_factory=structlog.ReturnLoggerFactory())
    sink = SqlAuditSink(url)
    numbers = range(count) if count else itertools.count()
    with configure(sinks=[sink], audit_schema=AuditEvent):
        for number in numbers:
            organization = f"org {number % organizations}" if number % 4 else None
            scope = AuditScope.build(actor_id=name, organization_id=organization)
            result = log_safe("invoice.close", scope, metadata={"n": number})
            if result.status != "emitted":
                sys.exit(f"{result.status}: {result.reason}")
            os.write(1, f"{result.event.event_id}\n".encode())
    sink.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
