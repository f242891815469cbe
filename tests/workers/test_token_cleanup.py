"""TokenCleanup deletes the tokens that are dead, and never one that is alive."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import sqlalchemy as sql
from servers import own_database
from sqlalchemy.ext.asyncio import create_async_engine

from sigra import SyncBackend, configure
from sigra.testing import perform_job
from sigra.workers import (
    EmailSettings,
    NotConfiguredError,
    TokenCleanup,
    TokenTable,
    set_up,
    settings,
)
from sigra.workers.settings import LIFETIMES

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(settings, "_settings", settings._settings)
    with configure(backend=SyncBackend()):
        yield


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sql.Engine]:
    engine = sql.create_engine(f"sqlite:///{tmp_path / 'host.db'}")
    yield engine
    engine.dispose()


def make(engine: sql.Engine, *columns: sql.Column[str] | sql.Column[datetime]) -> sql.Table:
    keys = columns or (sql.Column("id", sql.Integer, primary_key=True),)
    table = sql.Table(
        "tokens",
        sql.MetaData(),
        *keys,
        sql.Column("context", sql.String),
        sql.Column("inserted_at", sql.DateTime),
    )
    table.create(engine)
    return table


def ago(age: timedelta) -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None) - age


def fill(engine: sql.Engine, table: sql.Table, *rows: tuple[str, timedelta]) -> None:
    with engine.begin() as conn:
        values = [{"context": context, "inserted_at": ago(age)} for context, age in rows]
        conn.execute(sql.insert(table), values)


def left(engine: sql.Engine, table: sql.Table) -> list[str]:
    with engine.connect() as conn:
        return sorted(conn.scalars(sql.select(table.c.context)))


def test_the_lifetimes_are_those_of_the_origin() -> None:
    """Two days to confirm, an hour to reset, a quarter for a link, 60 and 30 days for the rest."""
    hours = {name: lifetime / timedelta(hours=1) for name, lifetime in LIFETIMES.items()}
    assert {
        "confirm": 48,
        "confirm_code": 48,
        "reset_password": 1,
        "magic_link": 0.25,
        "session": 60 * 24,
        "api_refresh": 30 * 24,
    } == hours


@pytest.mark.parametrize("context", LIFETIMES)
def test_a_dead_token_goes_and_a_live_one_stays(engine: sql.Engine, context: str) -> None:
    """The lifetime of its own context decides."""
    table, lifetime = make(engine), LIFETIMES[context]
    fill(engine, table, (context, lifetime + SECOND), (context, lifetime - MINUTE))
    set_up(tokens=TokenTable(engine))
    assert 1 == TokenCleanup.new({}).result()[context]
    assert [context] == left(engine, table)


def test_a_context_without_a_lifetime_is_left_alone(engine: sql.Engine) -> None:
    """What nobody gave a lifetime is not Sigra's to delete."""
    table = make(engine)
    fill(engine, table, ("invite", timedelta(days=9999)))
    set_up(tokens=TokenTable(engine))
    TokenCleanup.new({}).result()
    assert ["invite"] == left(engine, table)


def test_the_host_names_its_own_columns_and_lifetimes(engine: sql.Engine) -> None:
    """A table of other names, with a context of the host's own."""
    with engine.begin() as conn:
        conn.exec_driver_sql(
            "CREATE TABLE user_tokens (t TEXT PRIMARY KEY, kind TEXT, born DATETIME)"
        )
        for name, kind, age in (("a", "invite", 8), ("b", "invite", 6), ("c", "session", 8)):
            born = ago(timedelta(days=age)).isoformat(" ")
            conn.exec_driver_sql("INSERT INTO user_tokens VALUES (?, ?, ?)", (name, kind, born))
    lifetimes = {"invite": timedelta(days=7), "session": timedelta(days=9)}
    set_up(tokens=TokenTable(engine, "user_tokens", None, "kind", "born", lifetimes))
    TokenCleanup.new({}).result()
    with engine.connect() as conn:
        assert ["b", "c"] == list(conn.scalars(sql.text("SELECT t FROM user_tokens ORDER BY t")))


def test_more_than_a_batch_goes_in_one_run(engine: sql.Engine) -> None:
    """2,500 dead tokens are three transactions."""
    table = make(engine)
    fill(engine, table, *[("magic_link", MINUTE * 16)] * 2_500, ("magic_link", MINUTE))
    set_up(tokens=TokenTable(engine))
    commits: list[object] = []
    sql.event.listen(engine, "commit", commits.append)
    assert 2_500 == TokenCleanup.new({}).result()["magic_link"]
    assert ["magic_link"] == left(engine, table)
    assert 3 + len(LIFETIMES) - 1 == len(commits)


