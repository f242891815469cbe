"""Process-wide settings: an immutable snapshot that configure() replaces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import iscoroutinefunction
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sigra.catalog import lock
from sigra.registry import resolve_backend
from sigra.schema import check_schema

if TYPE_CHECKING:
    from sigra.audit.event import AuditResult
    from sigra.audit.sink import Sink
    from sigra.backend import Backend
    from sigra.backends.signing import Signing

_UNCHANGED: Any = object()


@dataclass(frozen=True, slots=True, eq=False)
class Config:
    """One state of the settings.

    ``token`` identifies it. A worker remembers the token and the backend that it chose, but not the
    settings. So it keeps neither earlier settings nor their default backend alive, and a backend
    from ``backends`` only until it chooses again.
    """

    backend: Backend | None = None
    backends: Mapping[str, Backend] = field(default_factory=lambda: MappingProxyType({}))
    sinks: tuple[Sink, ...] = ()
    audit_schema: Any = None
    on_audit_failure: Callable[[AuditResult], object] | None = None
    max_args_bytes: int = 256 * 1024
    signing: Signing | None = None
    token: object = field(default_factory=object, init=False)

    def choose(self, of_worker: Backend | None, queue: str | None) -> Backend:
        """Pick the backend: the worker's own, then the queue's, then the default."""
        if of_worker is not None:
            return of_worker
        if queue is not None and queue in self.backends:
            return self.backends[queue]
        return self.backend if self.backend is not None else resolve_backend("sync")


current = Config()
"""The snapshot in force; read it as ``config.current``, never import the name."""


class configure:
    """Change the settings that are named, and nothing else, from now on.

    As a context manager, restore all settings on exit, also those that another call changed
    meanwhile.

    Settings: ``backend`` (a name or an instance), ``backends`` (queue name to backend), ``sinks``,
    ``audit_schema``, ``on_audit_failure`` (called with the ``AuditResult``), ``max_args_bytes`` (of
    compact UTF-8) and ``signing`` (of envelopes). A bad one raises ``UnknownBackendError``,
    ``TypeError`` or ``ValueError``, and nothing is changed.
    """

    def __init__(
        self,
        *,
        backend: str | Backend = _UNCHANGED,
        backends: Mapping[str, str | Backend] = _UNCHANGED,
        sinks: Sequence[Sink] = _UNCHANGED,
        audit_schema: Any = _UNCHANGED,
        on_audit_failure: Callable[[AuditResult], object] | None = _UNCHANGED,
        max_args_bytes: int = _UNCHANGED,
        signing: Signing | None = _UNCHANGED,
    ) -> None:
        given: dict[str, tuple[Any, Callable[[Any], Any]]] = {
            "backend": (backend, resolve_backend),
            "backends": (backends, _resolve_all),
            "sinks": (sinks, _check_sinks),
            "audit_schema": (audit_schema, check_schema),
            "on_audit_failure": (on_audit_failure, _check_callback),
            "max_args_bytes": (max_args_bytes, _check_limit),
            "signing": (signing, _check_signing),
        }
        changes = {name: check(to) for name, (to, check) in given.items() if to is not _UNCHANGED}
        global current
        with lock:
            self._before, current = current, replace(current, **changes)

    def __enter__(self) -> Config:
        return current

    def __exit__(self, *error: object) -> None:
        global current
        with lock:
            current = self._before


def _resolve_all(backends: Any) -> Mapping[str, Backend]:
    if not (isinstance(backends, Mapping) and all(isinstance(queue, str) for queue in backends)):
        raise TypeError("backends must be a mapping of queue names to backends")
    return MappingProxyType(
        {str.__str__(queue): resolve_backend(name) for queue, name in backends.items()}
    )


def _check_sinks(sinks: Any) -> tuple[Sink, ...]:
    if hasattr(sinks, "write") or not isinstance(sinks, Iterable):
        raise TypeError(f"sinks must be a list of sinks, not {type(sinks).__qualname__}")
    return tuple(map(_check_sink, sinks))


def _check_sink(sink: Any) -> Any:
    if isinstance(sink, type):
        raise TypeError(f"{sink.__qualname__} is a class; a sink is an instance of one")
    for member in ("write", "close"):
        # Nothing would await what an async one returns, and so nothing would be written.
        if not callable(method := getattr(sink, member, None)) or iscoroutinefunction(method):
            raise TypeError(
                f"{type(sink).__qualname__} is not a sink: it has no plain {member}(). A sink has "
                "write(event, record) and close(), neither of them async."
            )
    return sink


def _check_callback(callback: Any) -> Any:
    if callback is not None and (not callable(callback) or iscoroutinefunction(callback)):
        raise TypeError("on_audit_failure must be a plain function of one AuditResult, or None")
    return callback


def _check_signing(signing: Any) -> Any:
    if signing is not None and (isinstance(signing, type) or not hasattr(signing, "seal")):
        raise TypeError(f"signing must be a Signing or None, not {type(signing).__qualname__}")
    return signing


def _check_limit(limit: Any) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError(f"max_args_bytes must be an int, not {type(limit).__qualname__}")
    if limit < 2:
        raise ValueError(f"max_args_bytes must be at least 2 (an empty object), not {limit}")
    return limit
