"""The steps from one version of the tables to another, as Alembic takes them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select

from sigra.store.errors import AuditTablesError

VERSION_TABLE = "sigra_audit_version"
FOLDER = Path(__file__).parent / "migrations"


@cache
def known_versions() -> frozenset[str]:
    """Return the versions that there are steps to."""
    found = frozenset(path.stem[1:] for path in (FOLDER / "versions").glob("v*.py"))
    if not found:
        raise AuditTablesError(
            f"need the migrations in {FOLDER}, which are not there as files: unpack the zip that "
            "Sigra is in, or pass --collect-all sigra to PyInstaller"
        )
    return found


def run_steps(connection: Connection, way: str, revision: str) -> None:
    """Upgrade or downgrade to a version, by an ``op`` of the connection's own.

    All threads share Alembic's own, which the host's migrations may be using.
    """
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    if way == "upgrade" and connection.dialect.name == "postgresql":
        _check_encoding(connection)
    known_versions()  # says so where there are no steps; Alembic would have the user make some
    script = ScriptDirectory(str(FOLDER))
    steps = script._upgrade_revs if way == "upgrade" else script._downgrade_revs

    def steps_from(heads: Any, _: MigrationContext) -> Any:
        return steps(revision, heads)

    options = {"version_table": VERSION_TABLE, "fn": steps_from}
    context = MigrationContext.configure(connection, opts=options)
    context.run_migrations(op=Operations(context))


def _check_encoding(connection: Connection) -> None:
    """Raise ``AuditTablesError`` for a database that lacks characters which events have."""
    encoding = connection.execute(select(func.current_setting("server_encoding"))).scalar_one()
    if encoding != "UTF8":
        raise AuditTablesError(
            f"need a database with the encoding UTF8, not {encoding}, which lacks characters that "
            "an id or metadata may have: such events would fail"
        )
