"""Migrations: each version is reached with data, and left."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from drivers import driven_by
from events import event
from servers import holding
from sqlalchemy import (
    Connection,
    Engine,
    MetaData,
    create_engine,
    insert,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy import event as listen
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from sigra import AuditEvent, configure, log_safe
from sigra.audit import EventFilter
from sigra.cli.app import sigra
from sigra.store import (
    AuditTablesError,
    AuditTablesMissingError,
    Batching,
    Report,
    SqlAuditSink,
    access,
    database,
    erase,
    migrate,
    read_checkpoints,
    steps,
    verify,
)
from sigra.store.errors import AuditLostError
from sigra.store.steps import known_versions
from sigra.store.tables import entries, metadata

FIRST = json.loads(Path(__file__).with_name("tables_0001.json").read_text("utf-8"))
"""All rows of a store that a Sigra with tables of version 0001 filled, pruned and erased from."""


@pytest.fixture(scope="session")
def no_events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a SQLite file without tables, in place of the one that has them."""
    path: Path = tmp_path_factory.mktemp("tables") / "audit.db"
    path.touch()
    return path


def versions() -> list[str]:
    """Return all versions, oldest first."""
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(steps.FOLDER))
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
        def is_of_this_kind(each, *_):
            rule = getattr(each, "_ddl_if", None)
            return rule is None or rule.dialect == connection.dialect.name

        options = {"version_table": migrate.VERSION_TABLE, "include_object": is_of_this_kind}
        context = MigrationContext.configure(connection, opts=options)
        return compare_metadata(context, metadata)

    assert sink.database.read(differences) == []


def test_the_tables_are_passed_over_by_the_name_that_the_docs_give(sink: SqlAuditSink) -> None:
    """A host's own migrations, made by Alembic's autogenerate, would drop them otherwise."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    sink.prepare()
    page = Path(__file__).parents[2] / "docs" / "store-operations.md"
    rule: dict[str, Any] = {}
    exec(re.search(r"def include_name.*?(?=```)", page.read_text("utf-8"), re.DOTALL)[0], rule)

    def dropped(options: dict[str, Any]) -> Callable[[Connection], list[Any]]:
        def compare(connection: Connection) -> list[Any]:
            context = MigrationContext.configure(connection, opts=options)
            return list(compare_metadata(context, MetaData()))

        return compare

    assert sink.database.read(dropped({})) != []
    assert sink.database.read(dropped({"include_name": rule["include_name"]})) == []


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


def test_many_that_upgrade_at_once_each_find_it_done(url: str, open_sink: Callable) -> None:
    """Also threads that have one store, and those who say so: one alone had its way."""
    sink = open_sink(url)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(migrate.upgrade, [sink.database] * 3 + [open_sink(url).database] * 3))
    assert sink.count(EventFilter("acme")) == 0


MANY_STORES = """
import sys, threading
from sigra import AuditEvent
from sigra.store import SqlAuditSink
sinks = [SqlAuditSink(f"sqlite:///{sys.argv[1]}/{number}.db") for number in range(8)]
together = threading.Barrier(8)
def begin(sink):
    together.wait()
    sink.write(AuditEvent(action="invoice.close"))
    sink.close()
threads = [threading.Thread(target=begin, args=(sink,)) for sink in sinks]
for each in threads:
    each.start()
for each in threads:
    each.join()
"""


@pytest.mark.programs
def test_each_of_many_stores_that_begin_at_once_has_its_own_tables(tmp_path: Path) -> None:
    """A migration is of one connection: of two that mixed them up the process itself crashed."""
    command = [sys.executable, "-c", MANY_STORES, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    for number in range(8):
        sink = SqlAuditSink(f"sqlite:///{tmp_path}/{number}.db")
        assert sink.count(EventFilter(None)) == 1
        sink.close()


ENV = """
from alembic import context
from sqlalchemy import create_engine
engine = create_engine(context.config.get_main_option("sqlalchemy.url"))
with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
"""
VERSION = """
from alembic import op
from sqlalchemy import Column, Integer
from sigra import log_safe
revision, down_revision = "1", None
def upgrade():
    op.create_table("before", Column("id", Integer))
    assert log_safe("table.add", None, conn={conn}).status == "emitted"
    op.create_table("after", Column("id", Integer))
