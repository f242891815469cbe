"""A table of goals with a command of its own: what can be measured here, and why not the rest."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

from rich.console import Console

from benchmarks.__main__ import EFFORTS, read
from benchmarks.goals import Goal
from benchmarks.plot import draw
from benchmarks.report import show, write_json

Found = tuple[list[Goal], list[str]]
"""What can be measured, and of the rest why it cannot."""


def measure_all(module: str, found: Found, results: Path) -> int:
    """Measure as the command line says; return 0 if all of it could be, and 1 if not."""
    goals, missing = found
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("--effort", choices=EFFORTS, default="full")
    parser.add_argument("--only", metavar="WORDS", help="the number or the name of goals: 16c, rq")
    parser.add_argument("--results", type=Path, default=results, help="where the files go")
    parser.add_argument("--child", metavar="GOAL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        goal = next(goal for goal in goals if goal.number == options.child)
        print(json.dumps(dataclasses.asdict(goal.measure(EFFORTS[options.effort]))))
        sys.stdout.flush()
        os._exit(0)  # without waiting for the threads of clients and consumers
    wanted = [goal for goal in goals if options.only in (None, *goal.number.partition(" "))]
    readings = [read(goal, options.effort, module) for goal in wanted]
    console = Console(width=None if sys.stdout.isatty() else 120)
    show(readings, quick=False, console=console)
    for reason in missing:
        console.print(f"Not measured: {reason}.", markup=False)
    write_json(readings, options.effort != "full", options.results, missing)
    draw(readings, options.results / "ratios.svg")
    return 1 if any(reading.error for reading in readings) else 0
