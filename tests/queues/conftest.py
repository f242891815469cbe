"""What tests against real queues share: servers, each with a place of the module's own."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

# So that test files say ``from consumer import Consumer``, as consumers find their app module.
sys.path.insert(0, str(Path(__file__).parent))

from queue_harness import QueueHarness, collect  # noqa: E402
from servers import bundled_redis, own_database, own_redis, server  # noqa: E402

from sigra.testing.harness import Journal  # noqa: E402


@pytest.fixture(scope="class")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for the class, whose consumer is started once."""
    return tmp_path_factory.mktemp("queue")


@pytest.fixture(scope="class")
def journal(folder: Path) -> Journal:
    """Return the class's journal."""
    return Journal(folder)


@pytest.fixture(scope="class")
def started(
    request: pytest.FixtureRequest, journal: Journal, folder: Path
) -> Iterator[QueueHarness]:
    """Return the harness that the class names, its consumer started; remove all of it."""
    harness = request.cls.harness_class(str(request.getfixturevalue(request.cls.server)), folder)
    try:
        harness.start()
        yield harness
        harness.stop()
    finally:
        harness.kill()
        harness.remove()
        collect()  # here it is no error that a queue's client leaves a connection open


@pytest.fixture
def idle() -> None:
    """Have the class's consumer stay dead where it is so: the test puts another in its place."""


@pytest.fixture
def harness(request: pytest.FixtureRequest, started: QueueHarness) -> QueueHarness:
    """Return the class's harness; a consumer that the test before left dead starts again."""
    if not started.alive and "idle" not in request.fixturenames:
        started.start()
    return started


@pytest.fixture(scope="module")
def postgres(postgres_server: str) -> Iterator[str]:
    """Return the URL of an empty database."""
    with own_database(postgres_server) as url:
        yield url


@pytest.fixture(scope="module")
def redis(redis_server: str) -> Iterator[str]:
    """Return the URL of an empty database of Redis."""
    with own_redis(redis_server) as url:
        yield url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """Return a Redis server's URL."""
    with server("SIGRA_REDIS", "redis://127.0.0.1:6379/0", bundled_redis) as url:
        yield url


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[str]:
    """Return the broker's URL; a queue's name is the run's own, and the test deletes it."""
    with server("SIGRA_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672//") as url:
        yield url


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, Any]:
    """Show beside a failure what the consumer said last."""
    report = yield
    harness = getattr(item, "funcargs", {}).get("started")
    if report.failed and harness is not None:
        report.sections.append(("the consumer's output", harness.consumer.output[-5000:]))
    return report
