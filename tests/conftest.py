"""What holds for every test: how many examples a law is tried on, and what waits for a server.

A law is tried on a few examples, new ones each time, or on as many as ``SIGRA_EXAMPLES``
says; state machines then take 200 steps each. With ``SIGRA_FEW`` a parametrized test is run on
one of its cases, always the same. Tests against real queues are run by
``make test-queues`` alone, those in a browser by ``make test-browser``.
"""

import gc
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies

# What a shell has set for its person is not what the programs that tests start are asked for.
for name in (
    "CLICOLOR_FORCE COLUMNS FORCE_COLOR LINES MYPY_FORCE_COLOR NO_COLOR PYTEST_ADDOPTS PYTHONASYNCIODEBUG "
    "PYTHONDEVMODE PYTHONIOENCODING PYTHONSAFEPATH PY_COLORS SIGRA_AUDIT_STORE SIGRA_HUEY_FILE"
).split():
    os.environ.pop(name, None)

sys.path.append(str(Path(__file__).parent))  # so that every folder says ``from servers import``

from amounts import MANY  # noqa: E402
from forks import pytest_addoption, pytest_runtestloop  # noqa: E402, F401
from servers import bundled_postgres, server  # noqa: E402

collect_ignore = [] if os.environ.get("SIGRA_QUEUES") else ["queues"]
collect_ignore += [] if os.environ.get("SIGRA_BROWSER") else ["web/test_chromium.py"]

# What tests write is kept in memory, where there is room: no commit waits for a disk.
MEMORY = "/dev/shm"
if "TMPDIR" not in os.environ and os.path.isdir(MEMORY) and shutil.disk_usage(MEMORY).free > 2**30:
    tempfile.tempdir = MEMORY

# End as by Ctrl-C: fixtures stop the servers and consumers that they started. And hear Ctrl-C,
# as programs that tests start do then too, where the suite runs in a shell's background.
signal.signal(signal.SIGTERM, signal.default_int_handler)
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # by nohup: programs would inherit it
    signal.signal(signal.SIGHUP, lambda *_: None)

settings.register_profile(
    "sigra",
    max_examples=int(os.environ.get("SIGRA_EXAMPLES", "10" if MANY else "4")),
    stateful_step_count=200 if "SIGRA_EXAMPLES" in os.environ else 15,
    # A busy machine is no fault of the code.
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("sigra")

SLOW = """
    test_scope_machine.py test_crash.py typing backends cli store
    test_celery.py test_django.py test_procrastinate.py test_pgqueuer.py test_oban.py
    test_examples.py test_rq.py test_dramatiq.py
""".split()
"""Files and folders of tests that take long or mostly wait, those that do so longest first."""


def few(items: list[pytest.Item]) -> set[pytest.Item]:
    """Return one case of each parametrized test, the same each time, and not all the first one."""
    cases = defaultdict[str, list[pytest.Item]](list)
    for item in items:
        cases[item.nodeid.partition("[")[0]].append(item)
    return {Random(name).choice(of) for name, of in cases.items()}


@pytest.hookimpl(trylast=True)  # when all parametrize
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Where few cases are tried, make tests of one case of each kind of marks, from which -m takes."""
    if not MANY:
        kinds = defaultdict[frozenset[str], list[Any]](list)
        for case in metafunc._calls:
            kinds[frozenset(mark.name for mark in case.marks)].append(case)
        chosen = Random(metafunc.definition.nodeid)
        metafunc._calls[:] = [chosen.choice(of) for of in kinds.values()]


@pytest.hookimpl(trylast=True)  # of what -m has left
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out cases where few are to be tried, and put first what takes long or waits.

    In several processes the rest runs meanwhile, and none is the last for long.
    """
    if not MANY:
        chosen = few(items)
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = [item for item in items if item in chosen]
    places = {name: place for place, name in enumerate(SLOW)}

    def place(item: pytest.Item) -> int:
        return min(places.get(name, len(SLOW)) for name in item.path.parts[-2:])

    items.sort(key=place)


@settings(max_examples=1, database=None)
@given(strategies.none())
def first_example(_: None) -> None:
    """Have Hypothesis make its generator of random numbers."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the collector of garbage what lives until the end: modules, classes, tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        # Before the freeze: Hypothesis asks the collector who holds its generator, and on Python
        # 3.14 it warns where that is frozen.
        first_example()
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail in ``make test-fast``, which starts no program, a test that does and is not marked so."""
    if MANY or item.get_closest_marker("programs") or item.get_closest_marker("servers"):
        return (yield)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = yield
    assert before == resource.getrusage(resource.RUSAGE_CHILDREN), "mark it with `programs`"
    return result


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Return a PostgreSQL server's URL."""
    standard = "postgresql://postgres@127.0.0.1:5432/postgres"
    with server("SIGRA_POSTGRES", standard, bundled_postgres) as url:
        yield url
