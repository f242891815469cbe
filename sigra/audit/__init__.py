"""Audit events: what happened, for whom, without secrets and without ever raising.

``log_safe`` logs one, ``log`` is strict about its form. Modules that import structlog, render
JSON or read a store are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sigra.audit.emit import log, log_safe
    from sigra.audit.event import AuditEvent, AuditResult
    from sigra.audit.line import JSONRenderer
    from sigra.audit.sink import Sink
    from sigra.audit.stats import AuditStats, audit_stats
    from sigra.audit.transaction import NoAuditStoreError
    from sigra.store.errors import AuditBacklogError, AuditLostError, InvalidQueryError
    from sigra.store.lines import JSONLinesSink
    from sigra.store.many import log_many
    from sigra.store.reading import EventFilter, Page, ReadableSink, cleanup, count, query, stream

__all__ = [
    "AuditBacklogError", "AuditEvent", "AuditLostError", "AuditResult", "AuditStats",
    "EventFilter", "InvalidQueryError", "JSONLinesSink", "JSONRenderer", "NoAuditStoreError",
    "Page", "ReadableSink", "Sink", "audit_stats", "cleanup", "count", "log", "log_many",
    "log_safe", "query", "stream",
]  # fmt: skip

_NAMES = {
    "audit.emit": "log log_safe",
    "audit.event": "AuditEvent AuditResult",
    "audit.line": "JSONRenderer",
    "audit.sink": "Sink",
    "audit.stats": "AuditStats audit_stats",
    "audit.transaction": "NoAuditStoreError",
    "store.errors": "AuditBacklogError AuditLostError InvalidQueryError",
    "store.lines": "JSONLinesSink",
    "store.many": "log_many",
    "store.reading": "EventFilter Page ReadableSink cleanup count query stream",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}
"""The module in which each public name lives; the store's are shown here, where events are."""


if not TYPE_CHECKING:  # where any name would pass

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'sigra.audit' has no attribute {name!r}")
        globals()[name] = value = getattr(import_module(f"sigra.{_HOMES[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
