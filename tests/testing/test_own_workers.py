"""What becomes of a worker's name when the test that made it has ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.programs

HEAD = """
import asyncio
import functools
import inspect
import sys
import types
import unittest
import pytest
from sigra import configure, tenant_worker
from sigra.catalog import lookup
from sigra.testing import RecordingBackend

IDS = {"organization_id": "acme", "actor_id": "ann"}

def make(value=1):
    @tenant_worker(name="made")
    def made(scope):
        return value
    return made

class Keeps:
    kept = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item, call):
        self.kept.append((item, call))  # as some plugins do

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem):  # as the plugins for async tests do
        test = getattr(pyfuncitem.obj, "hypothesis", None)
        if test is not None and inspect.iscoroutinefunction(body := test.inner_test):
            run = lambda *args, **given: asyncio.run(body(*args, **given))
            test.inner_test = functools.wraps(body)(run)

@pytest.fixture(scope="session", autouse=True)
def keeps(request):
    request.config.pluginmanager.register(Keeps())
"""

OF_TESTS = """
@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.parametrize("how", ["fails", pytest.param("xfails", marks=pytest.mark.xfail)])
def test_own(sigra_backend, turn, how):
    made = make(turn)
    assert made.new(IDS).result() != turn

class TestUnit(unittest.TestCase):
    def setUp(self):
        self.made = make()
        self.enterContext(configure(backend=RecordingBackend()))

    def test_1(self):
        self.assertEqual(self.made.new(IDS).result(), 2)

    def test_2(self):
        self.assertEqual(self.made.new(IDS).result(), 1)
"""

OF_FIXTURES = """
@pytest.fixture
def made():
    return make()

@pytest.mark.parametrize("turn", [1, 2])
def test_a_fixture_of_the_test(made, turn):
    assert turn == 2

@pytest.fixture(scope="class", params=[1, 2])
def lasting(request):
    return make(request.param)

class TestLasting:
    @pytest.mark.parametrize("turn", [1, 2])
    def test_it(self, lasting, turn, sigra_backend):
        assert lookup("made") is lasting.definition  # after a failure too
        assert turn == 2

@pytest.fixture
def ends_badly():
    yield make()
    raise OSError

@pytest.mark.parametrize("turn", [1, 2])
def test_teardown(ends_badly, turn):
    pass

@pytest.fixture
def begins_badly():
    here = make()
    raise OSError

@pytest.mark.parametrize("turn", [1, 2])
def test_setup(begins_badly, turn):
    pass
"""

OF_TESTS_THAT_PASS = """
kept = []

def of_the_module(scope):
    return None

@pytest.mark.parametrize("error", [OSError("one"), OSError("another")])
def test_an_exception_among_the_parameters(sigra_backend, error):
    @tenant_worker
    def raises(scope):
        raise error
    assert raises.new(IDS).state == "discarded"

@pytest.mark.parametrize("turn", [1, 2])
def test_a_job_put_aside(sigra_backend, turn):
    kept.append(make(turn).new(IDS))
    assert kept[-1].result() == turn
    assert lookup("made").function(None) == turn

@pytest.mark.parametrize("options", [{}, {"priority": 1}])
def test_a_function_of_the_module(sigra_backend, options):
    assert tenant_worker(of_the_module, **options).new(IDS).state == "completed"

@pytest.fixture(scope="class", params=[1, 2])
def lasting(request):
    kept.append(make(request.param))
    return kept[-1]

class TestLasting:
    def test_a_fixture_put_aside(self, lasting):
        assert lookup("made") is lasting.definition
"""

OF_EXAMPLES = """
from hypothesis import HealthCheck, given, settings, strategies as st
kept = []
quick = settings(suppress_health_check=[*HealthCheck], max_examples=5, database=None)

@quick
@given(st.integers())
def test_each_example(sigra_backend, value):
    kept.append(make(value).new(IDS))
    assert kept[-1].result() == value

@pytest.fixture
def lasting():
    return make()

@quick
@given(st.integers())
def test_a_fixture_of_all(lasting, value):
    assert lookup("made") is lasting.definition
    with pytest.raises(ValueError, match="two functions have the worker name"):
        make(value)

class TestMethod:
    @pytest.mark.parametrize("turn", [1, 2])
    @quick
    @given(st.integers())
    def test_each_example(self, turn, value):
        kept.append(make(turn))
        with pytest.raises(ValueError, match="two functions have the worker name"):
            make(value)

