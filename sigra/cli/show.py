"""What the commands show to a person: a bar, tables, lines of text."""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import Any, Self, TextIO

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

_REFRESH = 0.1
"""Seconds between two drawings of a bar."""

_UNFOLDED = 100_000
"""Columns in which no cell of a table has to be folded."""


class PlainConsole(Console):
    """A console that styles nothing by itself; a closed pipe raises as it does in print()."""

    def __init__(self, **given: Any) -> None:
        super().__init__(highlight=False, emoji=False, **given)

    def on_broken_pipe(self) -> None:
        """Raise ``BrokenPipeError``; Rich itself would end the process with 1."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def stdout() -> TextIO:
    """Return standard output; ``OSError`` where it is closed."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return sys.stdout


def say(text: str) -> None:
    """Print a line on standard output at once; ``OSError`` where it is closed."""
    print(text, file=stdout(), flush=True)


def stderr_console() -> Console:
    """Return a console on stderr that is a terminal if, and only if, stderr is one."""
    terminal = sys.stderr.isatty()
    # Otherwise FORCE_COLOR in the environment would draw a bar into a pipe.
    return PlainConsole(stderr=True, force_terminal=terminal)


def stdout_console() -> Console:
    """Return a console on stdout; if that is no terminal, each row of a table is one line."""
    wide = None if stdout().isatty() or "COLUMNS" in os.environ else 10_000
    return PlainConsole(width=wide)


def printable(text: str) -> str:
    """Return text in which no character can steer a terminal; line ends and tabs stay."""
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else ascii(sign)[1:-1] for sign in text
    )


def inline(text: str) -> str:
    """Return text in which no character can steer a terminal or pass for the end of a line."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def counted(number: int, thing: str) -> str:
    """Write how many things there are: ``1 job``, ``2,000 jobs``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


class Bar:
    """Draw how far a command is, where stderr is a terminal; else draw nothing.

    ``total`` is what ``move`` counts up to, or None where nobody knows. ``say`` prints
    a text on stderr, above the bar where there is one.
    """

    def __init__(self, console: Console, total: int | None, what: str) -> None:
        self._console = console
        self.drawn = console.is_terminal and not console.is_dumb_terminal
        self._progress = Progress(
            SpinnerColumn("line" if console.options.ascii_only else "dots"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            expand=True,
            redirect_stdout=False,
            disable=not self.drawn,
        )
        self._what = what
        self._task = self._progress.add_task(f"0 {what}", total=total)
        self._started = time.monotonic()
        self._due = 0.0

    def move(self, position: float, done: int) -> None:
        """Show that ``position`` is reached and ``done`` things are done; cheap to call often."""
        now = time.monotonic()
        if not self.drawn or now < self._due:
            return
        self._due = now + _REFRESH
        rate = done / (now - self._started) if now > self._started else 0.0
        text = f"{done:,} {self._what}, {rate:,.0f} {self._what}/s"
        self._progress.update(self._task, completed=position, description=text)

    def say(self, text: str) -> None:
        """Print a text as it is."""
        shown = Text(printable(text), overflow="ignore", no_wrap=True)
        if self._console.is_terminal:
            self._console.print(shown, soft_wrap=True)
        else:
            # Layout by Rich is slow, and a file or pipe needs none.
            self._console.file.write(f"{shown.plain}\n")

    def stop(self) -> None:
        """Take the bar off the screen."""
        if self.drawn:  # Rich before 14.3 ends a bar that was never drawn with an empty line
            self._progress.stop()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()


Row = tuple[str, str | int | float, str]
"""What is counted, how many, and a style for the number ("" for none)."""


def written(value: str | float) -> str:
    """Write what is counted in a row."""
    return f"{value:,}" if isinstance(value, int) else str(value)


def _cell(text: str, style: str = "") -> Text:
    """Return a cell as wide as the text is written: in codes where the encoding lacks characters.

    Standard output and standard error have one encoding.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    shown = printable(text).encode(encoding, "backslashreplace").decode(encoding)
    return Text(shown, style=style)


def figures(rows: list[Row]) -> Table:
    """Lay out counts, one a line."""
    table = Table(box=box.SIMPLE, show_header=False, padding=(0, 2))
    table.add_column(overflow="fold")
    table.add_column(justify="right", overflow="fold")
    for name, value, style in rows:
        table.add_row(_cell(name), _cell(written(value), style))
    return table


def fits(console: Console, table: Table) -> bool:
    """Tell whether a console is wide enough to show a table with no word cut apart."""
    unfolded = console.options.update(width=_UNFOLDED)
    return console.measure(table, options=unfolded).maximum <= console.width


def listing(columns: list[str], rows: list[list[str]]) -> Table:
    """Lay out rows of text under column heads."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold", header_style="bold")
    for row in rows:
        table.add_row(*map(_cell, row))
    return table
