"""``sigra run --backend huey``: jobs are kept in a file, and outlive the process that runs them."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

pytestmark = pytest.mark.servers

JOBS = """
import os, time
from sigra import log_safe, tenant_args, tenant_worker

def hold(n):
    while n == 30 and not os.path.exists("go_on"):
        time.sleep(0.01)

@tenant_worker(max_attempts=3, backoff=0)
def steady(scope, n: int):
    log_safe("number.begin", scope, target_id=n)
    time.sleep(0.05)
    hold(n)
    log_safe("number.end", scope, target_id=n)

@tenant_worker
def once(scope, n: int):
    log_safe("number.begin", scope, target_id=n)
    time.sleep(0.05)
    hold(n)
    log_safe("number.end", scope, target_id=n)

@tenant_worker(max_attempts=2, backoff=0)
def shaky(scope, n: int, job):
    if job.attempt == 1:
        raise ConnectionError("not yet")

@tenant_worker
def parent(scope, n: int):
    once.new({**tenant_args(scope), "n": n})
"""
COUNT = 40


@pytest.fixture
def run(start, tmp_path, monkeypatch):
    """Return a function that starts the command on jobs of this file's, and on a file of the test's."""
    (tmp_path / "durable_jobs.py").write_text(JOBS)
    monkeypatch.setenv("SIGRA_HUEY_FILE", str(tmp_path / "jobs.db"))

    def begin(worker, *words, **given):
        base = ("run", f"durable_jobs:{worker}", "--backend", "huey", *words)
        return start(*base, folder=tmp_path, anew=True, **given)

    return begin


def ended(process):
    """Return the status, the events and the summary's figures, with what was said."""
    out, err = process.communicate(timeout=240)
    text = err.decode()
    found = re.findall(r"^ {2,}(\S.*?) {2,}([\d,.]+) *$", text, re.MULTILINE)
    return process.returncode, events(out), {name: float(n) for name, n in found}, text


def events(out):
    return [json.loads(line) for line in out.splitlines()]


def go_on():
    """Let the job of number 30 end: until then a run has not come to its end."""
    Path(os.environ["SIGRA_HUEY_FILE"]).with_name("go_on").touch()


def kill_in_the_middle(process):
    """Kill the command with -9 once some jobs have ended; return its events."""
    out = [process.stdout.readline() for _ in range(21)]
    process.kill()
    rest, _ = process.communicate()
    go_on()
    found = events(b"".join(out) + rest)
    assert len({event["target_id"] for event in found}) < COUNT
    return found


def test_after_kill_9_the_same_command_without_args_finishes_what_is_left(run, number_file):
    """Each job ends exactly once or, where it was killed in between, writes the same events again."""
    before = kill_in_the_middle(run("steady", "--args", number_file(COUNT)))
    complete = {e["target_id"] for e in before if e["action"] == "number.end"}
    begun = {e["target_id"] for e in before} - complete
    status, after, figures, _ = ended(run("steady"))
    assert status == 0
    numbers = [e["target_id"] for e in before + after if e["action"] == "number.end"]
    assert set(numbers) == {str(n) for n in range(COUNT)}
    assert len({e["event_id"] for e in before + after}) == 2 * COUNT
    assert begun <= {e["target_id"] for e in after}
    assert figures["jobs completed"] == figures["of the jobs, left by an earlier run"]
    # The last that ended may have been killed before the file heard of it.
    assert figures["jobs completed"] - (COUNT - len(complete)) in (0, 1)


def test_a_job_without_attempts_left_that_was_running_is_told_and_not_run_again(run, number_file):
    """A retry is asked for, never assumed: the job that was killed is discarded, by name."""
    before = kill_in_the_middle(run("once", "--args", number_file(COUNT)))
    status, after, figures, said = ended(run("once"))
    ran = [e["target_id"] for e in before + after if e["action"] == "number.begin"]
    assert len(ran) == len(set(ran))
    if figures["jobs discarded"]:  # it was killed inside a job, and not between two
        assert (status, figures["jobs discarded"]) == (1, 1)
        assert "never finished (deliveries: 1) and has no attempt left" in said
    left = figures["of the jobs, left by an earlier run"]
    assert figures["jobs completed"] + figures["jobs discarded"] == left


def test_a_run_that_is_killed_while_it_reads_leaves_no_job(run, tmp_path):
    """All lines get into the file at once, so that the command can be given again as it was."""
    import subprocess

    process = run("steady", "--args", "-", stdin=subprocess.PIPE)
    process.stdin.write(b'{"organization_id": "o", "actor_id": "a", "n": 1}\nnot json\n')
    assert b"line 2: not JSON" in process.stderr.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    status, found, figures, _ = ended(run("steady"))
    assert (status, found, figures["jobs completed"]) == (0, [], 0)


def test_new_jobs_are_refused_while_old_ones_are_left(run, number_file):
    """The same command given twice would run the lines twice."""
    path = number_file(COUNT)
    kill_in_the_middle(run("steady", "--args", path))
    status, found, _, said = ended(run("steady", "--args", path))
    assert (status, found) == (2, [])
    assert re.search(r"jobs\.db holds \d+ jobs that an earlier run did not finish", said)
    assert "without --args" in said


