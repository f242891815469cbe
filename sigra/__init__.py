"""Background jobs that know, and prove, on whose behalf they ran.

Decorate a function with ``tenant_worker``, enqueue it with ``.new(args)``, audit with
``log_safe``. Submodules load when a name of theirs is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sigra import audit as audit
    from sigra.audit.emit import log_safe
    from sigra.audit.event import AuditEvent, AuditResult
    from sigra.audit.sink import Sink
    from sigra.audit.stats import audit_stats
    from sigra.authority import request_scope_only
    from sigra.backend import Backend
    from sigra.backends.asyncio import AsyncioBackend
    from sigra.backends.signing import Signing
    from sigra.backends.sync import SyncBackend
    from sigra.backends.thread import ThreadBackend
    from sigra.config import configure
    from sigra.context import current_job
    from sigra.decorators import tenant_worker, worker
    from sigra.errors import (
        AuditOnlyScopeError,
        AuditRejectedError,
        CrossTenantError,
        DuplicateWorkerError,
        EnqueueError,
        EnvelopeError,
        InvalidArgsError,
        InvalidOptionError,
        JobCancelledError,
        JobFailedError,
        MissingArgError,
        MissingExtraError,
        MissingTenantKeysError,
        PoisonedJobError,
        SigraError,
        UnknownBackendError,
        UnknownWorkerError,
        UnsupportedError,
    )
    from sigra.execute import fetch_arg
    from sigra.job import Job, JobInfo
    from sigra.outcome import Cancel, Failure, Ok, Snooze
    from sigra.proxy import TenantWorker, Worker
    from sigra.scope import AuditScope, Identity, tenant_args

__version__ = "0.1.0"

__all__ = [
    "AsyncioBackend", "AuditEvent", "AuditOnlyScopeError", "AuditRejectedError", "AuditResult",
    "AuditScope", "Backend", "Cancel", "CrossTenantError", "DuplicateWorkerError", "EnqueueError",
    "EnvelopeError", "Failure", "Identity", "InvalidArgsError", "InvalidOptionError", "Job",
    "JobCancelledError", "JobFailedError", "JobInfo", "MissingArgError", "MissingExtraError",
    "MissingTenantKeysError", "Ok", "PoisonedJobError", "Signing", "SigraError", "Sink", "Snooze",
    "SyncBackend", "TenantWorker", "ThreadBackend", "UnknownBackendError", "UnknownWorkerError",
    "UnsupportedError", "Worker", "audit_stats", "configure", "current_job", "fetch_arg",
    "log_safe", "request_scope_only", "tenant_args", "tenant_worker", "worker",
]  # fmt: skip

_NAMES = {
    "audit.emit": "log_safe",
    "audit.event": "AuditEvent AuditResult",
    "audit.sink": "Sink",
    "audit.stats": "audit_stats",
    "authority": "request_scope_only",
    "backend": "Backend",
    "backends.asyncio": "AsyncioBackend",
    "backends.signing": "Signing",
    "backends.sync": "SyncBackend",
    "backends.thread": "ThreadBackend",
    "config": "configure",
    "context": "current_job",
    "decorators": "tenant_worker worker",
    "execute": "fetch_arg",
    "job": "Job JobInfo",
    "outcome": "Cancel Failure Ok Snooze",
    "proxy": "TenantWorker Worker",
    "scope": "AuditScope Identity tenant_args",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}
"""The module in which each public name lives; those not listed are errors."""


if not TYPE_CHECKING:  # where any name would pass

    def __getattr__(name: str) -> Any:
        if name == "audit":
            return import_module("sigra.audit")
        if name not in __all__:
            raise AttributeError(f"module 'sigra' has no attribute {name!r}")
        home = _HOMES.get(name, "errors")
        globals()[name] = value = getattr(import_module(f"sigra.{home}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "audit"})
