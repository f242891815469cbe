"""The types: what a user may write passes, what would go wrong is refused."""

from __future__ import annotations

import gc
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = ("right", "wrong", "star", "carriers")
PAGES = {"writing-a-backend": "", "testing": "# mypy: allow-untyped-defs, allow-untyped-calls\n"}
"""The pages whose code is checked as well, and what is said at its head: a test needs no types."""
PLACE = re.compile(r"([\w-]+)\.py:(\d+)(?::\d+)? ?[:-] (?:\d+: )?error")

Places = set[tuple[str, int]]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the files, and the code of each page in one of its own."""
    folder, found = tmp_path_factory.mktemp("pages"), [HERE / f"{file}.py" for file in FILES]
    for page, head in PAGES.items():
        text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
        snippets = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        found.append(folder / f"{page}.py")
        found[-1].write_text(head + "\n".join(snippets), "utf-8")
    return [str(path) for path in found]


def by_mypy(paths: list[str]) -> str:
    """Return what mypy says, which runs in this process."""
    from mypy import api

    words = ["--strict", "--no-error-summary", "--cache-dir", ".mypy_cache", *paths]
    before = gc.get_threshold(), sys.getrecursionlimit()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MYPYPATH", str(ROOT))
            patch.chdir(ROOT)
            return "".join(api.run(words)[:2])
    finally:
        # It has set what suits itself, and thawed what the suite has frozen.
        gc.set_threshold(*before[0])
        sys.setrecursionlimit(before[1])
        gc.freeze()


def by_pyright(paths: list[str]) -> str:
    """Return what pyright says, which is a program."""
    command = ["-m", "pyright", "--pythonpath", sys.executable, "--level", "error", *paths]
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    return done.stdout


CHECKERS = {"mypy": by_mypy, "pyright": by_pyright}


@pytest.fixture(
    scope="module", params=["mypy", pytest.param("pyright", marks=pytest.mark.programs)]
)
def refused(request: pytest.FixtureRequest, paths: list[str]) -> Places:
    """Return where a checker found an error, as file and line."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    output = CHECKERS[request.param](paths)
    places = {(match[1], int(match[2])) for match in PLACE.finditer(output)}
    assert places, f"{request.param} gave no verdict:\n{output}"
    return places


def lines_of(places: Places, file: str, folder: Path = HERE) -> list[str]:
    """Show the lines of a file at those places."""
    lines = (folder / f"{file}.py").read_text("utf-8").splitlines()
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


def test_all_that_carries_jobs_is_a_backend(refused: Places) -> None:
    """A type checker takes each backend for a ``Backend``, and what a harness needs for one."""
    assert [] == lines_of(refused, "carriers")


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_passes(refused: Places, paths: list[str], page: str) -> None:
    """What its reader copies has no error."""
    assert [] == lines_of(refused, page, Path(paths[-1]).parent)


def test_every_wrong_use_is_refused(refused: Places) -> None:
    """Each line that is marked as wrong is an error."""
    assert [] == lines_of(marked() - refused, "wrong")


def test_nothing_else_is_refused(refused: Places) -> None:
    """Lines that are not marked are no errors, so each error is the line's own."""
    assert [] == lines_of(refused - marked(), "wrong")
