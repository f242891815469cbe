"""Whatever somebody put into the database, each reader ends in a verdict or in an error of ours."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from amounts import LONG, MANY
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from events import NOON, event
from sqlalchemy import Connection, Engine, create_engine, select, text
from sqlalchemy.event import listen
from sqlalchemy.exc import DBAPIError

from sigra import SigraError, configure
from sigra.audit import EventFilter
from sigra.cli.app import sigra
from sigra.cli.events import _since
from sigra.store import (
    AuditChainError,
    AuditTablesError,
    Batching,
    Signer,
    SqlAuditSink,
    erase,
    export,
    prune,
    take_checkpoint,
    verify,
)
from sigra.store.access import read_tables
from sigra.store.migrate import downgrade
from sigra.store.query import read_chain
from sigra.store.tables import chains, metadata
from sigra.web import make_app
from sigra.web.guard import cookie_of

PRIVATE = Ed25519PrivateKey.generate()
KEY = Signer(PRIVATE)
TOKEN = "a-token-for-the-tests"
SEEDS = [secrets.randbits(32) for _ in range(1_000)] if LONG else range(10 if MANY else 1)
COLUMNS = [
    (table.name, column.name) for table in metadata.sorted_tables for column in table.columns
]
MARKS = "sigra_audit_marks"
EVERYONE = EventFilter(all_organizations=True)

NUMBERS = (0, -1, 1, 2, 3, 7, (1 << 63) - 1, -(1 << 63))
TEXTS = (
    "", "text", "none", "org:acme", "org:", "nul:a%00", "o", "z" * 70_000, "2026-11-25T12:03:00.000000+00:00",
    "9999-99-99", "0001-01-01T00:00:00+14:00", "2026-11-25", "null", "[]", "7", "{}", '{"chain":5}', "[" * 100_000,
    '{"chain":"org:acme","kind":"pruned","sequence":1e400,"hash":""}',
    '{"chain":"org:acme","kind":"pruned","sequence":"x","hash":"00","previous":null}',
    '{"chain":"org:acme","kind":"pruned","sequence":9223372036854775808,"hash":"00","previous":null}',
    '{"chain":"org:acme","kind":"erased","entries":[[1,[]]],"previous":null}',
    '{"chain":"org:acme","kind":"erased","entries":5,"previous":[]}',
    "\u202e\x1b[31m\u2028<script>", "=cmd()", "\ud7ff\U0010ffff",
)  # fmt: skip
FIELDS: tuple[Any, ...] = (
    None, 0, 7, -1, 1 << 70, 1.5, float("inf"), float("nan"), True, "", "x", "\ud800", "a\0b", [], [[]], {},
    {"a": {"b": ["\ud800", 1e999]}}, {"\udfff": 1}, {"n": 10**4000},
)  # fmt: skip
DEEP = '{"metadata":' + '{"a":' * 400 + "1" + "}" * 400


def payload(some: Random) -> str:
    """Return the JSON of a payload in which something is not as it is ever written."""
    names = (
        "actor_id", "actor_type", "attempt", "effective_user_id", "ip_address", "job_id", "metadata",
        "target_id", "target_type", "user_agent",
    )  # fmt: skip
    fields: dict[str, Any] = dict.fromkeys(names) | {"metadata": {}, "actor_id": "ann"}
    if some.random() < 0.2:
        return DEEP + "," + json.dumps({n: None for n in names if n != "metadata"})[1:]
    for name in some.sample(names, 2):
        fields[name] = some.choice(FIELDS)
    if some.random() < 0.2:
        del fields[some.choice(names)]
    return json.dumps(fields)


def odd_value(some: Random, dialect: str, kind: str) -> tuple[str, Any]:
    """Return an expression for an odd value, and its parameter."""
    if dialect == "postgresql":
        if kind == "TEXT":
            return ":v", some.choice(
                [payload(some), some.choice(TEXTS), some.choice(TEXTS)]
            ).replace("\0", "")
        if kind == "BYTEA":
            return ":v", some.randbytes(some.choice([0, 1, 32, 40]))
        return ":v", some.choice(NUMBERS)
    raw = some.randbytes(some.choice([0, 1, 2, 32, 40])) + some.choice(
        [b"", b"\xff", b"\xed\xa0\x80", b"a\0b"]
    )
    return some.choice([
        (":v", payload(some)), (":v", payload(some)), (":v", some.choice(TEXTS)), (":v", some.choice(NUMBERS)),
        (":v", raw), ("CAST(:v AS TEXT)", raw), (":v", some.choice([1.5, -0.0, float("inf"), 1e300])),
        ("NULL", None),
    ])  # fmt: skip


def loosen(connection: Any, dialect: str, some: Random) -> None:
    """Take from a table what keeps odd rows out, or alter the type of a column."""
    table, column = some.choice(COLUMNS)
    if dialect == "sqlite":
        connection.exec_driver_sql(f"CREATE TABLE other AS SELECT * FROM {table}")
        connection.exec_driver_sql(f"DROP TABLE {table}")
        connection.exec_driver_sql(f"ALTER TABLE other RENAME TO {table}")
        return
    for each in connection.exec_driver_sql(
        f"SELECT conname FROM pg_constraint WHERE conrelid = '{table}'::regclass AND contype <> 'n'"
    ).all():
        connection.exec_driver_sql(f'ALTER TABLE {table} DROP CONSTRAINT "{each[0]}"')
    for name in (column.name for column in metadata.tables[table].columns):
        connection.exec_driver_sql(f"ALTER TABLE {table} ALTER COLUMN {name} DROP NOT NULL")
    if some.random() < 0.5:
        connection.exec_driver_sql(f"ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT")
        connection.exec_driver_sql(
            f"ALTER TABLE {table} ALTER COLUMN {column} TYPE text USING {column}::text"
        )


def spoil(engine: Engine, some: Random) -> list[str]:
    """Change some things in the database; return what was done."""
    done = []
    for _ in range(some.choice([1, 1, 2, 5])):
        table, column = some.choice(COLUMNS)
        kind = str(metadata.tables[table].c[column].type.compile(engine.dialect))
        expression, value = odd_value(some, engine.name, kind)
        row = some.choice(["", " WHERE id = 1", " WHERE id = 2"])
        if table == "sigra_audit_entries":
            row = some.choice(
                ["", " WHERE sequence = 2", " WHERE chain = 2", " WHERE sequence = 6"]
            )
        change = some.choice([
            f"UPDATE {table} SET {column} = {expression}{row}", f"UPDATE {table} SET {column} = {expression}{row}",
            f"UPDATE {table} SET {column} = {expression}{row}", f"UPDATE {table} SET {column} = {expression}{row}",
            f"DELETE FROM {table}{row}", f"INSERT INTO {table} SELECT * FROM {table}{row}", "loosen",
        ])  # fmt: skip
        try:
            with engine.begin() as connection:
                if change == "loosen":
                    loosen(connection, engine.name, some)
                else:
                    connection.execute(text(change), {"v": value} if ":v" in change else {})
            done.append(f"{change} [{str(value)[:60]!r}]")
        except (DBAPIError, OverflowError):  # a constraint of the table's, or a type
            continue
    return done


def rows_of(engine: Engine) -> list[list[Any]]:
    """Return all that the tables hold, as it is there."""
    found = []
    with engine.connect() as connection:
        for table in metadata.sorted_tables:
            what = f"{table.name}::text"
            if engine.name == "sqlite":
                what = " || ".join(f"typeof({c.name}) || hex({c.name})" for c in table.columns)
            found.append(
                sorted(connection.exec_driver_sql(f"SELECT {what} FROM {table.name}").all())
            )
    return found


def whole(sink: SqlAuditSink, limit: int = 3) -> list[Any]:
    """Read all pages, each from the last one's cursor."""
    seen: list[Any] = []
    cursor = None
    for _ in range(100):
        page = sink.query(EVERYONE, cursor, limit)
        seen += page.events
        cursor = page.cursor
        if cursor is None:
            return seen
    raise AssertionError("the pages do not end")