def test_ctrl_c_keeps_the_rest_and_says_how_to_go_on(run, number_file):
    """The running job ends, no other begins, and the next run does the rest."""
    process = run("once", "--args", number_file(COUNT))
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    go_on()
    status, before, figures, said = ended(process)
    assert (status, figures["jobs discarded"]) == (130, 0)
    assert f"Not finished: {figures['jobs unfinished']:.0f} jobs, kept in jobs.db" in said
    assert "To finish them: sigra run durable_jobs:once --backend huey" in said
    status, after, later, _ = ended(run("once"))
    assert (status, later["jobs completed"]) == (0, figures["jobs unfinished"])
    assert figures["jobs completed"] + later["jobs completed"] == COUNT


def test_a_file_that_cannot_be_written_is_told_and_the_run_goes_on_later(run, number_file):
    """It stood still without a word: huey's own line of it was kept from standard error."""
    process = run("steady", "--args", number_file(COUNT))
    bound = threading.Timer(60, process.kill)
    bound.start()
    process.stdout.readline()
    with closing(sqlite3.connect(os.environ["SIGRA_HUEY_FILE"], timeout=60)) as other:
        other.execute("begin immediate")
        told = any(b"database is locked" in line for line in process.stderr)
    go_on()
    status, _, figures, _ = ended(process)
    bound.cancel()
    # What was locked out as it ended has run twice.
    assert (told, status) == (True, 0)
    assert figures["jobs completed"] >= COUNT


def test_a_file_that_is_being_run_is_not_run_twice(run, number_file):
    """The second command says so, and enqueues nothing."""
    first = run("steady", "--args", number_file(COUNT))
    first.stdout.readline()
    status, found, _, said = ended(run("steady"))
    assert (status, found) == (2, [])
    assert "jobs.db already has a consumer" in said
    go_on()
    assert ended(first)[2]["jobs completed"] == COUNT


def test_retries_and_jobs_of_jobs_are_waited_for_and_counted(run, number_file):
    """The summary of a file's run says what that of a thread's says."""
    path = number_file(6)
    # All lines are read before the first job runs, however few may be unfinished then.
    status, _, figures, _ = ended(
        run("shaky", "--args", path, "--workers", "3", "--in-flight", "2")
    )
    assert (status, figures["jobs completed"], figures["retries"]) == (0, 6, 6)
    status, _, figures, _ = ended(run("parent", "--args", path))
    assert (status, figures["jobs completed"]) == (0, 12)
    assert figures["of the jobs, enqueued by jobs"] == 6


def test_a_bad_line_is_set_aside_and_the_others_run(run, tmp_path):
    """Args without the tenant keys are in the reject file as they were, and the status is 1."""
    (tmp_path / "in.jsonl").write_bytes(
        b'{"n": 1}\n{"organization_id": "o", "actor_id": "a", "n": 2}\n'
    )
    status, found, figures, _ = ended(run("once", "--args", "in.jsonl"))
    assert (status, figures["bad lines"], figures["jobs completed"]) == (1, 1, 1)
    assert [event["target_id"] for event in found] == ["2", "2"]
    assert (tmp_path / "in.jsonl.rejects.jsonl").read_bytes() == b'{"n": 1}\n'


def test_a_file_that_is_no_database_is_refused(run, tmp_path, number_file):
    """The command names the file, ends with 2, and runs nothing."""
    (tmp_path / "jobs.db").write_bytes(b"something else" * 100)
    status, found, _, said = ended(run("once", "--args", number_file(1)))
    assert (status, found) == (2, [])
    assert "jobs.db is not a writable SQLite file" in said


def test_memory_is_refused(command, tmp_path, number_file, monkeypatch):
    """It ended with "no such table", and left an empty file of that name."""
    monkeypatch.setenv("SIGRA_HUEY_FILE", ":memory:")
    result = command("run", "cli_jobs:note", "--args", number_file(1), "--backend", "huey")
    text = "Error: backend 'huey' did not take the job: memory keeps no jobs; name a file with "
    assert (2, f"{text}SIGRA_HUEY_FILE\n") == (result.exit_code, result.stderr)
    assert not (tmp_path / ":memory:").exists()


@pytest.mark.parametrize("before", [None, 0o640])
def test_the_file_of_jobs_is_for_its_owner_alone_where_it_is_made(
    run, tmp_path, number_file, before
):
    """Args may hold what nobody else on the machine is to read; a file that is there stays.

    So is the one beside it, by whose lock a consumer keeps others away.
    """
    file = tmp_path / "jobs.db"
    if before is not None:
        file.touch()
        file.chmod(before)
    assert 0 == ended(run("once", "--args", number_file(1)))[0]
    beside = tmp_path / "jobs.db.consumer"
    modes = [path.stat().st_mode & 0o777 for path in (file, beside)]
    assert [before or 0o600, 0o600] == modes


def test_only_a_backend_that_keeps_jobs_runs_without_args(start, jobs_folder):
    """Without a file of args there must be jobs that an earlier run has left."""
    status, _, _, said = ended(start("run", "cli_jobs:note", "--backend", "thread", anew=True))
    assert status == 2
    assert "--args FILE is missing: backend 'thread' keeps no jobs of an earlier run" in said
