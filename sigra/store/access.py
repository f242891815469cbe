"""Reading and writing the store's own tables, whatever somebody else put into them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from sigra.store.database import Database
from sigra.store.errors import AuditTablesError

T = TypeVar("T")
Work = Callable[[Connection], T]

_NO_TEXT = "UTF-8"
_ALTERED = (
    "no such table",
    "no such column",
    "ON CONFLICT clause does not match",
    "constraint failed",
    _NO_TEXT,
)
"""What SQLite says of tables that are others than ours: it has one kind of error for all."""

_WRONG, _RIGHT = ("42", "23"), ("42501", "23001", "23503")
"""PostgreSQL's codes for what is not there, or of another type, and for rows that a constraint
excludes; and those among them for tables that are right: one may not read them, or a row of
another table refers to theirs."""

_REFERRED_TO = "FOREIGN KEY"


def read_tables(database: Database, work: Work[T]) -> T:
    """Read in one transaction; where SQLite holds a text that is no UTF-8, once more by its bytes.

    Each byte that is none is then a lone surrogate. The store writes none: it is to be found,
    and not stumbled over. Read so, all takes longer. Raises ``AuditTablesError`` where a table is
    not what it was made.
    """

    def read(connection: Connection) -> T:
        try:
            return work(connection)
        except DBAPIError as error:
            if connection.dialect.name != "sqlite" or _NO_TEXT not in str(error.orig):
                raise
        with _any_text(connection):
            return work(connection)

    with naming_altered():
        return database.read(read)


def write_tables(database: Database, work: Work[T]) -> T:
    """Write in one transaction, and read any text in it. Raises as ``read_tables`` does."""

    def write(connection: Connection) -> T:
        with _any_text(connection):
            return work(connection)

    with naming_altered():
        return database.write(write)


@contextmanager
def _any_text(connection: Connection) -> Iterator[None]:
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.driver_connection
    driver.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    try:
        yield
    finally:
        driver.text_factory = str


@contextmanager
def naming_altered() -> Iterator[None]:
    """Raise ``AuditTablesError`` for what a database says of a table that is not as it was made."""
    try:
        yield
    except DBAPIError as error:
        if not _is_altered(error):
            raise
        raise AuditTablesError("are not those of their version: one was altered") from error


def _is_altered(error: DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None)  # PostgreSQL's
    if state is not None:
        return str(state).startswith(_WRONG) and state not in _RIGHT
    said = str(error.orig)
    return any(map(said.__contains__, _ALTERED)) and _REFERRED_TO not in said
