"""Migrations: each version is reached with data, and left."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from events import event
from sqlalchemy import inspect, text

from sigra.audit import EventFilter
from sigra.store import SqlAuditSink, migrate, verify
from sigra.store.tables import metadata


@pytest.fixture(scope="session")
def no_events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a SQLite file without tables, in place of the one that has them."""
    path: Path = tmp_path_factory.mktemp("tables") / "audit.db"
    path.touch()
    return path


def versions() -> list[str]:
    """Return all versions, oldest first."""
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(migrate.FOLDER))
    return [each.revision for each in reversed(list(script.walk_revisions()))]


def test_the_newest_version_is_the_one_that_the_store_makes() -> None:
    """There is one line of versions, and HEAD is its end."""
    assert versions()[-1] == migrate.HEAD


def test_the_migrations_make_the_tables_that_the_code_uses(sink: SqlAuditSink) -> None:
    """Nothing is declared that no migration makes, and the other way round."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    sink.prepare()

    def differences(connection):
        options = {"version_table": migrate.VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        return compare_metadata(context, metadata)

    assert sink.database.read(differences) == []


def test_each_version_goes_up_and_down_with_data(sink: SqlAuditSink) -> None:
    """Data survives each step up; the way down ends with no table of ours."""
    sink.write(event(1))
    for revision in reversed(versions()):
        migrate.upgrade(sink.database)
        assert sink.database.read(migrate.version) == migrate.HEAD
        assert verify(sink, organization_id="acme").verdict == "intact"
        if revision != versions()[0]:
            migrate.downgrade(sink.database, revision)
    migrate.downgrade(sink.database, "base")
    names = sink.database.read(lambda connection: inspect(connection).get_table_names())
    assert [name for name in names if name != migrate.VERSION_TABLE] == []
    migrate.upgrade(sink.database)
    sink.write(event(2))
    assert sink.count(EventFilter("acme")) == 1


def test_many_that_begin_at_once_make_the_tables_once(url: str, open_sink: Callable) -> None:
    """Processes of one deployment do not get into each other's way."""
    sinks = [open_sink(url) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda pair: pair[1].write(event(pair[0])), enumerate(sinks)))
    assert sinks[0].count(EventFilter("acme")) == 6


def test_tables_can_be_left_to_somebody_else(url: str, open_sink: Callable) -> None:
    """Without the right to make tables a sink says what is missing."""
    sink = open_sink(url, create_tables=False)
    with pytest.raises(Exception, match="sigra_audit_chains"):
        sink.write(event(1))


def test_tables_of_a_newer_sigra_are_named_as_such(sink: SqlAuditSink) -> None:
    """The error says what to do, and nothing is changed."""
    sink.prepare()
    newer = text("UPDATE sigra_audit_version SET version_num = '9999'")
    sink.database.write(lambda connection: connection.execute(newer))
    with pytest.raises(RuntimeError, match="version 9999, .* newer sigra"):
        migrate.ensure_tables(sink.database)
    assert sink.database.read(migrate.version) == "9999"
