"""Audit events: what happened, for whom, without secrets and without ever raising.

``log_safe`` logs one, ``log`` is strict about its form. What brings structlog in, renders
JSON or reads a store loads when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sigra.audit.emit import log as log
    from sigra.audit.emit import log_safe as log_safe
    from sigra.audit.event import AuditEvent as AuditEvent
    from sigra.audit.event import AuditResult as AuditResult
    from sigra.audit.line import JSONRenderer as JSONRenderer
    from sigra.audit.sink import Sink as Sink
    from sigra.audit.stats import AuditStats as AuditStats
    from sigra.audit.stats import audit_stats as audit_stats
    from sigra.audit.transaction import NoAuditStoreError as NoAuditStoreError
    from sigra.store.errors import AuditBacklogError as AuditBacklogError
    from sigra.store.errors import AuditLostError as AuditLostError
    from sigra.store.errors import InvalidQueryError as InvalidQueryError
    from sigra.store.lines import JSONLinesSink as JSONLinesSink
    from sigra.store.many import log_many as log_many
    from sigra.store.reading import EventFilter as EventFilter
    from sigra.store.reading import Page as Page
    from sigra.store.reading import ReadableSink as ReadableSink
    from sigra.store.reading import cleanup as cleanup
    from sigra.store.reading import count as count
    from sigra.store.reading import query as query
    from sigra.store.reading import stream as stream

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
"""In which module each public name lives; the store's are shown here, where events are."""

__all__ = sorted(_HOMES)  # noqa: PLE0605  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sigra.audit' has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"sigra.{_HOMES[name]}"), name)
    return value