def written(write: Callable[[Any], None], what: Any) -> None:
    """Write, which raises what the database raises."""
    with suppress(DBAPIError, sqlite3.Error):
        write(what)


def readers(sink: SqlAuditSink, folder: Path) -> dict[str, Callable[[], Any]]:
    """Return all that is done with a store by this library's own functions."""
    before = NOON + timedelta(minutes=3)
    everyone: dict[str, Any] = {"all_organizations": True}
    return {
        "verify": lambda: verify(sink, **everyone),
        "verify with keys": lambda: verify(sink, public_keys=[KEY.public_key], **everyone),
        "verify one": lambda: verify(sink, organization_id="acme"),
        "query": lambda: sink.query(EventFilter("acme"), None, 500),
        "pages": lambda: whole(sink),
        "stream": lambda: list(sink.stream(EVERYONE)),
        "follow": lambda: list(_since(sink, EVERYONE, {})),
        "count": lambda: (sink.count(EVERYONE), sink.count(EventFilter("acme", actor_id="ann"))),
        "jsonl": lambda: export(sink, folder / "jsonl", **everyone),
        "csv": lambda: export(sink, folder / "csv", format="csv", **everyone),
        "checkpoint": lambda: take_checkpoint(sink, KEY),
        "write": lambda: written(sink.write, event(50)),
        "write some": lambda: written(sink._write, [(event(51), None), (event(52, "other"), None)]),
        "prune": lambda: list(prune(sink, before, reason="old", signer=KEY, batch=2, **everyone)),
        "erase": lambda: erase(sink, "ann", reason="asked", signer=KEY, **everyone),
        "verify again": lambda: verify(sink, **everyone),
    }


