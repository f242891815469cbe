"""Handlers of logging that get in the way of a job's own log lines."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def handled_by(handle: Callable[[logging.LogRecord], object]) -> Iterator[None]:
    """Have a handler do this with every line that is logged of a job."""

    class Handler(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            handle(record)
            return True

    handler, log = Handler(), logging.getLogger("sigra.job")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def exiting(record: logging.LogRecord) -> None:
    """Raise what no handler should."""
    raise SystemExit(3)
