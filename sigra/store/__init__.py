"""A durable, tamper-evident store of audit events, on SQLite and PostgreSQL.

``SqlAuditSink`` writes and reads, ``verify`` says whether what is there is what was written.
Needs the extra ``sql``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sigra.errors import MissingExtraError

if TYPE_CHECKING:
    from sigra.store.batch import Batching
    from sigra.store.sink import SqlAuditSink

_HOMES = {"Batching": "batch", "SqlAuditSink": "sink"}

__all__ = ["Batching", "SqlAuditSink"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'sigra.store' has no attribute {name!r}")
    try:
        value = getattr(import_module(f"sigra.store.{home}"), name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "sigra":
            raise
        raise MissingExtraError("sql", package) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
