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
    from sigra.audit.render import JSONRenderer
    from sigra.audit.sink import JSONLinesSink, Sink
    from sigra.audit.stats import AuditStats, audit_stats

_HOMES = {
    "AuditEvent": "event",
    "AuditResult": "event",
    "AuditStats": "stats",
    "JSONLinesSink": "sink",
    "JSONRenderer": "render",
    "Sink": "sink",
    "audit_stats": "stats",
    "check_action": "action",
    "log": "emit",
    "log_lifecycle": "emit",
    "log_safe": "emit",
}

__all__ = [
    "AuditEvent",
    "AuditResult",
    "AuditStats",
    "JSONLinesSink",
    "JSONRenderer",
    "Sink",
    "audit_stats",
    "check_action",
    "log",
    "log_lifecycle",
    "log_safe",
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