def commands(folder: Path, key: Path) -> Iterator[tuple[str, ...]]:
    """Yield what is asked of the command line."""
    everyone, number = "--all-organizations", 0
    for machine in ((), ("--json",)):
        number += 1
        yield "list", everyone, "--limit", "5", *machine
        yield "list", "-o", "acme", *machine
        yield "tail", everyone, *machine
        yield "stats", everyone, *machine
        yield "verify", everyone, *machine
        yield "export", everyone, "--to", str(folder / f"cli{number}"), *machine
        yield "checkpoint", "--key", str(key), "--to", str(folder / "checkpoints"), *machine
        yield "cleanup", "--retention-days", "1", "--key", str(key), *machine
        yield "erase", everyone, "--person", "bob", "--reason", "asked", "--key", str(key), *machine


async def look(sink: SqlAuditSink, ids: list[Any]) -> dict[str, Any]:
    """Ask for each page, and return those that failed."""
    name, cookie = cookie_of(TOKEN)
    transport = httpx.ASGITransport(make_app(sink, token=TOKEN))
    failed = {}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://127.0.0.1", cookies={name: cookie}
    ) as client:
        for path in (
            "/",
            "/?organization=acme&actor=ann",
            "/chains",
            "/verify",
            "/verify?organization=acme",
            *(f"/event/{one}" for one in ids),
        ):
            answer = await client.get(path)
            if answer.status_code not in (200, 404) and "audit store" not in answer.text:
                failed[path] = answer.status_code
    return failed