@quick
@given(st.integers())
def test_that_fails(value):
    kept.append(make(value))
    assert value < 10

@pytest.mark.parametrize("turn", [1, 2])
@quick
@given(value=st.integers())
async def test_each_example_of_an_async_test(turn, value):
    kept.append(make(turn))
    with pytest.raises(ValueError, match="two functions have the worker name"):
        make(value)
"""

RUN_AGAIN = """
from _pytest.runner import runtestprotocol

turns = []

class Again:
    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item, nextitem):
        runtestprotocol(item, nextitem=nextitem, log=False)
        runtestprotocol(item, nextitem=nextitem)
        return True

def test_first(request):
    request.config.pluginmanager.register(Again())

def test_run_twice():
    made = make()
    turns.append(made)
    assert len(turns) == 2
"""

TWO_ALIVE = """
def test_two_in_one_test():
    first = make()
    with pytest.raises(ValueError, match="two functions have the worker name"):
        make(2)
    assert 0

def test_two_of_a_lasting_fixture(lasting):
    with pytest.raises(ValueError, match="two functions have the worker name"):
        make(2)

@pytest.fixture(scope="module")
def lasting():
    return make()

cached = []

def test_what_a_test_that_passed_left_is_still_there():
    cached.append(tenant_worker(name="cached")(lambda scope: None))

def test_and_is_found():
    assert lookup("cached") is cached[0].definition

def first_import(name):
    module = sys.modules[name] = types.ModuleType(name)
    exec(f"from sigra import worker\\n@worker\\ndef job(): ...", vars(module))

@pytest.fixture(scope="module", params=[1, 2])
def application(request):
    if request.param == 1:
        first_import("late")

def test_a_module_imported_by_a_fixture(application):
    if "later" not in sys.modules:
        first_import("later")

@pytest.fixture(scope="session")
def whole():
    return tenant_worker(name="whole")(lambda scope: None)

@pytest.fixture(scope="class")
def part(request):
    return request.getfixturevalue("whole")

class TestPart:
    def test_a_fixture_that_makes_one_that_lives_longer(self, part):
        pass

def test_another_of_such_a_name():
    for name in "late.job", "later.job", "whole":
        with pytest.raises(ValueError, match="two functions have the worker name"):
            tenant_worker(name=name)(lambda scope: None)
"""


def told(tests: str, folder: Path, traceback: str = "line") -> str:
    """Return what pytest says of tests, with the plugin of the kit alone."""
    (folder / "test_told.py").write_text(HEAD + tests)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "sigra.testing.plugin",
        f"--tb={traceback}",
        ".",
    ]
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=alone).stdout


@pytest.mark.parametrize(
    ("tests", "outcome"),
    [
        (OF_TESTS, "3 failed, 1 passed, 2 xfailed"),
        (OF_FIXTURES, "3 failed, 5 passed, 4 errors"),
        (OF_TESTS_THAT_PASS, "8 passed"),
    ],
    ids=["tests", "fixtures", "tests that pass"],
)
def test_the_next_test_has_the_name(tests: str, outcome: str, tmp_path: Path) -> None:
    """It fails by its own faults alone, whoever made the worker, and however the first ended."""
    said = told(tests, tmp_path)
    assert "DuplicateWorkerError" not in said
    assert outcome in said


def test_a_test_that_is_run_again_has_the_name(tmp_path: Path) -> None:
    """Though the plugin that runs it again keeps its first run."""
    said = told(RUN_AGAIN, tmp_path)
    assert "DuplicateWorkerError" not in said
    assert "2 passed" in said


def test_the_next_example_has_the_name(tmp_path: Path) -> None:
    """Hypothesis runs a test many times; within one example two are refused as ever."""
    said = told(OF_EXAMPLES, tmp_path, traceback="short")
    assert "DuplicateWorkerError" not in said
    assert "1 failed, 6 passed" in said
    assert "own_workers.py" not in said  # nor is it among the frames that are shown


def test_two_that_live_are_refused_as_ever(tmp_path: Path) -> None:
    """Within one test, and beside a fixture or a module that lives on; lookups find all that do."""
    assert "1 failed, 7 passed" in told(TWO_ALIVE, tmp_path)
