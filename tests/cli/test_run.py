"""``sigra run``: every good line runs, every bad one is set aside, and the end says it all."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import tty
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from amounts import MANY
from rights import unprivileged

from sigra.cli.run import lane

REPOSITORY = Path(__file__).parents[2]
REAL = REPOSITORY.parent / "shared" / "data" / "cloudtrail-jobs.jsonl"
needs_real_file = pytest.mark.skipif(
    not REAL.exists(), reason="the real file is not in ../shared/data beside the repository"
)
PATIENCE = 120.0
RECORD = ("run", "examples.cloudtrail:record", "--backend", "thread")

BAD = {
    b'{"organization_id": "1", "actor_id"\n': r"not JSON: Expecting ':' delimiter \(column \d+\)",
    b'{"n": 1}\n': "lacks organization_id and actor_id; null is allowed",
    b'{"organization_id": "1", "n": 1}\n': "lacks actor_id; null is allowed",
    b'{"organization_id": "1", "actor_id": "a", "n": NaN}\n': "not strict JSON: NaN is not a JSON number",
    b'{"organization_id": "1", "actor_id": "\xe9", "n": 1}\n': r"not UTF-8 \(from byte 39 of the line on\)",
    b'["organization_id"]\n': "a JSON array, not an object of args",
    b'{"organization_id": " ", "actor_id": "a", "n": 1}\n': r"\$\.organization_id: an id must be .* not a blank str",
    b'{"organization_id": "1", "actor_id": "a"}\n': r"\$\.n: the function needs it, and the args lack it",
    b'{"organization_id": "1", "actor_id": "a", "n": 1, "m": 2}\n': r"\$\.m: the function has no such parameter.*",
    b'{"organization_id": "1", "actor_id": "a", "n": 1, "pad": "%s"}\n' % (b"x" * 300_000): r"\$: 3000\d\d bytes of JSON, but max_args_bytes is 262144; see configure\(\)",
    b'{"organization_id": "1", "actor_id": "a", "n": 1, "pad": "%s"}\n' % (b"x" * 5_000_000): "longer than the 1,572,864 bytes that a line may have",
    b'{"organization_id": "1"': r"not JSON: Expecting ',' delimiter \(column \d+\)",
}  # fmt: skip


def figures(result):
    """Read the summary table: what is counted, and how many."""
    found = re.findall(r"^ {2,}(\S.*?) {2,}([\d,.]+) *$", result.stderr, re.MULTILINE)
    return {name: float(number.replace(",", "")) for name, number in found}


def events(text):
    return [json.loads(line) for line in text.splitlines()]


def ended(process):
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out.decode(), err.decode()


@needs_real_file
def test_the_real_file_comes_out_as_audit_events_without_secrets(start):
    """1,233 CloudTrail records finish as 1,233 events, and no masked value is among the output."""
    status, out, err = ended(start(*RECORD, "--args", str(REAL), folder=REPOSITORY))
    recorded = events(out)
    assert (0, 1233) == (status, len(recorded))
    assert 14 == sum(event["actor_type"] == "system" for event in recorded)
    assert 33 == sum(event["actor_id"] != event["effective_user_id"] for event in recorded)
    assert 136 == sum(event["outcome"] == "error" for event in recorded)
    assert "masked-" not in out + err


@needs_real_file
def test_broken_lines_between_real_ones_are_set_aside(start, tmp_path):
    """Of the real file with bad lines mixed in, all good lines run and all bad ones are reported."""
    good, bad = REAL.read_bytes().splitlines(keepends=True), list(BAD)
    mixed, expected = [], []
    for number, line in enumerate(good):
        if number % 100 == 50 and bad[1:]:
            mixed.append(bad.pop(0))
            expected.append(len(mixed))
        mixed.append(line)
    mixed.append(bad.pop())
    expected.append(len(mixed))
    source, rejects = tmp_path / "mixed.jsonl", tmp_path / "rejects"
    source.write_bytes(b"".join(mixed))
    words = (*RECORD, "--args", str(source), "--rejects", str(rejects))
    status, out, err = ended(start(*words, folder=REPOSITORY))
    assert (1, 1233) == (status, len(events(out)))
    assert expected == [int(number) for number in re.findall(r"^line (\d+): ", err, re.MULTILINE)]
    assert b"".join(BAD) == rejects.read_bytes()


def test_each_bad_line_is_told_by_number_and_reason(numbers, tmp_path):
    """A reason says what is wrong; blank lines count as lines and are nothing to report."""
    good = b'{"organization_id": "1", "actor_id": null, "n": 1}\n'
    result = numbers("note", b"\n" + good + b"".join(BAD))
    told = [line for line in result.stderr.splitlines() if line.startswith("line ")]
    for number, (line, reason) in enumerate(zip(told, BAD.values(), strict=True), 3):
        assert re.fullmatch(f"line {number}: {reason}", line)
    assert (1, 1.0, float(len(BAD))) == (
        result.exit_code,
        figures(result)["jobs completed"],
        figures(result)["bad lines"],
    )
    assert b"".join(BAD) == (tmp_path / "in.jsonl.rejects.jsonl").read_bytes()


def test_no_reject_file_is_made_for_a_good_file(numbers, tmp_path):
    """Where all is well, the status is 0 and no file of rejects appears."""
    assert 0 == numbers("note", 5).exit_code
    assert {"in.jsonl", "audit.jsonl"} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_what_a_run_leaves_is_its_owner_s(numbers, tmp_path):
    """Whoever else is on the machine reads neither what was set aside nor the events."""
    before = os.umask(0)
    try:
        numbers("note", b"not json\n")
    finally:
        os.umask(before)
    made = ("in.jsonl.rejects.jsonl", "audit.jsonl")
    assert [0o600, 0o600] == [(tmp_path / name).stat().st_mode & 0o777 for name in made]


def test_a_short_run_is_timed_where_the_clock_moves_seldom(numbers, monkeypatch):
    """Before Python 3.13, time.monotonic() stands still on Windows for 16 ms at a time."""
    clocks = SimpleNamespace(monotonic=lambda: 0.0, perf_counter=time.perf_counter)
    monkeypatch.setattr("sigra.cli.run.run.time", clocks)
    assert figures(numbers("note", 5))["jobs a second"] < 1_000_000


def test_an_earlier_reject_file_is_kept(numbers, tmp_path):
    """A second run numbers its file, and the summary says its name."""
    numbers("note", b"[1]\n")
    result = numbers("note", b"[2]\n")
    assert b"[1]\n" == (tmp_path / "in.jsonl.rejects.jsonl").read_bytes()
    assert b"[2]\n" == (tmp_path / "in.jsonl.2.rejects.jsonl").read_bytes()
    assert "in.jsonl.2.rejects.jsonl" in result.stderr


def test_a_named_reject_file_that_exists_is_refused(numbers, tmp_path):
    """Nothing is written over: the command ends with 2 before any job runs."""
    (tmp_path / "mine").write_text("precious")
    result = numbers("note", 3, "--rejects", "mine")
    assert (2, "precious") == (result.exit_code, (tmp_path / "mine").read_text())
    assert not (tmp_path / "audit.jsonl").exists()


def test_a_reject_file_that_cannot_be_written_stops_the_run(numbers, tmp_path):
    """A bad line that cannot be kept is not skipped: reading ends there, and says where."""
    result = numbers("note", b"[1]\n" + b"[2]\n", "--rejects", "x" * 300)
    assert (1, 1) == (result.exit_code, result.stderr.count("\nStopped: cannot write"))
    assert "set aside" not in result.stderr
    assert "Not run: the lines from 2 on" in result.stderr


@pytest.mark.parametrize("columns", ["1", "10", "29"])
def test_a_summary_for_which_there_is_no_room_is_plain_lines(numbers, monkeypatch, columns):
    """In a very narrow terminal a table would be empty, or cut words to pieces."""
    monkeypatch.setenv("COLUMNS", columns)
    lines = numbers("broken", 20).stderr.splitlines()
    assert {"lines read: 20", "jobs completed: 0", "audit events failed: 0"} <= set(lines)
    assert lines[-1].startswith("times logged: 20, what: ValueError at cli_jobs.py:")


@pytest.mark.parametrize("backend", ["sync", "thread", "asyncio"])
def test_every_line_runs_once_on_every_backend(numbers, tmp_path, backend):
    """Each line's event comes out once, async workers' too."""
    result = numbers("gentle", 50, backend=backend)
    targets = [int(event["target_id"]) for event in events((tmp_path / "audit.jsonl").read_text())]
    assert (0, list(range(50))) == (result.exit_code, sorted(targets))


@pytest.mark.parametrize("backend", ["thread", "asyncio"])
def test_workers_says_how_many_jobs_run_at_a_time(numbers, tmp_path, backend):
    """With one, each job ends before the next one begins."""
    numbers("two_events", 10, "--workers", "1", backend=backend)
    actions = [event["action"] for event in events((tmp_path / "audit.jsonl").read_text())]
    assert ["number.begin", "number.end"] * 10 == actions


@pytest.mark.parametrize("backend", ["sync", "thread", "asyncio"])
def test_no_thread_outlives_the_command(numbers, backend):
    """It may be called in a process that goes on; an event loop is closed, too."""
    before = set(threading.enumerate())
    assert 0 == numbers("note", 20, backend=backend).exit_code
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive(), thread


def test_the_command_leaves_signals_as_it_found_them(numbers):
    """It may be called in a process that goes on, and has handlers of its own."""
    signs = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(sign) for sign in signs]
    assert 0 == numbers("note", 1).exit_code
    after = [signal.getsignal(sign) for sign in signs]
    assert (before, -1) == (after, signal.set_wakeup_fd(-1))


@pytest.mark.parametrize("backend", ["sync", "thread", "asyncio"])
def test_retries_are_waited_for(numbers, backend):
    """A job that fails once and then does well has completed, with one retry."""
    result = numbers("shaky", 20, "--in-flight", "3", backend=backend)
    told = figures(result)
    assert (0, 20.0, 20.0) == (result.exit_code, told["jobs completed"], told["retries"])


def test_snoozes_take_no_time_on_sync(numbers):
    """Two hours of snoozes pass by the virtual clock, with few jobs in flight too."""
    told = figures(numbers("sleepy", 10, "--in-flight", "2"))
    assert (10.0, 20.0) == (told["jobs completed"], told["snoozes"])


@pytest.fixture
def impatient(monkeypatch):
    """Have a run on sync give up after 1,000 snoozes, and not after those of a second for a day."""
    assert lane._PATIENCE * lane._FEW > 86_400
    monkeypatch.setattr(lane, "_PATIENCE", 1_000 / lane._FEW)


@pytest.mark.usefixtures("impatient")
def test_jobs_that_only_snooze_are_given_up_on_sync(numbers):
    """On a virtual clock they would run for ever: the command stops, and names their lines."""
    result = numbers("waits", 9, "--in-flight", "3")
    told = figures(result)
    assert (1, 2.0, 3.0) == (result.exit_code, told["jobs completed"], told["jobs unfinished"])
    assert "Not finished: the jobs of line 3-5" in result.stderr
    assert "Stopped: the jobs left only snooze" in result.stderr
    assert "run them with --backend thread" in result.stderr
    assert "Not run: the lines from 6 on" in result.stderr


@pytest.mark.usefixtures("impatient")
def test_a_job_that_waits_for_one_that_is_not_due_is_not_given_up(numbers):
    """However often it looks."""
    told = figures(numbers("watches", 1))
    assert (2.0, 1_728.0) == (told["jobs completed"], told["snoozes"])


@pytest.mark.usefixtures("impatient")
def test_many_retries_are_not_taken_for_snoozes(numbers):
    """Retries have an end, so all of them are run."""
    result = numbers("stubborn", 6)
    told = figures(result)
    assert (6.0, 2_394.0) == (told["jobs discarded"], told["retries"])


def test_jobs_that_jobs_enqueue_are_waited_for(numbers):
    """Children run on the backend of the run and are counted."""
    told = figures(numbers("parent", 10, backend="thread"))
    assert (20.0, 10.0) == (told["jobs completed"], told["of the jobs, enqueued by jobs"])


def test_a_discarded_job_makes_the_status_1(numbers):
    """``Failure`` is a failed job; ``Cancel`` is the job's own decision."""
    result = numbers("declines", 4)
    told = figures(result)
    assert (1, 2.0, 2.0) == (result.exit_code, told["jobs discarded"], told["jobs cancelled"])
    line = b'{"organization_id": "1", "actor_id": "a", "n": 2}\n'
    assert 0 == numbers("declines", line).exit_code


