"""The suite's own forks: nothing that happens in one is lost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.programs

TESTS = """
import gc, os, sys, warnings
import pytest

def test_that_passes(): pass
def test_that_fails(): print("before"); assert 1 == 2
def test_that_is_skipped(): pytest.skip("for a reason")
def test_that_warns(): warnings.warn("take care", source=sys.modules)

class TestOthers:
    def test_that_passes(self): pass
"""
DIES = """
def test_whose_process_dies(): os.kill(os.getpid(), 9)
"""
WAITS = """
import pathlib, time
class TestWhoWaits:
    def test_for_the_others(self):
        until = time.monotonic() + 60
        while len(list(pathlib.Path().glob("done-*"))) < 3:
            assert time.monotonic() < until
            time.sleep(0.01)

class Other:
    def test_that_ends(self):
        time.sleep(0.2)
        pathlib.Path(f"done-{type(self).__name__}").touch()

class TestOne(Other): pass
class TestTwo(Other): pass
class TestThree(Other): pass
"""
EACH_OTHER = """
import pathlib, pytest, time
@pytest.mark.waits
class TestWhoWait:
    @pytest.mark.parametrize("name", ["one", "other"])
    def test_for_each_other(self, name):
        pathlib.Path(f"began-{name}").touch()
        until = time.monotonic() + 60
        while len(list(pathlib.Path().glob("began-*"))) < 2:
            assert time.monotonic() < until
            time.sleep(0.01)
"""
FOLDERS = """
import pathlib, pytest, time
@pytest.mark.waits
class TestWhoWait:
    @pytest.mark.parametrize("name", ["one", "other"])
    def test_for_each_other(self, name, tmp_path_factory):
        pathlib.Path(f"base-{name}").write_text(str(tmp_path_factory.getbasetemp()))
        pathlib.Path(f"began-{name}").touch()
        until = time.monotonic() + 60
        while len(list(pathlib.Path().glob("began-*"))) < 2:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert 2 == len({path.read_text() for path in pathlib.Path().glob("base-*")})
"""
RAISES_IN_VAIN = """
def test_that_leaves_garbage():
    class Garbage:
        def __del__(self): raise ValueError("in vain")
    garbage = Garbage()
    garbage.itself = garbage
"""


def outcome(folder: Path, tests: str, *words: str) -> tuple[int, str]:
    """Run tests in two forks; return the status and what is shown."""
    (folder / "test_some.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-p", "forks", "--forks", "2", *words]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent),
        "PYTEST_ADDOPTS": "",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240
    )
    return done.returncode, done.stdout


def test_all_that_forks_ran_is_told_as_one(tmp_path: Path) -> None:
    """Each test once, what a failed one printed, warnings, and why one was skipped."""
    status, shown = outcome(tmp_path, TESTS, "-rs")
    assert (1, True) == (status, "1 failed, 3 passed, 1 skipped, 1 warning" in shown)
    for part in ("assert 1 == 2", "before", "take care", "for a reason"):
        assert part in shown


def test_a_fork_that_dies_fails_the_run(tmp_path: Path) -> None:
    """What it had left to run is no silent loss: the test and the signal are named."""
    status, shown = outcome(tmp_path, TESTS + DIES)
    assert (3, True) == (status, "(-9, <Function test_whose_process_dies>)" in shown)


def test_a_fork_takes_what_it_runs_next_when_it_is_done(tmp_path: Path) -> None:
    """Else the two longest tests of all might wait for one another in one fork."""
    status, shown = outcome(tmp_path, WAITS)
    assert (0, True) == (status, "4 passed" in shown)


def test_each_that_waits_is_taken_alone(tmp_path: Path) -> None:
    """Else some that only wait make a fork the last one to end, and the cores idle."""
    status, shown = outcome(tmp_path, EACH_OTHER)
    assert (0, True) == (status, "2 passed" in shown)


def test_each_makes_its_folders_in_one_of_its_own(tmp_path: Path) -> None:
    """Else they take each other's numbers, and a fixture fails once it has tried twenty."""
    status, shown = outcome(tmp_path, FOLDERS)
    assert (0, True) == (status, "2 passed" in shown)


def test_what_is_raised_in_vain_fails_the_run(tmp_path: Path) -> None:
    """Where nothing but the collector of garbage meets it, after the last test too."""
    status, shown = outcome(tmp_path, TESTS + RAISES_IN_VAIN, "-W", "error", "-k", "garbage")
    assert (3, True) == (status, bool(re.search("Exception ignored .*__del__", shown)))
