"""Which backend stands behind a name: ours, or any that a package offers."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from sigra.backend import Backend
from sigra.catalog import backend_lock
from sigra.errors import MissingExtraError, UnknownBackendError

GROUP = "sigra.backends"
"""The entry-point group through which a package adds a backend."""

_BUILT_IN = {"sync": "SyncBackend", "thread": "ThreadBackend", "asyncio": "AsyncioBackend"}
_instances: dict[str, Backend] = {}


def resolve_backend(backend: str | Backend) -> Backend:
    """Return the backend of that name, made on first use and then shared, or the instance.

    Raises ``UnknownBackendError`` for a name that nothing provides,
    ``MissingExtraError`` if the package behind one of ours is not installed,
    ``ImportError`` if it cannot be loaded for another reason, and ``TypeError`` for an
    object that is not a backend.
    """
    if not isinstance(backend, str):
        return _check(backend)
    with backend_lock:
        if backend not in _instances:
            _instances[backend] = _check(backend_class(backend)())
        return _instances[backend]


def backend_names() -> tuple[str, ...]:
    """Return every name that ``resolve_backend`` takes, sorted."""
    return tuple(sorted({*_BUILT_IN, *_entry_points()}))


def backend_class(name: str) -> Any:
    """Return the class behind a name, or whatever else makes the backend when called.

    Raises as ``resolve_backend`` does for names.
    """
    if name in _BUILT_IN:
        return getattr(import_module(f"sigra.backends.{name}"), _BUILT_IN[name])
    if (entry := _entry_points().get(name)) is None:
        raise UnknownBackendError(name, backend_names())
    try:
        return entry.load()
    except MissingExtraError:
        raise
    except (ImportError, AttributeError) as error:
        text = f"backend {name!r} of the package {entry.dist.name} cannot be loaded: {error}"
        raise ImportError(text, name=error.name) from error


def _entry_points() -> dict[str, Any]:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _check(backend: Any) -> Backend:
    if isinstance(backend, type):
        raise TypeError(f"{backend.__qualname__} is a class; a backend is an instance of one")
    if not isinstance(backend, Backend):
        raise TypeError(
            f"{type(backend).__qualname__} is not a backend: it needs name, capabilities, "
            "enqueue() and aenqueue() (sigra.backend.Backend)"
        )
    return backend
