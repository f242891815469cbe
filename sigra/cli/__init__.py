"""The command ``sigra``."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress
from io import TextIOWrapper

from sigra.cli.terminated import terminated_as_by_ctrl_c
from sigra.cli.unheard import bear_standard_error
from sigra.errors import MissingExtraError

_REFUSING = ("strict", "surrogateescape")
"""How an encoding refuses what it lacks: by default, and in the locales C and POSIX."""


def main() -> None:
    """Run the command line; where the extra ``cli`` is missing, say so and exit with 2."""
    with terminated_as_by_ctrl_c():
        _main()


def _main() -> None:
    gc.disable()
    _reserve_closed_streams()
    bear_standard_error()
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors in _REFUSING:
        # Characters that its encoding lacks are written as codes, as on standard error.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        from sigra.cli.app import sigra
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("click", "rich"):
            raise
        print(f"sigra: {MissingExtraError('cli', package)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as error:
        sys.exit(getattr(error, "status", 130))
    finally:
        gc.freeze()  # what is loaded lives until the end, so no collection has to look at it
        gc.enable()
    sigra(prog_name="sigra")


def _reserve_closed_streams() -> None:
    """Open the null device for each closed standard stream, so that no other file gets its number.

    What is written to the stream would end up in that file.
    """
    with suppress(OSError):  # there is none
        while (place := os.open(os.devnull, os.O_RDWR)) < 3:
            pass
        os.close(place)
