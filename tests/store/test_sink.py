"""Writing events: immediate and in batches, once each, into the store's tables or one's own."""

from __future__ import annotations

import base64
import gc
import json
import multiprocessing.util
import secrets
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import ContextVar, copy_context
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from drivers import by_every_driver, driven_by
from events import event
from servers import holding
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    ForeignKey,
    create_engine,
    func,
    make_url,
    select,
    text,
)
from sqlalchemy import event as listen
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.pool import QueuePool, SingletonThreadPool, StaticPool
from sqlalchemy.types import JSON, BigInteger, DateTime, String, Uuid

from sigra import AuditEvent, audit, audit_stats, configure, log_safe
from sigra.audit import EventFilter
from sigra.store import (
    Batching,
    Signer,
    SqlAuditSink,
    batch,
    database,
    erase,
    export,
    forking,
    prune,
    take_checkpoint,
    vacuum,
    verify,
)  # fmt: skip
from sigra.store.errors import AuditBacklogError, AuditLostError
from sigra.store.tables import entries

EVERYONE = EventFilter(all_organizations=True)
FOR_EVER = Batching(size=10_000, seconds=3_600, queue=10_000)


class Base(DeclarativeBase):
    pass


class MyAudit(Base):
    __tablename__ = "my_audit"

    event_id: Mapped[str] = mapped_column(primary_key=True)
    action: Mapped[str]
    organization_id: Mapped[str | None]
    actor_id: Mapped[str | None]
    occurred_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    metadata_: Mapped[dict[str, Any]] = mapped_column(JSON)


class OfTenant(DeclarativeBase):
    """The base of a class whose schema an engine is to translate."""


class TenantAudit(OfTenant):
    __tablename__ = "tenant_audit"
    __table_args__ = ({"schema": "of_tenant"},)

    event_id: Mapped[str] = mapped_column(primary_key=True)
    action: Mapped[str]
    organization_id: Mapped[str | None]
    occurred_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class Numbered(Base):
    __tablename__ = "numbered"

    number: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[str] = mapped_column(unique=True)
    action: Mapped[str]
    occurred_at: Mapped[datetime]


class UuidAudit(Base):
    __tablename__ = "uuid_audit"

    event_id: Mapped[UUID] = mapped_column(primary_key=True)
    action: Mapped[str]
    occurred_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class UuidTextAudit(Base):
    __tablename__ = "uuid_text_audit"

    event_id: Mapped[str] = mapped_column(Uuid(as_uuid=False), primary_key=True)
    action: Mapped[str]
    occurred_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class OwnIdAudit(Base):
    __tablename__ = "own_id_audit"

    number: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[UUID] = mapped_column(default=uuid4)
    action: Mapped[str]

    def __init__(self, *, action: str) -> None:
        self.action = action


class NoIdAudit(Base):
    __tablename__ = "no_id_audit"

    number: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[str | None]
    action: Mapped[str]

    def __init__(self, *, action: str) -> None:
        self.action = action


class BareAudit(Base):
    __tablename__ = "bare_audit"

    number: Mapped[int] = mapped_column(primary_key=True)
    action: Mapped[str]


class Whole(Base):
    __tablename__ = "wholes"

    id: Mapped[str] = mapped_column(primary_key=True)
    action: Mapped[str]
    parts: Mapped[list[Part]] = relationship(back_populates="whole")

    def __init__(self, *, event_id: str, action: str, metadata: dict[str, Any]) -> None:
        self.id, self.action = event_id, action
        if metadata:
            self.parts = [Part(name=name) for name in metadata]

    @property
    def event_id(self) -> str:
        return self.id


class Part(Base):
    __tablename__ = "parts"

    number: Mapped[int] = mapped_column(primary_key=True)
    of: Mapped[str] = mapped_column(ForeignKey("wholes.id"))
    name: Mapped[str]
    whole: Mapped[Whole] = relationship(back_populates="parts")


class Narrow(Base):
    __tablename__ = "narrow"

    event_id: Mapped[str] = mapped_column(primary_key=True)
    action: Mapped[str] = mapped_column(String(20))
    attempt: Mapped[int] = mapped_column(BigInteger)


def test_an_event_is_there_when_the_call_returns(sink: SqlAuditSink) -> None:
    """Emitted means written."""
    with configure(sinks=[sink], audit_schema=AuditEvent):
        result = log_safe("invoice.close", None)
    assert result.status == "emitted"
    assert sink.database.read(lambda c: c.scalar(select(entries.c.event_id))) == (
        result.event.event_id
    )


@pytest.mark.parametrize("read", ["query", "stream", "count"])
def test_a_new_store_has_no_events(tmp_path: Any, open_sink: Any, read: str) -> None:
    """Whoever reads it first makes its tables, as whoever writes first does."""
    sink = open_sink(f"sqlite:///{tmp_path / 'new.db'}")
    match read:
        case "query":
            assert sink.query(EVERYONE, None, 1).events == ()
        case "stream":
            assert list(sink.stream(EVERYONE)) == []
        case _:
            assert sink.count(EVERYONE) == 0


def test_a_redelivered_event_leaves_one_row(sink: SqlAuditSink) -> None:
    """A second delivery of an event id changes nothing, and the chain goes on."""
    first, second = event(1), event(2)
    for each in (first, second, first):
        sink.write(each)
    sink._write([(first, None), (event(3), None), (second, None)])
    assert sink.count(EVERYONE) == 3
    assert verify(sink, all_organizations=True).verdict == "intact"


def test_a_sqlite_store_is_durable(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """It survives a loss of power: a log written at each commit, on macOS out of the drive's cache."""
    sink = open_sink(new_url("sqlite"))
    sink.write(event(1))
    ask = sink.database._writer.execute
    names = ("journal_mode", "synchronous", "fullfsync")
    pragmas = {name: ask(f"PRAGMA {name}").fetchone()[0] for name in names}
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "fullfsync": 1}


