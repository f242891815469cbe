"""Files that are made for their owner alone; one that exists keeps its mode."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_FILE, _FOLDER = 0o600, 0o700


def private(path: str, flags: int) -> int:
    """Open a file, and make a new one for its owner alone; an ``opener`` for ``open``."""
    return os.open(path, flags, _FILE)


def make_file(name: str) -> None:
    """Make a file before SQLite does, which gives its log and index the same mode."""
    with suppress(OSError):  # SQLite says better what is wrong
        # One that exists is not even opened: closing it would release SQLite's locks on it.
        os.close(private(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing."""
    if not path.parent.exists():
        make_folder(path.parent)
    path.mkdir(_FOLDER, exist_ok=True)


def path_of(uri: str) -> str:
    """Return the path in a URI of SQLite's; a drive of Windows stands behind a slash there."""
    path = unquote(urlsplit(uri).path)
    return path[1:] if os.path.splitdrive(path[1:])[0] else path


def make_database(_: Any, __: Any, arguments: list[Any], options: dict[str, Any]) -> None:
    """Make the file of an engine of SQLite's; a listener for "do_connect"."""
    name = str(arguments[0])
    if options.get("uri"):
        mode = parse_qs(urlsplit(name).query).get("mode", ["rwc"])
        name = path_of(name)
        if mode != ["rwc"] or name == ":memory:":
            return
    make_file(name)
