"""The file in which bad lines are set aside, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from sigra.cli.run.reader import Line, LineReader
from sigra.store.private import private


class RejectFile:
    """Set lines aside as they were; make the file for the first of them.

    ``path`` is where it is, or would be. Only its owner can read it: args may hold secrets.
    Nothing is ever overwritten: if the name is taken meanwhile, ``FileExistsError`` is raised.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def set_aside(self, line: Line, reader: LineReader) -> None:
        """Copy a line, in chunks where it is not whole. Raises ``OSError``."""
        if self._file is None:
            self._file = open(self.path, "xb", opener=private)  # noqa: SIM115
        self._file.write(line.data)
        if not line.whole:
            for chunk in reader.rest():
                self._file.write(chunk)
        # At once, so that each line that was reported is in the file, whatever happens next.
        self._file.flush()

    @property
    def made(self) -> Path | None:
        """Return where the file is, None as long as there is none."""
        return None if self._file is None else self.path

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.close()


def default_rejects(name: str) -> Path:
    """Return a name in the current folder that is free: ``NAME.rejects.jsonl``, or numbered."""
    path, number = Path(f"{name}.rejects.jsonl"), 1
    while path.exists():
        number += 1
        path = Path(f"{name}.{number}.rejects.jsonl")
    return path
