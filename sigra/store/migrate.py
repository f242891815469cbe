"""Bringing the store's tables to this version of Sigra, by Alembic."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, column, create_engine, false, inspect, select, table
from sqlalchemy.exc import DBAPIError

from sigra.store.access import enter_alone, naming_altered
from sigra.store.database import KEPT, Database
from sigra.store.errors import CREATE, DENIED, LOCKED, UPGRADE, AuditTablesError, code_of
from sigra.store.indexes import missing_constraints, missing_indexes
from sigra.store.interrupts import interruptible
from sigra.store.steps import VERSION_TABLE, known_versions, run_steps
from sigra.store.tables import chains, entries, marks

T = TypeVar("T")

HEAD = "0003"
"""The newest version of the tables; ``migrations/versions`` has each step to it."""

_CURES = {
    DENIED: "and this role may not bring them to {}. As the role that owns them,",
    LOCKED: f"and cannot be brought to {{}}: {KEPT}, and",
    "SQLITE_READONLY": "and cannot be brought to {}, because the file may only be read. Copy it "
    "and open the copy, or make it writable and",
    "SQLITE_BUSY": "and cannot be brought to {}, because SQLite's lock was held. Where the "
    "transaction being written in holds it, do this before the program starts, or first in it:",
}
"""What to do, by PostgreSQL's code or SQLite's, where the tables cannot be brought to a version."""
_TABLES = {
    "0001": (chains, marks, table("sigra_audit_payloads", column("salt"), column("payload"))),
    "0002": (chains, entries, marks),
    HEAD: (chains, entries, marks),
}
"""The tables, and their columns, by which a version is recognized."""
_VERSION = str(select(column("version_num")).select_from(table(VERSION_TABLE)))
_COLUMNS = {
    version: [str(select(each).where(false())) for each in tables]
    for version, tables in _TABLES.items()
}
"""For each version, queries that fail where one is missing; as text, for compiling is slow."""


class Moved(NamedTuple):
    """What was done to the tables: between which versions, and which indexes were made again.

    ``found`` is None where there were none. A constraint counts as its index.
    """

    found: str | None
    version: str | None
    indexes: tuple[str, ...] = ()


def ensure_tables(database: Database) -> None:
    """Make the tables if there are none; bring older ones to this version.

    If several processes begin at the same time, one does it and the others wait. Raises
    ``AuditTablesError`` if the role may not, or if a transaction keeps the lock for too long.
    """
    if (found := found_version(database)) == HEAD:
        return
    try:
        _alter(database, _upgrade_once)
    except DBAPIError as error:
        code = code_of(error)
        if code not in _CURES:
            raise
        raise _not_upgraded(found, code) from error


def _not_upgraded(found: str | None, code: str) -> AuditTablesError:
    are = "not there" if found is None else f"of version {found}"
    cure = UPGRADE if found else CREATE
    return AuditTablesError(f"are {are}, {_CURES[code].format(HEAD)} {cure}")


def make_within(connection: Connection, file: str) -> bool:
    """Make the tables in a caller's transaction on SQLite, if there are none; tell whether it did.

    Not by migrations, which drop tables: this fails while the caller reads. Nothing is made in
    another file than the store's, where nobody would find what is written.
    """
    bare = _is_of(connection, file) and checked_version(connection) is None
    if bare:
        for statement in _statements():
            connection.exec_driver_sql(statement)
        made = table(VERSION_TABLE, column("version_num")).insert()
        connection.execute(made, {"version_num": HEAD})
    return bare


def upgrade(database: Database, revision: str = HEAD) -> Moved:
    """Bring the tables to a version, and make anew what somebody dropped of its indexes.

    Constraints too, where the tables are of the newest version already. Says what it did itself,
    and not what another did while it waited for that one's end.
    """

    def work(connection: Connection) -> Moved:
        moved = _move(connection, "upgrade", revision)
        dropped = missing_indexes(connection) if moved.version == HEAD else {}
        if moved.found == HEAD:  # else rows that a constraint does not let in would stop the rest
            dropped |= missing_constraints(connection)
        for statement in dropped.values():
            connection.execute(statement)
        return moved._replace(indexes=tuple(dropped))

    return _alter(database, work)


def downgrade(database: Database, revision: str) -> Moved:
    """Bring the tables back to a version; ``base`` drops them with all that they hold."""
    return _alter(database, lambda connection: _move(connection, "downgrade", revision))


def older(found: str, revision: str) -> str:
    """Say of which version the tables are that cannot go back to a newer one, and what to do."""
    cure = f"run sigra audit upgrade --to {revision}"
    return f"of version {found}, which is older than {revision}; {cure}"


def found_version(database: Database) -> str | None:
    """Return the version of the tables, None where there are none; wait for no lock for long.

    Raises as ``checked_version`` does, but tables of an older version, which somebody may be
    upgrading, are not looked at.
    """

    def find(connection: Connection) -> str | None:
        if (found := version(connection)) in (None, HEAD):
            return checked_version(connection)
        _check_known(found)
        return found

    return database.read(find)


def version(connection: Connection) -> str | None:
    """Return the version that is recorded for the tables, None where none is."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found: list[str] = _ask(connection, _VERSION)
    if len(found) > 1 or not all(type(each) is str for each in found):
        raise AuditTablesError(f"are of no version: {VERSION_TABLE} was altered")
    return next(iter(found), None)


