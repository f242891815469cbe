"""Background jobs that know, and prove, on whose behalf they ran.

Decorate a function with ``tenant_worker``, enqueue it with ``.new(args)``, audit with
``log_safe``. Submodules load when a name of theirs is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sigra import audit as audit
    from sigra.audit.emit import log_safe as log_safe
    from sigra.audit.event import AuditEvent as AuditEvent
    from sigra.audit.event import AuditResult as AuditResult
    from sigra.audit.sink import Sink as Sink
    from sigra.audit.stats import audit_stats as audit_stats
    from sigra.authority import request_scope_only as request_scope_only
    from sigra.backend import Backend as Backend
    from sigra.backends.asyncio import AsyncioBackend as AsyncioBackend
    from sigra.backends.signing import Signing as Signing
    from sigra.backends.sync import SyncBackend as SyncBackend
    from sigra.backends.thread import ThreadBackend as ThreadBackend
    from sigra.config import configure as configure
    from sigra.context import current_job as current_job
    from sigra.decorators import tenant_worker as tenant_worker
    from sigra.decorators import worker as worker
    from sigra.errors import AuditOnlyScopeError as AuditOnlyScopeError
    from sigra.errors import AuditRejectedError as AuditRejectedError
    from sigra.errors import CrossTenantError as CrossTenantError
    from sigra.errors import DuplicateWorkerError as DuplicateWorkerError
    from sigra.errors import EnqueueError as EnqueueError
    from sigra.errors import EnvelopeError as EnvelopeError
    from sigra.errors import InvalidArgsError as InvalidArgsError
    from sigra.errors import InvalidOptionError as InvalidOptionError
    from sigra.errors import JobCancelledError as JobCancelledError
    from sigra.errors import JobFailedError as JobFailedError
    from sigra.errors import MissingArgError as MissingArgError
    from sigra.errors import MissingExtraError as MissingExtraError
    from sigra.errors import MissingTenantKeysError as MissingTenantKeysError
    from sigra.errors import PoisonedJobError as PoisonedJobError
    from sigra.errors import SigraError as SigraError
    from sigra.errors import UnknownBackendError as UnknownBackendError
    from sigra.errors import UnknownWorkerError as UnknownWorkerError
    from sigra.errors import UnsupportedError as UnsupportedError
    from sigra.execute import fetch_arg as fetch_arg
    from sigra.job import Job as Job
    from sigra.job import JobInfo as JobInfo
    from sigra.outcome import Cancel as Cancel
    from sigra.outcome import Failure as Failure
    from sigra.outcome import Ok as Ok
    from sigra.outcome import Snooze as Snooze
    from sigra.proxy import TenantWorker as TenantWorker
    from sigra.proxy import Worker as Worker
    from sigra.scope import AuditScope as AuditScope
    from sigra.scope import Identity as Identity
    from sigra.scope import tenant_args as tenant_args

__version__ = "0.1.0"

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
    "errors": (
        "AuditOnlyScopeError AuditRejectedError CrossTenantError DuplicateWorkerError "
        "EnqueueError EnvelopeError InvalidArgsError InvalidOptionError JobCancelledError "
        "JobFailedError MissingArgError MissingExtraError MissingTenantKeysError "
        "PoisonedJobError SigraError UnknownBackendError UnknownWorkerError UnsupportedError"
    ),
    "execute": "fetch_arg",
    "job": "Job JobInfo",
    "outcome": "Cancel Failure Ok Snooze",
    "proxy": "TenantWorker Worker",
    "scope": "AuditScope Identity tenant_args",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}
"""In which module each public name lives."""

__all__ = sorted(_HOMES)  # noqa: PLE0605  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "audit":
        return import_module("sigra.audit")
    if name not in _HOMES:
        raise AttributeError(f"module 'sigra' has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"sigra.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "audit"})
