"""A durable, tamper-evident store of audit events, on SQLite and PostgreSQL.

``SqlAuditSink`` writes and reads events; ``verify`` tells whether they are still as they were
written. This needs the extra ``sql``. What ``sigra.audit`` offers of it, the functions that read
and ``JSONLinesSink``, does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sigra.errors import MissingExtraError

if TYPE_CHECKING:
    from sigra.store.batch import Batching
    from sigra.store.checkpoint import (
        Checkpoint,
        append_checkpoint,
        read_checkpoints,
        take_checkpoint,
    )
    from sigra.store.errors import (
        AsyncConnectionError,
        AuditChainError,
        AuditNotKeptError,
        AuditSinkClosedError,
        AuditTablesError,
        AuditTablesMissingError,
        AutocommitError,
        CheckpointOrderError,
    )
    from sigra.store.exporting import export
    from sigra.store.keys import Signer
    from sigra.store.manifest import Exported, Manifest, verify_export
    from sigra.store.report import Finding, Report
    from sigra.store.retention import Pruned, erase, prune, vacuum
    from sigra.store.sink import SqlAuditSink
    from sigra.store.verification import verify

_HOMES = {
    "AsyncConnectionError": "errors",
    "AuditChainError": "errors",
    "AuditNotKeptError": "errors",
    "AuditSinkClosedError": "errors",
    "AuditTablesError": "errors",
    "AuditTablesMissingError": "errors",
    "AutocommitError": "errors",
    "Batching": "batch",
    "Checkpoint": "checkpoint",
    "CheckpointOrderError": "errors",
    "Exported": "manifest",
    "Finding": "report",
    "Manifest": "manifest",
    "Pruned": "retention",
    "Report": "report",
    "Signer": "keys",
    "SqlAuditSink": "sink",
    "append_checkpoint": "checkpoint",
    "erase": "retention",
    "export": "exporting",
    "prune": "retention",
    "read_checkpoints": "checkpoint",
    "take_checkpoint": "checkpoint",
    "vacuum": "retention",
    "verify": "verification",
    "verify_export": "manifest",
}

__all__ = [
    "AsyncConnectionError",
    "AuditChainError",
    "AuditNotKeptError",
    "AuditSinkClosedError",
    "AuditTablesError",
    "AuditTablesMissingError",
    "AutocommitError",
    "Batching",
    "Checkpoint",
    "CheckpointOrderError",
    "Exported",
    "Finding",
    "Manifest",
    "Pruned",
    "Report",
    "Signer",
    "SqlAuditSink",
    "append_checkpoint",
    "erase",
    "export",
    "prune",
    "read_checkpoints",
    "take_checkpoint",
    "vacuum",
    "verify",
    "verify_export",
]


if not TYPE_CHECKING:  # a type checker would then let any name pass

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
