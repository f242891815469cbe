"""Close the sinks that a worker's module has configured, once its jobs have ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
import wrapt

from sigra import config
from sigra.audit.read import error_name, type_name
from sigra.cli.show import printable
from sigra.errors import SigraError
from sigra.store.errors import AuditSinkClosedError

if TYPE_CHECKING:
    _Proxy = Any
else:
    _Proxy = wrapt.ObjectProxy

_PATIENCE = 1.0
"""Seconds that a thread has to end what it is writing to a sink when that is closed."""


class ClosingSinks:
    """The sinks that are configured when this is made; once closed, none of them is written to.

    ``unclosed`` says which could not be closed, and why, and which are not closed yet.
    """

    def __init__(self) -> None:
        # An earlier run in this process has left its gates, which are shut.
        given = config.current.sinks
        sinks = [each.__wrapped__ if isinstance(each, _Gate) else each for each in given]
        gates = {id(sink): _gated(sink) for sink in sinks}
        config.configure(sinks=[gates[id(sink)] for sink in sinks])
        self._lock = threading.RLock()
        self._left, self._faults = list(gates.values()), list[str]()

    def close(self) -> None:
        """Close one after the other, whatever one raises; closing twice is fine."""
        with self._lock:  # the thread that gives a run up may be at it
            while self._left:
                gate = self._left[0]
                gate.shut()
                try:
                    gate.close()
                except KeyboardInterrupt:
                    raise
                except BaseException as error:
                    self._faults.append(f"{type_name(type(gate))} raised {_told(error)}")
                del self._left[0]

    @property
    def unclosed(self) -> tuple[str, ...]:
        """Return a text for each."""
        late = (f"{type_name(type(gate))}: no time was left" for gate in list(self._left))
        return (*self._faults, *late)


@contextmanager
def closing_sinks() -> Iterator[ClosingSinks]:
    """Yield the configured sinks; if an error comes, close them and say which could not be."""
    sinks = ClosingSinks()
    try:
        yield sinks
    except Exception:
        sinks.close()
        for told in sinks.unclosed:
            click.echo(f"Not closed: {told}", err=True)
        raise


class _Gate(_Proxy):  # type: ignore[misc]
    """A sink to which nothing is written once it is shut; else it is that sink, by type too."""

    def __init__(self, sink: Any) -> None:
        super().__init__(sink)
        # Without a lock: a forked child or a signal's handler might find it taken.
        self._self_writing, self._self_shut = set[object](), False

    def shut(self) -> None:
        """Let nobody write any more, and wait until those who write have done so."""
        self._self_shut = True
        due = time.monotonic() + _PATIENCE
        while self._self_writing and time.monotonic() < due:
            time.sleep(0.001)


def _gated(sink: Any) -> Any:
    ways = {name: _passing(name) for name in ("write", "write_in", "flush") if hasattr(sink, name)}
    kind = type(sink)
    named = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (_Gate,), {**named, **ways})(sink)


def _passing(name: str) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **keywords: Any) -> Any:
        token = object()
        self._self_writing.add(token)  # before the check: shut() waits until it is gone
        try:
            if self._self_shut:
                if name == "flush":  # close() has written what was held
                    return None
                raise AuditSinkClosedError
            return getattr(self.__wrapped__, name)(*args, **keywords)
        finally:
            self._self_writing.discard(token)

    return call


def _told(error: BaseException) -> str:
    """Name an error, with its text only if that cannot hold what was logged."""
    said = error.strerror if isinstance(error, OSError) else None
    if isinstance(error, SigraError):
        said = str(error)
    name = error_name(error).removeprefix("builtins.")
    return printable(f"{name}: {said}" if said else name)
