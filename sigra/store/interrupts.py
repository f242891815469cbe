"""Stopping a long statement of SQLite's by a signal, as Ctrl-C."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

_STEPS = 20_000
"""Steps of SQLite's between two looks for signals; VACUUM takes some four of them for a row."""


@contextmanager
def interruptible(driver: Any) -> Iterator[None]:
    """Let a signal's handler run amid a statement of SQLite's, and raise what the handler raises.

    Python itself runs it after the statement, which may take a minute.
    """
    if not isinstance(driver, sqlite3.Connection):
        yield
        return
    raised: list[BaseException] = []
    handlers = _run_handlers(raised)
    next(handlers)
    driver.set_progress_handler(handlers.__next__, _STEPS)
    try:
        yield
    except Exception:
        if raised:
            raise raised[0] from None
        raise
    finally:
        with suppress(sqlite3.ProgrammingError):  # a signal between two steps has it closed
            driver.set_progress_handler(None, 0)


def _run_handlers(raised: list[BaseException]) -> Iterator[bool]:
    # A generator: when a function is called, handlers run before any try in it.
    while True:
        try:
            yield bool(raised)
        except GeneratorExit:
            return
        except BaseException as error:
            raised.append(error)
