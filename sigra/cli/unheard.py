"""Standard error, which nothing fails for: what it does not take is lost."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import BufferedWriter, FileIO, RawIOBase, TextIOWrapper
from typing import Any


class Unheard(RawIOBase):
    """Bytes for a file, a pipe or a terminal, which may be full, or have nobody who reads it.

    Only the exit status then tells how the command ended, and it is the same as ever.
    """

    name = "<stderr>"

    def __init__(self, raw: FileIO) -> None:
        self._raw = raw

    def fileno(self) -> int:
        """Return its number."""
        return self._raw.fileno()

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return self._raw.isatty()

    def writable(self) -> bool:
        """Return True: it takes whatever it is given."""
        return True

    def write(self, data: Any, /) -> int:
        """Write bytes as far as they are taken."""
        left = memoryview(data)
        with suppress(OSError):
            while left and (taken := self._raw.write(left)):  # None where a pipe is full
                left = left[taken:]
        return len(data)


def bear_standard_error() -> None:
    """Have all that the process writes to standard error go through such a stream."""
    raw = Unheard(os.fdopen(2, "wb", buffering=0, closefd=False))
    encoding = getattr(sys.stderr, "encoding", None)
    unbuffered = getattr(sys.stderr, "write_through", False)
    stream: Any = raw if unbuffered else BufferedWriter(raw)
    sys.stderr = TextIOWrapper(
        stream, encoding, "backslashreplace", line_buffering=True, write_through=unbuffered
    )
