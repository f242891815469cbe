"""``sigra audit upgrade`` and ``downgrade`` bring a store's tables to a version, and say so."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine
from sqlalchemy import event as listen

from sigra import AuditEvent
from sigra.cli.app import sigra
from sigra.store import SqlAuditSink, verify
from sigra.store.migrate import downgrade, version

ALL = ("--all-organizations",)
NEWEST = "sigra_audit_entries_newest"
Command = Callable[..., Result]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Make a store of three events, of this version."""
    path = tmp_path / "audit.db"
    sink = SqlAuditSink(f"sqlite:///{path}")
    made = [AuditEvent(action="a.b", organization_id=f"o{number}") for number in range(3)]
    sink.write_in(None, [(each, None) for each in made], savepoint=False)
    sink.close()
    return path


@pytest.fixture
def run(database: Path) -> Command:
    def run(*words: object) -> Result:
        environment = {"SIGRA_AUDIT_STORE": f"sqlite:///{database}"}
        return CliRunner().invoke(sigra, ["audit", *map(str, words)], env=environment)

    return run


def told(result: Result) -> dict[str, Any]:
    assert 0 == result.exit_code, result.output
    facts: dict[str, Any] = json.loads(result.stdout)
    return facts


def go_back(path: Path, to: str) -> None:
    sink = SqlAuditSink(f"sqlite:///{path}", create_tables=False)
    downgrade(sink.database, to)
    sink.close()


def state(path: Path) -> tuple[str | None, str]:
    """Return the version of a store's tables; of this version, also what verifying it says."""
    sink = SqlAuditSink(f"sqlite:///{path}", create_tables=False)
    found = sink.database.read(version)
    verdict = verify(sink, all_organizations=True).verdict if found == "0003" else ""
    sink.close()
    return found, verdict


@pytest.mark.parametrize("before", ["0001", "0002"])
def test_an_older_store_is_upgraded_and_it_is_said_from_where_to_where(
    run: Command, database: Path, before: str
) -> None:
    """Beforehand it says that nobody can write; the events are all there."""
    go_back(database, before)
    result = run("upgrade")
    assert f"the tables were upgraded from version {before} to 0003\n" == result.stdout
    assert (0, True) == (result.exit_code, "nobody can write meanwhile" in result.stderr)
    assert ("0003", "intact") == state(database)


def test_an_upgrade_that_is_only_tried_changes_nothing(run: Command, database: Path) -> None:
    """It says how much there is to move, and what to do first."""
    go_back(database, "0001")
    before = database.read_bytes()
    result = run("upgrade", "--dry-run")
    said = "the tables would be upgraded from version 0001 to 0003: 3 events\n"
    assert (0, said) == (result.exit_code, result.stdout)
    assert "stop all of those first" in result.stderr
    assert before == database.read_bytes()


def test_a_store_of_this_version_needs_no_upgrade(run: Command) -> None:
    """Which is a success: a deploy runs it each time."""
    result = run("upgrade")
    said = "the tables are of version 0003: nothing to do\n"
    assert (0, said, "") == (result.exit_code, result.stdout, result.stderr)


def test_a_machine_is_told_the_same(run: Command, database: Path) -> None:
    """From where, to where, and whether anything was changed."""
    go_back(database, "0002")
    facts = {"from": "0002", "to": "0003", "indexes": []}
    dry = told(run("upgrade", "--dry-run", "--json"))
    assert {**facts, "changed": False, "events": 3} == dry
    assert {**facts, "changed": True} == told(run("upgrade", "--json"))
    assert {**facts, "from": "0003", "changed": False} == told(run("upgrade", "--json"))


def test_a_version_can_be_named(run: Command, database: Path) -> None:
    """On the way up and on the way back."""
    go_back(database, "0001")
    assert 0 == run("upgrade", "--to", "0002").exit_code
    assert ("0002", "") == state(database)
    assert 0 == run("upgrade").exit_code
    result = run("downgrade", "--to", "0001")
    assert "the tables were brought back from version 0003 to 0001\n" == result.stdout
    assert (0, True) == (result.exit_code, "Now start the older release" in result.stderr)
    assert ("0001", "") == state(database)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("upgrade", "--to", "0001"), "run sigra audit downgrade --to 0001"),
        (("upgrade", "--to", "0009"), "no version 0009 of the tables: this release knows 0001, "),
        (("downgrade", "--to", "base"), "no version base of the tables"),
        (("downgrade",), "Missing option '--to'"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else None,
)
def test_a_version_that_is_not_that_way_is_misuse(
    run: Command, database: Path, words: tuple[str, ...], why: str
) -> None:
    """Nothing is moved, and no command drops all events."""
    result = run(*words)
    assert (2, True) == (result.exit_code, why in result.stderr), result.output
    assert ("0003", "intact") == state(database)


def test_a_version_that_is_not_back_names_the_command_that_goes_there(
    run: Command, database: Path
) -> None:
    """Without ``--to`` it would go further than was asked for."""
    go_back(database, "0001")
    result = run("downgrade", "--to", "0002")
    assert (2, True) == (result.exit_code, "run sigra audit upgrade --to 0002" in result.stderr)


def test_a_store_is_made_only_where_that_is_asked_for(tmp_path: Path) -> None:
    """A typing error in a deploy makes no empty store beside the one that is used."""
    path = tmp_path / "new.db"
    words = ["audit", "upgrade", "--store", f"sqlite:///{path}"]
    refused = CliRunner().invoke(sigra, words)
    assert (2, True) == (refused.exit_code, "sigra audit upgrade --create makes" in refused.stderr)
    dry = CliRunner().invoke(sigra, [*words, "--create", "--dry-run"])
    assert (0, "the tables would be made, of version 0003\n") == (dry.exit_code, dry.stdout)
    assert not path.exists()
    made = CliRunner().invoke(sigra, [*words, "--create"])
    assert (0, "the tables were made, of version 0003\n") == (made.exit_code, made.stdout)
    assert ("0003", "empty") == state(path)


