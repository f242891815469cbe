"""The outcome of each goal, as a table, as JSON, and in pyperf's own format."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.goals import Goal
from benchmarks.measure import TOLERANCE, Measured

if TYPE_CHECKING:
    import pyperf

HOLDS, WITHIN, SHORT = "holds", "within 10 %", "falls short"
_STYLES = {HOLDS: "green", WITHIN: "yellow", SHORT: "red"}


@dataclass(frozen=True, slots=True)
class Reading:
    """A goal and what came of it: a measurement, or the error that stopped it."""

    goal: Goal
    measured: Measured | None
    error: str | None = None

    @property
    def verdict(self) -> str:
        """Say whether the goal holds."""
        if self.measured is None:
            return "cannot run"
        if self.goal.limit is None:
            return "(no goal)"
        # As the table shows it: a third digit says nothing.
        ratio = round(self.measured.ratio, 2)
        if ratio <= self.goal.limit:
            return HOLDS
        return WITHIN if ratio <= self.goal.limit * TOLERANCE else SHORT


def show(readings: list[Reading], quick: bool, console: Console) -> None:
    """Print the table."""
    wide = console.width >= 110
    table = Table(box=box.SIMPLE_HEAD, title="Paired ratios: lower is faster", pad_edge=False)
    for heading in ("goal", "work", "against")[: 3 if wide else 2]:
        table.add_column(heading, no_wrap=wide)
    for heading in ("ours", "theirs", "ratio", "limit")[0 if wide else 2 :]:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for reading in readings:
        goal, verdict = reading.goal, reading.verdict
        style = _STYLES.get(verdict, "red" if reading.measured is None else "dim")
        ours, theirs, ratio = _figures(reading)
        limit = "" if goal.limit is None else f"{goal.limit:.2f}"
        names: tuple[str, ...] = (goal.work, goal.floor)
        sides: tuple[str, ...] = (ours, theirs)
        if not wide:
            names, sides = (f"{goal.work} / {goal.floor}",), ()
        table.add_row(goal.number, *names, *sides, ratio, limit, f"[{style}]{verdict}[/]")
    load, processors = os.getloadavg()[0], os.cpu_count()
    table.caption = f"Python {platform.python_version()}, {processors} processors, load {load:.1f}"
    if quick:
        table.caption += "\nMeasured quickly: the rows s1 to s8 do not go as far as they say."
    console.print(table)
    for reading in readings:
        if reading.error:
            console.print(f"goal {reading.goal.number} cannot run: {reading.error}", markup=False)


def write_json(
    readings: list[Reading], quick: bool, folder: Path, missing: Sequence[str] = ()
) -> None:
    """Write the table as JSON, and why anything is missing from it."""
    document = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
        "quick": quick,
        "tolerance": TOLERANCE,
        "goals": [_row(reading) for reading in readings],
        **({"not measured": missing} if missing else {}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(document, indent=2) + "\n")


def write_samples(readings: list[Reading], folder: Path) -> bool:
    """Write all samples for ``pyperf stats`` and ``hist``; say False where it is not installed."""
    if importlib.util.find_spec("pyperf") is None:
        return False
    import pyperf

    benchmarks = [
        _benchmark(reading.goal, side, values)
        for reading in readings
        if reading.measured is not None and reading.goal.unit == "s"
        for side, values in (("ours", reading.measured.ours), ("floor", reading.measured.floor))
    ]
    if benchmarks:
        suite = pyperf.BenchmarkSuite(benchmarks)
        suite.dump(str(folder / "pyperf.json"), compact=True, replace=True)
    return True


def _row(reading: Reading) -> dict[str, Any]:
    goal, measured = reading.goal, reading.measured
    return {
        "goal": goal.number,
        "work": goal.work,
        "floor": goal.floor,
        "codec": goal.codec,
        "unit": goal.unit,
        "limit": goal.limit,
        "ratio": measured and measured.ratio,
        "repeats": measured and measured.ratios,
        "ours": measured and statistics.median(measured.ours),
        "theirs": measured and statistics.median(measured.floor),
        "verdict": reading.verdict,
        "error": reading.error,
    }


def _figures(reading: Reading) -> tuple[str, str, str]:
    if reading.measured is None:
        return "", "", ""
    measured, unit = reading.measured, reading.goal.unit
    sides = (statistics.median(measured.ours), statistics.median(measured.floor))
    ours, floor = (_amount(side, unit) for side in sides)
    return ours, floor, f"{measured.ratio:.2f}"


def _amount(value: float, unit: str) -> str:
    if unit == "B":
        return f"{value / 1e6:.1f} MB" if value >= 1e6 else f"{value:,.0f} B"
    return f"{value * 1e3:.1f} ms" if value >= 1e-3 else f"{value * 1e6:.2f} us"


def _benchmark(goal: Goal, side: str, values: tuple[float, ...]) -> pyperf.Benchmark:
    import pyperf

    metadata = {"name": f"{goal.number} {side} ({goal.codec})", "unit": "second"}
    return pyperf.Benchmark([pyperf.Run(values, metadata=metadata, collect_metadata=False)])
