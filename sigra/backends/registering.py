"""A queue's own object: what is one, and how each worker is registered with it while it lives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from sigra import catalog
from sigra.definition import Definition


class _Subscriber:
    """What a queue's own object keeps alive, and by it the backend that registers."""

    def __init__(
        self, register: Callable[[Definition], object], known: Iterable[Definition]
    ) -> None:
        self.register, self.known = register, WeakSet(known)


_subscribers = WeakKeyDictionary[_Subscriber, None]()


def expect(
    given: Any, member: str, what: str, cure: str = "pass the object that your application has"
) -> Any:
    """Return the object that a backend is given; ``TypeError`` if it lacks what a queue's own has.

    ``what``: what the backend takes, in words.
    """
    if isinstance(given, type) or not hasattr(given, member):
        shown = f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__
        raise TypeError(f"{what}, not {shown}; {cure}")
    return given


def register_with(native: Any, register: Callable[[Definition], object]) -> None:
    """Call ``register`` with every worker known now and every later one, while ``native`` lives.

    The backend lives as long. ``catalog.subscribe`` alone would keep both, and their connections,
    until the process ends: in a test suite, those of each test that makes an app.
    """
    with catalog.lock:
        known = catalog.definitions()
        subscriber = _Subscriber(register, known)
        _subscribers[subscriber] = None
    vars(native).setdefault("sigra_subscribers", []).append(subscriber)
    for definition in known:
        register(definition)


def _tell(definition: Definition) -> None:
    with catalog.lock:
        subscribers = list(_subscribers)
    for each in subscribers:
        if definition not in each.known:  # else register_with tells it
            each.register(definition)


catalog.subscribe(_tell)
