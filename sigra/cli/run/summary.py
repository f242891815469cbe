"""What a run came to: a table for a person, and the exit status."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from sigra.cli.output import PIPE_STATUS
from sigra.cli.show import Row, counted, figures, listing, printable, written

_TOP = 10
_NARROW = 30
"""Columns below which a table would be cut to pieces."""


@dataclass(frozen=True, slots=True)
class Report:
    """The facts of a run. ``counts`` are those of ``FollowingBackend``.

    ``next_line`` is the first line that was not read, None where all were.
    ``unfinished``: how many jobs had not ended, ``unfinished_lines`` those of them that
    came from a line. ``kept_in``: the file that keeps the unfinished ones, None where
    nothing does. ``rejects``: the file of bad lines, None where none was made.
    ``stopped``: why and with which status, None where nothing stopped it.
    ``unclosed``: the sinks that could not be closed, and why.
    """

    target: str
    source: str
    backend: str
    followed: bool
    lines: int
    bad: int
    rejects: Path | None
    counts: Counter[str]
    emitted: int
    failed: int
    seconds: float
    kinds: Counter[str]
    unfinished: int
    unfinished_lines: list[int]
    kept_in: str | None
    next_line: int | None
    stopped: tuple[str, int] | None
    unclosed: tuple[str, ...] = ()

    @property
    def status(self) -> int:
        """Return the exit status: 1 where anything went wrong, unless the stop has its own."""
        if self.stopped is not None:
            return self.stopped[1]
        wrong = self.bad or self.failed or self.unfinished or self.counts["discarded"]
        return 1 if wrong or self.unclosed else 0


def show_report(report: Report, console: Console) -> None:
    """Print the table, then the failures by kind, then what was left undone.

    Where a closed pipe ended the run, as ``| head`` does, only the last of these.
    """
    if report.status != PIPE_STATUS:
        _show_figures(report, console)
    for note in _notes(report):
        console.print(printable(note), markup=False, soft_wrap=True)


def _show_figures(report: Report, console: Console) -> None:
    heading = f"sigra run {report.target} on {report.backend}"
    console.print(printable(heading), style="bold", markup=False, soft_wrap=True)
    kinds = [[f"{count:,}", kind] for kind, count in report.kinds.most_common(_TOP)]
    if console.width < _NARROW:
        lines = [f"{name}: {written(value)}" for name, value, _ in _rows(report)]
        lines += [f"times logged: {count}, what: {kind}" for count, kind in kinds]
        console.print(printable("\n".join(lines)), markup=False, soft_wrap=True)
        return
    console.print(figures(_rows(report)))
    if kinds:
        console.print(listing(["times logged", "what"], kinds))


def _rows(report: Report) -> list[Row]:
    counts = report.counts
    rows: list[Row] = [("lines read", report.lines, "")]
    if report.followed:
        for state, style in (("completed", "green"), ("discarded", "red"), ("cancelled", "yellow")):
            number = counts[state]
            rows.append((f"jobs {state}", number, style if number else ""))
        rows.append(("retries", counts["retried"], ""))
        rows.append(("snoozes", counts["snoozed"], ""))
    else:
        rows.append(("jobs enqueued", counts["enqueued"], "green"))
    optional = (
        ("jobs unfinished", report.unfinished, "red"),
        ("of the jobs, left by an earlier run", counts["left"], ""),
        ("of the jobs, enqueued by jobs", counts["child"], ""),
        ("duplicates, not enqueued", counts["duplicate"], ""),
    )
    rows += [row for row in optional if row[1]]
    rows.append(("bad lines", report.bad, "red" if report.bad else ""))
    rows.append(("audit events emitted", report.emitted, ""))
    rows.append(("audit events failed", report.failed, "red" if report.failed else ""))
    rows.append(("seconds", f"{report.seconds:.2f}", ""))
    ended = counts["enqueued"] - report.unfinished
    rows.append(("jobs a second", round(ended / max(report.seconds, 1e-9)), ""))
    return rows


def _notes(report: Report) -> list[str]:
    notes = []
    if report.rejects is not None:
        notes.append(f"Bad lines were set aside as they are, in {report.rejects}")
    if not report.followed:
        notes.append(
            f"Backend {report.backend!r} cannot tell what becomes of a job: the queue's own tools "
            "show how those that are enqueued end."
        )
    if report.unfinished and report.kept_in is not None:
        notes.append(f"Not finished: {counted(report.unfinished, 'job')}, kept in {report.kept_in}")
        notes.append(f"To finish them: sigra run {report.target} --backend {report.backend}")
    elif report.unfinished_lines:
        notes.append(f"Not finished: the jobs of line {_ranges(report.unfinished_lines)}")
    elif report.unfinished:
        notes.append(f"Not finished: {counted(report.unfinished, 'job')} that jobs had enqueued")
    notes += [f"Not closed: {sink}" for sink in report.unclosed]
    if report.stopped is not None:
        notes.append(f"Stopped: {report.stopped[0]}")
    if report.next_line is not None:
        notes.append(f"Not run: the lines from {report.next_line} on")
        if report.source != "-":
            rest = f"tail -n +{report.next_line} {shlex.quote(report.source)}"
            notes.append(f"To go on there: {rest} | sigra run {report.target} --args - ...")
    return notes


def _ranges(numbers: list[int]) -> str:
    """Write sorted numbers in short, as ``3-7, 9``, up to twenty parts."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in parts[:20]]
    return ", ".join(shown) + (f" and {len(parts) - 20} more" if len(parts) > 20 else "")