def test_an_engine_of_ones_own_is_left_as_it_is(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """Its connect listeners apply to the store's connections; its pool has none of them."""
    engine = create_engine(new_url("sqlite"))
    with engine.connect():
        pass
    connected: list[int] = []
    listen.listen(engine, "connect", lambda *_: connected.append(1))
    sink = open_sink(engine)
    sink.write(event(1))
    sink.close()
    engine.dispose()
    assert connected
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(entries)) == 1
        assert connection.scalar(text("PRAGMA busy_timeout")) == 5_000
    engine.dispose()


@pytest.mark.servers
@pytest.mark.parametrize("driver", ["postgresql+psycopg", "postgresql+asyncpg"])
def test_events_go_where_an_engine_s_listener_for_begin_says(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink], driver: str
) -> None:
    """As by the search_path of each transaction, which PgBouncer leaves alone."""
    url = new_url("postgresql")
    owner, given, schema = create_engine(url), driven_by(driver, url), f"b{uuid4().hex[:12]}"
    if isinstance(given, URL):
        given = create_engine(given)
    there = f"SET LOCAL search_path = {schema}"
    ours = getattr(given, "sync_engine", given)
    listen.listen(ours, "begin", lambda connection: connection.exec_driver_sql(there))
    with owner.begin() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
    sink = open_sink(given)
    sink.write(event(1))
    assert sink.count(EventFilter("acme")) == 1
    with owner.begin() as connection:
        kept = connection.exec_driver_sql(f"SELECT count(*) FROM {schema}.sigra_audit_entries")
        assert kept.scalar() == 1
    for each in (owner, ours):
        each.dispose()


@pytest.mark.servers
def test_each_listener_for_begin_of_an_asynchronous_engine_is_called_once(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """Be it of the engine that this one was made of, of all engines, or added afterwards."""
    first, called = driven_by("postgresql+asyncpg", new_url("postgresql")), list[Any]()
    given = first.execution_options(logging_token="audit")
    targets = [Engine, first.sync_engine, given.sync_engine]
    listeners = [lambda _, target=target: called.append(target) for target in targets]
    for target, listener in zip(targets, listeners, strict=True):
        listen.listen(target, "begin", listener)
    try:
        sink = open_sink(given)
        sink.write(event(1))  # which opened it, in transactions more
        called.clear()
        sink.write(event(2))
        listen.listen(given.sync_engine, "begin", lambda _: called.append(sink))
        sink.write(event(3))
    finally:
        listen.remove(Engine, "begin", listeners[0])
    assert Counter(map(id, called)) == Counter(map(id, [*targets, *targets, sink]))


@pytest.mark.servers
@pytest.mark.parametrize("level", ["AUTOCOMMIT", "REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("make", [create_engine, create_async_engine])
def test_writers_wait_for_each_other_whatever_an_engine_is_set_to(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink], make: Any, level: str
) -> None:
    """No isolation level of the application's own engine costs an event, or leaves half of one."""
    engine = make(new_url("postgresql"), isolation_level=level)
    sink = open_sink(engine)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: sink.write(event(number)), range(40)))

    def fail(connection: Connection) -> None:
        connection.execute(entries.delete())
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        sink.database.write(fail)
    report = verify(sink, all_organizations=True)
    assert (report.verdict, report.rows) == ("intact", 40)
    getattr(engine, "sync_engine", engine).dispose()


@pytest.mark.parametrize("target", [
    "sqlite://", "sqlite:///:memory:", "sqlite+aiosqlite:///file::memory:?uri=true",
    "sqlite:///file:?uri=true",
    create_engine("sqlite:///file:audit?mode=memory&uri=true", poolclass=QueuePool),
])  # fmt: skip
def test_a_store_in_memory_is_refused(target: Any) -> None:
    """It would keep nothing."""
    with pytest.raises(ValueError, match="file"):
        SqlAuditSink(target)


@pytest.mark.parametrize(("make", "driver", "pool"), [
    (create_engine, "sqlite", StaticPool),
    (create_async_engine, "sqlite+aiosqlite", StaticPool),
    (create_engine, "sqlite", SingletonThreadPool),
    (create_engine, "postgresql+psycopg", SingletonThreadPool),
])  # fmt: skip
def test_an_engine_whose_threads_share_or_lose_a_connection_is_refused(
    make: Any, driver: str, pool: Any, tmp_path: Any
) -> None:
    """Two transactions at once would be one, or one would end in the middle."""
    engine = make(f"{driver}:///{tmp_path}/audit.db", poolclass=pool)
    with pytest.raises(ValueError, match="use another pool"):
        SqlAuditSink(engine)


@pytest.mark.parametrize(("make", "driver"), [
    (create_engine, "sqlite"), (create_engine, "postgresql+psycopg"),
    (create_async_engine, "sqlite+aiosqlite"),
])  # fmt: skip
def test_an_engine_that_translates_the_tables_schema_is_refused(
    make: Any, driver: str, tmp_path: Any
) -> None:
    """It would read tenant's tables, and write those that the search path finds."""
    engine = make(f"{driver}:///{tmp_path}/audit.db")
    with pytest.raises(ValueError, match="schema_translate_map"):
        SqlAuditSink(engine.execution_options(schema_translate_map={None: "acme"}))
    SqlAuditSink(engine.execution_options(schema_translate_map={"of_tenant": "acme"})).close()


@pytest.mark.parametrize("setting", [
    {"batch": 500}, {"batch": True}, {"batch": Batching}, {"signer": b"-----BEGIN"},
])  # fmt: skip
def test_a_setting_of_another_type_is_refused_at_once(
    setting: dict[str, Any], tmp_path: Any
) -> None:
    """Otherwise each event, or each night's clean-up, would fail."""
    (name,) = setting
    with pytest.raises(TypeError, match=f"^{name} must be a (Batching|Signer), as "):
        SqlAuditSink(f"sqlite:///{tmp_path}/audit.db", **setting)


