"""Audit events in a file, one a line; no other package is needed."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress
from datetime import datetime
from time import sleep
from typing import IO, Any

from sigra.audit.event import EVENT_FIELDS, AuditEvent
from sigra.audit.line import line_of
from sigra.frozen import thaw
from sigra.store.errors import REENTERED, AuditSinkClosedError
from sigra.store.forking import PerProcess
from sigra.store.private import private

_PAUSES = 0.001, 0.002, 0.004, 0.008
"""Seconds in which another process can end the line that it writes."""


class JSONLinesSink:
    """Write each event as one line of strict JSON, and flush it.

    ``target`` is a path (lines are appended; a new file is for its owner alone) or a stream,
    text or binary. The keys are the fields of ``AuditEvent``; ``occurred_at`` is ISO 8601 in
    UTC. ``close`` closes only a file that the sink opened itself. One that was moved or removed
    since, as to rotate logs, is opened anew. A forked child can go on writing to such a file, but
    not to a stream, whose lock and half-written buffer it inherits.
    """

    def __init__(self, target: str | os.PathLike[str] | IO[str] | IO[bytes]) -> None:
        self._process = PerProcess()
        self._renew()
        self._owned = isinstance(target, (str, os.PathLike))
        if not (self._owned or callable(getattr(target, "write", None))):
            kind = type(target).__qualname__
            raise TypeError(f"a JSONLinesSink writes to a path or to an open stream, not to {kind}")
        self._stream: Any = target
        self._gap = b""
        if self._owned:
            # Not normalized: to the system, ".." is the folder above that to which a link leads.
            here = "" if os.path.isabs(target) else os.getcwd()  # type: ignore[arg-type]
            self._path = os.path.join(here, os.fsdecode(target))  # type: ignore[arg-type]
            self._open()
        self._fault: OSError | None = None
        self._text = hasattr(self._stream, "encoding")

    def write(self, event: AuditEvent, record: Any = None) -> None:  # noqa: ARG002
        """Append one line; lines of different threads never mix."""
        fields = {name: getattr(event, name) for name in EVENT_FIELDS}
        fields["metadata"] = thaw(event.metadata)
        if type(event.occurred_at) is datetime:
            # orjson asks it for its zone; with no stack left for that, it crashes Python 3.11.
            fields["occurred_at"] = event.occurred_at.isoformat()
        line = line_of(fields) + b"\n"
        with self._own_lock():
            self._check_reentry()
            self._writing = True
            try:
                if self._owned:
                    self._append(line)
                else:
                    self._stream.write(line.decode() if self._text else line)
                    self._stream.flush()
            finally:
                self._writing = False

    def _append(self, line: bytes) -> None:
        """Write a whole line; after one that was cut off, begin a new line first.

        A full disk may have cut it off, or a crash before the file was opened.
        """
        if self._stream.closed:
            raise AuditSinkClosedError
        try:
            if self._is_elsewhere():
                moved = self._stream
                self._open()
                moved.close()
            line = self._gap + line
            while line:
                line = line[self._stream.write(line) :]
                self._gap = b"\n" if line else b""
        except OSError as error:
            self._fault = error
            raise
        self._fault = None

    def _open(self) -> None:
        # Without a buffer: a forked child would inherit its lock and what it holds.
        self._stream = open(self._path, "ab", buffering=0, opener=private)  # noqa: SIM115
        self._facts = os.fstat(self._stream.fileno())
        self._gap = b"\n" if _is_cut_off(self._stream) else b""

    def _is_elsewhere(self) -> bool:
        """Tell whether the file has been moved or removed, as for a rotation of logs."""
        if not stat.S_ISREG(self._facts.st_mode):  # a pipe: a file would take its reader's name
            return False
        try:
            return not os.path.samestat(os.stat(self._path), self._facts)
        except PermissionError:  # as for a process that has given up rights since
            return False
        except OSError:
            return True

    def _renew(self) -> None:
        # Called in a forked child too: a thread of the parent may have held the lock.
        self._lock, self._writing = threading.RLock(), False

    def _check_reentry(self) -> None:
        """Raise ``RuntimeError`` in a signal's handler that interrupts the thread that writes."""
        if self._writing:
            raise RuntimeError(REENTERED)

    def _own_lock(self) -> Any:
        """Return the lock of this process."""
        self._process.check(self._renew)
        return self._lock

    def close(self) -> None:
        """Flush, and close the file if the sink opened it. Closing twice is fine.

        Raises the ``OSError`` of the last line, where that could not be written.
        """
        with self._own_lock():
            self._check_reentry()
            if self._owned:
                self._stream.close()
                fault, self._fault = self._fault, None
                if fault is not None:
                    raise fault
            elif not self._stream.closed:
                self._stream.flush()


def _is_cut_off(file: Any) -> bool:
    """Tell whether the last line of a file that is open for writing has no newline.

    Looks again if it has none: another process may be amid that line.
    """
    for pause in _PAUSES:
        if not _lacks_newline(file):
            return False
        sleep(pause)
    return _lacks_newline(file)


def _lacks_newline(file: Any) -> bool:
    facts = os.fstat(file.fileno())
    if stat.S_ISREG(facts.st_mode) and facts.st_size:
        with suppress(OSError), open(file.name, "rb") as readable:  # it may be write-only
            readable.seek(-1, os.SEEK_END)
            return readable.read(1) != b"\n"
    return False
