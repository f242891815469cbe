"""Which failed writes are the event's own fault, and the report of events lost from a queue."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    ProgrammingError,
    StatementError,
)

from sigra.audit.event import AuditEvent, AuditResult
from sigra.audit.failure import report
from sigra.audit.read import error_name
from sigra.store.errors import state_of

_DATA = (
    StatementError, ValueError, TypeError, AttributeError, OverflowError, RecursionError,
    sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError,
)  # fmt: skip
"""Errors from before a driver is called, and those of SQLite's when it is called directly."""

_REFUSED = ("22", "23", "54", "P0001")
"""How PostgreSQL's codes begin where a column (22), a constraint (23) or an index (54) refuses a
value, or a trigger raises an error of its own."""


def is_of_the_data(error: Exception) -> bool:
    """Tell whether an event can never be written, though the database works."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, _DATA)
    state = state_of(error)
    if state is not None:  # the class of asyncpg's errors tells less
        return state.startswith(_REFUSED)
    of_values = isinstance(error, (DataError, IntegrityError, ProgrammingError))
    return of_values and not error.connection_invalidated


def tell_lost(items: Sequence[tuple[AuditEvent, Any]], error: Exception) -> None:
    """Count events as failed that counted as emitted once queued; log and report them."""
    reason = f"it was queued and then not written: {error_name(error)}"
    for event, _ in items:
        report(AuditResult("failed", reason, event), event.action)
