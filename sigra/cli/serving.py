"""Serve the page of the audit store on this machine."""

from __future__ import annotations

import secrets
import socket
import sys
from threading import Thread
from typing import Any

from sigra.cli.show import say
from sigra.cli.target import MisuseError
from sigra.errors import MissingExtraError
from sigra.store import SqlAuditSink


def serve_page(store: SqlAuditSink, trust: dict[str, Any], port: int) -> None:
    """Print the page's address, and serve it until Ctrl-C."""
    try:
        import uvicorn

        from sigra.web import make_app
    except ImportError as error:
        raise MisuseError(str(MissingExtraError("web", error.name or "starlette"))) from None
    token = secrets.token_urlsafe(24)
    app = make_app(store, token=token, **trust)
    config = uvicorn.Config(app, log_level="warning", server_header=False)
    try:
        bound = socket.create_server(("127.0.0.1", port))  # open before the address is printed
    except OSError as error:
        raise MisuseError(
            f"the page cannot be served: {error.strerror}; choose another --port, or 0 for any"
        ) from None
    say(f"http://127.0.0.1:{bound.getsockname()[1]}/?token={token}")
    # In a thread that the end of the process waits for as little as for those that read the store,
    # which it starts: in the main one a signal would wait until each verification is done.
    page = Thread(target=uvicorn.Server(config).run, args=([bound],), daemon=True)
    page.start()
    while page.is_alive():
        page.join(1)  # on Windows nothing interrupts a join, and Ctrl-C is heard of after it
    sys.exit(1)  # it ended by itself, and has logged why