def test_a_store_that_cannot_be_made_where_it_was_asked_for_is_told_why(tmp_path: Path) -> None:
    """SQLite says only that it cannot open the file."""
    words = ["audit", "upgrade", "--create", "--store", f"sqlite:///{tmp_path}/nowhere/new.db"]
    result = CliRunner().invoke(sigra, words)
    assert (1, 1) == (result.exit_code, result.stderr.count("\n"))
    assert "; is its folder there, and may this user write to it?" in result.stderr


@pytest.mark.parametrize("words", [
    ("list", *ALL), ("tail", *ALL), ("stats", *ALL), ("verify", *ALL), ("serve",),
    ("export", *ALL, "--to", "out"), ("cleanup", "--retention-days", "1"),
    ("erase", *ALL, "--person", "ann", "--reason", "asked for"),
])  # fmt: skip
def test_no_other_command_upgrades_an_older_store(
    run: Command, database: Path, words: tuple[str, ...]
) -> None:
    """Who only looks keeps no process of the older release from writing."""
    go_back(database, "0002")
    result = run(*words)
    assert (2, 1) == (result.exit_code, result.stderr.count("\n"))
    assert "are of version 0002, and this release needs 0003" in result.stderr
    assert "run sigra audit upgrade" in result.stderr
    assert ("0002", "") == state(database)


def test_an_index_that_somebody_dropped_is_made_again(run: Command, database: Path) -> None:
    """Nothing else tells of it: reading goes on, and takes longer with each event."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(f"DROP INDEX {NEWEST}")
    again = f"given again what somebody dropped: {NEWEST}"
    assert f"the tables would be {again}\n" == run("upgrade", "--dry-run").stdout
    result = run("upgrade")
    assert f"the tables were {again}\n" == result.stdout
    assert f"the tables are being {again}: nobody can write meanwhile\n" == result.stderr
    assert "the tables are of version 0003: nothing to do\n" == run("upgrade").stdout


def test_an_upgrade_that_fails_changes_nothing(run: Command, database: Path) -> None:
    """It is told in one line, and the older release can go on."""
    go_back(database, "0001")
    refusing = "BEFORE UPDATE ON sigra_audit_entries BEGIN SELECT RAISE(ABORT, 'not now'); END"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(f"CREATE TRIGGER refusing {refusing}")
    result = run("upgrade")
    assert (1, "") == (result.exit_code, result.stdout)
    assert "Error: the audit store" in result.stderr.splitlines()[-1]
    assert ("0001", "") == state(database)


AMID = """
import os, signal, threading
from sqlalchemy import event
from sqlalchemy.pool import Pool
from sigra.cli import main
done = []
@event.listens_for(Pool, "connect")
def connect(connection, _):
    stop = threading.Timer(.05, os.kill, (os.getpid(), signal.SIGINT))
    connection.create_function("soon", 0, stop.start)
    connection.create_function("done", 1, done.append)
try:
    main()
finally:
    print(len(done), flush=True)
"""
LONG = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000000)"


@pytest.mark.programs
def test_ctrl_c_stops_an_upgrade_amid_a_statement(database: Path) -> None:
    """Of a large store one takes a minute, which nobody waits for who stops it."""
    go_back(database, "0001")
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(f"CREATE VIEW long AS {LONG} SELECT count(*) AS i FROM n")
        connection.execute(
            "CREATE TRIGGER slow AFTER UPDATE ON sigra_audit_entries "
            "BEGIN SELECT soon(); SELECT done(i) FROM long; END"
        )
    words = [sys.executable, "-c", AMID, "audit", "upgrade"]
    environment = {**os.environ, "SIGRA_AUDIT_STORE": f"sqlite:///{database}"}
    ended = subprocess.run(words, capture_output=True, env=environment, timeout=240, check=False)
    assert (130, b"0\n") == (ended.returncode, ended.stdout), ended.stderr
    assert ("0001", "") == state(database)


def test_an_upgrade_waits_for_another_of_the_same_file(
    run: Command, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several that one deploy starts at once, none fails; it is said once what is waited for."""
    go_back(database, "0001")
    monkeypatch.setattr("sigra.store.database._BUSY_MILLISECONDS", 1)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        asked: list[str] = []

        def end_the_other(_: Any, __: Any, statement: str, *___: Any) -> None:
            if statement == "BEGIN IMMEDIATE":
                asked.append(statement)
                if len(asked) == 3:
                    other.execute("ROLLBACK")

        listen.listen(Engine, "before_cursor_execute", end_the_other)
        try:
            result = run("upgrade")
        finally:
            listen.remove(Engine, "before_cursor_execute", end_the_other)
    assert "the tables were upgraded from version 0001 to 0003\n" == result.stdout, result.output
    waiting = [line for line in result.stderr.splitlines() if line.startswith("Waiting: ")]
    assert (0, 1) == (result.exit_code, len(waiting))
    assert "as by lsof" in waiting[0]


def test_an_upgrade_that_somebody_else_s_keeps_waiting_is_not_told_to_end_it(
    run: Command, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite says only that the database is locked, and not by whom."""
    go_back(database, "0001")
    monkeypatch.setattr("sigra.store.database._BUSY_MILLISECONDS", 1)
    monkeypatch.setattr("sigra.cli.upgrading._PATIENCE", 0)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        result = run("upgrade")
    assert (1, "") == (result.exit_code, result.stdout)
    assert result.stderr.endswith("but if it is another upgrade, wait until that is done\n")
