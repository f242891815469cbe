"""Why and how a command ends before its time: a signal, a closed pipe, a broken queue."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self, TypeVar

from sigra.cli.output import PIPE_STATUS

T = TypeVar("T")

GRACE = 5.0
"""Seconds that running jobs have to finish once the command is to end soon."""

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # the last one: its terminal is gone
_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


class _Wake(BaseException):
    """Break off a read that may never return."""


class Stop:
    """Hold the reason to stop, once there is one; ``asked`` is then true.

    ``hurried``: running jobs have only ``GRACE`` seconds left. ``status``: the exit
    status that goes with the reason. As a context manager, it makes SIGINT, SIGTERM and SIGHUP ask
    for a stop, and a second one end the process at once. ``announce`` is called in another thread
    once the command is told to end, ``abandon`` if it has not ended ``GRACE`` s later.
    """

    def __init__(self, abandon: Callable[[], object]) -> None:
        self._why: tuple[str, int] | None = None  # in one: threads and a handler may ask at once
        self.hurried = False
        self.announce: Callable[[], object] = lambda: None
        self._abandon = abandon
        self._reading = False
        self._pressed = threading.Event()
        self._ended = threading.Event()
        self._before: dict[int, Any] = {}
        self._fd_before = -1
        self._wires: tuple[socket.socket, ...] = ()

    @property
    def reason(self) -> str | None:
        """Return the reason to stop, None where there is none."""
        return self._why and self._why[0]

    @property
    def status(self) -> int:
        """Return the exit status that goes with the reason."""
        return self._why[1] if self._why else 0

    @property
    def asked(self) -> bool:
        """Return whether there is a reason to stop."""
        return self.reason is not None

    def ask(self, reason: str, status: int, *, hurried: bool = False) -> None:
        """Stop reading for this reason; the first one counts."""
        self._note(reason, status, hurried=hurried)
        if hurried:
            self._pressed.set()

    def _note(self, reason: str, status: int, *, hurried: bool) -> None:
        self.hurried = self.hurried or hurried
        if self._why is None:
            self._why = reason, status

    def reading(self, read: Callable[[], T]) -> T | None:
        """Return what ``read`` returns; None as soon as a signal comes while it waits."""
        try:
            self._reading = True
            try:
                # A signal that came just before has set the reason but interrupted no read.
                return None if self.asked else read()
            finally:
                self._reading = False
        except _Wake:
            return None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._hear_signals()
        threading.Thread(target=self._watch, name="sigra-stop", daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._pressed.set()  # so that the watch ends too
        if self._wires:
            signal.set_wakeup_fd(self._fd_before)
            for sign, handler in self._before.items():
                signal.signal(sign, handler)
            for wire in self._wires:
                wire.close()

    def _hear_signals(self) -> None:
        # A signal that the parent process, such as nohup, has set to be ignored stays ignored.
        heard = {sign: signal.getsignal(sign) for sign in _SIGNALS}
        self._before = {sign: own for sign, own in heard.items() if own != signal.SIG_IGN}
        ear, mouth = self._wires = socket.socketpair()
        mouth.settimeout(0)
        # Python runs handlers in the main thread alone, and a job may hold that up for long.
        threading.Thread(target=self._listen, args=(ear,), name="sigra-ear", daemon=True).start()
        self._fd_before = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
        for sign in self._before:
            signal.signal(sign, self._on_signal)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        # Nothing more is done here: the code that is interrupted may hold any lock.
        self._note(_name(number), 128 + number, hurried=True)
        if self._reading:
            raise _Wake

    def _listen(self, ear: socket.socket) -> None:
        pressed = 0
        while True:
            try:
                numbers = ear.recv(16)
            except OSError:
                return
            if not numbers:
                return
            for number in numbers:
                if number not in self._before:
                    continue
                pressed += 1
                if pressed > 1 or self.status == PIPE_STATUS:
                    end_at_once(128 + number)
                self.ask(_name(number), 128 + number, hurried=True)

    def _watch(self) -> None:
        self._pressed.wait()
        if self._ended.is_set():
            return
        # In a thread of its own: writing to a slow reader may block.
        threading.Thread(target=self.announce, name="sigra-say", daemon=True).start()
        if not self._ended.wait(GRACE + 1.0):
            try:
                self._abandon()
            finally:
                end_at_once(self.status)


def _name(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def end_at_once(status: int) -> None:
    """End the process without waiting for any thread."""
    try:
        if sys.stderr.isatty():
            os.write(2, b"\x1b[?25h\n")  # the cursor, which a progress bar hides
    finally:
        os._exit(status)
