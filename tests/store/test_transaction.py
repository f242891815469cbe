"""Events in the caller's transaction: committed with it, rolled back with it, never its ruin."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from drivers import driven_by
from sqlalchemy import CheckConstraint, DateTime, Engine, Text, create_engine, func, select, text
from sqlalchemy import event as listen
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    scoped_session,
    sessionmaker,
)

from sigra import (
    AuditEvent,
    AuditRejectedError,
    AuditResult,
    AuditScope,
    SyncBackend,
    audit,
    audit_stats,
    configure,
    log_safe,
    tenant_worker,
)
from sigra.audit import EventFilter
from sigra.audit.transaction import NoAuditStoreError
from sigra.store import (
    AuditTablesMissingError,
    Batching,
    SqlAuditSink,
    database,
    migrate,
    verify,
)
from sigra.store.tables import entries
from sigra.testing import AuditLog

ACME = EventFilter("acme")
SCOPE = AuditScope.build(actor_id="ann", organization_id="acme")


class Base(DeclarativeBase):
    """What the application maps."""


class Own(Base):
    """A class of its own for its events."""

    __tablename__ = "own_audit"
    event_id: Mapped[str] = mapped_column(Text, primary_key=True)
    action: Mapped[str] = mapped_column(Text)
    organization_id: Mapped[str | None] = mapped_column(Text)
    target_id: Mapped[str | None] = mapped_column(Text, CheckConstraint("target_id <> 'refused'"))
    occurred_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """Return the application's own engine, with a table of its own."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE ledger (entry INTEGER PRIMARY KEY)"))
    yield engine
    engine.dispose()


@pytest.fixture(autouse=True)
def configured(sink: SqlAuditSink) -> Iterator[SqlAuditSink]:
    sink.prepare()
    with configure(sinks=[sink], audit_schema=AuditEvent):
        yield sink


