"""No file of SQLite's is open where a process forks.

A child that inherits one takes its parent's locks for its own, though it has none: when the
parent closes the file, it removes the log that the child goes on to write to.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress

_PATIENCE = 2.0
"""Seconds that a fork waits for those who use a file; then it goes on with the file open."""

_gates: weakref.WeakSet[Gate] = weakref.WeakSet()
_shut: list[Gate] = []
_forking = threading.Lock()


class Gate:
    """Count who uses a file, and have a fork wait until nobody does; ``close`` then closes it."""

    def __init__(self, close: Callable[[], object]) -> None:
        self._close = weakref.WeakMethod(close)
        self.renew()
        _gates.add(self)

    def renew(self) -> None:
        """Begin anew, in a child, where nobody else is."""
        self._idle, self._uses = threading.Condition(), 0

    def __enter__(self) -> None:
        with self._idle:
            self._uses += 1

    def __exit__(self, *_: object) -> None:
        with self._idle:
            self._uses -= 1
            self._idle.notify_all()

    def shut(self) -> None:
        """Keep everybody out, once nobody is in, and close the file."""
        self._idle.acquire()
        close = self._close()
        if self._idle.wait_for(lambda: not self._uses, _PATIENCE) and close is not None:
            with suppress(Exception):
                close()

    def open(self) -> None:
        """Let everybody in again."""
        self._idle.release()


def _before() -> None:
    _forking.acquire()
    for gate in list(_gates):
        gate.shut()
        _shut.append(gate)


def _in_parent() -> None:
    while _shut:
        _shut.pop().open()
    _forking.release()


def _in_child() -> None:
    global _forking
    _forking = threading.Lock()
    _shut.clear()
    for gate in list(_gates):
        gate.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
