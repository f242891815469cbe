"""The files that commands write, named on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class _Written(click.Path):
    """A path; "-" is refused, by which others mean standard output."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path as a ``Path``."""
        if value == "-":
            self.fail("standard output does not take this; ./- is a file named -", param, ctx)
        return super().convert(value, param, ctx)


class _Stream(_Written):
    """A path; "-" is standard output, for which the value is None."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path as a ``Path``."""
        return None if value == "-" else super().convert(value, param, ctx)


NEW_FILE: click.Path = _Written(dir_okay=False, path_type=Path)
NEW_FILE_OR_STDOUT: click.Path = _Stream(dir_okay=False, path_type=Path)
NEW_FOLDER: click.Path = _Written(file_okay=False, path_type=Path)
