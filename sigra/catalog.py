"""Which worker stands behind a name: what a consumer looks up."""

from __future__ import annotations

import gc
import inspect
import os
import sys
import threading
import weakref
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from sigra.binding import describe
from sigra.errors import DuplicateWorkerError, UnknownWorkerError
from sigra.ids import in_child

if TYPE_CHECKING:
    from sigra.definition import Definition

lock, backend_lock = threading.RLock(), threading.RLock()
"""``lock`` is held while the catalog or the settings change; ``backend_lock`` while a backend is
made. They are two, because making a backend may import a module, and so wait for another thread
that is importing it and, to register its workers, needs ``lock``."""

for each in (lock, backend_lock):  # a thread that holds one is missing in the child
    in_child(after_in_child=each._at_fork_reinit)  # type: ignore[attr-defined]

_lasting: dict[str, Definition] = {}
# Workers defined inside a function live only while they are referred to: no consumer imports them.
_local: weakref.WeakValueDictionary[str, Definition] = weakref.WeakValueDictionary()
# A name is taken as long as its function lives, even if nobody refers to its worker any more.
# The pytest plugin takes those of a test's own workers out, and they are still looked up.
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
            gc.collect()  # garbage of an earlier call must not keep the name
        known = _find(name) if name in _bodies else None
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


def definitions() -> list[Definition]:
    """Return every worker known now, sorted by name."""
    with lock:
        # Through a list of references: a worker that nobody refers to may vanish meanwhile.
        known = {one.name: one for each in _local.valuerefs() if (one := each())} | _lasting
    return [known[name] for name in sorted(known)]


def subscribe(subscriber: Callable[[Definition], object]) -> None:
    """Call ``subscriber`` with every worker known now and every later one.

    This is how a backend registers its native tasks.
    """
    with lock:
        _subscribers.append(subscriber)
        known = definitions()
    for definition in known:
        subscriber(definition)


def _find(name: str) -> Definition | None:
    return _lasting.get(name) or _local.get(name)


class Origin(NamedTuple):
    """One execution of a module: its file, the identity of its namespace, and its spec."""

    file: Any
    namespace: int
    spec: Any


def origin_of(function: Callable[..., Any]) -> Origin:
    """Return the execution that defined a function; without a file, the namespace stands for it."""
    # Unwrapped: a decorator's wrapper has the namespace of the decorator's module.
    namespace = getattr(inspect.unwrap(function), "__globals__", {})
    file, own = namespace.get("__file__"), id(namespace)
    return Origin(os.path.abspath(file) if file else own, own, namespace.get("__spec__"))


def _place(origin: Origin) -> Any:
    """Return its file without links: Python runs a script under the path that it was given."""
    return origin.file if origin.file == origin.namespace else os.path.realpath(origin.file)


def _executed_again(known: Definition, definition: Definition) -> bool:
    """Tell whether this is the same worker, defined again because its module was executed again."""
    (first, before), (second, after) = ((one.function, one.origin) for one in (known, definition))
    if _module(first) != _module(second) and _place(before) != _place(after):
        return False
    anew = before.namespace != after.namespace or before.spec is not after.spec
    # In one and the same execution: the same lines may run again, or be typed again in a shell.
    old, new = (getattr(inspect.unwrap(one), "__code__", None) for one in (first, second))
    typed = second.__module__ == "__main__" or after.file == after.namespace
    in_shell = hasattr(sys, "ps1") or "marimo" in sys.modules  # whose cells have no prompt
    return anew or (old is not new and old == new) or (typed and in_shell)
