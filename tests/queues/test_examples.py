"""The worked examples run by the commands that their pages say, in real consumers."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from consumer import BIN, Consumer
from servers import need, own_database

EXAMPLES = Path(__file__).parents[2] / "examples"
ON_REDIS = {
    "celery": "BROKER",
    "dramatiq": "BROKER",
    "rq": "RQ_REDIS_URL",
    "saq": "BROKER",
    "taskiq": "BROKER",
}
"""Which variable of the environment names the server to each."""

Sent = set[tuple[str, str]]
"""The jobs' ids, each with the invoice that it was about."""


def lines_of(queue: str) -> list[str]:
    """Return the commands of an example's page, in their order."""
    page = (EXAMPLES / queue / "README.md").read_text("utf-8")
    return re.findall(r"^    (\S.*)$", page, re.MULTILINE)


def call(command: str) -> str:
    """Run a command of the page to its end; return what it printed."""
    program, *words = command.split()
    done = subprocess.run([str(BIN / program), *words], capture_output=True, text=True)
    assert done.returncode == 0, done
    return done.stdout


@contextmanager
def consuming(commands: Sequence[str], folder: Path) -> Iterator[Consumer]:
    """Start the consumers, give the first one, whose output tells of the jobs, and stop them."""
    consumers = []
    for number, command in enumerate(commands):
        own = folder / str(number)
        own.mkdir()
        consumers.append(Consumer(command.split(), "", own))
    try:
        for consumer in consumers:
            consumer.start()
        yield consumers[0]
        time.sleep(1)  # busy between two jobs, RQ's worker may forget that it was told to stop
        for consumer in consumers:
            consumer.stop()
    finally:
        for consumer in consumers:
            consumer.kill()


def see(consumer: Consumer, action: str, sent: Sent) -> None:
    """Wait until the consumer has written an audit event for each job that was sent."""
    deadline = time.monotonic() + 120
    found: Sent = set()
    while not sent <= found and time.monotonic() < deadline:
        time.sleep(0.2)
        line = rf"{action} .*job_id=(\S+) .*target_id=(\S+)"
        found = set(re.findall(line, re.sub(r"\x1b\[\d*m", "", consumer.output)))
    assert found == sent, consumer.output[-5000:]


def see_both_closed(queue: str, folder: Path) -> None:
    """Start the consumer, run the producer, and wait for the audit events of both invoices."""
    lines = lines_of(queue)
    start = lines.index(f"cd examples/{queue}") + 1
    stop = next(number for number, line in enumerate(lines) if line.startswith("python "))
    with consuming(lines[start:stop], folder) as consumer:
        jobs = re.findall(rf"<Job (\S+) of invoices.close on {queue}>", call(lines[stop]))
        see(consumer, r"invoice\.close", set(zip(jobs, ("9", "10"), strict=True)))


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Go to a copy of the example's folder."""
    queue: str = request.param
    need("django_tasks_db" if queue == "django" else queue, queue)
    monkeypatch.chdir(shutil.copytree(EXAMPLES / queue, tmp_path / "example"))
    # Else the app.py of examples/mariadb, which is installed here, may come first.
    monkeypatch.setenv("PYTHONPATH", ".")
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)  # that of the tests before
    return queue


@pytest.mark.parametrize("example", sorted(ON_REDIS), indirect=True)
def test_an_example_on_redis(
    example: str, redis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its jobs snooze once and are closed, by the queue's own commands."""
    monkeypatch.setenv(ON_REDIS[example], redis)
    see_both_closed(example, tmp_path)


@pytest.mark.parametrize("example", ["huey"], indirect=True)
def test_an_example_without_a_server(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its jobs snooze once and are closed, by the queue's own command."""
    monkeypatch.setenv("SIGRA_HUEY_FILE", str(tmp_path / "jobs.db"))
    see_both_closed(example, tmp_path)


@pytest.mark.parametrize("example", ["oban", "pgqueuer", "procrastinate"], indirect=True)
def test_an_example_on_postgresql(
    example: str, postgres_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is due runs, by the queue's own commands; what is due later or rolled back does not."""
    _, exported, install, produce, consume = lines_of(example)
    with own_database(postgres_server) as url:
        for name, value in re.findall(r"(\w+)=(\S+)", exported):
            monkeypatch.setenv(name, url if "://" in value else value)
        call(install)
        made = call(produce)
        assert "rolled back: no invoice, and no job" in made
        with consuming([consume], tmp_path) as consumer:
            (job,) = re.findall(r"enqueued (\S+) as job \d+", made)
            see(consumer, r"invoice\.sent", {(job, "2026-001")})


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("example", ["django"], indirect=True)
def test_an_example_on_either_database(
    example: str,
    database: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both invoices are sent, by Django's own commands, and the one that is rolled back is not."""
    _, _, migrate, _, consume, produce, roll_back = lines_of(example)
    if database == "postgresql":
        monkeypatch.setenv("DATABASE", request.getfixturevalue("postgres"))
    call(migrate)
    with consuming([consume], tmp_path) as consumer:
        assert "rolled back: no invoice, and no job" in call(roll_back)
        jobs = re.findall(r"enqueued (\S+) as task \S+", call(produce))
        see(consumer, r"invoice\.sent", set(zip(jobs, ("2026-001", "2026-002"), strict=True)))
