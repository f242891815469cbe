"""``sigra demo``: a story that comes out the same each time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sigra.cli import story


@pytest.fixture(scope="module")
def told(tmp_path_factory, loaded):
    """Run the demo once, in a pipe."""
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "COLUMNS": "80"}
    return subprocess.run(
        [*loaded, "demo"],
        cwd=tmp_path_factory.mktemp("demo"),
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


def row(told, start):
    line = next(line for line in told.stdout.splitlines() if line.strip().startswith(start))
    return line.strip().removeprefix(start).split()


def test_the_story_ends_well(told):
    """The demo exits with 0 and writes nothing, no bar either, to a stderr that is a pipe."""
    assert (0, "") == (told.returncode, told.stderr)


def test_the_counts_are_the_same_each_time(told):
    """Jobs by state, retries, snoozes and audit events are what the story has in it."""
    assert ["652", "628", "23", "1", "39", "33", "691"] == row(told, "North Bakery")
    assert ["322", "310", "11", "1", "18", "16", "340"] == row(told, "Harbor Clinic")
    assert ["12", "9", "2", "1", "2", "1", "14"] == row(told, "Oak St. Books")


def test_the_audit_lines_say_who_and_as_whom(told):
    """Persons, support acting as a customer, and the system are told apart."""
    assert (4, 2) == (
        told.stdout.count("Sam of support, as Lena"),
        told.stdout.count("  the system "),
    )


def test_the_refusals_are_shown(told):
    """A job without an actor and a scope used for authorization are refused, with their text."""
    text = " ".join(told.stdout.split())
    assert "MissingTenantKeysError: args for worker 'sigra.cli.story.issue_invoice' lack" in text
    assert "AuditOnlyScopeError: may_delete() decides on authority" in text


def test_no_secret_is_shown(told):
    """The password in the metadata comes out redacted."""
    assert (True, False) == ("[REDACTED]" in told.stdout, "correct horse" in told.stdout)


def test_it_fits_eighty_columns(told):
    """No line is wider than 80 columns, and none has a colour in a pipe."""
    assert (True, False) == (
        max(map(len, told.stdout.splitlines())) <= 80,
        "\x1b" in told.stdout,
    )


def test_the_story_has_about_a_thousand_jobs():
    """Three organizations, about a thousand jobs, the same ones each time."""
    first, second = list(story.steps()), list(story.steps())
    assert (986, True) == (len(first), first == second)


STOPPED = """
import os, sys, threading, types
import sigra.cli.demo as demo
from sigra.cli import main
sign = int(sys.argv.pop())
demo._GRACE, demo.story._A_MOMENT = 0, 0.5  # eight jobs go on, and each to its end: a slow machine
demo.time = types.SimpleNamespace(
    monotonic=demo.time.monotonic, sleep=lambda _: os.kill(os.getpid(), sign)
)
try:
    main()
finally:
    for thread in threading.enumerate():
        thread is threading.current_thread() or thread.join()
"""


@pytest.mark.programs
@pytest.mark.parametrize(("sign", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_in_one_line(tmp_path, sign, status):
    """While jobs run it ends the demo with one line on stderr and no word of each job."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", STOPPED, "demo", str(int(sign))]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert status == done.returncode
    assert re.fullmatch(r"Stopped; [\d,]+ jobs? had not finished\.\n", done.stderr)
    assert done.stdout.startswith("Three organizations")
    assert 3 > len(done.stdout.splitlines())
