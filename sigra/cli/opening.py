"""Opening the store that a command works on, and leaving alone what is none."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sigra.cli.store_commands import words_of
from sigra.cli.target import MisuseError
from sigra.errors import MissingExtraError

if TYPE_CHECKING:
    from sigra.store import SqlAuditSink

_NO_FILE, _NO_TABLES = "no such file", "it has no such tables"
_OLDER = "the audit store's tables are of version {}, and this release needs {}"
_UPGRADE = (
    "stop the processes of the older release, and run sigra audit upgrade (--dry-run says what it "
    "would do)"
)
_CREATE = "; sigra audit upgrade --create makes one"


def open_store(url: str, key: Path | None = None) -> SqlAuditSink:
    """Open an existing store; ``MisuseError`` where there is none, or no sigra[sql].

    A database that is not a store is left as it was, and so is a store of an older version, to
    which processes of an older release may be writing.
    """
    with _opening(url):
        sink = _connect(url, key)
        from sigra.store.migrate import HEAD, found_version

        _check_file(url, sink.database.file)
        if (found := found_version(sink.database)) is None:
            raise _none_at(url, _NO_TABLES)
        if found != HEAD:
            raise MisuseError(f"{_OLDER.format(found, HEAD)}: {_UPGRADE}")
    return sink


def open_tables(url: str, *, create: bool) -> tuple[SqlAuditSink, str | None]:
    """Open a store and leave its tables as they are; return their version too.

    With ``create`` there may be no tables, and no file of SQLite's: their version is then None.
    """
    with _opening(url):
        sink = _connect(url, None)
        from sigra.store.migrate import found_version

        file = sink.database.file
        if not create:
            _check_file(url, file, _CREATE)
        found = None if file and not _is_file(Path(file)) else found_version(sink.database)
        if found is None and not create:
            raise _none_at(url, f"{_NO_TABLES}{_CREATE}")
    return sink, found


@contextmanager
def _opening(url: str) -> Iterator[None]:
    """Raise ``MisuseError`` in place of whatever keeps a store from being opened."""
    try:
        yield
    except MissingExtraError as error:
        raise MisuseError(str(error)) from None
    except click.ClickException:
        raise
    except ModuleNotFoundError as error:
        told = f"the package {error.name}, which the driver in its URL needs, is not installed"
        raise MisuseError(f"the audit store cannot be opened: {told}") from None
    except Exception as error:
        told = "; ".join([words_of(error), *getattr(error, "__notes__", ())])
        told = f"the audit store cannot be opened: {told}"
        is_readable = "readonly" in told
        if "unable to open database file" in told:
            path = Path(_path(url))
            told += f": may this user read {path}, and write to its folder?"
            is_readable = _may(os.R_OK, path) and not _may(os.W_OK, path.parent)
            if is_readable and _is_logged(path):
                is_readable = False
                told += f" Copy it and {path.name}-wal, its latest events, to another one"
        if is_readable:
            told += (
                "; if you may only read it, and nobody writes to it meanwhile, pass "
                f"sqlite:///file:{_path(url)}?immutable=1&uri=true"
            )
        raise MisuseError(told) from error


def _may(mode: int, path: Path) -> bool:
    """Tell whether this user has the access of such a mode."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _connect(url: str, key: Path | None) -> SqlAuditSink:
    import sigra.store

    make = sigra.store.SqlAuditSink  # before all else, for it tells where sigra[sql] is missing
    from sigra.cli.keeping import read_key

    sink = make(url, signer=read_key(key))
    click.get_current_context().call_on_close(sink.close)
    return sink


def _none_at(url: str, why: str) -> MisuseError:
    from sqlalchemy import make_url

    shown = make_url(url).set(query={})  # a driver takes a password there too
    return MisuseError(f"there is no audit store at {shown!r}: {why}")


def _path(url: str) -> str:
    from sqlalchemy import make_url

    from sigra.store.database import file_of

    return file_of(make_url(url))


def _check_file(url: str, file: str, cure: str = "") -> None:
    """Raise ``MisuseError`` where a file, if the store is one, is not there or lacks the tables."""
    if file and not _is_file(Path(file)):
        raise _none_at(url, f"{_NO_FILE}{cure}")
    if file and not _has_tables(Path(file)):
        raise _none_at(url, f"{_NO_TABLES}{cure}")


def _is_file(path: Path) -> bool:
    """Tell whether there is a file; ``OSError`` where that cannot be seen."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _has_tables(path: Path) -> bool:
    """Look for the store's tables in a SQLite file; change nothing, and make no file beside it."""
    # Mode "ro" makes a log file where there is none, and "immutable" reads none that is there.
    uri = f"{path.as_uri()}?{'mode=ro' if _is_logged(path) else 'immutable=1'}"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        query = "SELECT count(*) FROM sqlite_master WHERE name GLOB 'sigra_audit_*'"
        return bool(connection.execute(query).fetchone()[0])


def _is_logged(path: Path) -> bool:
    """Tell whether a SQLite file has a log file beside it, perhaps with what it lacks itself."""
    return Path(f"{path}-wal").is_file()


def verifier() -> Any:
    """Return the module that verifies; ``MisuseError`` where there is no sigra[sql]."""
    try:
        from sigra.cli import verifying
    except MissingExtraError as error:
        raise MisuseError(str(error)) from None
    return verifying
