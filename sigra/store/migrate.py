"""Bringing the store's tables to this version of Sigra, by Alembic."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Text, column, func, inspect, select, table

from sigra.store.database import Database

HEAD = "0002"
"""The newest version of the tables; ``migrations/versions`` has each step to it."""

VERSION_TABLE = "sigra_audit_version"
FOLDER = Path(__file__).parent / "migrations"
_LOCK = 0x5193A


def ensure_tables(database: Database) -> None:
    """Make the tables, or bring them to this version, where they are not there yet.

    Of processes that begin at once one does it, and the others wait.
    """
    if database.read(version) != HEAD:
        database.write(_upgrade_once)


def upgrade(database: Database, revision: str = HEAD) -> None:
    """Bring the tables to a version."""
    database.write(lambda connection: _run(connection, "upgrade", revision))


def downgrade(database: Database, revision: str) -> None:
    """Bring the tables back to a version; ``base`` drops them with all that they hold."""
    database.write(lambda connection: _run(connection, "downgrade", revision))


def version(connection: Connection) -> str | None:
    """Return the version of the tables, None where there are none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    query = select(column("version_num", Text)).select_from(table(VERSION_TABLE))
    found: str | None = connection.execute(query).scalar()
    return found


def _upgrade_once(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    found = version(connection)
    if found is not None and not _is_known(found):
        raise RuntimeError(
            f"the audit store's tables are of version {found}, which this version of Sigra does "
            "not know: install a newer sigra"
        )
    if found != HEAD:
        _run(connection, "upgrade", HEAD)


def _is_known(revision: str) -> bool:
    return any((FOLDER / "versions").glob(f"v{revision}.py"))


def _run(connection: Connection, command: str, revision: str) -> None:
    import alembic.command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.attributes["connection"] = connection
    getattr(alembic.command, command)(config, revision)