def test_what_a_trigger_keeps_is_not_tried_for_ever(engine: sql.Engine) -> None:
    """The run ends where the database deletes nothing more, and counts what is really gone."""
    table = make(engine)
    fill(engine, table, *[("magic_link", MINUTE * 16)] * 1_000, ("session", timedelta(days=90)))
    kept = "CREATE TRIGGER kept BEFORE DELETE ON tokens WHEN OLD.context = 'magic_link'"
    with engine.begin() as conn:
        conn.exec_driver_sql(f"{kept} BEGIN SELECT RAISE(IGNORE); END")
    set_up(tokens=TokenTable(engine))
    deleted = TokenCleanup.new({}).result()
    assert (0, 1) == (deleted["magic_link"], deleted["session"])


def test_a_key_of_two_columns_serves_too(engine: sql.Engine) -> None:
    """Rows are deleted by their whole primary key."""
    keys = (
        sql.Column("user", sql.String, primary_key=True),
        sql.Column("token", sql.String, primary_key=True),
    )
    table = make(engine, *keys)
    with engine.begin() as conn:
        for user, age in (("ann", 16), ("bob", 14)):
            row = {
                "user": user,
                "token": "t",
                "context": "magic_link",
                "inserted_at": ago(MINUTE * age),
            }
            conn.execute(sql.insert(table).values(row))
    set_up(tokens=TokenTable(engine))
    TokenCleanup.new({}).result()
    with engine.connect() as conn:
        assert ["bob"] == list(conn.scalars(sql.select(table.c.user)))


@pytest.mark.parametrize("lifetime", [timedelta(0), 60])
def test_a_lifetime_of_nothing_is_refused(engine: sql.Engine, lifetime: Any) -> None:
    """It would delete tokens that are alive; and of a number nobody knows what it counts."""
    with pytest.raises(ValueError, match="'session' must be a timedelta above zero"):
        TokenTable(engine, lifetimes={"session": lifetime})


def test_a_lifetime_without_end_is_one(engine: sql.Engine) -> None:
    """``timedelta.max`` keeps the tokens of its context, and those of others still go."""
    table = make(engine)
    fill(engine, table, ("session", timedelta(days=9999)), ("api_refresh", timedelta(days=31)))
    set_up(tokens=TokenTable(engine, lifetimes={"session": timedelta.max}))
    TokenCleanup.new({}).result()
    assert ["session"] == left(engine, table)


def test_a_table_that_is_not_there_is_named(engine: sql.Engine) -> None:
    """With the setting that names another."""
    set_up(tokens=TokenTable(engine, "user_token"))
    with pytest.raises(LookupError, match=r"no table user_token: .* TokenTable\(name="):
        perform_job(TokenCleanup, {})


@pytest.mark.parametrize("given", [{"tokens": "sqlite://"}, {"email": print}])
def test_settings_of_another_type_are_refused(given: dict[str, Any]) -> None:
    """Where they are set up, and not in a consumer's first job."""
    with pytest.raises(TypeError, match=r"must be (TokenTable|EmailSettings)\(...\), not"):
        set_up(**given)


def test_what_is_no_engine_is_refused() -> None:
    """A URL is not one."""
    with pytest.raises(TypeError, match="engine must be an Engine"):
        TokenTable("sqlite://")  # type: ignore[arg-type]


def test_without_a_table_the_job_says_what_to_set() -> None:
    """Nothing is deleted by guessing."""
    needs = r"set_up\(tokens=TokenTable\(engine\)\)"
    with pytest.raises(NotConfiguredError, match=needs) as caught:
        perform_job(TokenCleanup, {})
    assert caught.value.worker == "TokenCleanup"
    assert caught.value.setting == "tokens=TokenTable(engine)"


@pytest.mark.parametrize("kind", [sql.Integer, sql.Date, sql.Text])
def test_a_column_that_is_no_moment_is_refused(engine: sql.Engine, kind: type) -> None:
    """Compared with a moment, a number or a day would make tokens that are alive look dead."""
    table = sql.Table("tokens", sql.MetaData(), sql.Column("id", sql.Integer, primary_key=True),
                      sql.Column("context", sql.Text), sql.Column("inserted_at", kind))  # fmt: skip
    table.create(engine)
    set_up(tokens=TokenTable(engine))
    with pytest.raises(TypeError, match=r"inserted_at.*DATETIME or TIMESTAMP"):
        perform_job(TokenCleanup, {})


