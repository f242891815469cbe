"""The worked examples run by the commands that their pages say, in real consumers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from consumer import Consumer
from servers import need

EXAMPLES = Path(__file__).parents[2] / "examples"
ON_REDIS = {
    "celery": "BROKER",
    "dramatiq": "BROKER",
    "rq": "RQ_REDIS_URL",
    "saq": "BROKER",
    "taskiq": "BROKER",
}
"""Which variable of the environment names the server to each."""


def commands_of(queue: str) -> tuple[list[str], str]:
    """Return the consumer's commands of an example's page, and the producer's."""
    page = (EXAMPLES / queue / "README.md").read_text("utf-8")
    blocks = re.findall(r"^    (\S.*)$", page, re.MULTILINE)
    start = blocks.index(f"cd examples/{queue}") + 1
    stop = next(number for number, line in enumerate(blocks) if line.startswith("python "))
    return blocks[start:stop], blocks[stop]


def see_it_run(queue: str, folder: Path) -> None:
    """Start the consumer, run the producer, and wait for the audit events of both invoices."""
    commands, producer = commands_of(queue)
    consumers = []
    for number, command in enumerate(commands):
        own = folder / str(number)
        own.mkdir()
        consumers.append(Consumer(command.split(), "", own))
    try:
        for consumer in consumers:
            consumer.start()
        made = subprocess.run(
            [sys.executable, *producer.split()[1:]], capture_output=True, text=True, check=True
        )
        jobs = re.findall(rf"<Job (\S+) of invoices.close on {queue}>", made.stdout)
        assert len(jobs) == 2, made
        deadline = time.monotonic() + 60
        closed: set[tuple[str, str]] = set()
        while len(closed) < 2 and time.monotonic() < deadline:
            time.sleep(0.2)
            line = r"invoice\.close .*job_id=(\S+) .*target_id=(\d+)"
            closed = set(re.findall(line, re.sub(r"\x1b\[\d*m", "", consumers[0].output)))
        assert closed == set(zip(jobs, ("9", "10"), strict=True)), consumers[0].output[-5000:]
        for consumer in consumers:
            consumer.stop()
    finally:
        for consumer in consumers:
            consumer.kill()


@pytest.fixture
def example(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Go to the example's folder."""
    queue: str = request.param
    need(queue)
    monkeypatch.chdir(EXAMPLES / queue)
    # Else the app.py of examples/mariadb, which is installed here, may come first.
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES / queue), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    return queue


@pytest.mark.parametrize("example", sorted(ON_REDIS), indirect=True)
def test_an_example_on_redis(
    example: str, redis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its jobs snooze once and are closed, by the queue's own commands."""
    monkeypatch.setenv(ON_REDIS[example], redis)
    see_it_run(example, tmp_path)


@pytest.mark.parametrize("example", ["huey"], indirect=True)
def test_an_example_without_a_server(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its jobs snooze once and are closed, by the queue's own command."""
    monkeypatch.setenv("SIGRA_HUEY_FILE", str(tmp_path / "jobs.db"))
    see_it_run(example, tmp_path)