"""


def host_s(folder: Path, version: str, url: str) -> Config:
    """Return what Alembic knows of a host with one migration."""
    (folder / "versions").mkdir()
    (folder / "env.py").write_text(ENV)
    (folder / "versions" / "one.py").write_text(version)
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.set_main_option("sqlalchemy.url", url)
    return config


def tables_at(url: str) -> set[str]:
    """Return the names of all tables of a database."""
    engine = create_engine(url)
    names = inspect(engine).get_table_names()
    engine.dispose()
    return set(names)


@pytest.mark.parametrize("conn", ["None", "op.get_bind()"])
def test_a_migration_of_the_host_s_may_log_the_first_event(tmp_path: Path, conn: str) -> None:
    """The store's tables are made meanwhile, and his migration goes on as if nothing was."""
    url = f"sqlite:///{tmp_path / 'audit.db'}"
    his = url if "op" in conn else f"sqlite:///{tmp_path}/1.db"
    config = host_s(tmp_path, VERSION.format(conn=conn), his)
    sink = SqlAuditSink(url)
    with configure(sinks=[sink], audit_schema=AuditEvent):
        command.upgrade(config, "head")
    assert {"before", "after", "alembic_version"} <= tables_at(his)
    assert sink.count(EventFilter(None)) == 1
    sink.close()


TWO = """
from alembic import context, op
from sqlalchemy import Column, Integer
revision, down_revision = "1", None
def upgrade():
    op.create_table("before", Column("id", Integer))
    context.config.attributes["amid"]()
    op.create_table("after", Column("id", Integer))
"""


def test_a_migration_of_the_host_s_may_run_in_another_thread(tmp_path: Path) -> None:
    """His begins, and ends, amid that of a store: neither makes a table in the other's database."""
    his, url = f"sqlite:///{tmp_path / 'his.db'}", f"sqlite:///{tmp_path / 'audit.db'}"
    config = host_s(tmp_path, TWO, his)
    ours_amid, his_amid = threading.Event(), threading.Event()
    config.attributes["amid"] = his_amid.set
    engine = create_engine(url)

    def turn(statement: str) -> None:
        if statement.strip().startswith("CREATE TABLE sigra_audit_marks"):
            ours_amid.set()
            his_amid.wait(10)

    @listen.listens_for(engine, "connect")
    def watch(connection: Any, _: Any) -> None:
        connection.set_trace_callback(turn)

    sink = SqlAuditSink(engine)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(sink.write, AuditEvent(action="invoice.close"))
        ours_amid.wait()
        command.upgrade(config, "head")
        first.result()
    assert tables_at(his) == {"before", "after", "alembic_version"}
    assert tables_at(url) & {"before", "after", "alembic_version"} == set()
    assert sink.count(EventFilter(None)) == 1
    sink.close()


@pytest.mark.parametrize("way", ["own", "within", "asynchronous", "batch"])
def test_tables_can_be_left_to_somebody_else(
    url: str, open_sink: Callable[..., SqlAuditSink], caplog: pytest.LogCaptureFixture, way: str
) -> None:
    """Until they are made each event fails, and the error's name in the log says why."""
    target: Any = url
    if way == "asynchronous":
        sqlite = url.startswith("sqlite")
        target = driven_by("sqlite+aiosqlite" if sqlite else "postgresql+asyncpg", url)
    sink = open_sink(target, create_tables=False, batch=Batching() if way == "batch" else None)
    engine = create_engine(url)
    with configure(sinks=[sink], audit_schema=AuditEvent), engine.begin() as connection:
        log_safe("a.b", None, conn=connection if way == "within" else None)
    engine.dispose()
    told = "sigra_audit_chains.*: run sigra audit upgrade --create, or call sigra.store.migrate"
    with pytest.raises(AuditTablesMissingError, match=told):
        sink.flush() if way == "batch" else sink.write(event(1))
    with pytest.raises(AuditLostError) if way == "batch" else nullcontext():
        sink.close()
    assert "AuditTablesMissingError" in caplog.text


