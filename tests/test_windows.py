"""What would break on Windows, where nobody has run the tests: its modules, its paths, its locks."""

from __future__ import annotations

import asyncio
import errno
import ntpath
import os
import subprocess
import sys
from functools import partial
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import click
import pytest
from sqlalchemy import make_url

from sigra.backends.green import new_event_loop
from sigra.cli import app, target
from sigra.cli.output import EventStream
from sigra.store import database, private
from sigra.store.loop_thread import LoopThread

ROOT = Path(__file__).parents[1]

WITHOUT = """
import asyncio, os, pkgutil, signal, subprocess, sys, time
from importlib import import_module
from types import ModuleType

import sigra
from sigra.errors import MissingExtraError

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("fcntl", "grp", "pwd", "resource", "termios", "tty"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in ("fcntl", "grp", "pwd", "resource", "termios", "tty"):
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Missing())
import sigra.store
sys.platform, sys.modules["msvcrt"] = "win32", ModuleType("msvcrt")
import sigra.store.locking
sys.platform = "linux"
for name in ("fork", "register_at_fork", "getuid", "geteuid", "killpg", "O_NOFOLLOW", "O_CLOEXEC"):
    delattr(os, name)
for name in set(dir(signal)) - {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"}:
    if name.startswith("SIG") and name not in ("SIG_DFL", "SIG_IGN"):
        delattr(signal, name)
del signal.alarm, signal.setitimer, signal.pthread_kill, signal.pthread_sigmask, time.tzset
"""


def without_unix(program: str, folder: Path) -> str:
    """Run a program where what Windows has not is missing; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout


@pytest.mark.programs
def test_all_is_imported_without_what_unix_alone_has(tmp_path: Path) -> None:
    """No module needs a signal, a function or a module that Windows lacks."""
    program = """
for found in pkgutil.walk_packages(sigra.__path__, "sigra."):
    if not found.name.startswith("sigra.store.migrations."):
        try:
            import_module(found.name)
        except MissingExtraError as error:
            print(error.package)
"""
    missing = set(without_unix(program, tmp_path).split())
    assert set() == missing & sys.stdlib_module_names


@pytest.mark.programs
def test_jobs_run_and_are_audited_without_what_unix_alone_has(tmp_path: Path) -> None:
    """On each backend of this process, into a store that the command line then reads."""
    program = """
from sigra import AuditEvent, configure, log_safe, tenant_worker
from sigra.cli import main
from sigra.store import SqlAuditSink

@tenant_worker(audit_schema=AuditEvent)
def close(scope, invoice):
    return log_safe("invoice.close", scope, target_id=invoice).status

async def closed(args):
    return await (await close.anew(args)).aresult(60)

args = {"organization_id": "42", "actor_id": "7", "invoice": 9}
sink = SqlAuditSink("sqlite:///audit.db")
with configure(sinks=[sink]):
    for backend in ("sync", "thread"):
        with configure(backend=backend):
            print(close.new(args).result(60))
    with configure(backend="asyncio"):
        print(asyncio.run(closed(args)))
sink.close()
sys.argv = ["sigra", "audit", "list", "--store", "sqlite:///audit.db", "--all-organizations"]
main()
"""
    told = [line for line in without_unix(program, tmp_path).splitlines() if "[" not in line]
    assert (["emitted"] * 3, 3) == (told[:3], sum("invoice.close" in line for line in told[3:]))


@pytest.mark.parametrize("path", [r"D:\app\jobs.py", r"..\app\jobs.py"])
def test_a_module_s_path_on_another_drive_is_told_as_on_the_same(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No path leads there from the current folder, which is how the module's name is found."""
    monkeypatch.setattr(target, "os", SimpleNamespace(path=ntpath))
    monkeypatch.setattr(target, "Path", PureWindowsPath)
    with pytest.raises(target.MisuseError, match="; change to its folder and .*: jobs$"):
        target.load_module(path)


def test_a_drive_is_not_taken_for_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who names a file and not a module is told so, and not that there is no module C."""
    monkeypatch.setattr(target, "os", SimpleNamespace(path=ntpath))
    monkeypatch.setattr(target, "Path", PureWindowsPath)
    with pytest.raises(target.MisuseError, match="is a path; .*: jobs$"):
        target.load_worker(r"C:\app\jobs.py:close")


@pytest.mark.parametrize(
    "form", ["file:///C:/data/a%20b.db", "file:C:/data/a b.db", r"C:\data\a b.db"]
)
def test_the_file_of_a_store_is_found_on_its_drive(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URI has a slash before the drive, which is no part of the path."""
    for module in (database, private):
        monkeypatch.setattr(module, "os", SimpleNamespace(path=ntpath))
    assert r"C:\data\a b.db" == database.file_of(make_url(f"sqlite:///{form}?uri=true"))


def test_psycopg_can_use_the_loops_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default loop there is none that it can use."""
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(asyncio, "new_event_loop", object)
    loops: Any = [new_event_loop(), LoopThread(None, None).loop]  # type: ignore[arg-type]
    assert [asyncio.SelectorEventLoop] * 2 == [type(loop) for loop in loops]
    for loop in loops:
        loop.close()


@pytest.mark.parametrize(
    "error, status",
    [
        (OSError(errno.EINVAL, "Invalid argument"), 141),
        (OSError(errno.EINVAL, "Invalid argument", "a?.jsonl"), None),
    ],
    ids=["a pipe", "a file's name"],
)
def test_a_closed_pipe_ends_a_command_as_elsewhere(
    error: OSError, status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is EINVAL there, as is the name that a file cannot have."""

    def write(_: bytes) -> int:
        raise error

    monkeypatch.setattr(app, "give_up_stdout", bool)
    monkeypatch.setattr(sys, "platform", "win32")
    closed, stream = list[bool](), EventStream(SimpleNamespace(write=write, isatty=bool))
    stream.on_closed = lambda: closed.append(True)
    command = click.Command("write", callback=partial(stream.write, b"{}"))
    with pytest.raises((OSError, SystemExit)) as ended:
        type(app.sigra)(commands={"write": command}).main(["write"])
    assert (status, bool(status)) == (getattr(ended.value, "code", None), bool(closed))