def attempt(done: list[str], name: str, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except SigraError as error:
        assert str(error)
        return error
    except BaseException as error:
        error.add_note(f"by {name} after {done}")
        raise


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("keys") / "key.pem"
    path.write_bytes(PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def fill(sink: SqlAuditSink) -> None:
    """Write events of three chains, of which some are erased and some pruned."""
    for number in range(8):
        for organization in ("acme", "other", None):
            person = "ann" if number % 3 else "bob"
            sink.write(event(number, organization, actor_id=person, metadata={"n": number}))
    erase(sink, "bob", reason="asked", signer=KEY, organization_id="other")
    list(prune(sink, NOON + timedelta(minutes=2), reason="old", signer=KEY, organization_id=None))


def try_all(url: str, folder: Path, key: Path, some: Random) -> None:
    """Spoil a store, and read it in every way."""
    engine = create_engine(url)
    before = rows_of(engine)
    done = spoil(engine, some)
    changed = all(change.startswith("UPDATE") for change in done) and before != rows_of(engine)
    engine.dispose()
    sink = SqlAuditSink(url)
    try:
        if changed and not any(f"{MARKS} SET id" in change for change in done):
            report = attempt(
                done,
                "verify",
                lambda: verify(sink, public_keys=[KEY.public_key], all_organizations=True),
            )
            assert isinstance(report, SigraError) or report.verdict == "broken", done
        for name, work in readers(sink, folder).items():
            attempt(done, name, work)
        found = attempt(done, "stream", lambda: list(sink.stream(EVERYONE)))
        ids = (
            [] if isinstance(found, SigraError) else [str(each.event_id)[:99] for each in found][:4]
        )
        pages = attempt(
            done, "pages", lambda: asyncio.run(look(sink, [one for one in ids if one.isalnum()]))
        )
        assert pages == {}, done
    finally:
        sink.close()
    for command in commands(folder, key):
        result = CliRunner().invoke(sigra, ["audit", *command], env={"SIGRA_AUDIT_STORE": url})
        if not (result.exception is None or isinstance(result.exception, SystemExit)):
            result.exception.add_note(f"by {command} after {done}")
            raise result.exception
        assert "Traceback" not in result.output, (command, done)


def test_no_reader_stumbles_over_what_sqlite_holds(
    tmp_path: Path, no_events: Path, key: Path
) -> None:
    """Values of any kind in any column, rows gone or twice, and tables without constraints."""
    path = tmp_path / "filled.db"
    sink = SqlAuditSink(f"sqlite:///{shutil.copyfile(no_events, path)}")
    fill(sink)
    sink.close()
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        shutil.copyfile(path, folder / "audit.db")
        try:
            try_all(f"sqlite:///{folder}/audit.db", folder, key, Random(seed))
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        shutil.rmtree(folder)


@pytest.mark.servers
def test_no_reader_stumbles_over_what_postgresql_holds(
    new_url: Callable[[str], str], tmp_path: Path, key: Path
) -> None:
    """Values of any content, rows gone or twice, constraints gone, and columns of another type."""
    for seed in SEEDS[::5]:
        folder = tmp_path / str(seed)
        folder.mkdir()
        url = new_url("postgresql")
        sink = SqlAuditSink(url)
        sink.prepare()
        fill(sink)
        sink.close()
        try:
            try_all(url, folder, key, Random(seed))
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


SWALLOW = {
    "sqlite": """
        CREATE TRIGGER swallow BEFORE INSERT ON sigra_audit_chains WHEN new.tag = 'org:new'
        BEGIN SELECT RAISE(IGNORE); END""",
    "postgresql": """
        CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF new.tag = 'org:new' THEN RETURN NULL; END IF; RETURN new; END $$;
        CREATE TRIGGER swallow BEFORE INSERT ON sigra_audit_chains FOR EACH ROW
        EXECUTE FUNCTION swallow()""",
}
FAR = dict.fromkeys(
    SWALLOW,
    "UPDATE sigra_audit_chains SET sequence = 9223372036854775807 WHERE tag = 'org:new'",
)
ODD_ROW = {
    "sqlite": "UPDATE sigra_audit_chains SET head = 'text' WHERE tag = 'org:new'",
    "postgresql": """
        ALTER TABLE sigra_audit_chains ALTER COLUMN head DROP NOT NULL;
        UPDATE sigra_audit_chains SET head = NULL WHERE tag = 'org:new'""",
}

ODD_NUMBER = {
    "sqlite": "UPDATE sigra_audit_chains SET sequence = 1.5 WHERE tag = 'org:new'",
    "postgresql": """
        ALTER TABLE sigra_audit_chains ALTER COLUMN sequence DROP NOT NULL;
        UPDATE sigra_audit_chains SET sequence = NULL WHERE tag = 'org:new'""",
}


@pytest.mark.parametrize(("change", "begun", "reason"), [
    (SWALLOW, False, "look for a trigger or a rule on sigra_audit_chains"),
    (ODD_ROW, True, "call verify, and put back what was there"),
    (ODD_NUMBER, True, "call verify, and put back what was there"),
    (FAR, True, "call verify, and put back what was there"),
])  # fmt: skip
def test_a_chain_that_somebody_broke_fails_alone(
    url: str, open_sink: Callable[..., SqlAuditSink],
    change: dict[str, str], begun: bool, reason: str,
) -> None:  # fmt: skip
    """The error says what to do, and of a batch the events of all others are written."""
    sink = open_sink(url)
    for organization in ("acme", *(["new"] if begun else [])):
        sink.write(event(1, organization))
    sink.database.write(lambda c: c.execute(text(change[c.dialect.name])))
    for events in ([event(2, "new")], [event(2, "new"), event(3, "new")]):
        with pytest.raises(AuditChainError, match=reason):
            sink._write([(each, None) for each in events])
    told: list[Any] = []
    batching = open_sink(url, batch=Batching(size=10, seconds=3_600))
    with configure(on_audit_failure=told.append):
        for number in range(4, 8):
            batching.write(event(number, "new" if number % 2 else "acme"))
        batching.flush()
    assert [each.target_id for each in sink.stream(EventFilter("acme"))] == ["6", "4", "1"]
    assert [each.event.target_id for each in told] == ["5", "7"]


def test_what_must_go_goes_though_a_mark_cannot_be_read(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """The mark that follows names it as it is, and verify that one alone."""
    sink = open_sink(new_url("sqlite"))
    fill(sink)
    sink.database.write(
        lambda c: c.exec_driver_sql("UPDATE sigra_audit_marks SET body = CAST(x'ff80' AS TEXT)")
    )
    assert erase(sink, "ann", reason="asked", signer=KEY, organization_id="other") == 5
    before = NOON + timedelta(minutes=4)
    steps = prune(sink, before, reason="old", signer=KEY, organization_id=None)
    assert [step.events for step in steps] == [2]
    found = verify(sink, public_keys=[KEY.public_key], all_organizations=True).findings
    bad = "mark {} is not one that a key of yours signed for this chain; it names the key {}"
    reasons = {each.reason for each in found if each.sequence == 0}
    assert reasons == {bad.format(1, KEY.key_id), bad.format(2, KEY.key_id)}


def test_a_good_mark_of_another_chain_keeps_nothing(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """What must go goes though the last mark of its own chain cannot be read."""
    sink = open_sink(new_url("sqlite"))
    fill(sink)
    change = "UPDATE sigra_audit_marks SET body = '' WHERE chain = 2"
    sink.database.write(lambda c: c.exec_driver_sql(change))
    before = NOON + timedelta(minutes=4)
    steps = prune(sink, before, reason="old", signer=KEY, organization_id="other")
    assert [step.events for step in steps] == [4]


@pytest.mark.parametrize("change", [
    "UPDATE sigra_audit_entries SET hash = 'text' WHERE chain = 2 AND sequence = 3",
    "UPDATE sigra_audit_entries SET hash = CAST(x'ff' AS TEXT) WHERE chain = 2 AND sequence = 3",
    "UPDATE sigra_audit_entries SET occurred_at = x'ff' WHERE chain = 2 AND sequence = 3",
    "UPDATE sigra_audit_chains SET head = 'text' WHERE id = 2",
])  # fmt: skip
def test_an_entry_that_cannot_be_read_keeps_no_other_organization_s(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink], change: str
) -> None:
    """What is to go of them goes, before the error says where to look."""
    sink = open_sink(new_url("sqlite"))
    fill(sink)
    sink.database.write(lambda c: c.exec_driver_sql(change))
    with pytest.raises(AuditChainError, match="'org:other'"):
        erase(sink, "ann", reason="asked", all_organizations=True)
    before = NOON + timedelta(minutes=9)
    removed = []
    with pytest.raises(AuditChainError, match="'org:other'"):
        for step in prune(sink, before, reason="old", all_organizations=True):
            removed.append(step)  # noqa: PERF402 - what came before the error counts
    assert removed == [(None, 6), ("acme", 8)]


def test_many_events_without_a_place_end_in_an_error_and_few_hide_nothing(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """A page goes on after the last event that has one."""
    sink = open_sink(new_url("sqlite"))
    fill(sink)
    change = "UPDATE sigra_audit_entries SET occurred_at = x'ff' WHERE sequence = 5"
    sink.database.write(lambda c: c.exec_driver_sql(change))
    assert len({each.event_id for each in whole(sink, 4)}) == sink.count(EVERYONE) == 22
    with pytest.raises(AuditTablesError, match="call verify"):
        whole(sink, 2)


def test_a_connection_that_is_gone_is_told_so(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """And not that somebody altered the tables."""

    def read(connection: Connection) -> Any:
        driver: Any = connection.connection.driver_connection
        driver.close()
        return connection.execute(select(chains))

    with pytest.raises(DBAPIError, match="closed database"):
        read_tables(open_sink(new_url("sqlite")).database, read)


@pytest.mark.servers
def test_a_column_of_another_type_is_an_altered_table(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """Where PostgreSQL cannot compare it any more, that is said."""
    sink = open_sink(new_url("postgresql"))
    sink.write(event(1))
    change = "ALTER TABLE sigra_audit_entries ALTER COLUMN sequence TYPE text"
    sink.database.write(lambda c: c.exec_driver_sql(change))
    with pytest.raises(AuditTablesError, match="one was altered"):
        list(read_chain(sink.database, 1, EVERYONE))


def remade(sink: SqlAuditSink, table: str, *changes: str) -> None:
    """Make a table without its keys, as who may write a file can, and change what it holds."""
    first = (
        f"CREATE TABLE other AS SELECT * FROM {table}",
        f"DROP TABLE {table}",
        f"ALTER TABLE other RENAME TO {table}",
    )
    for change in (*first, *changes):
        sink.database.write(lambda c: c.exec_driver_sql(change))  # noqa: B023


@pytest.mark.parametrize("which", [{"organization_id": "acme"}, {"all_organizations": True}])
def test_a_chain_whose_number_is_none_is_found(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink], which: Any
) -> None:
    """Where its table has lost the key, which takes numbers alone."""
    sink = open_sink(new_url("sqlite"))
    fill(sink)
    change = "UPDATE sigra_audit_chains SET id = CAST(x'ff' AS TEXT)"
    remade(sink, "sigra_audit_chains", change)
    reason = "the row of chain '\\udcff' has a value of a kind that is never written"
    assert reason in {each.reason for each in verify(sink, **which).findings}


@pytest.mark.parametrize("table", ["entries", "marks"])
def test_a_row_of_no_chain_is_found(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink], table: str
) -> None:
    """What names no chain is never written, and hides nothing from who verifies all."""
    sink = open_sink(new_url("sqlite"))
    fill(sink)
    name = f"sigra_audit_{table}"
    gone = "DELETE FROM sigra_audit_chains WHERE tag = 'org:other'"
    remade(sink, name, f"UPDATE {name} SET chain = NULL", gone)
    reasons = {each.reason for each in verify(sink, all_organizations=True).findings}
    assert any(reason.startswith("the row of chain 2 is gone") for reason in reasons)
    assert "entries or marks name their chain by a value of a kind that is never written" in reasons


def test_a_chain_without_a_number_hides_no_entries_of_another(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """An organization whose chain's row was exchanged for a new one still finds the old entries."""
    sink = open_sink(new_url("sqlite"))
    fill(sink)
    remade(
        sink,
        "sigra_audit_chains",
        "DELETE FROM sigra_audit_chains WHERE tag = 'org:acme'",
        "INSERT INTO sigra_audit_chains VALUES (NULL, 'org:another', 0, x'00')",
    )
    assert "removed" in {each.kind for each in verify(sink, organization_id="acme").findings}


def test_a_table_that_is_missing_is_named(url: str, open_sink: Callable[..., SqlAuditSink]) -> None:
    """Where somebody dropped it, or nobody made it."""
    sink = open_sink(url)
    sink.write(event(1))
    sink.database.write(lambda c: c.exec_driver_sql("DROP TABLE sigra_audit_entries"))
    with pytest.raises(AuditTablesError, match=r"one was altered, .*: .*sigra_audit_entries"):
        sink.count(EVERYONE)


def test_who_verifies_tables_that_nobody_made_is_told_what_makes_them(
    tmp_path: Path, open_sink: Callable[..., SqlAuditSink]
) -> None:
    """A sink that may not make them is not used before somebody did."""
    sink = open_sink(f"sqlite:///{tmp_path / 'audit.db'}", create_tables=False)
    told = r"tables are missing or .* call sigra\.store\.migrate\.upgrade"
    with pytest.raises(AuditTablesError, match=told):
        verify(sink, all_organizations=True)


def test_who_reads_older_tables_that_he_may_not_upgrade_is_told_what_does(
    url: str, open_sink: Callable[..., SqlAuditSink]
) -> None:
    """They lack a column, and nobody altered them."""
    sink = open_sink(url)
    fill(sink)
    downgrade(sink.database, "0001")
    reader = open_sink(url, create_tables=False)
    with pytest.raises(
        AuditTablesError, match="of an older version, run sigra audit upgrade, or call"
    ):
        reader.query(EVERYONE, None, 1)


@pytest.mark.servers
def test_a_mark_with_the_number_of_one_to_come_is_told_of(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """Nothing is erased without a mark, and the error says that somebody was at the tables."""
    sink = open_sink(new_url("postgresql"))
    fill(sink)
    change = "UPDATE sigra_audit_marks SET id = 3 WHERE id = 1"
    sink.database.write(lambda c: c.exec_driver_sql(change))
    with pytest.raises(AuditTablesError, match="one was altered"):
        erase(sink, "ann", reason="asked", organization_id="acme")
    assert [each.actor_id for each in sink.stream(EventFilter("acme"))].count("ann") == 5


@pytest.mark.servers
def test_a_role_that_may_not_read_is_told_so(new_url: Callable[[str], str]) -> None:
    """And not that somebody altered the tables."""
    url = new_url("postgresql")
    sink = SqlAuditSink(url)
    sink.prepare()

    def read(connection: Connection) -> Any:
        schema = connection.exec_driver_sql("SELECT current_schema()").scalar()
        connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {schema} TO pg_monitor")
        connection.exec_driver_sql("SET ROLE pg_monitor")
        return connection.execute(select(chains))

    with pytest.raises(DBAPIError, match="permission denied for table"):
        read_tables(sink.database, read)
    sink.close()


def test_an_entry_that_another_table_refers_to_is_no_altered_one(
    url: str, open_sink: Callable[..., SqlAuditSink]
) -> None:
    """What keeps it from being pruned is told as the database tells it."""
    engine = create_engine(url)
    if engine.name == "sqlite":
        listen(engine, "connect", lambda driver, _: driver.execute("PRAGMA foreign_keys = ON"))
    sink = open_sink(engine)
    sink.write(event(1))
    note = "CREATE TABLE note (id TEXT REFERENCES sigra_audit_entries (event_id))"
    fill = "INSERT INTO note SELECT event_id FROM sigra_audit_entries"
    sink.database.write(lambda c: [c.execute(text(each)) for each in (note, fill)])
    with pytest.raises(DBAPIError, match=r"(?i)foreign key constraint"):
        list(prune(sink, NOON + timedelta(days=1), reason="old", all_organizations=True))
    assert verify(sink, all_organizations=True).verdict == "intact"
    engine.dispose()
