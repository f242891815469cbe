"""The capability table of docs/backends.md, from the classes that are installed here.

``python tests/capability_table.py`` writes their rows and leaves the others as they are;
``make table`` does so in each environment that has queues.
"""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path
from typing import get_args

from sigra.backend import Capability
from sigra.errors import MissingExtraError
from sigra.registry import GROUP, backend_class

OURS = [entry.name for entry in distribution("sigra").entry_points if entry.group == GROUP]
PAGE = Path(__file__).parents[1] / "docs" / "backends.md"
COLUMNS = get_args(Capability)
HEAD = [
    f"| backend | {' | '.join(f'`{name}`' for name in COLUMNS)} |",
    "|---" * (len(COLUMNS) + 1) + "|",
]


def line(name: str) -> str:
    """Return a backend's line, from its class; raise ``MissingExtraError`` where it has none."""
    capabilities = backend_class(name).capabilities
    cells = ["yes" if column in capabilities else "-" for column in COLUMNS]
    return f"| {name} | {' | '.join(cells)} |"


def installed() -> dict[str, str]:
    """Map each backend whose package is here to its line."""
    found = {}
    for name in OURS:
        try:
            found[name] = line(name)
        except MissingExtraError:
            pass  # another environment has it
    return found


def written() -> dict[str, str]:
    """Map each backend that stands in the page to its line there."""
    lines = PAGE.read_text("utf-8").split("\n\n")
    (table,) = [part.splitlines() for part in lines if part.startswith("| backend ")]
    return {line.split("|")[1].strip(): line for line in table[2:]}


def write() -> None:
    """Put the lines of what is installed here into the page."""
    parts = PAGE.read_text("utf-8").split("\n\n")
    (place,) = [n for n, part in enumerate(parts) if part.startswith("| backend ")]
    parts[place] = "\n".join([*HEAD, *{**written(), **installed()}.values()])
    PAGE.write_text("\n\n".join(parts), "utf-8")


if __name__ == "__main__":
    write()
