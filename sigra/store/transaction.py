"""Writing in a transaction of the caller's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from sigra.store.errors import AsyncConnectionError, AutocommitError


def write_within(
    conn: Any,
    work: Callable[[Connection], object],
    *,
    savepoint: bool,
    prepare: Callable[[], object] | None = None,
) -> None:
    """Run the work in the transaction of a connection or session, which the caller ends.

    With ``savepoint`` a failure undoes what the work did and nothing else. ``prepare`` is called
    before the transaction takes SQLite's lock, for which it would wait afterwards. Raises
    ``AsyncConnectionError`` for an asynchronous one, ``TypeError`` for what is neither, and
    ``AutocommitError`` for one in AUTOCOMMIT.
    """
    connection = _connection_of(conn)
    _begin(connection, prepare)
    if savepoint:
        with connection.begin_nested():
            work(connection)
    else:
        work(connection)


def _connection_of(conn: Any) -> Connection:
    if isinstance(conn, Connection):
        return conn
    from sqlalchemy.orm import Session, scoped_session  # slow to load: only for those who use it

    if isinstance(conn, (Session, scoped_session)):
        return conn.connection()
    kind = type(conn)
    if kind.__module__.startswith("sqlalchemy.ext.asyncio"):
        raise AsyncConnectionError(kind.__qualname__)
    raise TypeError(
        f"conn must be a SQLAlchemy Connection or Session, not {kind.__module__}."
        f"{kind.__qualname__}"
    )


def _begin(connection: Connection, prepare: Callable[[], object] | None) -> None:
    """Begin the transaction, which Python's driver for SQLite puts off until a row is written.

    Without it, a savepoint would itself be the transaction, and releasing it would commit.
    """
    if not connection.in_transaction():
        connection.begin()
    driver: Any = connection.connection.driver_connection
    automatic = getattr(connection.connection.dbapi_connection, "autocommit", False) is True
    if connection.dialect.name == "sqlite" and not driver.in_transaction:
        automatic = driver.isolation_level is None
        if not automatic:
            if prepare is not None:
                prepare()
            connection.exec_driver_sql("BEGIN IMMEDIATE")
    if automatic:
        raise AutocommitError
