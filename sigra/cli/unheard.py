"""Standard error, which nothing fails for: what it does not take is lost."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import TextIOWrapper


class Unheard(TextIOWrapper):
    """Text for a file, a pipe or a terminal, which may be full, or have nobody who reads it.

    Only the exit status then tells how the command ended, and it is the same as ever.
    """

    def write(self, text: str, /) -> int:
        """Write a text as far as it is taken."""
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Pass on what is held back, as far as it is taken."""
        with suppress(OSError):
            super().flush()


def bear_standard_error() -> None:
    """Have all that the process writes to standard error go through such a text."""
    encoding = None if sys.stderr is None else sys.stderr.encoding
    sys.stderr = Unheard(
        os.fdopen(2, "wb", closefd=False), encoding, "backslashreplace", line_buffering=True
    )
