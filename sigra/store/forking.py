"""No file of SQLite's is open where a process forks.

A child that inherits one takes its parent's locks for its own, though it has none: when the
parent closes the file, it removes the log that the child goes on to write to. So a child whose
parent could not close a file in time does not use that file at all.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress

_PATIENCE = 10.0
"""Seconds that a fork waits for those who use a file; then it goes on with the file open."""

_open: set[str] = set()
_inherited: set[str] = set()
"""Files that were open where this process, or one that it comes from, was forked."""

_gates: weakref.WeakSet[Gate] = weakref.WeakSet()
_shut: list[Gate] = []
_forking = threading.Lock()
_renewing = threading.RLock()
_unheard = [os.register_at_fork] if hasattr(os, "register_at_fork") else []


class PerProcess:
    """Have what a process owns made anew in a forked child, by the first thread that needs it."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        _hear_of_forks()

    def check(self, renew: Callable[[], object]) -> None:
        """Call ``renew`` where the process is another than before; all others wait for it."""
        if self._pid != os.getpid():
            with _renewing:
                if self._pid != os.getpid():
                    renew()
                    self._pid = os.getpid()


class Gate:
    """Count who uses a file, and have a fork wait until nobody does; ``close`` then closes it.

    Raises ``RuntimeError`` for whoever enters where the file was inherited open.
    """

    def __init__(self, close: Callable[[], object], file: str) -> None:
        self._close = weakref.WeakMethod(close)
        self._file = os.path.realpath(file)
        self.renew()
        _gates.add(self)
        _hear_of_forks()

    def renew(self) -> None:
        """Begin anew, in a child, where nobody else is."""
        # Taken by itself: a signal's handler that raises may end the condition's own methods.
        self._lock = threading.RLock()
        self._idle, self._users = threading.Condition(self._lock), list[int]()
        self._shut_by: int | None = None

    def __enter__(self) -> None:
        if self._file in _inherited:
            raise RuntimeError(
                f"{self._file} was in use by a thread, for longer than a fork waits, when this "
                "process was forked: what it writes there could be lost. Fork at another moment, "
                "or start the process anew (spawn, forkserver)."
            )
        me = threading.get_ident()
        with self._lock:
            # Else a thread that writes on and on would be in whenever a fork looks. Who is in
            # already, as verify's progress is, goes on: the fork waits for him.
            self._idle.wait_for(lambda: self._shut_by in (None, me) or me in self._users, _PATIENCE)
            self._users.append(me)

    def __exit__(self, *_: object) -> None:
        me = threading.get_ident()
        with self._lock:
            if me in self._users:  # not in a child that was forked in here, and began anew
                self._users.remove(me)
            self._idle.notify_all()

    def shut(self) -> None:
        """Keep everybody out, once nobody is in, and close the file."""
        self._idle.acquire()
        _shut.append(self)  # from here on it is to be opened, whatever a signal's handler raises
        is_shut = False
        try:
            self._shut_by, close = threading.get_ident(), self._close()
            if self._idle.wait_for(lambda: not self._users, _PATIENCE):
                if close is not None:
                    with suppress(Exception):
                        close()
                is_shut = True
        finally:
            if not is_shut:
                _open.add(self._file)

    def open(self) -> None:
        """Let everybody in again."""
        self._shut_by = None
        self._idle.notify_all()
        self._idle.release()


def _before() -> None:
    _forking.acquire()
    interrupted = None
    for gate in list(_gates):
        try:
            gate.shut()
        except BaseException as error:  # of a signal's handler: Python forks all the same
            interrupted = error
    if interrupted is not None:
        raise interrupted


def _in_parent() -> None:
    while _shut:
        _shut.pop().open()
    _open.clear()
    _forking.release()


def _in_child() -> None:
    global _forking, _renewing
    _forking, _renewing = threading.Lock(), threading.RLock()
    _shut.clear()
    _inherited.update(_open)
    _open.clear()
    for gate in list(_gates):
        gate.renew()


def _hear_of_forks() -> None:
    """Register once, and late: who registers last is asked first.

    Those who use a file log too, and could not while ``logging`` holds its lock for the fork.
    """
    try:
        register = _unheard.pop()  # for one thread alone: asked twice, a fork would wait for itself
    except IndexError:
        return
    register(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
