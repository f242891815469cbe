"""A disk that takes no more is told in one line, and a reader who went away in none."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sigra import AuditEvent, configure
from sigra.audit import log
from sigra.store import SqlAuditSink

FULL = "/dev/full"
SAID = b"Error: standard output cannot be written: No space left on device\n"
CLOSED = b"Error: standard output cannot be written: Bad file descriptor\n"
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
    # Where the next page begins is told besides.
    assert (1, [SAID]) == (process.wait(240), told(process, but="more:"))


@pytest.mark.parametrize("words", [*AUDITS, ("verify", *ALL, "--json")], ids=" ".join)
def test_an_audit_command_whose_output_is_closed_says_so(
    start: Start, store: str, words: tuple[str, ...]
) -> None:
    """What was asked for reaches nobody, in whatever form."""
    words = ("audit", *words, "--store", store)
    process = start(*words, stdout=None, preexec_fn=lambda: os.close(1))
    assert (1, [CLOSED]) == (process.wait(240), told(process, but="more:"))


def told(process: "subprocess.Popen[bytes]", but: str) -> list[bytes]:
    """Return the lines that a command wrote to its standard error, but for some."""
    assert process.stderr is not None
    return [line for line in process.stderr if not line.startswith(but.encode())]


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


@pytest.mark.parametrize("broken", ["full", "a closed pipe"])
def test_a_run_goes_on_where_standard_error_takes_nothing(
    start: Start, number_file: Callable[[int], str], tmp_path: Path, broken: str
) -> None:
    """The first bad line ended it: the lines after that were not run, and nothing told which."""
    jobs, log, rejects = (tmp_path / name for name in ("jobs", "log", "rejects"))
    jobs.write_text("no JSON\n" + Path(number_file(5)).read_text())
    words = ("run", "cli_jobs:note", "--args", str(jobs), "--audit-log", str(log))
    if broken == "full":
        errors = os.open(FULL, os.O_WRONLY)
    else:
        reader, errors = os.pipe()
        os.close(reader)
    process = start(*words, "--rejects", str(rejects), stderr=errors)
    os.close(errors)
    process.communicate(timeout=240)
    assert (1, "no JSON\n") == (process.returncode, rejects.read_text())
    assert 5 == len(log.read_text().splitlines())


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, ("check", "cli_jobs.py")),
        (2, ("check", "nowhere")),
        (2, ("workers", "nowhere")),
        (0, ("run", "cli_jobs:loud", "--audit-log", "log", "--args")),
        (1, ("run", "cli_jobs:broken", "--audit-log", "log", "--args")),
    ],
    ids=str,
)
def test_a_command_ends_as_ever_where_standard_error_takes_nothing(
    start: Start, number_file: Callable[[int], str], status: int, words: tuple[str, ...]
) -> None:
    """Its status is the same, and no job fails because of what it prints."""
    with open(FULL, "wb") as full:
        process = start(*words, *[number_file(1)] * ("--args" in words), stderr=full)
    assert (status, b"") == (process.wait(240), process.stdout.read() if process.stdout else None)


def test_no_job_fails_for_the_bytes_that_standard_error_does_not_take(
    start: Start, number_file: Callable[[int], str], tmp_path: Path
) -> None:
    """What prints by the stream below the text is as unheard."""
    (tmp_path / "raw.py").write_text(
        "import sys\nfrom sigra import worker\n"
        "@worker\ndef f(n):\n    sys.stdout.buffer.write(b'x' * 100_000)\n    sys.stdout.flush()\n"
    )
    (tmp_path / "in.jsonl").write_text('{"n": 1}')
    with open(FULL, "wb") as full:
        process = start("run", "raw:f", "--args", "in.jsonl", folder=tmp_path, stderr=full)
    assert 0 == process.wait(240)


def test_an_encoding_that_click_mends_is_unheard_too(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where that is ASCII, click writes to the stream below the text."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    with open(FULL, "wb") as full:
        process = start("check", "nowhere", anew=True, stderr=full)
    assert 2 == process.wait(240)


def test_lines_of_several_threads_do_not_mix(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe takes a part of a long one, and another thread's would come between."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    (tmp_path / "long.py").write_text(
        "import sys\nfrom sigra import worker\n"
        "@worker\ndef f(n):\n    sys.stdout.write(chr(97 + n) * 300_000 + '\\n')\n"
    )
    (tmp_path / "in.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(20)))
    words = ("run", "long:f", "--args", "in.jsonl", "--backend", "thread", "--workers", "5")
    told = start(*words, folder=tmp_path, anew=True).communicate(timeout=240)[1]
    lines = [line for line in told.splitlines() if len(line) > 1_000]
    assert (20, 20) == (len(lines), sum(len(set(line)) == 1 for line in lines))


def test_unbuffered_standard_error_stays_unbuffered(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of a line is there when a job brings the process down."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    (tmp_path / "down.py").write_text(
        "import os, sys\nfrom sigra import worker\n"
        "@worker\ndef f(n):\n    print('part', end='')\n    os._exit(7)\n"
    )
    (tmp_path / "in.jsonl").write_text('{"n": 1}')
    process = start("run", "down:f", "--args", "in.jsonl", folder=tmp_path, anew=True)
    assert (b"", b"part") == process.communicate(timeout=240)
    assert 7 == process.returncode


@pytest.mark.programs
def test_a_command_runs_where_there_is_no_null_device(jobs_folder: Path) -> None:
    """As in a chroot: nothing has to be reserved for a stream that is not closed."""
    program = (
        "import os; os.devnull = '/nowhere/null'; from sigra.cli import main; "
        "import sys; sys.argv[1:] = ['workers', 'cli_jobs']; main()"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=jobs_folder,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (0, "") == (found.returncode, found.stderr)


ROOM = 40_000
"""More bytes than the index of SQLite's log takes, and less than an export."""


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))


