"""What the store makes is for its owner alone, and what is there stays as it is."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from events import event

from sigra.audit import JSONLinesSink
from sigra.store import Signer, SqlAuditSink, append_checkpoint, export, take_checkpoint

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")

Open = Callable[..., SqlAuditSink]


@pytest.fixture(autouse=True)
def _open_umask() -> Iterator[None]:
    """Let a file be everybody's unless who makes it says otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


@pytest.mark.parametrize("form", [
    "sqlite:///{}", "sqlite+aiosqlite:///{}", "sqlite:///file:{}?uri=true",
    "sqlite+aiosqlite:///file:{}?mode=rwc&uri=true",
])  # fmt: skip
def test_a_database_and_its_log_are_their_owner_s(
    tmp_path: Path, open_sink: Open, form: str
) -> None:
    """From the first moment on: nobody else can have opened the file before."""
    sink = open_sink(form.format(tmp_path / "audit.db"))
    sink.write(event(1))
    assert modes(tmp_path) == dict.fromkeys(("audit.db", "audit.db-wal", "audit.db-shm"), 0o600)


def test_a_database_that_is_there_keeps_its_mode(tmp_path: Path, open_sink: Open) -> None:
    """A group that was let in is not shut out."""
    path = tmp_path / "audit.db"
    path.touch(0o640)
    open_sink(f"sqlite:///{path}").write(event(1))
    assert {0o640} == set(modes(tmp_path).values())


@pytest.mark.parametrize("mode", ["rw", "ro"])
def test_a_database_that_is_not_to_be_made_is_not(
    tmp_path: Path, open_sink: Open, mode: str
) -> None:
    """SQLite says that it is not there."""
    sink = open_sink(f"sqlite:///file:{tmp_path}/audit.db?mode={mode}&uri=true")
    with pytest.raises(Exception, match="unable to open"):
        sink.prepare()
    assert {} == modes(tmp_path)


@pytest.mark.programs
def test_a_database_in_use_keeps_its_locks(tmp_path: Path, open_sink: Open) -> None:
    """A second sink of this process on the file takes none from the first."""
    path = tmp_path / "audit.db"
    open_sink(f"sqlite:///{path}").write(event(1))
    assert 1 == open_sink(f"sqlite:///{path}").count(_all())
    # Whoever closes the file last, by its locks, removes the log.
    close = f"import sqlite3; c = sqlite3.connect({str(path)!r}); c.execute('PRAGMA user_version')"
    subprocess.run([sys.executable, "-c", f"{close}; c.close()"], check=True)
    assert path.with_name("audit.db-wal").exists()


def _all() -> Any:
    from sigra.store.reading import event_filter

    return event_filter(all_organizations=True)


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_an_export_is_its_owner_s(tmp_path: Path, open_sink: Open, format: Any) -> None:
    """Its folder, the folders that were made above it, its files and the manifest."""
    (tmp_path / "store").mkdir()
    sink = open_sink(f"sqlite:///{tmp_path}/store/audit.db")
    sink.write(event(1))
    (tmp_path / "out").mkdir(0o755)
    export(sink, tmp_path / "out" / "a" / "b", format=format, all_organizations=True)
    folders = {"a": 0o700, "b": 0o700}
    files = {f"org%3aacme.{format}": 0o600, "manifest.json": 0o600}
    assert folders | files == modes(tmp_path / "out")


def test_a_file_of_checkpoints_is_its_owner_s(tmp_path: Path, open_sink: Open) -> None:
    """It names every organization."""
    (tmp_path / "store").mkdir()
    sink = open_sink(f"sqlite:///{tmp_path}/store/audit.db")
    taken = take_checkpoint(sink, Signer(Ed25519PrivateKey.generate()))
    append_checkpoint(tmp_path / "kept", taken)
    assert 0o600 == modes(tmp_path)["kept"]


def test_a_file_of_lines_is_its_owner_s(tmp_path: Path) -> None:
    """That of ``sigra run --audit-log`` too, which is made so."""
    JSONLinesSink(tmp_path / "audit.jsonl").close()
    assert {"audit.jsonl": 0o600} == modes(tmp_path)


def test_a_file_of_lines_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    """Whoever made it has said who may read it."""
    (tmp_path / "audit.jsonl").touch(0o644)
    JSONLinesSink(tmp_path / "audit.jsonl").close()
    assert {"audit.jsonl": 0o644} == modes(tmp_path)


def test_the_umask_may_take_more(tmp_path: Path) -> None:
    """A mode is what is allowed at most."""
    os.umask(0o277)
    JSONLinesSink(tmp_path / "audit.jsonl").close()
    assert {"audit.jsonl": 0o400} == modes(tmp_path)