def test_a_failed_audit_event_makes_the_status_1(numbers):
    """A job whose audit event is rejected completes, and the command does not say that all is well."""
    result = numbers("unheard", 2)
    told = figures(result)
    assert (1, 2.0, 2.0) == (result.exit_code, told["jobs completed"], told["audit events failed"])


def test_many_failures_of_one_kind_are_told_once(numbers):
    """Hundreds of equal exceptions print one traceback and one count."""
    number = 500 if MANY else 100
    result = numbers("broken", number)
    assert (1, 1) == (result.exit_code, result.stderr.count("Traceback"))
    assert re.search(rf"{number} +ValueError at cli_jobs.py:\d+", result.stderr)


def test_the_backend_of_the_command_line_wins(numbers, tmp_path):
    """A worker's own choice of backend gives way to ``--backend``, and holds without it."""
    numbers("choosy", 1, backend="sync")
    assert "ran_on.sync" == events((tmp_path / "audit.jsonl").read_text())[0]["action"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it is just the end")
def test_args_that_cannot_be_read_to_their_end_stop_the_run(start, tmp_path):
    """What was read runs to its end, and the summary says where to go on."""
    reader, writer = pty.openpty()  # to read what nobody has open to write any more is an error
    os.write(writer, b'{"organization_id": "o", "actor_id": null, "n": 1}\n' * 2)
    os.close(writer)
    words = ("run", "cli_jobs:note", "--args", "-", "--audit-log", str(tmp_path / "audit.jsonl"))
    process = start(*words, stdin=reader)
    os.close(reader)
    told = process.communicate(timeout=240)[1].decode()
    assert (1, 2) == (process.returncode, len(events((tmp_path / "audit.jsonl").read_text())))
    end = "Stopped: the args cannot be read any further: Input/output error\n"
    assert told.endswith(f"{end}Not run: the lines from 3 on\n")


def test_standard_input_that_does_not_block_is_waited_for(start):
    """That it holds nothing at a moment was taken for its end, and the rest was not run."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    process = start("run", "cli_jobs:note", "--args", "-", stdin=reader)
    os.close(reader)
    line = b'{"organization_id": "o", "actor_id": null, "n": 1}\n'
    answers = []
    with suppress(BrokenPipeError):
        for _ in range(200):  # in some of them it looks before it is answered
            os.write(writer, line)
            answers.append(process.stdout.readline())
    os.close(writer)
    assert 200 == len(events(b"".join(answers).decode()))
    assert (b"", 0) == (process.communicate(timeout=240)[0], process.returncode)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it is just the end")
def test_a_bad_line_that_cannot_be_read_to_its_end_is_told_as_such(start, tmp_path):
    """It was said that the file of bad lines cannot be written."""
    reader, writer = pty.openpty()
    tty.setraw(writer)
    threading.Thread(target=feed, args=(writer, b"x" * 3_000_000), daemon=True).start()
    rejects = str(tmp_path / "rejects")
    process = start("run", "cli_jobs:note", "--args", "-", "--rejects", rejects, stdin=reader)
    os.close(reader)
    told = process.communicate(timeout=240)[1].decode()
    assert 1 == process.returncode
    end = "Stopped: the args cannot be read any further: Input/output error\n"
    assert told.endswith(f"{end}Not run: the lines from 2 on\n")


def feed(writer, data):
    while data:
        data = data[os.write(writer, data) :]
    os.close(writer)


@pytest.mark.parametrize("name", ["plain", "nice.name", "cli_jobs.note"])
def test_a_worker_is_named_as_in_its_module_or_as_in_its_queue(numbers, name):
    """The attribute of the module names it, and so does the worker's own name."""
    assert 2.0 == figures(numbers(name, 2))["jobs completed"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["no_such_module:f"], "there is no module 'no_such_module'"),
        (["cli_jobs:nothing"], "its workers are broken, choosy"),
        (["cli_jobs:nothing"], "plain (nice.name)"),
        (["cli_jobs:not_a_worker"], "is not a worker but of type int"),
        (["cli_jobs"], "write MODULE:WORKER"),
        (["./cli_jobs.py:note"], "is a path; name the module as Python imports it: cli_jobs"),
        (["./:note"], "is a path; name the module as Python imports it: say shop.jobs"),
        ([".:note"], "'.' is a path; name the module as Python imports it: say shop.jobs"),
        (
            ["..:f"],
            "; change to its folder and name the module as Python imports it: say shop.jobs",
        ),
        ([".cli_jobs:f"], "is a path; name the module as Python imports it: cli_jobs"),
        ([".shop.jobs:f"], "is a path; name the module as Python imports it: shop.jobs"),
        (["./shop.jobs:f"], "is a path; name the module as Python imports it: shop.jobs"),
        (
            [".app/jobs.py:f"],
            "; change to its folder and name the module as Python imports it: jobs",
        ),
        (
            ["../app/jobs.py:f"],
            "; change to its folder and name the module as Python imports it: jobs",
        ),
        (
            ["/etc/jobs.py:f"],
            "; change to its folder and name the module as Python imports it: jobs",
        ),
        (["cli_jobs:note", "--backend", "nope"], "no backend is named 'nope'; known are"),
        (["cli_jobs:note", "--backend", "gone"], "'gone' cannot be made: OSError: no broker (/"),
        (
            ["cli_jobs:note", "--backend", "sync", "--workers", "2"],
            "--workers has no effect on backend 'sync'",
        ),
        (["cli_jobs:note", "--args", "absent"], "--args absent cannot be read: No such file"),
        (["cli_jobs:note", "--audit-log", "in.jsonl"], "--audit-log in.jsonl is also read"),
        (
            ["cli_jobs:note", "--audit-log", "x/../out", "--rejects", "out"],
            "--audit-log x/../out is also read or written as another file",
        ),
        (["cli_jobs:note", "--rejects", "no/such/folder"], "there is no such folder"),
        (["wrong_at_import:f"], "cannot be imported: ZeroDivisionError: division by zero"),
        (["misspelt:f"], "misspelt.py:2)"),
        (["nowhere:f"], "nowhere.py:2)"),
        (["unknown:f"], "unknown.py:2)"),
        (["gives_up:f"], "cannot be imported: SystemExit: set it up \\x1b first"),
        # A ValueError before Python 3.11.4.
        (["binary:f"], "Error: source code string cannot contain null bytes\n"),
    ],
)
def test_a_wrong_call_is_one_clear_line(command, tmp_path, words, text):
    """What cannot work ends with status 2 and one line, without a traceback."""
    (tmp_path / "in.jsonl").write_text("")
    (tmp_path / "wrong_at_import.py").write_text("1 / 0")
    misspelt = "import sigra\nsigra.worker(retries=3)(lambda: None)"
    (tmp_path / "misspelt.py").write_text(misspelt)
    nowhere = "from sigra.store import SqlAuditSink\nSqlAuditSink('sqlite:////no/file').prepare()"
    (tmp_path / "nowhere.py").write_text(nowhere)
    unknown = "from importlib.metadata import version\nversion('no-such-package')"
    (tmp_path / "unknown.py").write_text(unknown)
    (tmp_path / "binary.py").write_bytes(b"\0")
    (tmp_path / "gone.py").write_text("def make():\n    raise OSError('no\\nbroker')")
    (tmp_path / "gone-1.dist-info").mkdir()
    entry_points = tmp_path / "gone-1.dist-info" / "entry_points.txt"
    entry_points.write_text("[sigra.backends]\ngone = gone:make\n")
    (tmp_path / "gives_up.py").write_text(r"raise SystemExit('set it up\n\x1b first')")
    files = [("--args", "in.jsonl"), ("--audit-log", "audit.jsonl")]
    others = [word for pair in files if pair[0] not in words for word in pair]
    result = command("run", *others, *words)
    assert (2, 1) == (result.exit_code, result.stderr.count("\n"))
    assert text in result.stderr