def checked_version(connection: Connection) -> str | None:
    """Return the version of the tables, None where there are none.

    Raises ``AuditTablesError`` where the recorded version is not known, or the tables are not of
    that version.
    """
    found = version(connection)
    if found is None:
        left = [each.name for each in _TABLES[HEAD] if inspect(connection).has_table(each.name)]
        if left:
            raise AuditTablesError(
                f"are without a version: {VERSION_TABLE} is gone or empty; restore it with the rest"
            )
    _check_known(found)
    try:
        for query in _COLUMNS.get(found or "", ()):
            _ask(connection, query)
    except DBAPIError as error:  # an older version may have a table that the role has no right to
        if found == HEAD or code_of(error) != DENIED:
            raise
        raise _not_upgraded(found, DENIED) from error
    return found


def _check_known(found: str | None) -> None:
    if found is not None and found not in known_versions():
        raise AuditTablesError(
            f"are of version {repr(found[:20])[1:-1]}, which this version of Sigra does not know: "
            "install a newer sigra"
        )


def _ask(connection: Connection, query: str) -> list[Any]:
    with naming_altered(cure=""):
        return list(connection.exec_driver_sql(query).scalars())


def _alter(database: Database, work: Callable[[Connection], T]) -> T:
    """Change the tables alone; with foreign keys off, as SQLite's are dropped and made anew."""

    def alter(connection: Connection) -> T:
        driver = connection.connection.driver_connection  # of which detaching knows no more
        if connection.dialect.name == "postgresql":
            enter_alone(connection)
        else:
            # A transaction would ignore the pragma. Detached, nobody else gets this connection.
            for statement in ("ROLLBACK", "PRAGMA foreign_keys = OFF", "BEGIN IMMEDIATE"):
                connection.exec_driver_sql(statement)
            connection.detach()
        with interruptible(driver):
            return work(connection)

    return database.write(alter)


def _upgrade_once(connection: Connection) -> None:
    if checked_version(connection) != HEAD:
        run_steps(connection, "upgrade", HEAD)


def _is_of(connection: Connection, file: str) -> bool:
    main = connection.exec_driver_sql("PRAGMA database_list").all()[0]
    return all(map(os.path.exists, (main[2], file))) and os.path.samefile(main[2], file)


@cache
def _statements() -> tuple[str, ...]:
    """Return the SQL that makes SQLite's tables as the migrations do, by running them in memory."""
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        run_steps(connection, "upgrade", HEAD)
        made = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid"
        found = connection.exec_driver_sql(made).scalars().all()
    engine.dispose()
    return tuple(found)


def _move(connection: Connection, way: str, revision: str) -> Moved:
    _check_known(found := version(connection))
    if way == "downgrade" and found and found < revision != "base":
        raise AuditTablesError(f"are {older(found, revision)}")
    run_steps(connection, way, revision)
    return Moved(found, version(connection))
