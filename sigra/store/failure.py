"""Whose fault a failed write is, and how an event is told of that was queued and then lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError, StatementError

from sigra.audit.event import AuditEvent, AuditResult
from sigra.audit.failure import settled
from sigra.audit.read import type_name

_DATA = (
    ValueError, TypeError, AttributeError, RecursionError, DataError, IntegrityError,
    sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError,
)  # fmt: skip


def is_of_the_data(error: Exception) -> bool:
    """Tell whether an event itself cannot be written, now or ever, to a database that is well."""
    if isinstance(error, StatementError) and not isinstance(error, ProgrammingError):
        return isinstance(error, _DATA) or isinstance(error.orig, _DATA)
    return isinstance(error, _DATA)


def tell_lost(items: Sequence[tuple[AuditEvent, Any]], error: Exception) -> None:
    """Count events that were queued, and so "emitted", as failed; log and report them."""
    reason = f"it was queued and then not written: {type_name(type(error))}"
    for event, _ in items:
        settled(AuditResult("failed", reason, event), event.action)
