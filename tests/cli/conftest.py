"""A module of workers, and the command run inside this process or in one of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]

JOBS = """
import asyncio
import os
import time
from sigra import Cancel, Failure, Snooze, log_safe, tenant_args, tenant_worker

@tenant_worker
def note(scope, n: int, pad: str = ""):
    log_safe("number.note", scope, target_id=n)

@tenant_worker
def loud(scope, n: int):
    print("printed by the body")
    os.system("echo printed by a child")
    log_safe("number.note", scope, target_id=n)

@tenant_worker(max_attempts=2, backoff=0.01)
def shaky(scope, n: int, job):
    if job.attempt == 1:
        raise ConnectionError("not yet")

@tenant_worker
def broken(scope, n: int):
    raise ValueError(f"number {n}")

@tenant_worker
def declines(scope, n: int):
    return Failure(f"no {n}") if n % 2 else Cancel("enough")

@tenant_worker
def sleepy(scope, n: int, job):
    return Snooze(3600) if job.snoozes < 2 else None

@tenant_worker
def waits(scope, n: int, job):  # for ever, were it not for the bound of the test
    return Snooze(30) if n > 1 and job.snoozes < 20_000 else None

@tenant_worker
def watches(scope, n: int, job):  # a job that is due in half an hour
    if not job.snoozes:
        note.new({**tenant_args(scope), "n": n}, delay=1_728)
    return Snooze(1) if job.snoozes < 1_728 else None

@tenant_worker(max_attempts=400, backoff=1)
def stubborn(scope, n: int):
    return Failure("not yet")

@tenant_worker
async def gentle(scope, n: int):
    log_safe("number.note", scope, target_id=n)

@tenant_worker
async def two_events(scope, n: int):
    log_safe("number.begin", scope, target_id=n)
    await asyncio.sleep(0.001)
    log_safe("number.end", scope, target_id=n)

@tenant_worker
def parent(scope, n: int):
    note.new({**tenant_args(scope), "n": n})

@tenant_worker
def unheard(scope, n: int):
    log_safe("NoSuchAction", scope)

@tenant_worker(backend="thread")
def choosy(scope, n: int, job):
    log_safe(f"ran_on.{job.backend}", scope)

@tenant_worker(name="nice.name")
def plain(scope, n: int):
    log_safe("number.note", scope, target_id=n)

@tenant_worker
def slow(scope, n: int):
    time.sleep(0.05)
    log_safe("number.note", scope, target_id=n)

@tenant_worker
def endless(scope, n: int):
    log_safe("number.note", scope, target_id=n)
    time.sleep(3600)

not_a_worker = 3
"""


@pytest.fixture(scope="session")
def jobs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "cli_jobs.py").write_text(JOBS)
    return folder


@pytest.fixture
def command(jobs_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs the command in this process, in a folder of its own."""
    from click.testing import CliRunner

    from sigra.cli.app import sigra

    monkeypatch.syspath_prepend(str(jobs_folder))
    monkeypatch.chdir(tmp_path)

    def run(*words: str, stdin: bytes | None = None) -> Any:
        return CliRunner().invoke(sigra, list(words), prog_name="sigra", input=stdin)

    return run


Numbers = Callable[..., Any]


@pytest.fixture
def numbers(command: Any, tmp_path: Path) -> Numbers:
    """Return a function that runs a worker over lines, or over the numbers below a count."""

    def run(worker: str, lines: int | bytes, *words: str, backend: str = "sync") -> Any:
        data = number_lines(lines) if isinstance(lines, int) else lines
        (tmp_path / "in.jsonl").write_bytes(data)
        base = ("run", f"cli_jobs:{worker}", "--args", "in.jsonl", "--backend", backend)
        return command(*base, "--audit-log", "audit.jsonl", *words)

    return run


def number_lines(count: int) -> bytes:
    line = '{"organization_id": "o%d", "actor_id": "a", "n": %d}\n'
    return "".join(line % (n % 3, n) for n in range(count)).encode()


class Loaded:
    """A process that has loaded the command; ``words`` begin a command line that has it run one."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        place = f"{self.folder.name}/commands"
        program = str(Path(__file__).with_name("loaded.py"))
        self.words = (sys.executable, "-I", "-S", program, place)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(place)
            listener.listen()
            self.process = subprocess.Popen(
                [sys.executable, program, "serve", str(listener.fileno())],
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                pass_fds=[listener.fileno()],
                process_group=0,
                # A stream that began as a file, as those of pytest may, fails later as a pipe.
                stdout=subprocess.PIPE,
            )

    def end(self) -> None:
        """Kill it and all that it runs."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        self.folder.cleanup()


LOADED = pytest.StashKey[Loaded]()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what runs the command in a process of its own."""
    if "loaded" in getattr(item, "fixturenames", ()):
        item.add_marker("programs")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin to load the command where tests start it: for all forks of this process."""
    names = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if "loaded" in names and not session.config.option.collectonly:
        session.config.stash[LOADED] = Loaded()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the process that has loaded the command."""
    if LOADED in session.config.stash:
        session.config.stash[LOADED].end()


@pytest.fixture(scope="session")
def loaded(pytestconfig: pytest.Config) -> tuple[str, ...]:
    """Return the words that begin a command line which a process that has loaded it runs."""
    return pytestconfig.stash[LOADED].words


@pytest.fixture
def start(
    jobs_folder: Path, loaded: tuple[str, ...]
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Yield a function that starts the command in a process of its own, as a shell would.

    It is forked from one that has loaded it, or is all ``anew``.
    """
    started: list[subprocess.Popen[bytes]] = []

    def begin(
        *words: str, folder: Path = jobs_folder, anew: bool = False, **given: Any
    ) -> subprocess.Popen[bytes]:
        own = {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "80", "TERM": "xterm"}
        environment = os.environ | own
        # Unbuffered: what a test reads by the line is not missing from what it reads at the end.
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0, **given}
        python = (sys.executable, "-m", "sigra") if anew else loaded
        started.append(subprocess.Popen((*python, *words), cwd=folder, env=environment, **streams))
        return started[-1]

    yield begin
    for process in started:
        with process:  # which closes its pipes and waits for it
            process.kill()


@pytest.fixture
def number_file(tmp_path: Path) -> Callable[[int], str]:
    """Return a function that writes the numbers below a count as args, and says where."""

    def write(count: int) -> str:
        path = tmp_path / "numbers.jsonl"
        path.write_bytes(number_lines(count))
        return str(path)

    return write
