"""The types: what a user may write passes, what would go wrong is refused."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = ("right.py", "wrong.py", "star.py")
COMMANDS = {
    "mypy": ["-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", ".mypy_cache"],
    "pyright": ["-m", "pyright", "--pythonpath", sys.executable, "--level", "error"],
}
PLACE = re.compile(r"(right|wrong|star)\.py:(\d+)(?::\d+)? ?[:-] (?:\d+: )?error")

Places = set[tuple[str, int]]


@pytest.fixture(scope="module")
def checkers() -> Iterator[dict[str, "subprocess.Popen[str]"]]:
    """Start every checker that is installed, side by side."""
    environment = {**os.environ, "MYPYPATH": str(ROOT), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    started = {
        name: subprocess.Popen(
            [sys.executable, *command, *(str(HERE / file) for file in FILES)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, command in COMMANDS.items()
        if importlib.util.find_spec(name) is not None
    }
    yield started
    for process in started.values():
        process.kill()
        process.wait()


@pytest.fixture(scope="module", params=sorted(COMMANDS))
def refused(request: pytest.FixtureRequest, checkers: dict[str, "subprocess.Popen[str]"]) -> Places:
    """Return where a checker found an error, as file and line."""
    if request.param not in checkers:
        pytest.skip(f"{request.param} is not installed")
    process = checkers[request.param]
    output, _ = process.communicate(timeout=300)
    places = {(match[1], int(match[2])) for match in PLACE.finditer(output)}
    assert places, f"{request.param} gave no verdict:\n{output}"
    return places


def lines_of(places: Places, file: str) -> list[str]:
    """Show the lines of a file at those places."""
    lines = (HERE / f"{file}.py").read_text("utf-8").splitlines()
    return [lines[number - 1].strip() for name, number in sorted(places) if name == file]


def marked() -> Places:
    lines = (HERE / "wrong.py").read_text("utf-8").splitlines()
    return {("wrong", number) for number, line in enumerate(lines, 1) if "# wrong:" in line}


def test_right_uses_pass(refused: Places) -> None:
    """A user's file with right uses has no error, in the strict mode too."""
    assert [] == lines_of(refused, "right")


def test_all_names_come_with_a_star(refused: Places) -> None:
    """``from sigra import *`` brings what it brings at run time."""
    assert [] == lines_of(refused, "star")


def test_every_wrong_use_is_refused(refused: Places) -> None:
    """Each line that is marked as wrong is an error."""
    assert [] == lines_of(marked() - refused, "wrong")


def test_nothing_else_is_refused(refused: Places) -> None:
    """Lines that are not marked are no errors, so each error is the line's own."""
    assert [] == lines_of(refused - marked(), "wrong")
