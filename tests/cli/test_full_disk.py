"""A disk that takes no more is told in one line, and a reader who went away in none."""

from __future__ import annotations

import os
import resource
import subprocess
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


AUDITS = [
    ("list", *ALL), ("list", *ALL, "--json"), ("tail", *ALL), ("tail", *ALL, "--json"),
    ("stats", *ALL), ("stats", *ALL, "--json"), ("verify", *ALL),
]  # fmt: skip


@pytest.mark.parametrize("words", AUDITS, ids=" ".join)
def test_an_audit_command_whose_output_finds_no_room_says_so(
    start: Start, store: str, words: tuple[str, ...]
) -> None:
    """One line and status 1, also where all of it had gone into a buffer."""
    with open(FULL, "wb") as full:
        process = start("audit", *words, "--store", store, stdout=full)
    errors = process.communicate(timeout=60)[1].splitlines(keepends=True)
    # Where the next page begins is told besides.
    assert (1, [SAID]) == (process.returncode, [e for e in errors if not e.startswith(b"more:")])


@pytest.mark.parametrize("words", [("demo",), ("workers", "cli_jobs"), ("--help",)], ids=" ".join)
def test_any_command_whose_output_finds_no_room_says_so(
    start: Start, words: tuple[str, ...]
) -> None:
    """Whoever calls it in a script sees it fail, and reads why."""
    with open(FULL, "wb") as full:
        process = start(*words, stdout=full)
    assert (None, SAID) == process.communicate(timeout=60)
    assert 1 == process.returncode


@pytest.mark.parametrize("log_file", [(), ("--audit-log", FULL)])
def test_a_run_whose_audit_finds_no_room_says_so(
    start: Start, number_file: Callable[[int], str], log_file: tuple[str, ...]
) -> None:
    """Its jobs run, no event counts as emitted, and the reason stands there once."""
    words = ("run", "cli_jobs:note", "--args", number_file(5), "--backend", "sync", *log_file)
    with open(FULL, "wb") as full:
        process = start(*words, stdout=full)
    errors = process.communicate(timeout=60)[1].decode()
    counts = dict(line.rsplit(maxsplit=1) for line in errors.splitlines() if len(line.split()) > 1)
    assert (1, "5", "0", "5") == (
        process.returncode, counts["   jobs completed"],
        counts["   audit events emitted"], counts["   audit events failed"],
    )  # fmt: skip
    assert 1 == errors.count("cannot be written: No space left on device")
    assert "Traceback" not in errors


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_an_export_that_finds_no_room_says_so(
    start: Start, store: str, tmp_path: Path, form: str
) -> None:
    """It names the folder, which has no manifest and so verifies as nothing."""
    words = ("audit", "export", *ALL, "--to", str(tmp_path / "out"), "--format", form)
    # More than the index of SQLite's log takes, and less than the export.
    limit = (40_000, 40_000)
    process = start(
        *words, "--store", store, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    )  # fmt: skip
    output, errors = process.communicate(timeout=60)
    said = f"Error: {tmp_path / 'out'} cannot be written: File too large\n"
    assert (2, b"", said) == (process.returncode, output, errors.decode())
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("words", [("list", *ALL, "--limit", "400"), ("tail", *ALL, "-n", "400")])
@pytest.mark.parametrize("machine", [(), ("--json",)])
def test_a_reader_who_went_away_is_no_error(
    start: Start, store: str, words: tuple[str, ...], machine: tuple[str, ...]
) -> None:
    """As with ``| head -1``: nothing is said."""
    reading, writing = os.pipe()
    os.close(reading)
    process = start("audit", *words, *machine, "--store", store, stdout=writing)
    os.close(writing)
    errors = process.communicate(timeout=60)[1].splitlines()
    assert [] == [each for each in errors if not each.startswith(b"more:")]
    assert 1 == process.returncode
