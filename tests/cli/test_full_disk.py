"""A disk that takes no more is told in one line, and a reader who went away in none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sigra import AuditEvent, configure
from sigra.audit import log
from sigra.store import SqlAuditSink

FULL = "/dev/full"
SAID = b"Error: standard output cannot be written: No space left on device\n"
ALL = ("--all-organizations",)
Start = Callable[..., "subprocess.Popen[bytes]"]

pytestmark = pytest.mark.skipif(not os.path.exists(FULL), reason="this system has no /dev/full")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URL of a store of more events than a pipe takes at once."""
    url = f"sqlite:///{tmp_path_factory.mktemp('store') / 'audit.db'}"
    sink = SqlAuditSink(url)
    with configure(sinks=[sink], audit_schema=AuditEvent):
        for number in range(400):
            log("invoice.close", None, organization_id="acme", target_id="x" * 100 + str(number))
    sink.close()
    return url


LIKE_A_SHELL = """
import gc, json, os, resource, runpy, sys
import sigra.cli.app, sigra.cli.keeping, sigra.store.sink, sqlalchemy.dialects.sqlite

gc.freeze()  # no fork looks for garbage among it as it ends
stdout, limit, commands = json.loads(sys.argv[1])
for number, words in enumerate(commands):
    if os.fork():
        print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
        continue
    if stdout:
        os.dup2(os.open(stdout, os.O_WRONLY), 1)
    else:
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, 1)
    os.dup2(os.open(f"{number}.errors", os.O_WRONLY | os.O_CREAT), 2)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.argv = ["sigra", *words]
    runpy.run_module("sigra", run_name="__main__", alter_sys=True)
"""
"""Run commands, each in a process of its own that has loaded the package already."""

Commands = list[tuple[str, ...]]
Outcomes = dict[tuple[str, ...], tuple[int, list[bytes]]]


def run_all(folder: Path, commands: Commands, stdout: str | None, limit: int = 0) -> Outcomes:
    """Return each command's status and lines of errors.

    ``stdout`` is a path, or None for a pipe that nobody reads; no file may outgrow ``limit``.
    """
    orders = json.dumps([stdout, limit, commands])
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", LIKE_A_SHELL, orders],
        cwd=folder, env=environment, stdout=subprocess.PIPE, timeout=240, check=True,
    )  # fmt: skip
    statuses = map(int, done.stdout.split())
    return {
        words: (status, (folder / f"{number}.errors").read_bytes().splitlines(keepends=True))
        for number, (words, status) in enumerate(zip(commands, statuses, strict=True))
    }


AUDITS = [
    ("list", *ALL), ("list", *ALL, "--json"), ("tail", *ALL), ("tail", *ALL, "--json"),
    ("stats", *ALL), ("stats", *ALL, "--json"), ("verify", *ALL),
]  # fmt: skip


@pytest.fixture(scope="module")
def of_a_full_disk(store: str, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    commands = [("audit", *words, "--store", store) for words in AUDITS]
    return run_all(tmp_path_factory.mktemp("full"), commands, FULL)


@pytest.mark.parametrize("words", AUDITS, ids=" ".join)
def test_an_audit_command_whose_output_finds_no_room_says_so(
    of_a_full_disk: Outcomes, store: str, words: tuple[str, ...]
) -> None:
    """One line and status 1, also where all of it had gone into a buffer."""
    status, errors = of_a_full_disk["audit", *words, "--store", store]
    # Where the next page begins is told besides.
    assert (1, [SAID]) == (status, [e for e in errors if not e.startswith(b"more:")])


@pytest.mark.parametrize("words", [("demo",), ("workers", "cli_jobs"), ("--help",)], ids=" ".join)
def test_any_command_whose_output_finds_no_room_says_so(
    start: Start, words: tuple[str, ...]
) -> None:
    """Whoever calls it in a script sees it fail, and reads why."""
    with open(FULL, "wb") as full:
        process = start(*words, stdout=full)
    assert (None, SAID) == process.communicate(timeout=240)
    assert 1 == process.returncode


@pytest.mark.parametrize("log_file", [(), ("--audit-log", FULL)])
def test_a_run_whose_audit_finds_no_room_says_so(
    start: Start, number_file: Callable[[int], str], log_file: tuple[str, ...]
) -> None:
    """Its jobs run, no event counts as emitted, and the reason stands there once."""
    words = ("run", "cli_jobs:note", "--args", number_file(5), "--backend", "sync", *log_file)
    with open(FULL, "wb") as full:
        process = start(*words, stdout=full)
    errors = process.communicate(timeout=240)[1].decode()
    counts = dict(line.rsplit(maxsplit=1) for line in errors.splitlines() if len(line.split()) > 1)
    assert (1, "5", "0", "5") == (
        process.returncode, counts["   jobs completed"],
        counts["   audit events emitted"], counts["   audit events failed"],
    )  # fmt: skip
    assert 1 == errors.count("cannot be written: No space left on device")
    assert "Traceback" not in errors


FORMS = ["jsonl", "csv", "parquet"]


@pytest.fixture(scope="module")
def exports(store: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcomes]:
    """Return the folder of one export of each form, and what became of them."""
    folder = tmp_path_factory.mktemp("exports")
    (folder / "stdout").touch()
    commands = [
        ("audit", "export", *ALL, "--to", str(folder / form), "--format", form, "--store", store)
        for form in FORMS
    ]
    # More than the index of SQLite's log takes, and less than the export.
    return folder, run_all(folder, commands, str(folder / "stdout"), limit=40_000)


@pytest.mark.parametrize("form", FORMS)
def test_an_export_that_finds_no_room_says_so(exports: tuple[Path, Outcomes], form: str) -> None:
    """It names the folder, which has no manifest and so verifies as nothing."""
    folder, outcomes = exports
    said = f"Error: {folder / form} cannot be written: File too large\n".encode()
    assert (2, [said]) == next(outcomes[words] for words in outcomes if str(folder / form) in words)
    assert b"" == (folder / "stdout").read_bytes()
    assert not (folder / form / "manifest.json").exists()


PAGES = [
    ("audit", *words, *machine)
    for words in [("list", *ALL, "--limit", "400"), ("tail", *ALL, "-n", "400")]
    for machine in [(), ("--json",)]
]


@pytest.fixture(scope="module")
def without_reader(store: str, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    commands = [(*words, "--store", store) for words in PAGES]
    return run_all(tmp_path_factory.mktemp("gone"), commands, None)


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_a_reader_who_went_away_is_no_error(
    without_reader: Outcomes, store: str, words: tuple[str, ...]
) -> None:
    """As with ``| head -1``: nothing is said."""
    status, errors = without_reader[*words, "--store", store]
    assert (1, []) == (status, [each for each in errors if not each.startswith(b"more:")])