def test_a_folder_of_rejects_that_is_not_for_all_is_refused_in_one_line(command, tmp_path):
    """Before anything runs, and without a traceback."""
    (tmp_path / "in.jsonl").write_text("")
    with tempfile.TemporaryDirectory() as folder:
        closed = Path(folder, "closed")
        closed.mkdir(0)
        words = ("run", "cli_jobs:note", "--args", "in.jsonl")
        command(*words)  # imports what an unprivileged process may not read
        with unprivileged():
            result = command(*words, "--rejects", str(closed / "sub" / "rejects"))
    assert (2, True) == (result.exit_code, "there is no such folder" in result.stderr)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "Error: --args - cannot be read: standard input is closed\n"),
        (1, "Error: standard output cannot be written: Bad file descriptor\n"),
    ],
)
def test_a_closed_stream_is_one_clear_line(start, number, text):
    """As a daemon has it: no traceback."""
    words = ("run", "cli_jobs:note", "--args", "-")
    process = start(*words, preexec_fn=lambda: os.close(number))
    _, err = process.communicate(timeout=PATIENCE)
    assert (2, text) == (process.returncode, err.decode())


def test_a_closed_stderr_ends_nothing(start, number_file, tmp_path):
    """What is to be told is told to nobody, and no file that is opened takes its place."""
    log = tmp_path / "audit.jsonl"
    words = ("run", "cli_jobs:loud", "--args", number_file(2), "--backend", "sync")
    process = start(
        *words, "--audit-log", str(log), anew=True, preexec_fn=lambda: os.close(2)
    )  # fmt: skip
    assert (b"", b"") == process.communicate(timeout=PATIENCE)
    lines = log.read_text().splitlines()
    assert (0, ["number.note"] * 2) == (
        process.returncode, [json.loads(line)["action"] for line in lines]
    )  # fmt: skip