def test_a_moment_that_sqlite_keeps_as_a_number_is_left_alone(engine: sql.Engine) -> None:
    """A number is less than every text there, however young the token is."""
    table = make(engine)
    with engine.begin() as conn:
        row = "INSERT INTO tokens (context, inserted_at) VALUES ('session', unixepoch())"
        conn.exec_driver_sql(row)
    set_up(tokens=TokenTable(engine))
    assert perform_job(TokenCleanup, {}).value["session"] == 0
    assert left(engine, table) == ["session"]


@pytest.mark.parametrize("separator", [" ", "T"])
@pytest.mark.parametrize("hours", [-8, 0, 14])
def test_a_moment_that_sqlite_keeps_with_its_time_zone_is_understood(
    engine: sql.Engine, separator: str, hours: int
) -> None:
    """As text, a moment of a zone in the west is hours older than it is: its token is alive."""
    make(engine)
    zone = timezone(timedelta(hours=hours))
    ages = {"magic_link": (MINUTE, MINUTE * 16), "session": (timedelta(days=59),)}
    with engine.begin() as conn:
        for context, age in [(name, age) for name, each in ages.items() for age in each]:
            born = (datetime.now(zone) - age).isoformat(separator)
            row = "INSERT INTO tokens (context, inserted_at) VALUES (?, ?)"
            conn.exec_driver_sql(row, (context, born))
    set_up(tokens=TokenTable(engine))
    deleted = perform_job(TokenCleanup, {}).value
    assert (deleted["magic_link"], deleted["session"]) == (1, 0)


@pytest.fixture(params=["UTC", "America/Los_Angeles", "Pacific/Kiritimati"])
def postgres(postgres_server: str, request: pytest.FixtureRequest) -> Iterator[sql.Engine]:
    zone = {"options": f"-ctimezone={request.param}"}
    with own_database(postgres_server) as url:
        place = sql.make_url(url).set(drivername="postgresql+psycopg")
        engine = sql.create_engine(place, connect_args=zone)
        yield engine
        engine.dispose()


@pytest.mark.servers
@pytest.mark.parametrize(
    ("kind", "now"),
    [("TIMESTAMPTZ", "now()"), ("TIMESTAMP", "now() AT TIME ZONE 'UTC'")],
    ids=["zoned", "naive"],
)
def test_postgresql_tells_the_dead_whatever_its_time_zone(
    postgres: sql.Engine, kind: str, now: str
) -> None:
    """Contexts may be an enum that has some of ours: no token has the others."""
    columns = f"id SERIAL PRIMARY KEY, context kind, inserted_at {kind}"
    row = f"INSERT INTO tokens (context, inserted_at) SELECT 'magic_link', {now} - interval"
    with postgres.begin() as conn:
        conn.exec_driver_sql("CREATE TYPE kind AS ENUM ('magic_link', 'session', 'invite')")
        conn.exec_driver_sql(f"CREATE TABLE tokens ({columns})")
        conn.exec_driver_sql(f"{row} '14 minutes'")
        conn.exec_driver_sql(f"{row} '16 minutes'")
    set_up(tokens=TokenTable(postgres))
    deleted = perform_job(TokenCleanup, {}).value
    assert deleted == dict.fromkeys(LIFETIMES, 0) | {"magic_link": 1}


def test_an_asynchronous_engine_is_refused() -> None:
    """At once, where it is set up."""
    with pytest.raises(TypeError, match="Engine"):
        TokenTable(create_async_engine("sqlite+aiosqlite:///host.db"))  # type: ignore[arg-type]


@pytest.mark.parametrize("names", [{"context": "kind"}, {"inserted_at": "made_at"}])
def test_a_column_that_is_not_there_is_named(engine: sql.Engine, names: dict[str, str]) -> None:
    """With its table, and the setting that names it."""
    make(engine)
    set_up(tokens=TokenTable(engine, **names))
    ((setting, column),) = names.items()
    with pytest.raises(LookupError, match=f"tokens has no column '{column}'.*{setting}="):
        perform_job(TokenCleanup, {})


def test_two_threads_that_tell_two_things_at_once_tell_both(
    engine: sql.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that came last undid what the other had said."""
    email = EmailSettings({}.get, {}, print)
    other, make = Thread(target=set_up, kwargs={"email": email}), settings._Settings.__init__

    def amid(self: Any, *given: Any, **named: Any) -> None:
        make(self, *given, **named)
        if other.ident is None:
            other.start()
            other.join(0.3)  # where the two come one after the other, it waits for this one

    monkeypatch.setattr(settings._Settings, "__init__", amid)
    set_up(tokens=TokenTable(engine))
    other.join()
    assert (engine, email) == (settings.token_table().engine, settings.email_settings())
