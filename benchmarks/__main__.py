"""The command: measure each goal in a process of its own, then report."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import track

from benchmarks.goals import GOALS, Goal
from benchmarks.measure import FULL, QUICK, TINY, Measured
from benchmarks.plot import draw
from benchmarks.report import Reading, show, write_json, write_samples

EFFORTS = {"full": FULL, "quick": QUICK, "tiny": TINY}
_LONGEST = 900
_RESULTS = Path(__file__).parent / "results"


def main(argv: list[str] | None = None) -> int:
    """Return 0 if all could be measured, be it that a goal falls short, and 1 if not."""
    options = _parser().parse_args(argv)
    if options.child:
        goal = next(goal for goal in GOALS if goal.number == options.child)
        print(json.dumps(dataclasses.asdict(goal.measure(EFFORTS[options.effort]))))
        return 0
    wanted = [goal for goal in GOALS if not options.only or goal.number in options.only]
    console = Console(width=None if sys.stdout.isatty() else 120)
    progress = Console(stderr=True)
    effort = "quick" if options.quick else options.effort
    steps = track(wanted, "measuring", console=progress, disable=not progress.is_terminal)
    readings = [read(goal, effort) for goal in steps]
    quick = effort != "full"
    show(readings, quick, console)
    write_json(readings, quick, options.results)
    if not write_samples(readings, options.results):
        console.print("No samples: pyperf is not installed (pip install 'sigra\\[bench]').")
    if not draw(readings, options.results / "ratios.svg"):
        console.print("No plot: matplotlib is not installed (pip install 'sigra\\[bench]').")
    return 1 if any(reading.error for reading in readings) else 0


def read(goal: Goal, effort: str, module: str = "benchmarks") -> Reading:
    """Measure one goal in a fresh process, with the JSON module that it asks for."""
    command = [sys.executable, "-m", module, "--child", goal.number, "--effort", effort]
    environment = {key: value for key, value in os.environ.items() if key != "SIGRA_JSON"}
    if goal.codec == "stdlib":
        environment["SIGRA_JSON"] = "stdlib"
    root = str(Path(__file__).parent.parent)
    inherited = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, inherited)))
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=_LONGEST
        )
    except subprocess.TimeoutExpired:
        return Reading(goal, None, f"not done after {_LONGEST} s")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return Reading(goal, None, lines[-1])
    fields = json.loads(done.stdout.splitlines()[-1])
    return Reading(goal, Measured(**{name: tuple(values) for name, values in fields.items()}))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    numbers = [goal.number for goal in GOALS]
    parser.add_argument("--quick", action="store_true", help="fewer pairs; 10^5 jobs at most")
    parser.add_argument(
        "--only", nargs="+", metavar="GOAL", choices=numbers, help="such as 1 2b s1"
    )
    parser.add_argument("--results", type=Path, default=_RESULTS, help="where the files go")
    parser.add_argument("--effort", choices=EFFORTS, default="full", help=argparse.SUPPRESS)
    parser.add_argument("--child", metavar="GOAL", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was written")
