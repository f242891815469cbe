"""Close every SQLite file before a process forks, and when another file took its place.

A child that inherits an open file takes its parent's locks for its own, though it has none: when
the parent closes the file, it removes the log to which the child still writes. So a child whose
parent could not close a file in time does not use that file at all.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from errno import EEXIST, ENOENT

_PATIENCE = 10.0
"""Seconds that a fork waits until nobody uses a file; then it goes on with the file open."""

_left_open: set[str] = set()
_inherited: set[str] = set()
"""Files that a fork left open: the fork under way, and those by which this process came to be."""

_gates: weakref.WeakSet[Gate] = weakref.WeakSet()
_shut: list[Gate] = []
_forking = threading.RLock()
"""Held while a process forks; whoever makes a gate waits for the end of that."""

_renewing = threading.RLock()
_unregistered = [os.register_at_fork] if hasattr(os, "register_at_fork") else []


class PerProcess:
    """Renew in a forked child what each process must have of its own, when it is first needed."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        _register()

    def check(self, renew: Callable[[], object]) -> None:
        """Call ``renew`` once in a forked child; its other threads wait until that is done."""
        if self._pid != os.getpid():
            with _renewing:
                if self._pid != os.getpid():
                    renew()
                    self._pid = os.getpid()


class Gate:
    """Count the users of a file; a fork waits until there are none, and ``close`` closes it.

    Entering raises ``RuntimeError`` in a process that has inherited the file open, and
    ``FileNotFoundError`` if somebody removed it. A file that was put in its place is used from
    then on, because what is written to a file without a name is lost; ``FileExistsError`` if the
    old file's log stands beside it, and not that of an earlier user of the new one.
    """

    def __init__(self, close: Callable[[], object], file: str) -> None:
        self._close = weakref.WeakMethod(close)
        self._file = os.path.realpath(file)
        self._known: tuple[int, int] | None = None
        self.renew()
        # A fork under way would not shut it, but may wait for what is held here: logging's lock.
        waited = _forking.acquire(timeout=_PATIENCE)
        _gates.add(self)
        if waited:
            _forking.release()
        _register()

    def renew(self) -> None:
        """Begin again without users, as in a forked child, which has one thread."""
        # Taken directly: a handler of a signal may raise amid the methods of a condition.
        self._lock, self._following = threading.RLock(), threading.RLock()
        self._idle, self._users = threading.Condition(self._lock), list[int]()
        self._shut_by: int | None = None
        self._log: tuple[int, int] | None = None

    def __enter__(self) -> None:
        if self._file in _inherited:
            raise RuntimeError(
                f"{self._file} was in use by a thread, for longer than a fork waits, when this "
                "process was forked: what it writes there could be lost. Fork at another moment, "
                "or use spawn or forkserver."
            )
        me = threading.get_ident()
        if me not in self._users:  # who is in already has begun with the file that was there
            self._follow()
        with self._lock:
            # Otherwise a thread that keeps on writing could be in whenever a fork looks. Who is in
            # already may enter again, as verify's progress does: the fork waits for it anyway.
            self._idle.wait_for(lambda: self._shut_by in (None, me) or me in self._users, _PATIENCE)
            self._users.append(me)

    def __exit__(self, *_: object) -> None:
        me = threading.get_ident()
        with suppress(OSError):
            log = _found(f"{self._file}-wal")
            if log not in (None, self._log) and _found(self._file) == self._known:
                self._log = log  # and not another file's
        with self._lock:
            if me in self._users:  # not in a child forked in here: it has begun again
                self._users.remove(me)
            self._idle.notify_all()

    def forget_log(self) -> None:
        """Know no log any more: once the file is closed here, another may come in its place."""
        self._log = None

    def _follow(self) -> None:
        """Close a file in whose place there is another, or none."""
        try:
            if _found(self._file) == self._known:
                return
        except OSError:  # nobody can tell
            return
        with self._following:  # one at a time: to the second, the log of the first is not new
            self._take_found()

    def _take_found(self) -> None:
        try:
            found, beside = _found(self._file), _found(f"{self._file}-wal")
        except OSError:  # nobody can tell
            return
        known, log = self._known, self._log
        if found == known:
            return
        if known is not None and (close := self._close()) is not None:
            close()
        self._log = log
        if found is None:
            why = "somebody removed the file while it was in use"
            raise FileNotFoundError(ENOENT, why, self._file)
        if known is not None and beside is not None and log in (None, beside):
            # SQLite would take it for the log of the other file, and spoil that one.
            why = (
                "somebody put another file in this one's place, beside the log of the one before "
                "(-wal): end all who use it, and remove that log, or put the file back"
            )
            raise FileExistsError(EEXIST, why, self._file)
        self._known = found

    def shut(self) -> None:
        """Let nobody enter, wait until all have left, and close the file."""
        self._idle.acquire()
        _shut.append(self)  # from here on it must be opened again, whatever a handler raises
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
                _left_open.add(self._file)

    def open(self) -> None:
        """Let everybody in again."""
        self._shut_by = None
        self._idle.notify_all()
        self._idle.release()


def _found(path: str) -> tuple[int, int] | None:
    """Return what tells a file from another that has its name later; None if there is none."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return None
    return there.st_dev, there.st_ino


def _before() -> None:
    _forking.acquire()
    interrupted = None
    for gate in list(_gates):
        try:
            gate.shut()
        except BaseException as error:  # from a signal's handler: Python forks all the same
            interrupted = error
    if interrupted is not None:
        raise interrupted


def _in_parent() -> None:
    while _shut:
        _shut.pop().open()
    _left_open.clear()
    _forking.release()


def _in_child() -> None:
    global _forking, _renewing
    _forking, _renewing = threading.RLock(), threading.RLock()
    _shut.clear()
    _inherited.update(_left_open)
    for gate in list(_gates):
        gate.renew()


def _register() -> None:
    """Register what a fork calls: once, and late, for what was registered last is called first.

    It must come before ``logging`` takes its lock for a fork, as users of a file log too.
    """
    try:
        register = _unregistered.pop()  # one thread only: else a fork waits for itself
    except IndexError:
        return
    register(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
