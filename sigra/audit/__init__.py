"""Audit events: what happened, for whom, without secrets and without ever raising.

``log_safe`` logs one, ``log`` is strict about its form. What brings structlog in, or
renders JSON, loads when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sigra.audit.action import check_action
from sigra.audit.event import AuditEvent, AuditResult
from sigra.audit.stats import AuditStats, audit_stats

if TYPE_CHECKING:
    from sigra.audit.emit import log, log_lifecycle, log_safe
    from sigra.audit.errors import (
        AuditBacklogError,
        AuditLostError,
        InvalidQueryError,
        NoAuditStoreError,
    )
    from sigra.audit.line import JSONRenderer
    from sigra.audit.many import log_many
    from sigra.audit.reading import EventFilter, Page, ReadableSink, cleanup, count, query, stream
    from sigra.audit.sink import JSONLinesSink, Sink

_HOMES = {
    "emit": ("log", "log_lifecycle", "log_safe"),
    "errors": ("AuditBacklogError", "AuditLostError", "InvalidQueryError", "NoAuditStoreError"),
    "line": ("JSONRenderer",),
    "many": ("log_many",),
    "reading": ("EventFilter", "Page", "ReadableSink", "cleanup", "count", "query", "stream"),
    "sink": ("JSONLinesSink", "Sink"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AuditBacklogError",
    "AuditEvent",
    "AuditLostError",
    "AuditResult",
    "AuditStats",
    "EventFilter",
    "InvalidQueryError",
    "JSONLinesSink",
    "JSONRenderer",
    "NoAuditStoreError",
    "Page",
    "ReadableSink",
    "Sink",
    "audit_stats",
    "check_action",
    "cleanup",
    "count",
    "log",
    "log_lifecycle",
    "log_many",
    "log_safe",
    "query",
    "stream",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'sigra.audit' has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"sigra.audit.{_HOME_OF[name]}"), name)
    return value
