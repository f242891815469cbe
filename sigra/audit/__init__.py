"""Audit events: what happened, for whom, without secrets and without ever raising.

``log_safe`` logs one, ``log`` is strict about its form. Submodules load when a name of
theirs is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sigra.audit.action import check_action
    from sigra.audit.emit import log, log_lifecycle, log_safe
    from sigra.audit.event import AuditEvent, AuditResult
    from sigra.audit.reading import EventFilter, Page, ReadableSink, count, query, stream
    from sigra.audit.render import JSONRenderer
    from sigra.audit.sink import JSONLinesSink, Sink
    from sigra.audit.stats import AuditStats, audit_stats

_HOMES = {
    "AuditEvent": "event",
    "AuditResult": "event",
    "AuditStats": "stats",
    "EventFilter": "reading",
    "JSONLinesSink": "sink",
    "JSONRenderer": "render",
    "Page": "reading",
    "ReadableSink": "reading",
    "Sink": "sink",
    "audit_stats": "stats",
    "check_action": "action",
    "count": "reading",
    "log": "emit",
    "log_lifecycle": "emit",
    "log_safe": "emit",
    "query": "reading",
    "stream": "reading",
}

__all__ = [
    "AuditEvent",
    "AuditResult",
    "AuditStats",
    "EventFilter",
    "JSONLinesSink",
    "JSONRenderer",
    "Page",
    "ReadableSink",
    "Sink",
    "audit_stats",
    "check_action",
    "count",
    "log",
    "log_lifecycle",
    "log_safe",
    "query",
    "stream",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'sigra.audit' has no attribute {name!r}")
    value = getattr(import_module(f"sigra.audit.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
