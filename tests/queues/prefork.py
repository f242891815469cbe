"""A producer that forks once it has sent a job, as a server with worker processes does.

``python prefork.py QUEUE URL``: parent and child send jobs side by side, the child ends as a
program does, and the parent sends more; it ends with 1 if the child did not end well.
"""

from __future__ import annotations

import os
import sys

from sigra import configure
from sigra.backend import Backend
from sigra.testing import contract_workers as workers
from sigra.testing.contract_case import IDS

EACH = 20
"""How many jobs are sent before the fork, by each after it, and when the child has ended."""


def backend_of(queue: str, url: str) -> Backend:
    """Return a backend whose connections are its own."""
    if queue == "oban":
        import oban
        from psycopg_pool import AsyncConnectionPool

        from sigra.backends.oban import ObanBackend

        oban.Oban(pool=AsyncConnectionPool(url, open=False, timeout=5))
        return ObanBackend()
    if queue == "dramatiq":
        from dramatiq_app import make_broker

        from sigra.backends.dramatiq import DramatiqBackend

        name = os.environ["SIGRA_TEST_QUEUE"]
        return DramatiqBackend(make_broker(url, name), queue=name)
    from sigra.backends.pgqueuer import PgQueuerBackend

    os.environ["PGDSN"] = url
    return PgQueuerBackend()


def send() -> None:
    for _ in range(EACH):
        workers.echo.new(IDS, delay=3600)


if __name__ == "__main__":
    configure(backend=backend_of(*sys.argv[1:]))
    send()
    child = os.fork()
    send()
    if child:
        _, status = os.waitpid(child, 0)
        send()
        sys.exit(bool(status))