@pytest.mark.parametrize("act", [
    partial(verify, all_organizations=True),
    partial(erase, person_id="ann", reason="asked", all_organizations=True),
    lambda store: next(
        prune(store, datetime.now(timezone.utc), reason="old", all_organizations=True)
    ),
    lambda store: take_checkpoint(store, Signer(Ed25519PrivateKey.generate())),
    lambda store: export(store, "never-made", all_organizations=True),
    vacuum,
])  # fmt: skip
@pytest.mark.parametrize("store", ["sqlite:///audit.db", create_engine("sqlite:///audit.db")])
def test_what_is_no_store_is_named(act: Any, store: Any) -> None:
    """A URL or an engine is where a store is, and is not a store."""
    with pytest.raises(TypeError, match=r"^the store must be a SqlAuditSink, .*not (str|Engine)$"):
        act(store)


def test_a_key_that_is_no_signer_is_refused_before_anything_is_done(
    tmp_path: Any, open_sink: Any
) -> None:
    """An export would otherwise end without its manifest."""
    sink, key = open_sink(f"sqlite:///{tmp_path}/audit.db"), Ed25519PrivateKey.generate()
    sink.write(event(1))
    with pytest.raises(TypeError, match="^signer must be a Signer, as .*not .*Ed25519PrivateKey$"):
        export(sink, tmp_path / "out", signer=key, all_organizations=True)
    assert not (tmp_path / "out").exists()


