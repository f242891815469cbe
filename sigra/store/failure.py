"""Whose fault a failed write is, and how an event is told of that was queued and then lost."""

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
from sigra.audit.read import type_name

_DATA = (
    StatementError, ValueError, TypeError, AttributeError, OverflowError, RecursionError,
    sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError,
)  # fmt: skip
"""What comes before a driver was asked; and the errors of one that was asked by itself."""

_REFUSED = ("22", "23", "54", "P0001")
"""PostgreSQL's codes for values that a column, a constraint or an index does not take, and for what
a trigger says of its own."""


def is_of_the_data(error: Exception) -> bool:
    """Tell whether an event itself cannot be written, now or ever, to a database that is well."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, _DATA)
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:  # of asyncpg's errors the class tells less
        return str(state).startswith(_REFUSED)
    of_values = isinstance(error, (DataError, IntegrityError, ProgrammingError))
    return of_values and not error.connection_invalidated


def tell_lost(items: Sequence[tuple[AuditEvent, Any]], error: Exception) -> None:
    """Count events that were queued, and so "emitted", as failed; log and report them."""
    reason = f"it was queued and then not written: {type_name(type(error))}"
    for event, _ in items:
        report(AuditResult("failed", reason, event), event.action)
