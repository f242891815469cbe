"""Which worker stands behind a name: what a consumer looks up."""

from __future__ import annotations

import gc
import inspect
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sigra.binding import describe
from sigra.errors import DuplicateWorkerError, UnknownWorkerError

if TYPE_CHECKING:
    from sigra.definition import Definition

lock, making = threading.RLock(), threading.RLock()
"""``lock`` is held while the catalog or the settings change, ``making`` while a backend is made:
that may import a module whose workers enter the catalog."""

if hasattr(os, "register_at_fork"):  # a thread of the parent may hold one, which the child has not
    os.register_at_fork(after_in_child=lambda: [each._at_fork_reinit() for each in (lock, making)])  # type: ignore[attr-defined]

_lasting: dict[str, Definition] = {}
# A worker defined inside a function lives only while it is referred to: no consumer can import it.
_local: weakref.WeakValueDictionary[str, Definition] = weakref.WeakValueDictionary()
# A name is taken as long as its function lives, even if nobody holds the worker made of it.
_bodies: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
_subscribers: list[Callable[[Definition], object]] = []


def worker_name(function: Callable[..., Any]) -> str:
    """Return the default name: ``module.qualname``, the same in a spawned child."""
    return f"{_module(function)}.{function.__qualname__}"


def _module(function: Callable[..., Any]) -> str:
    return "__main__" if function.__module__ == "__mp_main__" else function.__module__


def register(definition: Definition) -> None:
    """Enter a worker; ``DuplicateWorkerError`` if another function has its name.

    A function of the same module executed again (a reload, a second run of ``__main__``,
    the import of what runs as ``__main__``) replaces the earlier one.
    """
    name, body = definition.name, definition.function
    with lock:
        if name in _bodies and name not in _lasting:
            gc.collect()  # what an earlier call left behind must not keep the name
        known = _find(name)
        first = _bodies.get(name, body) if known is None else known.function
        if not (first is body if known is None else _executed_again(known, definition)):
            raise DuplicateWorkerError(name, describe(first), describe(body))
        # Set before the other is removed: running jobs look it up without the lock.
        is_local = "<locals>" in body.__qualname__
        (_local if is_local else _lasting)[name] = definition
        (_lasting if is_local else _local).pop(name, None)
        _bodies[name] = body
        subscribers = tuple(_subscribers)
    for subscriber in subscribers:
        subscriber(definition)


def lookup(name: str) -> Definition:
    """Return the worker of that name; ``UnknownWorkerError`` if there is none."""
    if (found := _find(name)) is None:
        raise UnknownWorkerError(name)
    return found


def find(name: str, module: str | None) -> Definition:
    """Return the worker of that name; import ``module``, which defines it, if need be.

    Raises ``UnknownWorkerError`` if that does not define it either.
    """
    if _find(name) is None and module is not None:
        try:
            import_module(module)
        except ImportError as error:
            raise UnknownWorkerError(name) from error
    return lookup(name)


def definitions() -> Iterator[Definition]:
    """Yield every worker known now, by name."""
    with lock:
        # Through a list of references: a worker that nobody holds may vanish meanwhile.
        known = {one.name: one for each in _local.valuerefs() if (one := each())} | _lasting
    yield from map(known.__getitem__, sorted(known))


def subscribe(subscriber: Callable[[Definition], object]) -> None:
    """Call ``subscriber`` with every worker known now and every later one.

    This is how a backend registers its native tasks.
    """
    with lock:
        _subscribers.append(subscriber)
        known = tuple(definitions())
    for definition in known:
        subscriber(definition)


def _find(name: str) -> Definition | None:
    return _lasting.get(name) or _local.get(name)


def origin_of(function: Callable[..., Any]) -> tuple[Any, int, Any]:
    """Return what identifies a function's module (file) and one run of it (namespace, spec)."""
    # Unwrapped: a decorator's wrapper has the namespace of the decorator's module.
    namespace = getattr(inspect.unwrap(function), "__globals__", {})
    file, place = namespace.get("__file__"), id(namespace)
    return (os.path.abspath(file) if file else place), place, namespace.get("__spec__")


def _executed_again(known: Definition, definition: Definition) -> bool:
    """Tell whether this is the same worker, defined again because its module was executed again."""
    (first, before), (second, after) = ((one.function, one.origin) for one in (known, definition))
    if _module(first) != _module(second) and before[0] != after[0]:
        return False
    old, new = (getattr(inspect.unwrap(one), "__code__", None) for one in (first, second))
    # Another execution has another namespace or spec, or runs the same lines in the same namespace.
    anew = before[1] != after[1] or before[2] is not after[2] or (old is not new and old == new)
    typed = second.__module__ == "__main__" or after[0] == after[1]  # or a shell's, of no file
    return anew or (typed and hasattr(sys, "ps1"))