@pytest.mark.parametrize("words", [("workers", "cli_jobs"), ("demo",)], ids=" ".join)
def test_any_command_says_that_standard_output_is_closed(start, words):
    """As sigra run does: what was asked for reaches nobody."""
    process = start(*words, preexec_fn=lambda: os.close(1))
    _, err = process.communicate(timeout=PATIENCE)
    said = "Error: standard output cannot be written: Bad file descriptor\n"
    assert (1, said) == (process.returncode, err.decode())


@pytest.mark.parametrize("source", ["jobs.jsonl", "-"])
def test_events_are_not_appended_to_what_is_read(start, tmp_path, source):
    """Every event would be a further line, without end."""
    path = tmp_path / "jobs.jsonl"
    path.write_text('{"organization_id": "1", "actor_id": "a", "n": 2}\n')
    before = path.read_bytes()
    with path.open("ab") as out, path.open("rb") as given:
        name = str(path) if source != "-" else "-"
        words = ("run", "cli_jobs:note", "--args", name)
        process = start(*words, stdout=out, stdin=given)
        _, err = process.communicate(timeout=PATIENCE)
    assert (2, before) == (process.returncode, path.read_bytes())
    assert "is standard output too" in err.decode()


@pytest.mark.parametrize("source", ["linked.jsonl", "-"])
def test_the_audit_log_is_not_what_is_read(start, tmp_path, source):
    """By no other name either: every event would be a further line, without end."""
    path = tmp_path / "jobs.jsonl"
    path.write_text('{"organization_id": "1", "actor_id": "a", "n": 2}\n')
    (tmp_path / "linked.jsonl").hardlink_to(path)
    before = path.read_bytes()
    name = source if source == "-" else str(tmp_path / source)
    with path.open("rb") as given:
        words = ("run", "cli_jobs:note", "--args", name, "--audit-log", str(path))
        process = start(*words, stdin=given)
        _, err = process.communicate(timeout=PATIENCE)
    assert (2, before) == (process.returncode, path.read_bytes())
    assert "is also read or written as another file" in err.decode()