FORMS = ["jsonl", "csv", "parquet"]


@pytest.mark.parametrize("form", FORMS)
def test_an_export_that_finds_no_room_says_so(
    start: Start, store: str, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the folder, which has no manifest and so verifies as nothing; it was no misuse."""
    folder = tmp_path / form
    # Coverage would find no room for its own file and say so too, also in a fork of what it measures.
    measured = "COVERAGE_PROCESS_START" in os.environ
    monkeypatch.delenv("COVERAGE_PROCESS_START", raising=False)
    process = start(
        "audit", "export", *ALL, "--to", str(folder), "--format", form, "--store", store,
        preexec_fn=limit_files, anew=measured,
    )  # fmt: skip
    said = f"Error: {folder} cannot be written: File too large\n".encode()
    assert (b"", said) == process.communicate(timeout=240)
    assert 1 == process.returncode
    assert not (folder / "manifest.json").exists()


def test_a_checkpoint_that_finds_no_room_says_so(start: Start, store: str, tmp_path: Path) -> None:
    """It names the file, to which the next one is added as if nothing was; it was no misuse."""
    key = tmp_path / "key.pem"
    pem = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    key.write_bytes(pem)
    kept = tmp_path / "kept"
    words = ("audit", "checkpoint", "--key", str(key), "--to", str(kept), "--store", store)
    assert 0 == start(*words).wait(240)
    line = kept.read_bytes()
    kept.write_bytes(line * (ROOM // len(line)))
    process = start(*words, preexec_fn=limit_files)
    said = f"Error: {kept} cannot take a checkpoint: [Errno 27] File too large\n".encode()
    assert (b"", said) == process.communicate(timeout=240)
    assert 1 == process.returncode
    assert 0 == start(*words).wait(240)


PAGES = [
    ("audit", *words, *machine)
    for words in [
        ("list", *ALL, "--limit", "400"), ("tail", *ALL, "-n", "400"),
        ("stats", *ALL), ("verify", *ALL),
    ]
    for machine in [(), ("--json",)]
]  # fmt: skip


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_a_reader_who_went_away_is_no_error(
    start: Start, store: str, words: tuple[str, ...]
) -> None:
    """As with ``| head -1``: nothing is said, and the status is that of any program that ends so."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as nobody:
        process = start(*words, "--store", store, stdout=nobody)
    assert (141, []) == (process.wait(240), told(process, but="more:"))


@pytest.mark.parametrize(
    "words", [("demo",), ("workers", "cli_jobs"), ("check", "cli_jobs.py", "--json")], ids=" ".join
)
def test_a_closed_pipe_ends_any_command_alike(start: Start, words: tuple[str, ...]) -> None:
    """As it ends ``sigra run``: 1 would say that a flow was found, or a job failed."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as nobody:
        process = start(*words, stdout=nobody)
    errors = process.communicate(timeout=240)[1]
    assert (141, False) == (process.returncode, b"Error" in errors)