def test_the_reason_of_a_failure_has_sqlite_s_code(tmp_path: Any, open_sink: Any) -> None:
    """A full disk is told from a lock, though both are of one type."""
    sink = open_sink(f"sqlite:///{tmp_path}/missing/audit.db")
    with configure(sinks=[sink], audit_schema=AuditEvent):
        reason = log_safe("a.b", None).reason
    assert reason is not None
    assert reason.endswith("raised sqlalchemy.exc.OperationalError (SQLITE_CANTOPEN)")


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_the_reason_of_a_failure_says_that_somebody_has_the_lock(
    new_url: Callable[[str], str], open_sink: Any, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    """And not that there was no transaction to end."""
    monkeypatch.setattr(database, "_BUSY_MILLISECONDS", 1)
    sink = open_sink(f"{driver}{(url := new_url('sqlite')).removeprefix('sqlite')}")
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as another:
        another.execute("BEGIN IMMEDIATE")
        with configure(sinks=[sink], audit_schema=AuditEvent):
            reason = log_safe("a.b", None).reason
    assert reason is not None
    assert reason.endswith("OperationalError (SQLITE_BUSY)")


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_a_file_that_was_removed_or_replaced_takes_no_events_unseen(
    new_url: Callable[[str], str], open_sink: Any, driver: str
) -> None:
    """SQLite would go on writing to the one that has no name any more, and say nothing."""
    path = Path(new_url("sqlite").removeprefix("sqlite:///"))
    sink = open_sink(f"{driver}:///{path}")
    sink.write(event(1))
    sink.close()
    backup = Path(shutil.copy(path, path.with_name("backup.db")))
    sink = open_sink(f"{driver}:///{path}")
    sink.write(event(2))
    path.unlink()
    for use in (lambda: sink.write(event(3)), lambda: sink.count(EVERYONE)):
        with pytest.raises(FileNotFoundError, match="somebody removed the file"):
            use()
    assert not path.exists()
    backup.rename(path)
    with pytest.raises(FileExistsError, match="beside the log of the one before"):
        sink.write(event(3))
    for beside in ("-wal", "-shm"):
        path.with_name(f"{path.name}{beside}").unlink()
    sink.write(event(4))
    assert [each.target_id for each in sink.stream(EVERYONE)] == ["4", "1"]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM sigra_audit_entries").fetchone() == (2,)


def replace_by_a_copy(path: Path) -> None:
    """Put a copy of a file of SQLite's in its place, as who restores a backup does: without a log."""
    copy = path.with_name("backup.db")
    with closing(sqlite3.connect(path)) as here, closing(sqlite3.connect(copy)) as there:
        here.backup(there)
    for beside in ("-wal", "-shm"):
        path.with_name(f"{path.name}{beside}").unlink()
    copy.rename(path)


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_a_file_that_was_replaced_is_used_by_all_who_had_the_one_before(
    new_url: Callable[[str], str], open_sink: Any, driver: str
) -> None:
    """The first of them makes a log of its own, which the others took for that of the old file."""
    path = Path(new_url("sqlite").removeprefix("sqlite:///"))
    sinks = [open_sink(f"{driver}:///{path}") for _ in range(3)]
    for number, sink in enumerate(sinks):
        sink.write(event(number))
    replace_by_a_copy(path)
    for number, sink in enumerate(sinks, 3):
        sink.write(event(number))
    assert [sink.count(EVERYONE) for sink in sinks] == [6, 6, 6]
    assert verify(sinks[0], all_organizations=True).verdict == "intact"


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_a_log_that_was_made_as_the_file_was_closed_here_is_not_that_of_another_file(
    new_url: Callable[[str], str], open_sink: Any, driver: str
) -> None:
    """As it is for a fork: the other file was read with what the log holds of the one before."""
    path = Path(new_url("sqlite").removeprefix("sqlite:///"))
    backup = Path(shutil.copy(path, path.with_name("backup.db")))
    sink = open_sink(f"{driver}:///{path}")
    sink.write(event(1))
    sink.database.close()
    path.with_name("takes the number of the log that is gone").touch()
    with closing(sqlite3.connect(path)) as another:
        another.execute("CREATE TABLE one_more (id)")
        backup.rename(path)
        with pytest.raises(FileExistsError, match="beside the log of the one before"):
            sink.write(event(2))


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
@pytest.mark.parametrize("is_known", [False, True])
def test_two_threads_that_come_upon_a_file_at_once_both_use_it(
    new_url: Callable[[str], str], open_sink: Any, driver: str, is_known: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Whether it is their first or another in its place: the log of one is not the old file's."""
    path = Path(new_url("sqlite").removeprefix("sqlite:///"))
    sinks = [open_sink(f"{driver}:///{path}") for _ in range(2)]
    for number, sink in enumerate(sinks if is_known else sinks[:1]):
        sink.write(event(number))
    if is_known:
        replace_by_a_copy(path)
    database = sinks[1].database
    other = threading.Thread(target=database.read, args=[lambda connection: None])
    found = forking._found

    def amid(name: str) -> Any:
        if name.endswith("-wal") and other.ident is None:
            other.start()
            other.join(0.3)  # where the two come one after the other, it waits for this one
        return found(name)

    monkeypatch.setattr(forking, "_found", amid)
    sinks[1].write(event(9))
    other.join()
    assert sinks[1].count(EVERYONE) == (3 if is_known else 2)


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_a_file_that_is_replaced_amid_its_use_is_used_by_all(
    new_url: Callable[[str], str], open_sink: Any, driver: str
) -> None:
    """Who still has the old one does not take the log of those in the new one for the old one's."""
    path = Path(new_url("sqlite").removeprefix("sqlite:///"))
    sinks = [open_sink(f"{driver}:///{path}") for _ in range(2)]
    for number, sink in enumerate(sinks):
        sink.write(event(number))

    def amid(_: object) -> None:
        replace_by_a_copy(path)
        sinks[1].write(event(2))

    sinks[0].database.read(amid)
    for number in range(3, 6):
        sinks[number % 2].write(event(number))
    assert {sink.count(EVERYONE) for sink in sinks} == {6}


def test_an_engine_of_one_connection_is_enough(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """Reading does not wait for the connection that stays open for writing."""
    engine = create_engine(new_url("sqlite"), pool_size=1, max_overflow=0, pool_timeout=0.01)
    sink = open_sink(engine)
    sink.write(event(1))
    assert sink.count(EVERYONE) == 1


def test_other_databases_are_refused() -> None:
    """Where nothing was tried nothing is promised."""
    engine = create_engine("sqlite:///x.db")
    engine.dialect.name = "oracle"
    with pytest.raises(ValueError, match="not on oracle"):
        SqlAuditSink(engine)


@pytest.mark.parametrize("wrong", [None, 3, "", "no url", "sqlite+no://u:hunter2@db/audit"])
def test_what_names_no_database_is_refused(wrong: Any) -> None:
    """At once, saying what would, and without the password."""
    with pytest.raises((TypeError, ValueError), match="sqlite:///audit.db") as caught:
        SqlAuditSink(wrong)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("password", ["p@hunter2", "p@hunter2/9", "p@hun@ter2", "p@hunter2:5/9"])
def test_a_password_with_an_at_sign_that_was_not_escaped_is_refused(password: str) -> None:
    """The driver looked for a host of that name, and its error showed the end of the password."""
    with pytest.raises(ValueError, match="%40 stands for an @") as caught:
        SqlAuditSink(f"postgresql+psycopg://u:{password}@db/audit")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "good",
    [
        "sqlite:///u@example/audit@1.db",
        "postgresql+psycopg://u:p%40hunter2/9@db/audit",
        "postgresql+psycopg://u:p@db/audit%40example",
        URL.create("postgresql+psycopg", "u", "p@hunter2/9", "db", database="audit@example"),
        "postgresql+psycopg://u@example:p@[::1]:5432/audit",
        "postgresql+psycopg:///audit?host=@socket&user=u@example",
    ],
    ids=str,
)
def test_an_at_sign_that_ends_no_password_is_taken(good: str | URL) -> None:
    """In a path, a user's name, the query or a URL that was made of parts, and escaped anywhere."""
    SqlAuditSink(good).close()


def test_the_scheme_that_hosts_and_libpq_write_is_told_from_sqlalchemy_s() -> None:
    """Who has ``postgres://`` in the environment reads what to write, and not that it is none."""
    with pytest.raises(ValueError, match="not on postgres; write postgresql://"):
        SqlAuditSink("postgres://db/audit")


def test_a_database_without_its_driver_is_refused_by_its_name() -> None:
    """Nobody is told to install the driver of a database that would then be refused."""
    with pytest.raises(ValueError, match="not on mysql"):
        SqlAuditSink("mysql://db/audit")


def test_a_url_object_works(url: str, open_sink: Callable[..., SqlAuditSink]) -> None:
    """What make_url and URL.create return is a URL too, and its password is not lost."""
    sink = open_sink(make_url(url))
    sink.write(event(1))
    assert open_sink(url).count(EVERYONE) == 1


def test_an_asynchronous_url_works(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """The sink waits for an asynchronous driver, and others read what it wrote, once."""
    url = new_url("sqlite")
    sink = open_sink(url.replace("sqlite:", "sqlite+aiosqlite:"))
    first = event(1)
    for _ in range(2):
        sink.write(first)
    assert [each.target_id for each in sink.stream(EVERYONE)] == ["1"]
    assert open_sink(url).count(EVERYONE) == 1
    assert verify(sink, all_organizations=True).verdict == "intact"


async def _write_in_loop(sink: SqlAuditSink) -> Any:
    with configure(sinks=[sink], audit_schema=AuditEvent):
        return log_safe("invoice.close", None)


@pytest.mark.parametrize("driver", [
    "sqlite+aiosqlite",
    # Its own asynchronous mode is of the same URL.
    pytest.param("postgresql+psycopg", marks=pytest.mark.servers),
    pytest.param("postgresql+asyncpg", marks=pytest.mark.servers),
])  # fmt: skip
def test_an_asynchronous_engine_works_from_a_running_loop(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink], driver: str
) -> None:
    """log_safe is a plain call, also where a loop runs."""
    import asyncio

    target = driven_by(driver, new_url(driver.partition("+")[0]))
    sink = open_sink(create_async_engine(target) if isinstance(target, URL) else target)
    result = asyncio.run(_write_in_loop(sink))
    assert (result.status, result.reason) == ("emitted", None)
    assert sink.count(EVERYONE) == 1


def test_a_batch_is_written_when_it_is_full(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """The size bound wakes the writer."""
    sink = open_sink(new_url("sqlite"), batch=Batching(size=3, seconds=3_600))
    for number in range(6):
        threading.Event().wait(0.02)  # so that the writer sees each
        sink.write(event(number))
        _wait_for(lambda: number % 3 < 2 or sink.count(EVERYONE) == number + 1)  # noqa: B023


def test_a_batch_is_written_when_time_is_up(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """The time bound does too."""
    sink = open_sink(new_url("sqlite"), batch=Batching(seconds=0.05))
    for number in range(1, 3):
        sink.write(event(number))
        _wait_for(lambda: sink.count(EVERYONE) == number)  # noqa: B023


def test_a_batch_is_not_written_in_the_context_of_who_logs_first(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink], monkeypatch: Any
) -> None:
    """Not even where threads inherit contexts: its queries would all be in the first one's trace."""
    trace, start = ContextVar("trace", default="none"), threading.Thread.start

    def start_traced(thread: threading.Thread) -> None:  # as OpenTelemetry's instrumentation does
        monkeypatch.setattr(thread, "run", partial(copy_context().run, thread.run))
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_traced)
    sink, seen = open_sink(new_url("sqlite"), batch=Batching(seconds=0.05)), list[str]()
    write = sink._batch._write
    sink._batch._write = lambda *args: seen.append(trace.get()) or write(*args)
    trace.set("the first's")
    sink.write(event(1))
    _wait_for(lambda: sink.count(EVERYONE) == 1)
    assert seen == ["none"]


def test_flush_and_close_write_what_waits(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """Nothing is left in a queue."""
    url = new_url("sqlite")
    sink = open_sink(url, batch=FOR_EVER)
    sink.write(event(1))
    assert sink.count(EVERYONE) == 0
    sink.flush()
    assert sink.count(EVERYONE) == 1
    sink.write(event(2))
    sink.close()
    assert open_sink(url).count(EVERYONE) == 2
    with pytest.raises(RuntimeError, match="closed"):
        sink.write(event(3))


def test_a_closed_sink_leaves_nothing_for_the_exit(url: str) -> None:
    """An application that opens one again and again does not grow."""
    assert multiprocessing.util  # has a list of its own
    gc.collect()  # what earlier tests left
    before = sys.getrefcount(batch._close_at_exit)
    for number in range(10):
        sink = SqlAuditSink(url, batch=FOR_EVER)
        sink.write(event(number))
        sink.flush()
        threading.Event().wait(0.02)  # so that its thread waits again
        sink.close()
        writer = sink._batch._thread
        writer.join(60)
        assert not writer.is_alive()
    del sink
    gc.collect()
    after = sys.getrefcount(batch._close_at_exit)
    assert after < before + 5  # not equal: an earlier test's may be given up only now


def test_a_close_that_is_interrupted_can_be_called_again(
    url: str, open_sink: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-C, or a time limit, the second one writes what waits: the first closed nothing."""
    sink = open_sink(url, batch=Batching(seconds=3600))
    sink.prepare()
    sink.write(event(1))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("sigra.store.sink.append", interrupt)
        sink.close()
    sink.close()
    after = open_sink(url)
    assert after.count(EVERYONE) == 1


@pytest.mark.parametrize("batch", [None, FOR_EVER], ids=["at once", "queued"])
def test_the_reason_of_a_failure_says_that_the_sink_is_closed(
    url: str, open_sink: Callable[..., SqlAuditSink], batch: Batching | None
) -> None:
    """It holds no text of an error, so the type must tell."""
    sink = open_sink(url, batch=batch)
    sink.close()
    with configure(sinks=[sink], audit_schema=AuditEvent):
        reason = log_safe("invoice.close", None).reason
    assert str(reason).endswith("raised sigra.store.errors.AuditSinkClosedError")


def test_a_closed_sink_writes_nothing(sink: SqlAuditSink) -> None:
    """What comes too late fails, and closing twice is fine."""
    sink.write(event(1))
    sink.close()
    sink.close()
    with pytest.raises(RuntimeError, match="closed"):
        sink.write(event(2))
    assert sink.count(EVERYONE) == 1
    sink.database.close()


@pytest.mark.parametrize("driver", [
    "sqlite+aiosqlite",
    pytest.param("postgresql+psycopg_async", marks=pytest.mark.servers),
    pytest.param("postgresql+asyncpg", marks=pytest.mark.servers),
])  # fmt: skip
def test_who_writes_while_the_sink_is_closed_comes_to_an_end(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink], driver: str
) -> None:
    """No thread waits for ever for a loop that ended."""
    sink = open_sink(driven_by(driver, new_url(driver.partition("+")[0])))
    begun, done = threading.Event(), threading.Event()

    def work(connection: Connection) -> None:
        begun.set()
        for _ in range(50):
            connection.execute(text("SELECT 1")).all()
        done.set()

    threads = [
        threading.Thread(target=sink.database.write, args=(work,), daemon=True),
        threading.Thread(target=lambda: begun.wait() and sink.close(), daemon=True),
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert done.is_set()
    assert [each.is_alive() for each in threads] == [False, False]


def test_who_closes_a_store_waits_for_what_is_being_written(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """Its connection was closed amid the transaction, and the event was lost."""
    sink = open_sink(new_url("sqlite"))
    closing_it = threading.Thread(target=sink.database.close, daemon=True)

    def work(_: object) -> None:
        closing_it.start()
        closing_it.join(0.3)

    sink.database.transact(work)
    closing_it.join(60)
    assert not closing_it.is_alive()


@by_every_driver
def test_a_progress_function_may_log_to_the_store_itself(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink], driver: str
) -> None:
    """By any driver; the one thread of an asynchronous one does not wait for itself."""
    sink = open_sink(driven_by(driver, new_url(driver.partition("+")[0])))
    sink._write([(event(number), None) for number in range(2_000)])
    found: list[Any] = []

    def check() -> None:
        progress = lambda done: sink.write(event(done, "other"))  # noqa: E731
        found.append(verify(sink, organization_id="acme", progress=progress).verdict)

    thread = threading.Thread(target=check, daemon=True)
    thread.start()
    thread.join(60)
    assert (found, sink.count(EventFilter("other"))) == (["intact"], 1)


def test_a_full_queue_fails_in_a_bounded_time(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """Memory stays bounded, and the event that found no room is counted as failed."""
    sink = open_sink(new_url("sqlite"), batch=Batching(2, 3_600, queue=2, timeout=0.01))
    written = threading.Event()

    def never(_: Any) -> None:
        written.wait(120)

    sink._batch._write = never
    before = audit_stats()
    with configure(sinks=[sink], audit_schema=AuditEvent):
        results = [log_safe("invoice.close", None).status for _ in range(5)]
    after = audit_stats()
    written.set()
    assert results == ["emitted", "emitted", "failed", "failed", "failed"]
    assert after.failed - before.failed == 3
    with pytest.raises(AuditBacklogError) as caught:
        raise AuditBacklogError(2, 0.01)
    assert caught.value.size == 2


def test_who_finds_the_queue_full_waits_for_room(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """As soon as the writer has made some, the event is queued."""
    sink = open_sink(new_url("sqlite"), batch=Batching(2, 3_600, queue=2, timeout=30))
    written, write = threading.Event(), sink._batch._write

    def later(items: Any) -> None:
        written.wait(120)
        write(items)

    sink._batch._write = later
    for number in range(2):
        sink.write(event(number))
    threading.Timer(0.1, written.set).start()
    sink.write(event(2))
    sink.flush()
    assert sink.count(EVERYONE) == 3


def test_events_that_cannot_be_written_stay_and_are_told_at_the_end(
    new_url: Callable[[str], str], tmp_path: Any
) -> None:
    """A database that is gone loses nothing until the end, and then what it loses is counted."""
    sink = SqlAuditSink(f"sqlite:///{tmp_path}/gone/audit.db", batch=FOR_EVER)
    told: list[Any] = []
    with configure(sinks=[sink], audit_schema=AuditEvent, on_audit_failure=told.append):
        results = [log_safe("invoice.close", None).status for _ in range(3)]
        with pytest.raises(Exception, match="unable to open"):
            sink.flush()
        before = audit_stats().failed
        with pytest.raises(AuditLostError) as caught:
            sink.close()
        sink.close()  # tells it no second time
    assert results == ["emitted"] * 3
    assert (caught.value.count, audit_stats().failed - before, len(told)) == (3, 3, 3)


def test_a_database_that_is_gone_is_not_tried_without_a_pause(tmp_path: Any) -> None:
    """What waits is written again after ``seconds``, and not by a thread that never rests."""
    gone = f"sqlite:///{tmp_path}/gone/audit.db"
    sink = SqlAuditSink(gone, batch=Batching(size=1, seconds=3_600))
    tries, write = list[Any](), sink._batch._write
    sink._batch._write = lambda items: tries.append(items) or write(items)
    sink.write(event(1))
    _wait_for(lambda: tries)
    threading.Event().wait(0.1)
    assert len(tries) == 1
    with pytest.raises(AuditLostError):
        sink.close()


def test_a_database_that_comes_back_gets_what_waited(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink], tmp_path: Any
) -> None:
    """Between a failed flush and a good one nothing is lost."""
    sink = open_sink(f"sqlite:///{tmp_path}/later/audit.db", batch=FOR_EVER)
    sink.write(event(1))
    with pytest.raises(Exception, match="unable to open"):
        sink.flush()
    (tmp_path / "later").mkdir()
    sink.flush()
    assert sink.count(EVERYONE) == 1


REFUSE = {
    "sqlite": """
        CREATE TRIGGER refuse BEFORE INSERT ON narrow WHEN new.action = 'refused'
        BEGIN SELECT RAISE(ABORT, 'not this one'); END""",
    "postgresql": """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF new.action = 'refused' THEN RAISE 'not this one'; END IF; RETURN new; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON narrow FOR EACH ROW EXECUTE FUNCTION refuse()""",
}


@by_every_driver
def test_a_record_that_a_table_refuses_keeps_no_other_from_it(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink], driver: str
) -> None:
    """Whatever a driver calls it: a number, text or key too long, nothing, no text, a trigger's no."""
    url = new_url(driver.partition("+")[0])
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(REFUSE[engine.name])
    sink = open_sink(driven_by(driver, url), batch=FOR_EVER)
    bad = [{"attempt": 1 << 70}, {"action": object()}, {"action": None}, {"action": "refused"}]
    if engine.name == "postgresql":
        bad += [{"action": "x" * 50}, {"action": "a\0b"}, {"event_id": secrets.token_hex(5_000)}]
    told: list[Any] = []
    with configure(on_audit_failure=told.append):
        for number, changes in enumerate([{}, *bad, {}]):
            each = event(number)
            fields = {"event_id": each.event_id, "action": "close", "attempt": 1, **changes}
            sink.write(each, Narrow(**fields))
        sink.flush()
    assert [each.event.target_id for each in told] == [str(n + 1) for n in range(len(bad))]
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(Narrow)) == 2
    engine.dispose()


def test_one_bad_event_keeps_no_other_from_the_store(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """An event that no database takes is told of, and its batch is written without it."""
    sink = open_sink(new_url("sqlite"), batch=FOR_EVER)
    told: list[Any] = []
    with configure(on_audit_failure=told.append):
        for each in (event(1), event(2, actor_id=object()), event(3)):
            sink.write(each)
        sink.flush()
    assert [each.target_id for each in sink.stream(EVERYONE)] == ["3", "1"]
    assert [each.event.target_id for each in told] == ["2"]


def test_a_mapped_class_of_ones_own_is_written_and_read(url: str, open_sink: Any) -> None:
    """Records go to the table of their class, once for each event id, and are read back."""
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    sink = open_sink(engine)
    with configure(sinks=[sink], audit_schema=MyAudit):
        for number in range(3):
            log_safe("invoice.close", None, metadata={"n": number}, organization_id="acme")
        first = audit.query(organization_id="acme", limit=2)
        rest = audit.query(organization_id="acme", limit=2, cursor=first.cursor)
        sink.write(event(1), MyAudit(**_same(first.events[0])))
        count = audit.count(all_organizations=True)
        streamed = list(audit.stream(organization_id="acme", action="invoice.close"))
    pages = [[record.metadata_["n"] for record in page.events] for page in (first, rest)]
    assert pages == [[2, 1], [0]]
    assert (count, len(streamed), rest.cursor) == (3, 3, None)
    engine.dispose()


@pytest.mark.parametrize("count", [500, 1001])
def test_a_stream_of_a_class_of_ones_own_is_longer_than_a_page(
    url: str, open_sink: Any, count: int
) -> None:
    """And a page ends it that its last record fills."""
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
    with Session(engine) as session, session.begin():
        for number in range(count):
            at = moment + timedelta(seconds=number // 7)
            named = {"event_id": f"{number:04}", "action": "a.b", "organization_id": "acme"}
            session.add(MyAudit(**named, occurred_at=at, metadata_={}))
    with configure(sinks=[open_sink(engine)], audit_schema=MyAudit):
        found = [record.event_id for record in audit.stream(organization_id="acme")]
        page = audit.query(organization_id="acme", limit=count if count == 500 else 1)
    assert found == [f"{number:04}" for number in reversed(range(count))]
    assert (page.cursor is None) == (count == 500)
    engine.dispose()


@by_every_driver
def test_a_class_whose_schema_an_engine_translates_is_written_and_read_there(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink], driver: str
) -> None:
    """Also by connections that the store makes itself, in place of that engine."""
    url = new_url(driver.partition("+")[0])
    engine, given = create_engine(url), driven_by(driver, url)
    if isinstance(given, URL):
        given = (create_async_engine if given.get_dialect().is_async else create_engine)(given)
    schema = "main"
    if engine.name == "postgresql":
        with engine.connect() as connection:
            schema = connection.exec_driver_sql("SELECT current_schema()").scalar_one()
    there: dict[str, Any] = {"schema_translate_map": {"of_tenant": schema}}
    OfTenant.metadata.create_all(engine.execution_options(**there))
    sink = open_sink(given.execution_options(**there))
    with configure(sinks=[sink], audit_schema=TenantAudit):
        log_safe("invoice.close", None, organization_id="acme")
        assert audit.count(organization_id="acme") == 1
    for each in (engine, given) if isinstance(given, Engine) else (engine,):
        each.dispose()


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("driver", ["postgresql+psycopg", "postgresql+asyncpg"])
def test_a_table_of_ones_own_that_somebody_locks_is_not_waited_for_without_end(
    url: str, driver: str, open_sink: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the store's own tables: the event fails in time, and its caller goes on."""
    monkeypatch.setattr(database, "_BUSY_MILLISECONDS", 200)
    engine, sink = create_engine(url), open_sink(driven_by(driver, url))
    Base.metadata.create_all(engine)
    with configure(sinks=[sink], audit_schema=MyAudit):
        with holding(url, "LOCK TABLE my_audit"):
            assert log_safe("invoice.close", None, organization_id="acme").status == "failed"
        assert log_safe("invoice.close", None, organization_id="acme").status == "emitted"
        assert audit.count(all_organizations=True) == 1
    engine.dispose()


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_who_reads_a_table_of_ones_own_that_somebody_locks_is_told_what_to_do(
    url: str, open_sink: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the store's own tables."""
    monkeypatch.setattr(database, "_BUSY_MILLISECONDS", 200)
    engine, acme = create_engine(url), {"organization_id": "acme"}
    Base.metadata.create_all(engine)
    reads: list[Callable[[], Any]] = [
        lambda: audit.query(**acme),
        lambda: list(audit.stream(**acme)),
        lambda: audit.count(**acme),
    ]
    with (
        configure(sinks=[open_sink(url)], audit_schema=MyAudit),
        holding(url, "LOCK TABLE my_audit"),
    ):
        for read in reads:
            with pytest.raises(DBAPIError, match="lock timeout") as caught:
                read()
            assert ["pg_blocking_pids" in note for note in caught.value.__notes__] == [True]
    engine.dispose()


def test_a_record_is_given_its_key_by_each_store_of_its_own(tmp_path: Any, open_sink: Any) -> None:
    """One store's next number may be taken in another."""
    engines = [create_engine(f"sqlite:///{tmp_path}/{name}.db") for name in "ab"]
    for each in engines:
        Base.metadata.create_all(each)
    first, second = map(open_sink, engines)
    with configure(sinks=[second], audit_schema=Numbered):
        log_safe("invoice.open", None, organization_id="acme")
    with configure(sinks=[first, second], audit_schema=Numbered):
        assert log_safe("invoice.close", None, organization_id="acme").status == "emitted"
        assert [record.number for record in first.stream(EVERYONE)] == [1]
        assert [record.number for record in second.stream(EVERYONE)] == [2, 1]
    for each in engines:
        each.dispose()


def test_a_record_comes_with_what_is_related_to_it_into_each_store(
    tmp_path: Any, open_sink: Any
) -> None:
    """A class of one's own may make rows of other tables, and have its id by another name."""
    engines = [create_engine(f"sqlite:///{tmp_path}/{name}.db") for name in "ab"]
    for each in engines:
        Base.metadata.create_all(each)
    with configure(sinks=[open_sink(each) for each in engines], audit_schema=Whole):
        for metadata in ({"seats": 1, "plan": "x"}, {}):
            assert log_safe("invoice.close", None, metadata=metadata).status == "emitted"
    for each in engines:
        with Session(each) as session:
            wholes = session.scalars(select(Whole).order_by(Whole.id))
            assert [[part.name for part in each.parts] for each in wholes] == [
                ["seats", "plan"],
                [],
            ]
        each.dispose()


@pytest.mark.parametrize("as_uuid", [True, False])
def test_a_class_of_ones_own_may_have_uuids_as_ids(url: str, open_sink: Any, as_uuid: bool) -> None:
    """They are written, told apart, and paged over, as objects or as text."""
    kind = UuidAudit if as_uuid else UuidTextAudit
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    sink = open_sink(engine)
    with configure(sinks=[sink], audit_schema=kind):
        for _ in range(3):
            log_safe("invoice.close", None, organization_id="acme")
        first = audit.query(all_organizations=True, limit=2)
        rest = audit.query(all_organizations=True, limit=2, cursor=first.cursor)
        same, given = first.events[0], str(first.events[0].event_id)
        sink.write(event(1), kind(event_id=given, action="again", occurred_at=same.occurred_at))
        found = {str(record.event_id) for record in audit.stream(all_organizations=True)}
    assert found == {str(record.event_id) for record in first.events + rest.events}
    assert (len(found), rest.cursor) == (3, None)
    engine.dispose()


@pytest.mark.parametrize("kind", [OwnIdAudit, NoIdAudit, BareAudit])
def test_records_that_are_given_no_id_are_all_kept(url: str, open_sink: Any, kind: Any) -> None:
    """Be it that their class makes one of its own, or that they have none: none is told by it."""
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    with configure(sinks=[open_sink(engine)], audit_schema=kind):
        results = [log_safe(f"invoice.{word}", None) for word in ("open", "close")]
    assert [result.status for result in results] == ["emitted", "emitted"]
    with Session(engine) as session:
        actions = session.scalars(select(kind.action).order_by(kind.number))
        assert list(actions) == ["invoice.open", "invoice.close"]
    engine.dispose()


def _same(record: MyAudit) -> dict[str, Any]:
    return {name: getattr(record, name) for name in MyAudit.__mapper__.columns.keys()}


def _wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(3_000):
        if condition():
            return
        threading.Event().wait(0.02)
    raise AssertionError("it did not happen within a minute")


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": 20, "queue": 10},
        {"size": 1.5},
        {"size": True},
        {"size": "5"},
        {"queue": 1e4},
        {"seconds": 0},
        {"seconds": float("nan")},
        {"seconds": "1"},
        {"seconds": float("inf")},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"timeout": None},
    ],
)
def test_batching_that_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    """At once, and not when the first event waits."""
    with pytest.raises(ValueError, match="must be"):
        Batching(**wrong)


def test_a_database_that_comes_back_is_found_by_itself(open_sink: Any, tmp_path: Any) -> None:
    """The writer tries again, with no call of anybody's."""
    sink = open_sink(f"sqlite:///{tmp_path}/later/audit.db", batch=Batching(seconds=0.05))
    sink.write(event(1))
    threading.Event().wait(0.2)
    (tmp_path / "later").mkdir()
    _wait_for(lambda: sink.count(EVERYONE) == 1)


def test_a_class_of_ones_own_is_read_as_far_as_it_goes(
    new_url: Callable[[str], str], open_sink: Any
) -> None:
    """Times filter it, and a filter that it has no column for is an error."""
    engine = create_engine(new_url("sqlite"))
    Base.metadata.create_all(engine)
    sink = open_sink(engine, audit_schema=MyAudit)
    with configure(sinks=[sink], audit_schema=MyAudit):
        for minute in range(3):
            moment = event(minute).occurred_at
            log_safe("invoice.close", None, organization_id="acme", occurred_at=moment)
    since, until = event(1).occurred_at, event(2).occurred_at
    with configure(sinks=[sink], audit_schema=None):
        assert audit.count(organization_id="acme", since=since) == 2
        assert audit.count(organization_id="acme", since=since, until=until) == 1
        assert audit.query(organization_id="other").events == ()
        with pytest.raises(audit.InvalidQueryError, match="MyAudit has no outcome"):
            audit.count(organization_id="acme", outcome="error")
    engine.dispose()


@pytest.mark.parametrize(
    "position", [["noon", "x"], ["2026-11-25T12:00:00+00:00", "\ud800"], [1, "x"]]
)
def test_a_cursor_of_no_page_of_a_class_of_ones_own_is_named(
    url: str, open_sink: Any, position: list[Any]
) -> None:
    """It is an error of the query and not of the database."""
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    cursor = base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")
    with configure(sinks=[open_sink(engine)], audit_schema=MyAudit):
        with pytest.raises(audit.InvalidQueryError, match="cursor"):
            audit.query(organization_id="acme", cursor=cursor)
    engine.dispose()


@pytest.mark.programs
def test_without_its_packages_the_store_says_which_extra_brings_them() -> None:
    """The extra is named, and the rest of sigra works."""
    code = (
        "import sys; sys.modules['sqlalchemy'] = None; import sigra.store\n"
        "try: sigra.store.SqlAuditSink\n"
        "except sigra.MissingExtraError as error: print(error.extra, error.package)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["sql", "sqlalchemy"]
