"""The formats of an export: JSON Lines, CSV and Parquet."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from sigra.audit.event import EVENT_FIELDS
from sigra.audit.line import hidden
from sigra.errors import MissingExtraError
from sigra.store.private import private

Format = Literal["jsonl", "csv", "parquet"]
COLUMNS = (*EVENT_FIELDS, "sequence", "hash")
_NUMBERS = ("attempt", "sequence")
_formula = re.compile('(^|;)(?=[\\s"]*[=+\\-@\uff1d\uff0b\uff0d\uff20])')
"""Where a spreadsheet may see the start of a formula, whose sign may be full-width: at the start of
a cell, and after a semicolon, which separates cells where the decimal point is a comma."""

Rows = list[dict[str, Any]]
Write = Callable[[Rows], object]


class Writer(Protocol):
    """Write one file after another. ``written`` is the number of rows in the last one."""

    written: int

    def open(self, path: Path) -> Any:
        """Open a new file; return a context manager that gives a function, which writes rows."""


class JsonLines:
    """One JSON object a line, in ASCII, so that nothing but a newline ends a line."""

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
    """Comma-separated values with a header, for spreadsheets; metadata is JSON.

    All cells are quoted, invisible characters are escaped, and what would be a formula has an
    apostrophe before it.
    """

    written = 0

    @contextmanager
    def open(self, path: Path) -> Iterator[Write]:
        """Open a file for rows."""
        self.written = 0
        with open(path, "x", encoding="utf-8", newline="", opener=private) as file:
            table = csv.writer(file, quoting=csv.QUOTE_ALL)
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
    if not isinstance(value, str):
        return json.dumps(value).replace(";", "\\u003b")  # equal JSON, without a separator
    seen = "".join(c if c.isprintable() and not hidden.match(c) else ascii(c)[1:-1] for c in value)
    return _formula.sub(r"\1'", seen)