def test_a_frozen_program_without_the_migrations_is_told_what_to_pass(
    new_url: Callable[[str], str],
    open_sink: Callable[..., SqlAuditSink],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PyInstaller takes them along only if asked: tables of today are not those of a newer Sigra."""
    sink = open_sink(new_url("sqlite"))
    monkeypatch.setattr(steps, "FOLDER", tmp_path)
    for module in (migrate, steps):  # without the answer of before
        monkeypatch.setattr(module, "known_versions", known_versions.__wrapped__)
    with pytest.raises(AuditTablesError, match="pass --collect-all sigra to PyInstaller$"):
        sink.prepare()


@pytest.mark.parametrize(
    "work", [migrate.ensure_tables, migrate.upgrade, lambda store: migrate.downgrade(store, "0001")]
)
def test_tables_of_a_newer_sigra_are_named_as_such(sink: SqlAuditSink, work: Callable) -> None:
    """The error says what to do, to a deploy too that migrates, and nothing is changed."""
    sink.prepare()
    newer = text("UPDATE sigra_audit_version SET version_num = '9999'")
    sink.database.write(lambda connection: connection.execute(newer))
    with pytest.raises(AuditTablesError, match="version 9999, .* newer sigra"):
        work(sink.database)
    assert sink.database.read(migrate.version) == "9999"


def tables_of(sink: SqlAuditSink) -> MetaData:
    """Return the store's tables as they are in the database."""
    found = MetaData()
    sink.database.read(lambda connection: found.reflect(connection))
    return found


def rows_of(sink: SqlAuditSink) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of all tables but the one that has their version."""
    tables = [each for each in tables_of(sink).sorted_tables if each.name != migrate.VERSION_TABLE]
    return {
        table.name: sink.database.read(
            lambda c: sorted(map(tuple, c.execute(select(table))))  # noqa: B023
        )
        for table in tables
    }


@pytest.fixture
def first_on(open_sink: Callable[..., SqlAuditSink]) -> Callable[[str], SqlAuditSink]:
    """Return what makes a store of version 0001 in an empty database, and a sink on it."""

    def make(url: str) -> SqlAuditSink:
        sink: SqlAuditSink = open_sink(url)
        fill_first(sink)
        return sink

    return make


@pytest.fixture
def first(url: str, first_on: Callable[[str], SqlAuditSink]) -> SqlAuditSink:
    """Return a sink on a store of version 0001: three chains, of which one was pruned."""
    return first_on(url)


def fill_first(sink: SqlAuditSink) -> None:
    migrate.upgrade(sink.database, "0001")
    tables = tables_of(sink).tables

    def fill(connection: Connection) -> None:
        for name, rows in FIRST["tables"].items():
            values = [[bytes.fromhex(v["hex"]) if type(v) is dict else v for v in r] for r in rows]
            names = tables[name].columns.keys()
            for row in values:
                given = dict(zip(names, row, strict=True))
                given.pop("id", None)  # the database gives them, in the same order
                connection.execute(insert(tables[name]).values(given))

    sink.database.write(fill)


def test_a_transaction_that_keeps_the_lock_is_told_why_nothing_is_written_in_it(
    tmp_path: Path, first_on: Callable[[str], SqlAuditSink], open_sink: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It has written, so that the tables cannot be brought to this version, now or ever."""
    monkeypatch.setattr(database, "_BUSY_MILLISECONDS", 10)
    url = f"sqlite:///{tmp_path / 'audit.db'}"
    first_on(url).close()
    sink, engine = open_sink(url), create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE invoice (id INTEGER)")
        connection.exec_driver_sql("INSERT INTO invoice VALUES (1)")
        told = r"are of version 0001, and cannot .* lock was held.* run sigra audit upgrade, "
        with pytest.raises(AuditTablesError, match=told):
            sink.write_in(connection, [(event(1), None)], savepoint=False)
    migrate.upgrade(sink.database)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO invoice VALUES (2)")
        sink.write_in(connection, [(event(1), None)], savepoint=False)
    engine.dispose()


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_reader_that_goes_on_for_ever_keeps_no_writer_out(
    url: str, first: SqlAuditSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits to alter a table has all others queue behind: it gives up, and says what to do."""
    monkeypatch.setattr(database, "_BUSY_MILLISECONDS", 200)
    with holding(url, "SELECT chain FROM sigra_audit_entries"):
        told = r"are of version 0001, and .* pg_blocking_pids.* call .*migrate\.upgrade"
        with pytest.raises(AuditTablesError, match=told):
            first.prepare()
        with pytest.raises(DBAPIError, match="lock timeout") as caught:
            migrate.upgrade(first.database)
        assert "pg_blocking_pids" in caught.value.__notes__[0]
    first.prepare()
    assert first.database.read(migrate.version) == migrate.HEAD


@pytest.fixture
def upgrading(url: str) -> Iterator[Connection]:
    """Be somebody who brings the tables to another version, until this connection rolls back."""
    alone = f"SELECT pg_advisory_xact_lock({access._ALTERING})"
    with holding(url, alone, "LOCK TABLE sigra_audit_entries") as connection:
        yield connection


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("driver", ["postgresql+psycopg", "postgresql+asyncpg"])
def test_an_upgrade_of_somebody_else_s_is_not_waited_for_without_end(
    url: str, first: SqlAuditSink, upgrading: Connection, driver: str, open_sink: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """An event fails in time and says why; nobody is told to end the upgrade."""
    monkeypatch.setattr(database, "_BUSY_MILLISECONDS", 200)
    sink = open_sink(driven_by(driver, url))
    told = "brought to another version by somebody else.* wait until"
    for work in (lambda: sink.write(event(20)), lambda: migrate.upgrade(first.database)):
        with pytest.raises(AuditTablesError, match=told):
            work()
    upgrading.rollback()
    sink.write(event(20))
    assert sink.database.read(migrate.version) == migrate.HEAD


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_the_command_waits_for_an_upgrade_of_somebody_else_s_and_says_so(
    url: str, first: SqlAuditSink, upgrading: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several that one deploy starts at once, none fails."""
    monkeypatch.setattr(database, "_BUSY_MILLISECONDS", 200)
    asked: list[str] = []

    def end_the_other(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "pg_advisory_xact_lock" in statement:
            asked.append(statement)
            if len(asked) == 3:
                upgrading.rollback()

    listen.listen(Engine, "before_cursor_execute", end_the_other)
    try:
        result = CliRunner().invoke(sigra, ["audit", "upgrade", "--store", url])
    finally:
        listen.remove(Engine, "before_cursor_execute", end_the_other)
    assert (0, 3) == (result.exit_code, len(asked)), result.output
    waiting = [line for line in result.stderr.splitlines() if line.startswith("Waiting: ")]
    assert (1, True) == (len(waiting), "by somebody else" in waiting[0])
    assert first.database.read(migrate.version) == migrate.HEAD


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_server_that_ends_the_wait_is_no_upgrade_of_somebody_else_s(
    url: str, first: SqlAuditSink
) -> None:
    """Nobody waits for one that does not go on."""

    def end_it(connection: Connection, cursor: Any, statement: str, *_: Any) -> None:
        if "pg_advisory_xact_lock" in statement:
            pid = cursor.connection.info.backend_pid
            admin.exec_driver_sql(f"SELECT pg_terminate_backend({pid}, 60000)")

    with holding(url) as admin:
        listen.listen(Engine, "before_cursor_execute", end_it)
        try:
            with pytest.raises(DBAPIError, match="terminating connection"):
                migrate.upgrade(first.database)
        finally:
            listen.remove(Engine, "before_cursor_execute", end_it)


CONSTRAINTS = {
    "sigra_audit_chains_pkey": "chains",
    "sigra_audit_chains_tag_key": "chains",
    "sigra_audit_entries_chain_previous_key": "entries",
    "sigra_audit_entries_event_id_key": "entries",
    "sigra_audit_entries_pkey": "entries",
    "sigra_audit_marks_pkey": "marks",
}


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_constraint_that_somebody_dropped_is_made_again(sink: SqlAuditSink, url: str) -> None:
    """Without that on the previous hash two entries could follow one, and writing goes on."""
    sink.prepare()
    whole = tables_of(sink)
    dropped = [f"ALTER TABLE sigra_audit_{of} DROP CONSTRAINT {n}" for n, of in CONSTRAINTS.items()]
    sink.database.write(lambda c: [c.exec_driver_sql(each) for each in dropped])
    result = CliRunner().invoke(sigra, ["audit", "upgrade", "--store", url, "--json"])
    facts = json.loads(result.stdout)
    assert (0, sorted(CONSTRAINTS)) == (result.exit_code, sorted(facts["indexes"]))
    for name, table in tables_of(sink).tables.items():
        made, there = whole.tables[name].constraints, table.constraints
        assert {str(each.name) for each in made} == {str(each.name) for each in there}
    assert ("0003", "0003", ()) == migrate.upgrade(sink.database)
    sink.write(event(1))


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_rows_that_a_dropped_constraint_let_in_are_to_be_seen_to_first(
    sink: SqlAuditSink, url: str
) -> None:
    """Verifying names them; an index that is gone too waits until then."""
    sink.write(event(1))
    twice = "INSERT INTO sigra_audit_entries SELECT chain, sequence + 1, previous, hash, 'x', "
    names = ", ".join(entries.columns.keys()[5:])
    statements = (
        "ALTER TABLE sigra_audit_entries DROP CONSTRAINT sigra_audit_entries_chain_previous_key",
        f"{twice} {names} FROM sigra_audit_entries",
    )
    sink.database.write(lambda c: [c.exec_driver_sql(each) for each in statements])
    result = CliRunner().invoke(sigra, ["audit", "upgrade", "--store", url])
    assert (1, "") == (result.exit_code, result.stdout)
    assert "could not create unique index" in result.stderr
    assert result.stderr.endswith("sigra audit verify names those that nobody logged\n")


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_an_index_with_the_name_of_a_dropped_constraint_is_to_be_renamed_first(
    sink: SqlAuditSink, url: str
) -> None:
    """The error says so, and after it the constraint is made."""
    sink.prepare()
    name = "sigra_audit_entries_event_id_key"
    dropped = f"ALTER TABLE sigra_audit_entries DROP CONSTRAINT {name}"
    taken = f"CREATE UNIQUE INDEX {name} ON sigra_audit_entries (event_id)"
    sink.database.write(lambda c: [c.exec_driver_sql(each) for each in (dropped, taken)])
    result = CliRunner().invoke(sigra, ["audit", "upgrade", "--store", url])
    assert (1, "") == (result.exit_code, result.stdout)
    assert "rename it, as by ALTER INDEX ... RENAME TO, and do this again" in result.stderr
    sink.database.write(lambda c: c.exec_driver_sql(f"ALTER INDEX {name} RENAME TO theirs"))
    assert ("0003", "0003", (name,)) == migrate.upgrade(sink.database)


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_an_upgrade_makes_no_constraint_that_rows_of_before_do_not_fulfil(
    first: SqlAuditSink,
) -> None:
    """What was altered before stops no upgrade."""
    gone = "ALTER TABLE sigra_audit_entries DROP CONSTRAINT sigra_audit_entries_event_id_key"
    twice = "UPDATE sigra_audit_entries SET event_id = 'one'"
    first.database.write(lambda c: [c.exec_driver_sql(each) for each in (gone, twice)])
    assert ("0001", "0003", ()) == migrate.upgrade(first.database)


@contextmanager
def coming_first(theirs: Callable[..., object], other: database.Database) -> Iterator[None]:
    """Do theirs when somebody else, who has looked at the tables, asks to alter them alone."""
    begun, alone = list[str](), ("pg_advisory_xact_lock", "BEGIN IMMEDIATE")

    def be_first(_: Any, __: Any, statement: str, *___: Any) -> None:
        if not begun and any(each in statement for each in alone):
            begun.append(statement)
            theirs(other)

    listen.listen(Engine, "before_cursor_execute", be_first)
    try:
        yield
    finally:
        listen.remove(Engine, "before_cursor_execute", be_first)


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize(
    ("words", "theirs", "said"),
    [
        (["upgrade"], migrate.upgrade, "are of version 0003: nothing to do"),
        (["upgrade", "--to", "0002"], migrate.upgrade, "are of version 0003: nothing to do"),
        (
            ["downgrade", "--to", "0001"],
            lambda of: migrate.downgrade(of, "0002"),
            "were brought back from version 0002 to 0001",
        ),
    ],
    ids=lambda case: " ".join(case) if isinstance(case, list) else "",
)
def test_a_command_says_what_it_did_itself_and_not_what_another_did_meanwhile(
    url: str, open_sink: Any, words: list[str], theirs: Callable[..., object], said: str
) -> None:
    """Both saw the older tables: one of them had its way first."""
    if "downgrade" in words:
        open_sink(url).prepare()
    with coming_first(theirs, open_sink(url).database):
        result = CliRunner().invoke(sigra, ["audit", *words, "--store", url])
    assert (0, f"the tables {said}\n") == (result.exit_code, result.stdout), result.output


def test_a_way_back_on_which_another_went_further_is_refused(
    sink: SqlAuditSink, url: str, open_sink: Any
) -> None:
    """The error says of which version the tables are now, and what to do."""
    sink.prepare()
    with coming_first(lambda of: migrate.downgrade(of, "0001"), open_sink(url).database):
        result = CliRunner().invoke(sigra, ["audit", "downgrade", "--to", "0002", "--store", url])
    told = "are of version 0001, which is older than 0002; run sigra audit upgrade --to 0002"
    assert (1, True) == (result.exit_code, told in result.stderr), result.output
    assert "0001" == sink.database.read(migrate.version)


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.usefixtures("first", "upgrading")
def test_who_asks_what_an_upgrade_would_do_amid_another_waits_no_longer(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says that the tables are locked, without the statement that had to wait."""
    monkeypatch.setattr(database, "_BUSY_MILLISECONDS", 200)
    result = CliRunner().invoke(sigra, ["audit", "upgrade", "--dry-run", "--store", url])
    assert (1, 1) == (result.exit_code, result.stderr.count("\n"))
    told = "cannot be used: canceling statement due to lock timeout; another transaction kept"
    assert told in result.stderr


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("driver", ["postgresql+psycopg", "postgresql+asyncpg"])
@pytest.mark.parametrize(
    ("given", "kept"), [("0", "10s"), ("1ms", "1ms"), ("1500", "1500ms"), ("1min", "10s")]
)
def test_a_shorter_wait_for_locks_that_somebody_set_is_kept(
    url: str, driver: str, given: str, kept: str, open_sink: Any
) -> None:
    """Of a role, a database or a connection: it may be there so that nobody waits for longer."""
    name, engine = f"l{uuid.uuid4().hex[:12]}", create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {name} LOGIN SUPERUSER PASSWORD '{name}'")
        connection.exec_driver_sql(f"ALTER ROLE {name} SET lock_timeout = '{given}'")
    own = make_url(url).set(username=name, password=name).render_as_string(hide_password=False)
    sink, asked = open_sink(driven_by(driver, own)), "SHOW lock_timeout"
    try:
        assert kept == sink.database.write(lambda c: c.exec_driver_sql(asked).scalar())
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"DROP ROLE {name}")
        engine.dispose()


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_no_wait_for_a_lock_is_endless_on_a_connection_that_lost_its_own_limit(
    url: str, open_sink: Any
) -> None:
    """As behind PgBouncer, where the next transaction may be on another connection."""
    limited = make_url(url).update_query_dict({"options": "-c lock_timeout=1500"})
    sink = open_sink(limited.render_as_string(hide_password=False))
    asked = "SHOW lock_timeout"
    for _ in range(2):
        shown = sink.database.write(lambda c: c.exec_driver_sql(asked).scalar())
        assert shown == "1500ms"
        sink.database.write(lambda c: c.exec_driver_sql("SET lock_timeout = 0"))


def verified(sink: SqlAuditSink, folder: Path) -> Report:
    """Verify a store of that kind by what was kept of it elsewhere."""
    (folder / "checkpoints").write_text(FIRST["checkpoints"], "utf-8")
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(FIRST["public_key"]))
    kept = read_checkpoints(folder / "checkpoints")
    return verify(sink, all_organizations=True, public_keys=[key], checkpoints=kept)


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        (
            "query_only = ON",
            "are not there, .* may only be read.* sigra audit upgrade --create, or",
        ),
        ("max_page_count = 1", "database or disk is full"),
    ],
)
def test_why_there_are_no_tables_is_told_and_how_to_make_them(
    tmp_path: Path, open_sink: Any, limit: str, says: str
) -> None:
    """The command makes them only where it is told to; what is no matter of tables stays as it is."""
    engine = create_engine(f"sqlite:///{tmp_path / 'audit.db'}")
    listen.listen(engine, "connect", lambda driver, _: driver.execute(f"PRAGMA {limit}"))
    with pytest.raises((AuditTablesError, DBAPIError), match=says):
        open_sink(engine).prepare()
    engine.dispose()


def test_a_store_of_the_first_version_verifies(first: SqlAuditSink, tmp_path: Path) -> None:
    """Its events, what was erased and pruned, marks and checkpoint are what they were."""
    events = list(first.stream(EventFilter(all_organizations=True)))
    assert first.database.read(migrate.version) == migrate.HEAD
    erased = [each for each in events if each.metadata == {"erased": True}]
    assert (len(events), len(erased)) == (14, 3)
    assert {each.actor_id for each in events} == {"ann", "eve-7f3a", None}
    assert max(len(each.metadata.get("note", "")) for each in events) == 1_200
    first.write(event(20))
    report = verified(first, tmp_path)
    assert (report.verdict, report.level) == ("intact", "anchored")
    assert (report.rows, report.erased, report.pruned) == (15, 3, 3)


def test_a_store_goes_back_to_the_first_version(first: SqlAuditSink, tmp_path: Path) -> None:
    """Not a byte is another then, and what was added meanwhile is there; and up it goes again."""
    before = rows_of(first)
    migrate.upgrade(first.database)
    migrate.downgrade(first.database, "0001")
    assert rows_of(first) == before
    migrate.upgrade(first.database)
    first.write(event(20))
    migrate.downgrade(first.database, "0001")
    grown = {name: len(rows) - len(before[name]) for name, rows in rows_of(first).items()}
    assert grown == {name: name.endswith(("entries", "payloads")) for name in before}
    migrate.upgrade(first.database)
    assert verified(first, tmp_path).verdict == "intact"


def test_who_is_erased_after_an_upgrade_leaves_no_trace(
    new_url: Callable[[str], str], first_on: Callable[[str], SqlAuditSink]
) -> None:
    """No page that the upgrade left behind has the text."""
    url = new_url("sqlite")
    sink = first_on(url)
    assert erase(sink, "eve-7f3a", reason="asked", organization_id="other") == 3
    files = Path(str(make_url(url).database)).parent.iterdir()
    assert [path for path in files if b"eve-7f3a" in path.read_bytes()] == []


def test_an_upgrade_that_fails_leaves_all_as_it_was(first: SqlAuditSink) -> None:
    """Whatever stops it half-way, the next call does it."""
    before, engine = rows_of(first), first.database._engine

    def stop(conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.strip() == "DROP TABLE sigra_audit_payloads":
            raise OSError("no space left")

    listen.listen(engine, "before_cursor_execute", stop)
    with pytest.raises(OSError, match="no space"):
        first.prepare()
    listen.remove(engine, "before_cursor_execute", stop)
    assert (first.database.read(migrate.version), rows_of(first)) == ("0001", before)
    assert first.count(EventFilter("other")) == 9


def test_a_payload_of_no_entry_is_still_found(first: SqlAuditSink, tmp_path: Path) -> None:
    """The upgrade has no place for it, and says so where verifying finds it."""
    payloads = tables_of(first).tables["sigra_audit_payloads"]
    strays = [{"chain": n, "sequence": 99, "salt": b"s", "payload": "{}"} for n in (1, 77)]
    first.database.write(lambda c: c.execute(insert(payloads), strays))
    report = verified(first, tmp_path)
    found = {(each.organization_id, each.kind, each.reason) for each in report.findings}
    assert found == {
        (
            "acme",
            "forged",
            "mark 3 is not one that a key of yours signed for this chain; it names no key",
        ),
        (None, "removed", "the row of chain 77 is gone: 0 entries and 1 marks of it are left"),
    }
    said = "SELECT body FROM sigra_audit_marks WHERE id = 3"
    body = first.database.read(lambda c: c.execute(text(said)).scalar())
    assert body == "a payload with sequence 99 belonged to no entry"


def test_what_was_altered_before_an_upgrade_is_found_after_it(
    first: SqlAuditSink, tmp_path: Path
) -> None:
    """A check that came later stops no upgrade, nor mends what it would not have let in."""
    migrate.upgrade(first.database, "0002")
    change = entries.update().where(entries.c.chain == 2, entries.c.sequence == 5)
    first.database.write(lambda c: c.execute(change.values(previous=b"another", hash=b"one")))
    altered = rows_of(first)
    migrate.upgrade(first.database)
    assert rows_of(first) == altered
    finding = verified(first, tmp_path).first
    assert (finding.kind, finding.organization_id, finding.sequence) == ("changed", "other", 5)
    migrate.downgrade(first.database, "0002")
    assert rows_of(first) == altered


def test_an_upgrade_keeps_what_others_made_of_the_tables(
    new_url: Callable[[str], str], first_on: Callable[[str], SqlAuditSink]
) -> None:
    """An index, a trigger on the entries, and a view and a trigger that read them, are there still."""
    sink = first_on(new_url("sqlite"))
    migrate.upgrade(sink.database, "0002")
    theirs = [
        "CREATE INDEX of_actor ON sigra_audit_entries (chain, actor_id)",
        "CREATE TRIGGER keep BEFORE DELETE ON sigra_audit_entries BEGIN SELECT raise(ABORT, 'no'); END",
        "CREATE VIEW newest AS SELECT max(occurred_at) FROM sigra_audit_entries",
        "CREATE TABLE others (number)",
        "CREATE TRIGGER looks AFTER INSERT ON others BEGIN SELECT * FROM sigra_audit_entries; END",
    ]
    sink.database.write(lambda c: [c.execute(text(each)) for each in theirs])
    migrate.upgrade(sink.database)
    migrate.downgrade(sink.database, "0002")
    migrate.upgrade(sink.database)
    query = "SELECT sql FROM sqlite_master WHERE name IN ('of_actor', 'keep', 'newest', 'looks')"
    kept = sink.database.read(lambda c: c.execute(text(query)).scalars().all())
    assert sorted(kept) == sorted(each for each in theirs if not each.startswith("CREATE TABLE"))
    sink.database.write(lambda c: c.execute(text("INSERT INTO others SELECT * FROM newest")))
    with pytest.raises(Exception, match="no"):
        sink.database.write(lambda c: c.execute(text("DELETE FROM sigra_audit_entries")))


@pytest.mark.parametrize("rule", ["", "ON DELETE CASCADE"])
@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_an_upgrade_deletes_nothing_that_refers_to_an_entry(
    new_url: Callable[[str], str],
    first_on: Callable[[str], SqlAuditSink],
    open_sink: Callable[..., SqlAuditSink],
    driver: str,
    rule: str,
) -> None:
    """Whatever a foreign key says of entries that go, an entry that is written anew is not gone."""
    url = make_url(new_url("sqlite"))
    migrate.upgrade(first_on(str(url)).database, "0002")
    engine = (create_async_engine if "+" in driver else create_engine)(url.set(drivername=driver))
    listen.listen(
        getattr(engine, "sync_engine", engine),
        "connect",
        lambda driver, _: driver.cursor().execute("PRAGMA foreign_keys = ON"),
    )
    sink = open_sink(engine)
    note = f"CREATE TABLE note (id REFERENCES sigra_audit_entries (event_id) {rule})"
    fill = "INSERT INTO note SELECT event_id FROM sigra_audit_entries"
    sink.database.write(lambda c: [c.execute(text(each)) for each in (note, fill)])
    migrate.upgrade(sink.database)
    checks = ("SELECT count(*) FROM note", "PRAGMA foreign_key_check", "PRAGMA foreign_keys")
    kept = sink.database.read(lambda c: [c.execute(text(each)).scalar() for each in checks])
    assert kept == [14, None, 1]


def test_whoever_still_writes_as_the_first_version_is_told(first: SqlAuditSink) -> None:
    """Each event of a process of the release before fails by name, and leaves nothing."""
    old = tables_of(first).tables
    first.prepare()
    now = rows_of(first)
    before = now["sigra_audit_entries"][-1][:11]
    sequence, event_id = before[1] + 1, "01a2151b-0000-7000-8000-000000000000"
    entry = (before[0], sequence, before[3], b"hash", event_id, *before[5:])
    rows = {"entries": entry, "payloads": (before[0], sequence, b"salt", "{}")}

    def write(connection: Connection) -> None:
        for name, row in rows.items():
            table = old[f"sigra_audit_{name}"]
            connection.execute(insert(table).values(row))

    with pytest.raises(Exception, match="sigra_audit_payloads"):
        first.database.write(write)
    assert rows_of(first) == now


def test_a_store_that_nobody_upgraded_is_named(
    first: SqlAuditSink, url: str, open_sink: Callable[..., SqlAuditSink]
) -> None:
    """Without the right to bring it to this version a sink says what is missing."""
    with pytest.raises(AuditTablesMissingError, match="salt.*: run sigra audit upgrade"):
        open_sink(url, create_tables=False).write(event(20))


@pytest.mark.servers
@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_lacks_characters_is_no_store(postgres: str, encoding: str) -> None:
    """Else a tenant could keep events from being written, by a letter in what he names."""
    name = f"sigra_{uuid.uuid4().hex[:12]}"
    server = create_engine(postgres, isolation_level="AUTOCOMMIT")
    made = f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
    with server.connect() as connection:
        connection.exec_driver_sql(made)
        sink = SqlAuditSink(make_url(postgres).set(drivername="postgresql+asyncpg", database=name))
        try:
            with pytest.raises(AuditTablesError, match=f"the encoding UTF8, not {encoding}"):
                sink.write(event(1))
        finally:
            sink.close()
            connection.exec_driver_sql(f"DROP DATABASE {name}")
    server.dispose()
