"""Reading and writing the store's own tables, which somebody else may have altered."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from sqlite3 import OperationalError
from typing import Any, TypeVar

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError

from sigra.store.database import Database
from sigra.store.errors import (
    CREATE,
    DENIED,
    LOCKED,
    UPGRADE,
    UPGRADING,
    AuditTablesError,
    AuditTablesMissingError,
    code_of,
    reason_of,
    state_of,
)

T = TypeVar("T")
Work = Callable[[Connection], T]

_NOT_UTF8 = "UTF-8"
_ALTERED = (
    "no such table",
    "no such column",
    "ON CONFLICT clause does not match",
    "constraint failed",
    _NOT_UTF8,
)
"""What SQLite's messages contain where a table was altered: it has no error code for that."""

_ALTERED_CODES, _OTHER_CODES = ("42", "23"), (DENIED, "23001", "23503")
"""How PostgreSQL's codes begin for a table or column that is missing or of another type (42), or a
constraint that refuses a row (23); and those of them that say nothing about the tables: a role may
not use them (DENIED), or a row of another table refers to theirs."""

_NEVER_MADE = "42P01", "42703"
"""PostgreSQL's codes for a table or column that is missing."""

_OURS = "sigra_audit_"
"""How the names of the store's tables begin."""

_OLDER = f"; if they are of an older version, {UPGRADE}"

_ALTERING = 0x5193A
"""The number of the lock of whoever brings PostgreSQL's tables to another version."""

_REFERRED_TO = "FOREIGN KEY"

_MISSING = re.compile(
    r"no such (?:table|column): \S+|has no column named \S+|(?:relation|column) .+ does not exist"
)
"""What either says is missing: names alone, where other messages may show what a row holds."""


def read_tables(database: Database, work: Work[T]) -> T:
    """Read in one transaction, where needed even text of SQLite's that is not UTF-8.

    Then the work runs once more, more slowly, and each byte that is not UTF-8 becomes a lone
    surrogate. The store never writes such text: ``verify`` must report it, and not fail on it.
    Raises ``AuditTablesError`` where a table was altered.
    """

    def read(connection: Connection) -> T:
        try:
            return work(connection)
        except DBAPIError as error:
            if connection.dialect.name != "sqlite" or _NOT_UTF8 not in str(error.orig):
                raise
        with _reading_any_text(connection):
            return work(connection)

    with naming_altered():
        return database.read(read)


def write_tables(database: Database, work: Work[T]) -> T:
    """Write in one transaction, which can read any text. Raises as ``read_tables`` does."""

    def write(connection: Connection) -> T:
        with _reading_any_text(connection):
            return work(connection)

    with naming_altered():
        return database.write(write)


@contextmanager
def _reading_any_text(connection: Connection) -> Iterator[None]:
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.driver_connection
    driver.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    try:
        yield
    finally:
        driver.text_factory = str


def enter_alone(connection: Connection) -> None:
    """Wait until nobody else brings PostgreSQL's tables to another version.

    Raises ``AuditTablesError`` where that takes too long.
    """
    try:
        connection.execute(select(func.pg_advisory_xact_lock(_ALTERING)))
    except DBAPIError as error:
        if code_of(error) != LOCKED:
            raise
        raise AuditTablesError(UPGRADING) from error


@contextmanager
def naming_altered(cure: str = _OLDER) -> Iterator[None]:
    """Raise ``AuditTablesError`` in place of a database's error about a table that was altered.

    ``cure``: what to add where something is missing, which may be of a newer version.
    """
    try:
        yield
    except DBAPIError as error:
        if not _is_altered(error):
            raise
        missing = _MISSING.search(str(error.orig))
        what = f", or never made: {missing[0]}{cure}" if missing else ""
        raise AuditTablesError(
            f"are not as their version makes them: one was altered{what}"
        ) from error


@contextmanager
def naming_missing() -> Iterator[None]:
    """Raise ``AuditTablesMissingError`` in place of a database's error about what is missing.

    Only of the store's own: a trigger may name another table.
    """
    try:
        yield
    except (DBAPIError, OperationalError) as error:
        said, state = reason_of(error).splitlines()[0], state_of(error)
        missing = _MISSING.search(said)
        if not (missing if state is None else state in _NEVER_MADE) or _OURS not in said:
            raise
        what = f" ({missing[0]})" if missing else ""  # PostgreSQL may speak another language
        cure = f"{CREATE}. A conn must be of the store's own database"
        raise AuditTablesMissingError(f"are not all there{what}: {cure}") from error


def _is_altered(error: DBAPIError) -> bool:
    state = state_of(error)
    if state is not None:
        return state.startswith(_ALTERED_CODES) and state not in _OTHER_CODES
    said = str(error.orig)
    return any(map(said.__contains__, _ALTERED)) and _REFERRED_TO not in said
