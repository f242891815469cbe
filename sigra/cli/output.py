"""Standard output that holds audit events and nothing else."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog

PIPE_STATUS = 141
"""What a shell shows for a program that a closed pipe has ended."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""The errors of a file that is closed, and of a file or disk that is full or broken."""


def is_closed(error: OSError) -> bool:
    """Tell whether nobody reads a pipe any more, which on Windows may be EINVAL."""
    windows = sys.platform == "win32" and error.errno == errno.EINVAL and error.filename is None
    return windows or isinstance(error, BrokenPipeError)


class EventStream:
    """Take lines of bytes for a pipe, a file or a terminal.

    ``on_closed`` is called when nobody reads them any more, ``on_failed`` with the reason when
    a line cannot be written otherwise, the first time. ``show``, if set, gets each line as text
    instead: it prints above a progress bar.
    """

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.on_closed: Callable[[], object] = _ignore
        self.on_failed: Callable[[str], object] = _ignore
        self._failed = False
        self.show: Callable[[str], object] | None = None
        self.is_terminal: bool = raw.isatty()
        self.closed = False

    def write(self, data: bytes) -> None:
        """Write one line. Raises what ``is_closed`` knows where its reader went away."""
        if not isinstance(data, bytes):
            raise TypeError("an EventStream takes bytes")
        if self.show is not None:
            self.show(data.decode().rstrip("\n"))
            return
        try:
            # The system may take only a part of a long line at a time.
            view = memoryview(data)
            while view:
                view = view[self._raw.write(view) :]
        except OSError as error:
            if is_closed(error):
                self.on_closed()
            elif not self._failed:
                self._failed = True
                self.on_failed(str(error.strerror))
            raise

    def flush(self) -> None:
        """Do nothing: no line is held back."""


def _ignore(*_: object) -> None:
    pass


def give_up_stdout() -> None:
    """Send what standard output has not taken to the null device: Python writes it at its exit."""
    if sys.stdout is None:
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


@contextmanager
def claimed_stdout() -> Iterator[Any]:
    """Yield standard output as a raw binary stream; send what others write there to stderr.

    What a worker prints, and what a program that it starts prints, would otherwise stand
    between the events. Raises ``OSError`` where standard output is closed.
    """
    if sys.stdout is None:  # another file may have its number by now
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    sys.stdout.flush()
    own = os.dup(1)
    before = sys.stdout
    # Unbuffered, so that no part of a line is left unwritten when the process ends.
    with os.fdopen(own, "wb", buffering=0) as stream:
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        try:
            yield stream
        finally:
            sys.stdout = before
            os.dup2(own, 1)


class _Muted:
    """A logger that has every method and logs nothing."""

    name = "sigra.audit"

    def __getattr__(self, name: str) -> Callable[..., bool]:
        if name.startswith("__"):
            raise AttributeError(name)
        return _say_nothing


def _say_nothing(*_: object, **__: object) -> bool:
    return True  # for isEnabledFor(), which some processors ask


@contextmanager
def muted_structlog() -> Iterator[None]:
    """Keep structlog from printing audit events: a sink writes them.

    An application's own processors still see them. All other loggers stay as they are.
    """
    settings = structlog.get_config()
    configured = structlog.is_configured()
    make_logger, wrap = settings["logger_factory"], settings["wrapper_class"]
    silent: Any = structlog.make_filtering_bound_logger(logging.CRITICAL)

    def factory(*names: Any) -> Any:
        return _Muted() if names[:1] == ("sigra.audit",) else make_logger(*names)

    def wrapper(logger: Any, *rest: Any, **keywords: Any) -> Any:
        # Unless the application configured processors, the event need not be rendered.
        kind = silent if type(logger) is _Muted and not configured else wrap
        return kind(logger, *rest, **keywords)

    changed: dict[str, Any] = {"logger_factory": factory, "wrapper_class": wrapper}
    structlog.configure(**{**settings, **changed})
    try:
        yield
    finally:
        structlog.configure(**settings)
        if not configured:
            structlog.reset_defaults()