def rows(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM ledger")))


LOGS = [log_safe, audit.log]


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_a_row_is_there_if_the_transaction_commits(
    engine: Engine, sink: SqlAuditSink, log: Any, committed: bool, first: bool
) -> None:
    """Roll back and there is none, whether the event or the application's row came first."""
    with engine.connect() as connection:
        if not first:
            connection.execute(text("INSERT INTO ledger VALUES (1)"))
        assert log("invoice.close", SCOPE, conn=connection).status == "emitted"
        if first:
            connection.execute(text("INSERT INTO ledger VALUES (1)"))
        if committed:
            connection.commit()
    assert (sink.count(ACME), rows(engine)) == ((1, 1) if committed else (0, 0))
    if committed:
        assert verify(sink, organization_id="acme").verdict == "intact"


@pytest.mark.parametrize("make", [Session, lambda e: scoped_session(sessionmaker(e))])
def test_a_session_will_do(engine: Engine, sink: SqlAuditSink, make: Any) -> None:
    """A session's own transaction is used, plain or scoped."""
    session = make(engine)
    audit.log("invoice.close", SCOPE, conn=session)
    session.rollback()
    audit.log("invoice.open", SCOPE, conn=session)
    session.commit()
    session.close()
    assert [each.action for each in sink.stream(ACME)] == ["invoice.open"]


def break_inserts(engine: Engine) -> Callable[[], None]:
    """Make every event fail half-way, as a full disk would."""

    def refuse(conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        if " head=" in statement:  # after the entry
            cursor.execute("SELECT no_such_column FROM ledger")

    listen.listen(engine, "before_cursor_execute", refuse)
    return lambda: listen.remove(engine, "before_cursor_execute", refuse)


def test_a_failing_event_leaves_the_transaction_whole(engine: Engine, sink: SqlAuditSink) -> None:
    """log_safe fails, is counted, and what the application wrote before and after it commits."""
    mend = break_inserts(engine)
    before = audit_stats().failed
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO ledger VALUES (1)"))
        result = log_safe("invoice.close", SCOPE, conn=connection)
        connection.execute(text("INSERT INTO ledger VALUES (2)"))
    mend()
    assert (result.status, audit_stats().failed - before) == ("failed", 1)
    assert (rows(engine), sink.count(ACME)) == (2, 0)
    with engine.begin() as connection:
        assert log_safe("invoice.close", SCOPE, conn=connection).status == "emitted"
    assert verify(sink, organization_id="acme").verdict == "intact"


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("make", [Engine.connect, Session], ids=["connection", "session"])
@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("committed", [True, False])
def test_a_record_of_the_application_s_own_is_there_if_it_commits(
    engine: Engine, sink: SqlAuditSink, log: Any, make: Any, within: bool, committed: bool
) -> None:
    """Also where that is in a savepoint: of log_safe, or of the application."""
    Base.metadata.create_all(engine)
    with configure(audit_schema=Own), make(engine) as conn:
        conn.execute(text("INSERT INTO ledger VALUES (1)"))
        with conn.begin_nested() if within else nullcontext():
            for _ in range(2):
                assert log("invoice.close", SCOPE, conn=conn).status == "emitted"
        conn.execute(text("INSERT INTO ledger VALUES (2)"))
        conn.commit() if committed else conn.rollback()
        expected = (2, 2) if committed else (0, 0)
        assert (rows(engine), sink.count(ACME)) == expected


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_record_that_another_adds_at_once_is_there_once(
    engine: Engine, sink: SqlAuditSink
) -> None:
    """A job that is delivered twice may run twice at once: both are told that it is kept."""
    Base.metadata.create_all(engine)
    results, once = list[AuditResult](), ["the other"]

    @tenant_worker(audit_schema=Own, name="transaction.twice")
    def twice(scope: AuditScope) -> None:
        results.append(log_safe("invoice.close", scope))

    def other(_mapper: Any, _connection: Any, record: Own) -> None:
        if once:
            values = {name: getattr(record, name) for name in Own.__table__.c.keys()}
            once.clear()
            with Session(engine) as session, session.begin():
                session.add(Own(**values))

    listen.listen(Own, "before_insert", other)
    try:
        with configure(backend=SyncBackend()):
            twice.new({"organization_id": "acme", "actor_id": "ann"})
        assert not once
        with configure(audit_schema=Own):
            assert ([result.status for result in results], sink.count(ACME)) == (["emitted"], 1)
    finally:
        listen.remove(Own, "before_insert", other)


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("make", [Engine.connect, Session], ids=["connection", "session"])
def test_a_record_that_its_table_refuses_leaves_the_transaction_whole(
    engine: Engine, sink: SqlAuditSink, log: Any, make: Any
) -> None:
    """What the application wrote before and after it commits, and other events with it."""
    Base.metadata.create_all(engine)
    with configure(audit_schema=Own), make(engine) as conn:
        conn.execute(text("INSERT INTO ledger VALUES (1)"))
        assert log("invoice.open", SCOPE, conn=conn).status == "emitted"
        with pytest.raises(IntegrityError) if log is audit.log else nullcontext():
            assert log("invoice.close", SCOPE, conn=conn, target_id="refused").status == "failed"
        assert log("invoice.send", SCOPE, conn=conn).status == "emitted"
        conn.execute(text("INSERT INTO ledger VALUES (2)"))
        conn.commit()
        assert (rows(engine), sink.count(ACME)) == (2, 2)


def test_the_strict_call_raises_what_the_database_raises(engine: Engine) -> None:
    """Whoever must not go on without its audit is told by an exception, which counts."""
    mend = break_inserts(engine)
    before = audit_stats().failed
    with engine.connect() as connection, pytest.raises(Exception, match="no_such_column"):
        audit.log("invoice.close", SCOPE, conn=connection)
    mend()
    assert audit_stats().failed - before == 1


@pytest.mark.parametrize("log", LOGS)
def test_a_malformed_call_does_as_it_does_without(
    engine: Engine, sink: SqlAuditSink, log: Any
) -> None:
    """log raises, log_safe writes sigra.audit.rejected, in this transaction too."""
    with engine.begin() as connection:
        if log is audit.log:
            with pytest.raises(AuditRejectedError):
                log("Bad", SCOPE, conn=connection)
        else:
            assert log("Bad", SCOPE, conn=connection).status == "failed"
    expected = [] if log is audit.log else ["sigra.audit.rejected"]
    assert [each.action for each in sink.stream(ACME)] == expected


def test_many_are_written_together(engine: Engine, sink: SqlAuditSink) -> None:
    """All or none, in the caller's transaction or in one of their own."""
    calls = [{"action": "invoice.close", "scope": SCOPE, "target_id": n} for n in range(5)]
    with engine.connect() as connection:
        results = audit.log_many(calls, conn=connection)
        connection.rollback()
    assert ([each.status for each in results], sink.count(ACME)) == (["emitted"] * 5, 0)
    audit.log_many(calls)
    assert [each.target_id for each in sink.stream(ACME)] == ["4", "3", "2", "1", "0"]


class Kept:
    """A store that keeps the ids of events in memory."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def write(self, event: AuditEvent, record: Any) -> None:
        raise LookupError

    def write_in(self, conn: Any, pairs: Any, *, savepoint: bool) -> None:
        self.ids += [event.event_id for event, _ in pairs]

    def close(self) -> None: ...


def test_each_of_several_stores_is_given_many_events_once() -> None:
    """In the order in which they were logged."""
    stores = [Kept(), Kept()]
    calls = [{"action": "invoice.close", "scope": SCOPE, "target_id": n} for n in range(3)]
    with configure(audit_schema=lambda **fields: fields, sinks=stores):
        ids = [result.event.event_id for result in audit.log_many(calls) if result.event]
    assert [store.ids for store in stores] == [ids, ids]


def test_one_bad_event_among_many_keeps_all_out(sink: SqlAuditSink) -> None:
    """All are checked first, and the error says which it is."""
    calls = [{"action": "invoice.close", "scope": SCOPE}, {"action": "Bad", "scope": SCOPE}]
    with pytest.raises(AuditRejectedError) as caught:
        audit.log_many(calls)
    assert (caught.value.index, sink.count(ACME)) == (1, 0)


@pytest.mark.parametrize("fault", ["the store's", "an event's", None])
def test_each_of_many_is_counted_once_by_how_it_ended(
    sink: SqlAuditSink, fault: str | None
) -> None:
    """What a failing store has not written, or an event of bad form kept out, is no success."""
    sink.prepare()
    if fault == "the store's":
        gone = text("ALTER TABLE sigra_audit_entries RENAME TO elsewhere")
        sink.database.write(lambda c: c.execute(gone))
    calls = [{"action": "invoice.close", "scope": SCOPE, "target_id": n} for n in range(5)]
    calls += [{"action": "Bad", "scope": SCOPE}] if fault == "an event's" else []
    before = audit_stats()
    with suppress(Exception):
        audit.log_many(calls)
    counted = [now - then for now, then in zip(audit_stats(), before, strict=True)]
    assert counted == ([0, 0, len(calls)] if fault else [5, 0, 0])


def test_an_event_without_a_schema_is_told_as_disabled_among_many(sink: SqlAuditSink) -> None:
    """It is neither written nor counted as emitted."""
    kept = {"action": "invoice.close", "scope": SCOPE}
    before = audit_stats()
    results = audit.log_many([kept, {**kept, "audit_schema": None}])
    counted = [now - then for now, then in zip(audit_stats(), before, strict=True)]
    assert (["emitted", "disabled"], [1, 1, 0]) == ([each.status for each in results], counted)
    assert sink.count(ACME) == 1


@pytest.mark.parametrize("wrong", [7, "invoice.close", ["action"]])
def test_what_is_no_mapping_is_named_among_many(wrong: Any, sink: SqlAuditSink) -> None:
    """The error says which of the events it is, and that a list of mappings was wanted."""
    with pytest.raises(TypeError, match="item 1 .*mapping"):
        audit.log_many([{"action": "invoice.close", "scope": SCOPE}, wrong])
    with pytest.raises(TypeError, match="item 0 .*mapping"):
        audit.log_many({"action": "invoice.close", "scope": SCOPE})  # type: ignore[arg-type]
    assert sink.count(ACME) == 0


@pytest.mark.parametrize("log", LOGS)
def test_a_connection_without_a_transaction_is_refused(
    engine: Engine, sink: SqlAuditSink, log: Any
) -> None:
    """In AUTOCOMMIT nothing rolls back, and on SQLite a row would wait for a commit for ever."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if log is audit.log:
            with pytest.raises(ValueError, match="AUTOCOMMIT"):
                log("invoice.close", SCOPE, conn=connection)
        else:
            result = log("invoice.close", SCOPE, conn=connection)
            assert (result.status, str(result.reason)[-16:]) == ("failed", ".AutocommitError")
        connection.execute(text("INSERT INTO ledger VALUES (1)"))
    assert (rows(engine), sink.count(ACME)) == (1, 0)


def test_a_connection_of_another_kind_of_database_is_refused(
    engine: Engine, sink: SqlAuditSink
) -> None:
    """By a sentence that says where the store runs, as a sink on it would be."""
    engine.dialect.name = "mysql"
    with engine.connect() as connection, pytest.raises(ValueError, match="not on mysql"):
        audit.log("invoice.close", SCOPE, conn=connection)
    assert sink.count(ACME) == 0


def begun_by_a_listener(url: str) -> Engine:
    engine = create_engine(url)
    listen.listen(engine, "connect", lambda driver, _: setattr(driver, "isolation_level", None))
    listen.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def begun_by_the_driver(url: str) -> Engine:
    return create_engine(url, connect_args={"autocommit": False})


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("make", [begun_by_a_listener, begun_by_the_driver])
def test_sqlite_transactions_that_begin_by_themselves_will_do(
    new_url: Callable[[str], str], open_sink: Any, make: Any, log: Any
) -> None:
    """SQLAlchemy's two recipes for real SQLite transactions work, for the sink's engine too."""
    if make is begun_by_the_driver and sys.version_info < (3, 12):
        make = create_engine  # that version of the driver has no such mode
    engine = make(new_url("sqlite"))
    sink = open_sink(engine)
    with configure(sinks=[sink]), engine.connect() as connection:
        sink.prepare()
        assert log("invoice.close", SCOPE, conn=connection).status == "emitted"
        connection.rollback()
        assert log("invoice.open", SCOPE, conn=connection).status == "emitted"
        connection.commit()
        assert log("invoice.send", SCOPE).status == "emitted"
    assert [each.action for each in sink.stream(ACME)] == ["invoice.send", "invoice.open"]
    engine.dispose()


@pytest.mark.parametrize("conn", [object(), "connection", 7])
def test_what_is_no_connection_is_refused(conn: Any, sink: SqlAuditSink) -> None:
    """The strict call says what it wants; log_safe fails and does not raise."""
    with pytest.raises(TypeError, match="Connection or Session"):
        audit.log("invoice.close", SCOPE, conn=conn)
    assert log_safe("invoice.close", SCOPE, conn=conn).status == "failed"
    assert sink.count(ACME) == 0


def test_an_asynchronous_connection_is_used_by_run_sync(url: str, sink: SqlAuditSink) -> None:
    """A plain call cannot await one, says so, and works inside run_sync."""

    async def write() -> None:
        engine = create_async_engine(url.replace("sqlite:", "sqlite+aiosqlite:"))
        async with engine.connect() as connection:
            with pytest.raises(TypeError, match="run_sync"):
                audit.log("invoice.close", SCOPE, conn=connection)
            result = log_safe("invoice.close", SCOPE, conn=connection)
            assert (result.status, str(result.reason)[-21:]) == ("failed", ".AsyncConnectionError")
            for action in ("invoice.close", "invoice.open"):
                await connection.run_sync(lambda c: log_safe(action, SCOPE, conn=c))
                if action == "invoice.close":
                    await connection.rollback()
            await connection.commit()
        await engine.dispose()

    asyncio.run(write())
    assert [each.action for each in sink.stream(ACME)] == ["invoice.open"]


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("driver", ["psycopg_async", "asyncpg"])
def test_transactions_of_one_loop_keep_their_events_at_once(
    url: str, driver: str, sink: SqlAuditSink
) -> None:
    """While the one waits for its row, in the same thread, others write theirs."""
    engine = driven_by(f"postgresql+{driver}", url)
    if driver == "psycopg_async":
        engine = create_async_engine(engine)

    async def transfer(number: int) -> None:
        scope = AuditScope.build(actor_id="ann", organization_id=str(number % 3))
        async with engine.begin() as connection:
            safe = await connection.run_sync(lambda c: log_safe("money.send", scope, conn=c))
            strict = await connection.run_sync(lambda c: audit.log("money.get", scope, conn=c))
        assert (safe.status, strict.status) == ("emitted", "emitted")

    async def main() -> None:
        await asyncio.gather(*map(transfer, range(30)))
        await engine.dispose()

    asyncio.run(main())
    assert sink.count(EventFilter(all_organizations=True)) == 60


def test_no_events_begin_no_transaction(engine: Engine) -> None:
    """With SQLite it would have the lock until its caller ends it."""
    with engine.connect() as connection:
        assert audit.log_many([], conn=connection) == []
        assert not connection.in_transaction()


def test_without_a_store_no_transaction_is_written_in(engine: Engine) -> None:
    """What would be lost is an error, or a failure."""
    with configure(sinks=[]), engine.connect() as connection:
        with pytest.raises(NoAuditStoreError):
            audit.log("invoice.close", SCOPE, conn=connection)
        with pytest.raises(NoAuditStoreError, match="no configured sink can write in") as caught:
            audit.log_many([])
        assert caught.value.task == "write in a transaction"
        result = log_safe("invoice.close", SCOPE, conn=connection)
    assert (result.status, result.reason) == ("failed", f"conn: {caught.value}")


def test_a_queue_is_empty_when_a_job_has_ended(url: str, open_sink: Any) -> None:
    """A batching sink writes a job's events before the job's end is told."""
    sink = open_sink(url, batch=Batching(1_000, 3_600))
    seen = []

    @tenant_worker(name="tests.store.flushed", audit_schema=AuditEvent)
    def logs(scope: AuditScope, fail: bool) -> None:
        log_safe("invoice.close", scope)
        seen.append(sink.count(ACME))
        if fail:
            raise ValueError

    with configure(sinks=[sink], backend=SyncBackend()):
        for fail in (False, True):
            logs.new({"organization_id": "acme", "actor_id": None, "fail": fail})
            seen.append(sink.count(ACME))
    assert seen == [0, 1, 1, 2]


def test_a_chain_is_locked_for_the_caller_s_transaction_alone(
    engine: Engine, sink: SqlAuditSink
) -> None:
    """Two transactions write to one chain one after the other, and none is lost."""
    with engine.begin() as connection:
        audit.log("invoice.close", SCOPE, conn=connection)
    with engine.begin() as connection:
        audit.log("invoice.open", SCOPE, conn=connection)
        held = connection.scalar(select(func.count()).select_from(entries))
    assert held == 2
    assert verify(sink, organization_id="acme").verdict == "intact"


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("make", [create_engine, create_async_engine])
def test_whoever_waits_for_his_own_transaction_is_told(
    url: str, open_sink: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event without conn fails in time where its own writer holds the chain."""
    monkeypatch.setattr(database, "_BUSY_MILLISECONDS", 200)
    given, engine, results = make(url), create_engine(url), list[AuditResult]()
    sink = open_sink(given)
    with configure(sinks=[sink], audit_schema=AuditEvent), engine.begin() as connection:
        sink.prepare()
        audit.log("invoice.close", SCOPE, conn=connection)
        # In a thread, so that a test that fails ends too.
        other = threading.Thread(
            target=lambda: results.append(log_safe("invoice.send", SCOPE)), daemon=True
        )
        other.start()
        other.join(120)
        assert [each.status for each in results] == ["failed"]
    assert [each.action for each in sink.stream(ACME)] == ["invoice.close"]
    engine.dispose()
    getattr(given, "sync_engine", given).dispose()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("make", [create_engine, begun_by_a_listener, begun_by_the_driver])
def test_the_first_event_of_all_may_follow_a_row_of_the_caller_s(
    request: pytest.FixtureRequest, tmp_path: Path, open_sink: Any, make: Any, log: Any
) -> None:
    """On SQLite his transaction has the lock then: the tables are made in it, and go with it.

    An application that logs nowhere else would never have them.
    """
    if make is begun_by_the_driver and sys.version_info < (3, 12):
        make = create_engine
    engine = make(f"sqlite:///{tmp_path / 'audit.db'}")
    sink = open_sink(engine)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE ledger (entry INTEGER PRIMARY KEY)"))
    with configure(sinks=[sink], audit_schema=AuditEvent):
        for entry, end in enumerate(("rollback", "commit", "commit")):
            with engine.connect() as connection:
                connection.execute(text(f"INSERT INTO ledger VALUES ({entry})"))
                for action in ("invoice.open", "invoice.close"):
                    assert log(action, SCOPE, conn=connection).status == "emitted"
                getattr(connection, end)()
    assert rows(engine) == 2
    assert verify(sink, organization_id="acme").rows == sink.count(ACME) == 4
    assert made_in(engine) == made_in(create_engine(request.getfixturevalue("url")))
    engine.dispose()


def made_in(engine: Engine) -> list[tuple[str, str]]:
    """Return how a SQLite file says that the store's tables and indexes were made."""
    query = "SELECT name, sql FROM sqlite_master WHERE name LIKE '%sigra_audit%' ORDER BY name"
    with engine.connect() as connection:
        found = [(name, sql) for name, sql in connection.execute(text(query))]
    engine.dispose()
    return found


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_the_first_event_of_all_may_come_while_the_caller_reads(
    tmp_path: Path, open_sink: Any
) -> None:
    """SQLite drops no table amid a read of the same connection: none is dropped to make these."""
    engine = create_engine(f"sqlite:///{tmp_path / 'new.db'}")
    sink = open_sink(str(engine.url))
    with configure(sinks=[sink], audit_schema=AuditEvent), engine.begin() as connection:
        connection.execute(text("CREATE TABLE ledger (entry INTEGER PRIMARY KEY)"))
        connection.execute(text("INSERT INTO ledger VALUES (1), (2), (3)"))
        for (entry,) in connection.execute(text("SELECT entry FROM ledger")):
            audit.log("invoice.close", SCOPE, target_id=entry, conn=connection)
    assert sink.count(ACME) == 3
    engine.dispose()


@pytest.mark.parametrize("log", LOGS)
def test_a_connection_of_another_file_is_no_store(
    tmp_path: Path, open_sink: Any, url: str, log: Any
) -> None:
    """The tables were made there, unasked, and the event was "emitted" and never found."""
    engine = create_engine(f"sqlite:///{tmp_path / 'other.db'}")
    sink = open_sink(f"sqlite:///{tmp_path / 'audit.db'}" if "sqlite" in url else url)
    with configure(sinks=[sink], audit_schema=AuditEvent), engine.begin() as connection:
        connection.execute(text("CREATE TABLE ledger (entry INTEGER PRIMARY KEY)"))
        connection.execute(text("INSERT INTO ledger VALUES (1)"))
        if log is log_safe:
            assert log("invoice.close", SCOPE, conn=connection).status == "failed"
        else:
            told = "no such table.* A conn must be of the store's own database"
            with pytest.raises(AuditTablesMissingError, match=told):
                log("invoice.close", SCOPE, conn=connection)
    assert (rows(engine), sink.count(ACME), made_in(engine)) == (1, 0, [])


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("version", ["0001", "0002"])
@pytest.mark.parametrize("log", LOGS)
def test_tables_of_an_older_version_are_upgraded_before_the_transaction_begins(
    engine: Engine, open_sink: Any, version: str, log: Any
) -> None:
    """It would keep SQLite's lock, for which the upgrade waited in vain: the event was lost."""
    sink = open_sink(engine)
    migrate.downgrade(sink.database, version)
    with configure(sinks=[sink], audit_schema=AuditEvent), engine.begin() as connection:
        assert log("invoice.close", SCOPE, conn=connection).status == "emitted"
        connection.execute(text("INSERT INTO ledger VALUES (1)"))
    assert (sink.count(ACME), rows(engine)) == (1, 1)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("make", [Engine.connect, Session], ids=["connection", "session"])
def test_records_of_the_application_s_own_bring_no_tables_of_the_store_s(
    tmp_path: Path, open_sink: Any, make: Any
) -> None:
    """They go to their own table, be it in a transaction of the caller's or not."""
    engine = create_engine(f"sqlite:///{tmp_path / 'own.db'}")
    Base.metadata.create_all(engine)
    with configure(sinks=[open_sink(engine)], audit_schema=Own), make(engine) as conn:
        for given in ({"conn": conn}, {}):
            assert log_safe("invoice.close", SCOPE, **given).status == "emitted"
            conn.commit()
    assert made_in(engine) == []


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", ["{}/audit.db", "file:{}/audit.db?uri=true", "{}/link/audit.db"])
def test_a_file_is_known_by_any_name(tmp_path: Path, open_sink: Any, name: str) -> None:
    """The first event of all may come by one name in a transaction of another."""
    (tmp_path / "link").symlink_to(tmp_path)
    engine = create_engine(f"sqlite:///{tmp_path}/audit.db")
    sink = open_sink(f"sqlite:///{name.format(tmp_path)}")
    with configure(sinks=[sink], audit_schema=AuditEvent), engine.begin() as connection:
        connection.execute(text("CREATE TABLE ledger (entry INTEGER PRIMARY KEY)"))
        connection.execute(text("INSERT INTO ledger VALUES (1)"))
        audit.log("invoice.close", SCOPE, conn=connection)
    assert sink.count(ACME) == 1
    engine.dispose()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_stores_of_one_loop_may_begin_in_transactions_at_once(
    tmp_path: Path, open_sink: Any
) -> None:
    """While one makes its tables, and waits for its driver, another does: none waits for it."""

    async def begin(number: int) -> int:
        path = tmp_path / f"{number}.db"
        engine, sink = (
            create_async_engine(f"sqlite+aiosqlite:///{path}"),
            open_sink(f"sqlite:///{path}"),
        )
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE ledger (entry INTEGER PRIMARY KEY)"))
            await connection.execute(text("INSERT INTO ledger VALUES (1)"))
            pairs = [(AuditEvent(action="invoice.close", organization_id="acme"), None)]
            await connection.run_sync(lambda c: sink.write_in(c, pairs, savepoint=False))
        await engine.dispose()
        return int(sink.count(ACME))

    async def begin_all() -> list[int]:
        return await asyncio.gather(*map(begin, range(4)))

    assert asyncio.run(begin_all()) == [1] * 4


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_the_first_event_of_all_waits_for_a_transaction_of_somebody_else(
    tmp_path: Path, open_sink: Any, driver: str
) -> None:
    """As all later ones: SQLite itself waits for nobody where it is to begin a log."""
    engine = create_engine(f"sqlite:///{tmp_path / 'audit.db'}")
    sink = open_sink(f"{driver}:///{tmp_path / 'audit.db'}")
    connection = engine.connect()
    connection.execute(text("CREATE TABLE ledger (entry INTEGER PRIMARY KEY)"))
    connection.execute(text("INSERT INTO ledger VALUES (1)"))
    with configure(sinks=[sink], audit_schema=AuditEvent), ThreadPoolExecutor() as pool:
        first = pool.submit(log_safe, "invoice.close", SCOPE)
        wait([first], timeout=0.5)
        connection.commit()
        assert first.result().status == "emitted"
    connection.close()
    assert (rows(engine), sink.count(ACME)) == (1, 1)
    engine.dispose()


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_the_caller_s_connection_may_be_the_last_of_a_pool(url: str, open_sink: Any) -> None:
    """Also for the first event: of a pool that all threads wait for, none would let go."""
    engine = create_engine(url, pool_size=1, max_overflow=0, pool_timeout=1)
    sink = open_sink(engine)
    with configure(sinks=[sink], audit_schema=AuditEvent), engine.begin() as connection:
        assert log_safe("invoice.close", SCOPE, conn=connection).status == "emitted"
    assert sink.count(ACME) == 1
    engine.dispose()


@pytest.mark.servers
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("call", [log_safe, audit.log])
def test_the_caller_s_role_need_not_read_the_version(url: str, open_sink: Any, call: Any) -> None:
    """Of a tenant's role that may write events, and nothing else, they are kept."""
    engine = create_engine(url)
    sink = open_sink(engine)
    with configure(sinks=[sink], audit_schema=AuditEvent), engine.connect() as connection:
        schema = connection.exec_driver_sql("SELECT current_schema()").scalar_one()
        for statement in (
            "CREATE ROLE sigra_clerk",  # until this transaction is rolled back
            f'GRANT USAGE ON SCHEMA "{schema}" TO sigra_clerk',
            "GRANT SELECT, INSERT, UPDATE ON sigra_audit_chains, sigra_audit_entries TO sigra_clerk",
            "GRANT USAGE ON SEQUENCE sigra_audit_chains_id_seq TO sigra_clerk",
            "SET LOCAL ROLE sigra_clerk",
        ):
            connection.exec_driver_sql(statement)
        assert call("invoice.close", SCOPE, conn=connection).status == "emitted"
    engine.dispose()


def test_other_sinks_hear_of_it_at_once(engine: Engine, sink: SqlAuditSink) -> None:
    """A sink that knows no transactions is written to as ever, whatever becomes of this one."""
    heard = AuditLog()
    with configure(sinks=[heard, sink]), engine.connect() as connection:
        audit.log("invoice.close", SCOPE, conn=connection)
        audit.log_many([{"action": "invoice.open", "scope": SCOPE}], conn=connection)
        connection.rollback()
    assert [each.action for each in heard] == ["invoice.close", "invoice.open"]
    assert sink.count(ACME) == 0


def test_two_stores_are_both_written(
    sink: SqlAuditSink, new_url: Callable[[str], str], open_sink: Any
) -> None:
    """Each event once in each."""
    other = open_sink(new_url("sqlite"))
    with configure(sinks=[sink, other]):
        audit.log_many([{"action": "invoice.open", "scope": SCOPE}] * 2)
    assert (sink.count(ACME), other.count(ACME)) == (2, 2)
