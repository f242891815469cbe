"""The formats of an export: JSON Lines, CSV and Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from sigra.audit.event import EVENT_FIELDS
from sigra.errors import MissingExtraError
from sigra.store.private import private

Format = Literal["jsonl", "csv", "parquet"]
COLUMNS = (*EVENT_FIELDS, "sequence", "hash")
_NUMBERS = ("attempt", "sequence")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes for the beginning of a formula, wide forms too."""

Rows = list[dict[str, Any]]
Write = Callable[[Rows], object]


class Writer(Protocol):
    """Writes one file after another. ``written``: how many rows the last one got."""

    written: int

    def open(self, path: Path) -> Any:
        """Open a file, as a context manager that gives a function of some rows."""


class JsonLines:
    """One JSON object a line, in ASCII: no other sign ends a line."""

    written = 0

    @contextmanager
    def open(self, path: Path) -> Iterator[Write]:
        """Open a file for rows."""
        self.written = 0
        with open(path, "x", encoding="ascii", newline="", opener=private) as file:

            def write(rows: Rows) -> None:
                file.writelines(f"{json.dumps(row)}\n" for row in rows)
                self.written += len(rows)

            yield write


class Csv:
    """Comma-separated values with a header; metadata is JSON."""

    written = 0

    @contextmanager
    def open(self, path: Path) -> Iterator[Write]:
        """Open a file for rows."""
        self.written = 0
        with open(path, "x", encoding="utf-8", newline="", opener=private) as file:
            table = csv.writer(file)
            table.writerow(COLUMNS)

            def write(rows: Rows) -> None:
                table.writerows([_cell(row[name]) for name in COLUMNS] for row in rows)
                self.written += len(rows)

            yield write


class Parquet:
    """Apache Parquet, columns of text and numbers; metadata is JSON."""

    written = 0

    def __init__(self) -> None:
        try:
            arrow = import_module("pyarrow")
            self._parquet = import_module("pyarrow.parquet")
        except ModuleNotFoundError as error:
            raise MissingExtraError("parquet", "pyarrow") from error
        self._arrow = arrow
        self._schema = arrow.schema(
            [(name, arrow.int64() if name in _NUMBERS else arrow.string()) for name in COLUMNS]
        )

    @contextmanager
    def open(self, path: Path) -> Iterator[Write]:
        """Open a file for rows."""
        self.written = 0
        with (
            open(path, "xb", opener=private) as file,
            self._parquet.ParquetWriter(file, self._schema) as out,
        ):

            def write(rows: Rows) -> None:
                plain = [{**row, "metadata": json.dumps(row["metadata"])} for row in rows]
                out.write_table(self._arrow.Table.from_pylist(plain, self._schema))
                self.written += len(rows)

            yield write


FORMATS: Mapping[str, Callable[[], Writer]] = {
    "jsonl": JsonLines,
    "csv": Csv,
    "parquet": Parquet,
}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value)
    # Spaces before a formula do not keep a spreadsheet from it.
    return f"'{text}" if isinstance(value, str) and text.lstrip(" ").startswith(_FORMULA) else text