def test_args_come_from_standard_input_too(command, tmp_path):
    """``--args -`` reads standard input, and names its rejects after it."""
    words = ("run", "cli_jobs:note", "--args", "-", "--audit-log", "audit.jsonl")
    line = b'{"organization_id": "1", "actor_id": "a", "n": 2}\n'
    result = command(*words, stdin=b"\xef\xbb\xbf" + line + b"[]\n")
    assert (1, 1.0) == (result.exit_code, figures(result)["jobs completed"])
    assert b"[]\n" == (tmp_path / "stdin.rejects.jsonl").read_bytes()


NO_THREAD = """
import threading
threading.stack_size(1 << 46)  # more than there is: no thread can be started
from sigra.cli import main
main()
"""


@pytest.mark.programs
def test_where_no_thread_can_be_started_one_line_says_so(number_file, jobs_folder):
    """A limit of the container's ended it with a traceback."""
    words = [sys.executable, "-c", NO_THREAD, "run", "cli_jobs:note", "--args", number_file(1)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        words, cwd=jobs_folder, env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert (1, 1) == (done.returncode, done.stderr.count("\n"))
    assert done.stderr.startswith("Error: no thread can be started: raise what limits them")


def test_a_dash_as_the_audit_log_is_standard_output(start, number_file, jobs_folder, tmp_path):
    """As ``--args -`` is standard input; ``./-`` is a file of that name."""
    shutil.copy(jobs_folder / "cli_jobs.py", tmp_path)
    words = ("run", "cli_jobs:note", "--args", number_file(2), "--audit-log")
    status, out, _ = ended(start(*words, "-", folder=tmp_path))
    assert (0, 2, False) == (status, len(events(out)), (tmp_path / "-").exists())
    assert (0, "") == ended(start(*words, "./-", folder=tmp_path))[:2]
    assert 2 == len(events((tmp_path / "-").read_text()))


@pytest.mark.parametrize(
    "words",
    [
        ("run", "cli_jobs:note", "--args", "in.jsonl", "--rejects"),
        ("audit", "export", "--store", "sqlite://", "--all-organizations", "--to"),
        ("audit", "checkpoint", "--store", "sqlite://", "--key", "in.jsonl", "--to"),
    ],
    ids=" ".join,
)
def test_what_standard_output_does_not_take_is_refused(command, tmp_path, words):
    """A dash makes no file of that name; the call ends with 2 and says why."""
    (tmp_path / "in.jsonl").write_text("")
    result = command(*words, "-")
    assert (2, ["in.jsonl"]) == (result.exit_code, os.listdir(tmp_path))
    assert "standard output does not take this" in result.stderr


class Deaf:
    """A queue that takes jobs, three at most, and never tells what becomes of them."""

    name = "deaf"
    capabilities = frozenset()

    def __init__(self):
        self.taken = []

    def enqueue(self, jobs):
        from sigra import EnqueueError

        if len(self.taken) == 3:
            raise EnqueueError(self.name, "the broker is gone")
        self.taken += jobs

    async def aenqueue(self, jobs):
        self.enqueue(jobs)


def test_a_queue_that_cannot_tell_is_only_filled(numbers):
    """On a backend without results the summary says that the jobs are enqueued, no more."""
    from sigra import configure

    with configure(backend=Deaf()):
        result = numbers("note", 3, backend="deaf")
    assert (0, 3.0) == (result.exit_code, figures(result)["jobs enqueued"])
    assert "cannot tell what becomes of a job" in result.stderr


def test_a_queue_that_takes_no_more_stops_the_run(numbers, tmp_path):
    """Where the broker is gone, no line is called bad, and the way to go on is shown."""
    from sigra import configure

    with configure(backend=Deaf()):
        result = numbers("note", 5, backend="deaf")
    assert (1, 0.0) == (result.exit_code, figures(result)["bad lines"])
    assert "Stopped: backend 'deaf' did not take the job: the broker is gone" in result.stderr
    assert "tail -n +4 in.jsonl | sigra run cli_jobs:note --args -" in result.stderr


def test_a_job_that_its_queue_refused_is_not_waited_for(numbers):
    """Where the backend tells what becomes of jobs, those that it took are all that count."""
    from sigra import EnqueueError, SyncBackend, configure

    class Full(SyncBackend):
        name = "full"

        def enqueue(self, jobs):
            if jobs[0].args["n"] == 3:
                raise EnqueueError(self.name, "it is full")
            super().enqueue(jobs)

    with configure(backend=Full()):
        result = numbers("note", 5, backend="full")
    told = figures(result)
    assert (1, 3.0, None) == (result.exit_code, told["jobs completed"], told.get("jobs unfinished"))
    assert "Not run: the lines from 4 on" in result.stderr


def test_memory_does_not_grow_with_the_file(numbers):
    """Four times the lines take no more memory: what has ended is let go of."""

    def peak(lines):
        tracemalloc.start()
        numbers("note", lines, "--in-flight", "20")
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(50)
    first = peak(100)
    # The test itself holds the file and its lines while it writes them: some 80 bytes each.
    assert peak(400) < first + 85_000


def test_standard_output_holds_nothing_but_events(start, number_file):
    """What the body prints, and a program that it starts, goes to stderr; structlog is silent."""
    words = ("run", "cli_jobs:loud", "--args", number_file(3))
    status, out, err = ended(start(*words))
    assert (0, 3, 3) == (status, len(events(out)), err.count("printed by a child"))
    assert 3 == err.count("printed by the body")


@pytest.mark.parametrize(
    ("sign", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_stops_reading_and_sums_up(start, number_file, sign, status):
    """After Ctrl-C, what runs is finished, what was not run is named, and nothing is lost."""
    words = ("run", "cli_jobs:slow", "--backend", "thread", "--workers", "2", "--in-flight", "4")
    process = start(*words, "--args", number_file(2000))
    first = process.stdout.readline()
    process.send_signal(sign)
    code, out, err = ended(process)
    told = re.search(r"Not run: the lines from (\d+) on", err)
    assert (status, int(told[1]) - 1) == (code, len(events(first.decode() + out)))
    assert "Stopping (" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("backend", ["thread", "sync"])
def test_a_second_signal_ends_at_once(start, number_file, backend):
    """Who presses Ctrl-C is told so, and by pressing it again waits for no job that never ends."""
    words = ("run", "cli_jobs:endless", "--backend", backend, "--args", number_file(3))
    process = start(*words)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert b"Stopping (Ctrl-C)" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    status, _, err = ended(process)
    assert 130 == status, err


def test_a_signal_ends_the_wait_for_input(start):
    """Ctrl-C at an idle pipe ends the command, which would otherwise wait for the next line."""
    process = start("run", "cli_jobs:note", "--args", "-", stdin=-1)
    line = b'{"organization_id": "1", "actor_id": "a", "n": 2}\n'
    process.stdin.write(line)
    process.stdin.flush()
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.wait(PATIENCE)
    assert (130, "") == ended(process)[:2]


def test_a_closed_pipe_ends_quietly(start, number_file):
    """``| head -1`` ends the command without a traceback, and with what was not run."""
    process = start("run", "cli_jobs:note", "--backend", "sync", "--args", number_file(5000))
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read().decode()
    assert (141, 3) == (process.wait(PATIENCE), err.count("\n"))
    assert "Not run: the lines from" in err
    process.stderr.close()


def test_the_bar_is_drawn_on_a_terminal_and_not_in_a_pipe(start, number_file):
    """Only where stderr is a terminal is there a bar, and the events are the same."""
    words = ("run", "cli_jobs:slow", "--backend", "thread", "--args", number_file(20))
    out, screen = with_terminal(start, words)
    assert ("━" in screen, "jobs/s" in screen, 20) == (True, True, len(events(out)))
    status, _, err = ended(start(*words))
    assert (0, False, False) == (status, "━" in err, "\x1b" in err)


def test_the_bar_is_drawn_in_ascii_where_the_encoding_has_no_more(start, number_file, monkeypatch):
    """Not in the codes of its characters."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    words = ("run", "cli_jobs:slow", "--backend", "thread", "--args", number_file(20))
    _, screen = with_terminal(partial(start, anew=True), words)
    assert ("jobs/s" in screen, "\\u" in screen) == (True, False)


def with_terminal(start, words):
    """Run a command with a terminal as stderr; return stdout and what the terminal was sent."""
    here, there = pty.openpty()
    process = start(*words, stderr=there)
    os.close(there)
    sent = []

    def read():
        while True:
            try:
                sent.append(os.read(here, 65536))
            except OSError:  # the other end is closed
                return

    reader = threading.Thread(target=read)
    reader.start()
    out, _ = process.communicate(timeout=PATIENCE)
    reader.join(PATIENCE)
    os.close(here)
    return out.decode(), b"".join(sent).decode()
