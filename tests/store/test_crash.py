"""What goes wrong around a store: killed writers, racing ones, a full disk, a database gone."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from drivers import by_an_asynchronous_driver, driven_by
from events import event
from sqlalchemy import create_engine, func, make_url, select, text
from sqlalchemy import event as listen

from sigra import (
    AuditEvent,
    AuditScope,
    SyncBackend,
    audit_stats,
    configure,
    log_safe,
    tenant_worker,
)
from sigra.audit import EventFilter
from sigra.store import Batching, SqlAuditSink, forking, verify
from sigra.store.asynchronous import _begin_in
from sigra.store.tables import entries

pytestmark = pytest.mark.servers

LONG = "SIGRA_LONG" in os.environ
KILLS = 100 if LONG else 2
RACES = [(8, 10_000, 3), (16, 1_000, 50)] if LONG else [(3, 40, 3)]
"""How many writers, how many events of each, of how many organizations besides none."""

WRITER = Path(__file__).with_name("writer.py")


def start(
    url: str, name: str, count: int = 0, organizations: int = 3, stdout: Any = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(WRITER), url, name, str(count), str(organizations)]
    # Unbuffered: what is read ahead by the line would be missing from what is read at the end.
    return subprocess.Popen(command, bufsize=0, stdout=stdout, stderr=subprocess.PIPE)


def ids_of(output: bytes) -> set[str]:
    """Return the ids that were printed to their end."""
    return {line.decode() for line in output.split(b"\n")[:-1]}


def ids_in(sink: SqlAuditSink) -> list[str]:
    return sink.database.read(lambda c: list(c.scalars(select(entries.c.event_id))))


def test_a_killed_writer_loses_nothing_that_it_said(
    url: str, open_sink: Callable[..., Any]
) -> None:
    """Whatever was "emitted" is there after kill -9, the chains verify, nothing is repaired."""
    sink = open_sink(url)
    said: set[str] = set()
    for number in range(KILLS):
        writer = start(url, f"writer {number}")
        first = writer.stdout.readline()
        time.sleep(random.uniform(0, 0.05))
        writer.kill()
        output, errors = writer.communicate()
        assert first, errors
        said |= ids_of(first + output)
    there = ids_in(sink)
    assert said - set(there) == set()
    assert len(there) == len(set(there))
    report = verify(sink, all_organizations=True)
    assert (report.verdict, report.rows) == ("intact", len(there))
    assert len(there) - len(said) <= 2 * KILLS


@pytest.mark.parametrize(("writers", "events", "organizations"), RACES)
def test_writers_at_once_leave_no_gap_and_no_fork(
    url: str, open_sink: Callable[..., Any], tmp_path: Path, writers: int, events: int,
    organizations: int,
) -> None:  # fmt: skip
    """Each event of each writer is there once, in chains that verify."""
    # Into files: a pipe that nobody reads yet would stop them.
    paths = [tmp_path / str(number) for number in range(writers)]
    with ExitStack() as files:
        started = [
            start(url, path.name, events, organizations, files.enter_context(path.open("wb")))
            for path in paths
        ]
        for writer in started:
            _, errors = writer.communicate(timeout=3_600)
            assert writer.returncode == 0, errors
    said = {each for path in paths for each in ids_of(path.read_bytes())}
    sink = open_sink(url)
    assert said == set(ids_in(sink))
    report = verify(sink, all_organizations=True)
    rows = writers * events
    assert (report.verdict, report.rows, len(said)) == ("intact", rows, rows)
    assert report.chains == organizations + 1


@tenant_worker(name="tests.store.audited", audit_schema=AuditEvent)
def audited(scope: AuditScope, args: dict[str, Any]) -> str:
    return log_safe("invoice.close", scope, metadata={"text": "x" * 4_000}).status


def run_jobs(sink: SqlAuditSink, count: int) -> list[str]:
    with configure(sinks=[sink], backend=SyncBackend()):
        ids = {"organization_id": "acme", "actor_id": "ann"}
        return [audited.new(ids).result() for _ in range(count)]


def test_jobs_go_on_while_the_disk_is_full(
    new_url: Callable[[str], str], open_sink: Callable[..., Any]
) -> None:
    """Each event that found no room is counted; those before it stay, and so do those after."""
    sink = open_sink(new_url("sqlite"))
    run_jobs(sink, 1)
    pages = sink.database._writer.execute("PRAGMA page_count").fetchone()[0]
    sink.database._writer.execute(f"PRAGMA max_page_count = {pages + 4}")
    before = audit_stats()
    statuses = run_jobs(sink, 20)
    after = audit_stats()
    failed = statuses.count("failed")
    assert 0 < failed < 20
    assert (after.failed - before.failed, after.emitted - before.emitted) == (failed, 20 - failed)
    assert sink.count(EventFilter("acme")) == 21 - failed
    assert verify(sink, all_organizations=True).verdict == "intact"


def test_jobs_go_on_while_the_database_is_gone(
    postgres: str, open_sink: Callable[..., Any]
) -> None:
    """Events fail and are counted; once the server is back a pooled connection is made anew."""
    name = "gone_" + os.urandom(4).hex()
    server = create_engine(postgres, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    url = server.url.set(database=name)
    sink = open_sink(url.render_as_string(hide_password=False))
    try:
        assert run_jobs(sink, 2) == ["emitted", "emitted"]
        with server.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false"))
            connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                                    f"WHERE datname = '{name}'"))  # fmt: skip
        before = audit_stats().failed
        assert run_jobs(sink, 3) == ["failed"] * 3
        assert audit_stats().failed - before == 3
        with server.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true"))
        assert run_jobs(sink, 2) == ["emitted", "emitted"]
        assert sink.count(EventFilter("acme")) == 4
    finally:
        sink.close()
        with server.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        server.dispose()


def test_the_stacks_end_leaves_no_file_locked(
    tmp_path: Path, open_sink: Callable[..., Any], request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Where an event fails for want of frames, its transaction ends: others waited ten seconds."""
    sink = open_sink(f"sqlite:///{tmp_path}/audit.db")
    sink.write(event(0))
    other = sqlite3.connect(tmp_path / "audit.db", timeout=0)
    failed = 0

    def descend(left: int) -> None:
        return descend(left - 1) if left else sink.write(event(failed))

    depth = len(inspect.stack())
    gc.disable()
    request.addfinalizer(gc.enable)
    # pytest's own, too, has no room there, and would take that for an error of the test.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # nor can a connection be closed there
        for left in range(sys.getrecursionlimit() - depth - 80, sys.getrecursionlimit() - depth):
            try:
                descend(left)
            except RecursionError:
                failed += 1
            other.execute("BEGIN IMMEDIATE")
            other.rollback()
        gc.collect()
    other.close()
    assert failed > 5


def kill_connections(url: str) -> None:
    """End all connections to a database, as a restart of the server does."""
    other = create_engine(url, isolation_level="AUTOCOMMIT")
    with other.connect() as connection:
        connection.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                                "WHERE datname = current_database() AND pid <> pg_backend_pid()"))  # fmt: skip
    other.dispose()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg_async", "asyncpg"])
def test_a_connection_that_died_costs_no_event(
    new_url: Callable[[str], str], open_sink: Callable[..., Any], driver: str
) -> None:
    """What was pooled may be dead; the event is written with a new connection."""
    url = new_url("postgresql")
    sink = open_sink(driven_by(f"postgresql+{driver}", url))
    assert run_jobs(sink, 1) == ["emitted"]
    kill_connections(url)
    assert run_jobs(sink, 1) == ["emitted"]


@pytest.mark.parametrize("driver", ["psycopg", "psycopg_async", "asyncpg"])
def test_a_connection_that_died_fails_no_read(
    new_url: Callable[[str], str], open_sink: Callable[..., Any], driver: str
) -> None:
    """Nor a cleanup, which is tried once a night, when the server has closed what was idle."""
    url = new_url("postgresql")
    sink = open_sink(driven_by(f"postgresql+{driver}", url))
    assert run_jobs(sink, 1) == ["emitted"]
    for read in (
        lambda: sink.count(EventFilter("acme")),
        lambda: verify(sink, all_organizations=True).rows,
        lambda: sink.clean_up(datetime.now(timezone.utc) + timedelta(days=1)),
    ):
        kill_connections(url)
        assert read() == 1


def test_a_connection_of_which_asyncpg_knows_that_it_died_is_not_used_again(
    new_url: Callable[[str], str], open_sink: Callable[..., Any]
) -> None:
    """SQLAlchemy does not know that error, and kept the connection for whoever came next."""
    asyncpg = pytest.importorskip("asyncpg")
    sink = open_sink(driven_by("postgresql+asyncpg", new_url("postgresql")))
    used = [sink.database.read(lambda c: c.scalar(select(func.pg_backend_pid())))]

    def die(*_: Any) -> None:
        raise asyncpg.InternalClientError("the server closes it")

    listen.listen(sink.database._thread.engine.sync_engine, "do_execute", die, once=True)
    used.append(sink.database.read(lambda c: c.scalar(select(func.pg_backend_pid()))))
    assert used[0] != used[1]


def run_forking(code: str, *given: str) -> str:
    """Run a program, given a store or more, as a process that may fork; return what it printed.

    It can import what is in this folder.
    """
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{code}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *given],
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_forked_child_writes_with_connections_of_its_own(
    url: str, open_sink: Callable[..., Any]
) -> None:
    """A queue that forks its consumers after the sink was made loses and repeats nothing."""
    sink = open_sink(url)
    batch = open_sink(url, batch=Batching(1_000, 3_600))
    run_jobs(sink, 1)
    run_jobs(batch, 1)
    code = (
        "import os, sys\n"
        "from events import event\n"
        "from sigra.store import Batching, SqlAuditSink\n"
        "sink = SqlAuditSink(sys.argv[1]); batch = SqlAuditSink(sys.argv[1], batch=Batching())\n"
        "sink.write(event(1)); batch.write(event(2))\n"
        "if os.fork() == 0:\n"
        "    sink.write(event(3)); batch.write(event(4)); batch.flush(); os._exit(0)\n"
        "pid, status = os.wait(); sink.write(event(5)); batch.close(); sink.close()\n"
        "sys.exit(status)\n"
    )
    run_forking(code, url)
    batch.flush()
    assert sink.count(EventFilter("acme")) == 7
    assert verify(sink, all_organizations=True).verdict == "intact"


@pytest.mark.parametrize(
    ("driver", "batch"),
    [("sqlite", "None"), ("sqlite+aiosqlite", "None"), ("sqlite", "Batching(500, 3600)")],
)
def test_the_threads_of_a_forked_child_begin_at_once(
    tmp_path: Path, driver: str, batch: str
) -> None:
    """None uses what was the parent's while another puts it aside, and none what another has made."""
    url = f"{driver}:///{tmp_path}/audit.db"
    code = (
        "import os, sys\n"
        "from threading import Barrier, Thread\n"
        "from events import event\n"
        "from sigra.store import Batching, SqlAuditSink\n"
        f"sink = SqlAuditSink(sys.argv[1], batch={batch}); sink.prepare()\n"
        "sys.setswitchinterval(1e-6)\n"
        "def write(number):\n"
        "    start.wait(); sink.write(event(number))\n"
        "for child in range(60):\n"
        "    if os.fork() == 0:\n"
        "        start = Barrier(8)\n"
        "        threads = [Thread(target=write, args=(child * 8 + n,)) for n in range(8)]\n"
        "        for thread in threads: thread.start()\n"
        "        for thread in threads: thread.join()\n"
        "        sink.flush(); os._exit(0)\n"
        "    os.wait()\n"
        "sink.close()\n"
    )
    run_forking(code, url)
    sink = SqlAuditSink(url)
    assert sink.count(EventFilter("acme")) == 480
    assert verify(sink, all_organizations=True).verdict == "intact"
    sink.close()


@pytest.mark.servers
def test_a_child_waits_for_no_thread_of_its_parent_that_looks_for_the_tables(
    new_url: Callable[[str], str], open_sink: Callable[..., Any]
) -> None:
    """The thread is not there, and the child's first event would wait for it for ever."""
    code = (
        "import os, signal, sys\n"
        "from threading import Thread\n"
        "from events import event\n"
        "from sqlalchemy import create_engine, text\n"
        "from sigra.store import SqlAuditSink\n"
        "sink = SqlAuditSink(sys.argv[1]); thread = Thread(target=sink.write, args=(event(1),))\n"
        "waits = 'SELECT FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()'\n"
        "waits += ' AND relation = CAST(\\'sigra_audit_version\\' AS regclass)'\n"
        "with create_engine(sys.argv[1]).begin() as connection:\n"
        "    connection.execute(text('LOCK TABLE sigra_audit_version'))\n"
        "    thread.start()\n"
        "    while not connection.execute(text(waits)).all(): pass\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        signal.alarm(60); sink.write(event(2)); os._exit(0)\n"
        "thread.join(); status = os.waitpid(pid, 0)[1]; sink.close(); sys.exit(bool(status))\n"
    )
    url = new_url("postgresql")
    sink = open_sink(url)
    sink.prepare()
    run_forking(code, url)
    assert sink.count(EventFilter("acme")) == 2


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_a_fork_has_its_turn_beside_a_thread_that_writes_on_and_on(
    tmp_path: Path, driver: str
) -> None:
    """It waits until nobody is in, and who comes then waits for it."""
    code = (
        "import os, sys\n"
        "from threading import Event, Thread\n"
        "from events import event\n"
        "from sigra.store import SqlAuditSink\n"
        "sink = SqlAuditSink(sys.argv[1]); begun, ended = Event(), Event()\n"
        "def write():\n"
        "    number = 1\n"
        "    while not ended.is_set(): sink.write(event(number)); number += 1; begun.set()\n"
        "threads = [Thread(target=write) for _ in range(2)]\n"
        "for thread in threads: thread.start()\n"
        "begun.wait(); pid = os.fork()\n"
        "if pid == 0:\n"
        "    sink.write(event(0)); os._exit(0)\n"
        "status = os.waitpid(pid, 0)[1]; ended.set()\n"
        "for thread in threads: thread.join()\n"
        "sink.close(); sys.exit(bool(status))\n"
    )
    run_forking(code, f"{driver}:///{tmp_path}/audit.db")


def test_a_signal_amid_a_fork_keeps_no_other_store_from_being_closed(tmp_path: Path) -> None:
    """Python forks all the same: the child had a file open that it did not know of."""
    interrupted = []

    class Store:
        def close(self) -> None:
            if self not in interrupted:  # else it is another test's fork
                interrupted.append(self)
                raise KeyboardInterrupt

    stores = [Store() for _ in range(2)]
    gates = [forking.Gate(each.close, str(tmp_path / f"{id(each)}.db")) for each in stores]
    try:
        with pytest.raises(KeyboardInterrupt):
            forking._before()
    finally:
        forking._in_parent()
    assert len(gates) == len(interrupted)


def test_another_thread_may_fork_after_one_did() -> None:
    """It waited for ever."""

    def fork() -> None:
        forking._before()
        forking._in_parent()

    fork()
    (thread := threading.Thread(target=fork, daemon=True)).start()
    thread.join(60)
    assert not thread.is_alive()


def test_who_waits_for_a_fork_goes_on_as_soon_as_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fork beside a busy thread held up the other threads for ten seconds."""

    class Store:
        def close(self) -> None:
            pass

    monkeypatch.setattr(forking, "_PATIENCE", 3600.0)
    gate = forking.Gate((store := Store()).close, str(tmp_path / "audit.db"))
    waits, wait_for = threading.Semaphore(0), gate._idle.wait_for

    def waiting(*args: Any) -> bool:
        waits.release()  # with the gate's lock held, which only waiting gives away
        return wait_for(*args)

    def fork() -> None:
        gate.shut()
        forking._shut.pop().open()

    def use() -> None:
        with gate:
            pass

    monkeypatch.setattr(gate._idle, "wait_for", waiting)
    threads = [threading.Thread(target=each, daemon=True) for each in (fork, use)]
    with gate:
        waits.acquire()
        for thread in threads:
            thread.start()
            waits.acquire()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    del store


def test_who_reads_within_a_read_does_not_wait_for_the_fork_that_waits_for_him(
    tmp_path: Path,
) -> None:
    """As verify's progress may: else both waited ten seconds, and the child was refused the file."""
    code = (
        "import os, sys\n"
        "from threading import Event, Thread\n"
        "from events import event\n"
        "from sigra.audit import EventFilter\n"
        "from sigra.store import SqlAuditSink, verify\n"
        "sink = SqlAuditSink(sys.argv[1]); inside = Event()\n"
        "sink.write_in(None, [(event(n), None) for n in range(2000)], savepoint=False)\n"
        "def progress(done):\n"
        "    inside.set()\n"
        "    while sink.database._gate._shut_by is None: pass\n"
        "    assert sink.count(EventFilter('acme')) == 2000\n"
        "thread = Thread(target=verify, args=(sink,),\n"
        "                kwargs={'all_organizations': True, 'progress': progress})\n"
        "thread.start(); inside.wait(); pid = os.fork()\n"
        "if pid == 0:\n"
        "    sink.write(event(2000)); os._exit(0)\n"
        "status = os.waitpid(pid, 0)[1]; thread.join()\n"
        "sink.close(); sys.exit(bool(status))\n"
    )
    run_forking(code, f"sqlite:///{tmp_path}/audit.db")


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_a_signal_amid_a_fork_that_waits_locks_nobody_out(tmp_path: Path, driver: str) -> None:
    """Whatever its handler raises, which Python tells of: the child is not to use what was open."""
    code = (
        "import os, signal, sys\n"
        "from threading import Event, Thread\n"
        "from events import event\n"
        "from sigra.store import SqlAuditSink\n"
        "used, idle = (SqlAuditSink(f'{sys.argv[1]}{name}.db') for name in 'ab')\n"
        "used.prepare(); idle.prepare(); begun, forked = Event(), Event()\n"
        "def work(runner): begun.set(); forked.wait()\n"
        "def interrupt(*_): raise KeyboardInterrupt\n"
        "def kill():\n"
        "    while used.database._gate._shut_by is None: pass\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
        "signal.signal(signal.SIGUSR1, interrupt)\n"
        "sys.unraisablehook = lambda told: print(told.exc_type.__name__, end='')\n"
        "threads = [Thread(target=used.database.transact, args=(work,)), Thread(target=kill)]\n"
        "threads[0].start(); begun.wait(); threads[1].start(); pid = os.fork()\n"
        "if pid == 0:\n"
        "    idle.write(event(1))\n"
        "    try: used.write(event(1))\n"
        "    except RuntimeError: os._exit(0)\n"
        "    os._exit(1)\n"
        "signal.alarm(240); status = os.waitpid(pid, 0)[1]; forked.set()\n"
        "threads += [Thread(target=sink.write, args=(event(2),)) for sink in (used, idle)]\n"
        "for thread in threads[2:]: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "used.close(); idle.close(); sys.exit(bool(status))\n"
    )
    run_forking(code, f"{driver}:///{tmp_path}/")


def test_stores_of_many_threads_at_once_have_a_fork_wait_once() -> None:
    """A fork that was to wait twice would wait for itself, and so each one of that process."""
    code = (
        "import os, signal, sys\n"
        "from threading import Barrier, Thread\n"
        "from sigra.store.forking import PerProcess\n"
        "sys.setswitchinterval(1e-6)\n"
        "def make(): start.wait(); PerProcess()\n"
        "for _ in range(60):\n"
        "    if os.fork() == 0:\n"
        "        start = Barrier(8)\n"
        "        threads = [Thread(target=make) for _ in range(8)]\n"
        "        for thread in threads: thread.start()\n"
        "        for thread in threads: thread.join()\n"
        "        signal.alarm(240)\n"
        "        if os.fork() == 0: os._exit(0)\n"
        "        os._exit(bool(os.wait()[1]))\n"
        "    if os.wait()[1]: sys.exit(1)\n"
    )
    run_forking(code, "")


def test_a_child_of_a_child_waits_for_no_thread_of_its_parent() -> None:
    """Which was just making anew what is a process's own; also where no store is of SQLite."""
    code = (
        "import os, signal, sys\n"
        "from threading import Event, Thread\n"
        "from sigra.store.forking import PerProcess\n"
        "process = PerProcess(); renewing, forked = Event(), Event()\n"
        "def renew(): renewing.set(); forked.wait()\n"
        "if os.fork() == 0:\n"
        "    thread = Thread(target=process.check, args=(renew,)); thread.start(); renewing.wait()\n"
        "    if os.fork() == 0:\n"
        "        signal.alarm(240); process.check(int); os._exit(0)\n"
        "    forked.set(); thread.join(); os._exit(bool(os.wait()[1]))\n"
        "sys.exit(bool(os.wait()[1]))\n"
    )
    run_forking(code, "")


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_the_handler_of_a_signal_logs_while_its_thread_reads(tmp_path: Path, driver: str) -> None:
    """It waits for no lock that its own thread holds, wherever the signal comes."""
    code = (
        "import logging, os, signal, sys, structlog\n"
        "from threading import Timer\n"
        "from events import event\n"
        "from sigra import AuditEvent, configure, log_safe\n"
        "from sigra.audit import EventFilter\n"
        "from sigra.store import SqlAuditSink\n"
        "structlog.configure([], logger_factory=structlog.ReturnLoggerFactory())\n"
        "sink = SqlAuditSink(sys.argv[1]); sink.write(event(1)); told = []\n"
        "configure(sinks=[sink], audit_schema=AuditEvent)\n"
        "def tell(*_):\n"
        "    told.append(log_safe('a.b', None, organization_id='told').status)\n"
        "    signal.setitimer(signal.ITIMER_REAL, len(told) < 300 and .001)\n"
        "signal.signal(signal.SIGALRM, tell); stuck = Timer(200, os._exit, (1,)); stuck.start()\n"
        "signal.setitimer(signal.ITIMER_REAL, .001)\n"
        "while len(told) < 300: sink.count(EventFilter('acme'))\n"
        "stuck.cancel()\n"
        "assert {*told} == {'emitted'} and sink.count(EventFilter('told')) == 300\n"
        "sink.close()\n"
    )
    run_forking(code, f"{driver}:///{tmp_path}/audit.db")


OPENING = """
import os, signal, sys
from threading import Event, Thread
from events import event
from sigra.store import SqlAuditSink
used = SqlAuditSink(f"{sys.argv[1]}used.db"); used.prepare(); signal.alarm(240)
begun, inside, forked = Event(), Event(), Event()
def work(runner): begun.set(); inside.wait(.5)  # where the other is kept out, it waits for the fork
def stay(runner): inside.set(); forked.wait()
def open_another():
    while used.database._gate._shut_by is None: pass
    new = SqlAuditSink(f"{sys.argv[1]}new.db"); new.prepare(); new.database.transact(stay); new.close()
threads = [Thread(target=used.database.transact, args=(work,)), Thread(target=open_another)]
threads[0].start(); begun.wait(); threads[1].start(); pid = os.fork()
if pid == 0:
    os._exit(any(os.path.realpath(f"/dev/fd/{n}").endswith("new.db") for n in range(3, 100)))
status = os.waitpid(pid, 0)[1]; forked.set()
for thread in threads: thread.join()
used.close(); sys.exit(bool(status))
"""


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_a_store_that_is_opened_as_a_process_forks_is_not_inherited(
    tmp_path: Path, driver: str
) -> None:
    """The fork would not have closed it, and the child would not know that it is open."""
    run_forking(OPENING, f"{driver}:///{tmp_path}/")


CONFIGURING = """
import logging, os, signal, sys
from threading import Event, Thread
from sigra.store import SqlAuditSink, forking
forking._PATIENCE = .5; signal.alarm(240)
held, stores = Event(), [SqlAuditSink(f"{sys.argv[1]}/first.db")]
def configure():
    with logging._lock:
        held.set()
        while stores[0].database._gate._shut_by is None: pass
        stores.append(SqlAuditSink(f"{sys.argv[1]}/second.db"))
thread = Thread(target=configure); thread.start(); held.wait(); pid = os.fork()
if pid == 0: os._exit(0)
status = os.waitpid(pid, 0)[1]; thread.join(); sys.exit(bool(status))
"""


def test_a_store_that_logging_s_configuration_makes_does_not_wait_for_a_fork_for_ever(
    new_url: Callable[[str], str],
) -> None:
    """Which waits for logging's lock: as where ``dictConfig`` makes a handler that has one."""
    run_forking(CONFIGURING, new_url("sqlite").removesuffix("/audit.db"))


WAITING = """
import os, signal, sys, time, structlog
from sigra import AuditEvent, configure, log_safe
from sigra.audit import EventFilter
from sigra.store import SqlAuditSink
structlog.configure([], logger_factory=structlog.ReturnLoggerFactory())
sink, told = SqlAuditSink(sys.argv[1]), []
configure(sinks=[sink], audit_schema=AuditEvent); sink.prepare(); signal.alarm(240)
def tell(*_):
    time.sleep(.5); told.append(log_safe("a.b", None).status)
def trace(frame, *_):
    if (frame.f_code.co_name, told) == ("wait", []): sys.settrace(None); os.kill(os.getpid(), signal.SIGUSR1)
signal.signal(signal.SIGUSR1, tell); sys.settrace(trace); sink.count(EventFilter(None)); sys.settrace(None)
tell(); assert {*told} == {"emitted"}
sink.close()
"""


def test_the_handler_of_a_signal_logs_as_its_thread_begins_to_wait(tmp_path: Path) -> None:
    """That one holds no lock then that the event needs: both waited for ever."""
    run_forking(WAITING, f"sqlite+aiosqlite:///{tmp_path}/audit.db")


STARTING = """
import os, signal, sys, threading, time, structlog
from drivers import driven_by
from sigra import AuditEvent, configure, log_safe
from sigra.audit import EventFilter
from sigra.store import SqlAuditSink
structlog.configure([], logger_factory=structlog.ReturnLoggerFactory())
sink, told, start = SqlAuditSink(driven_by(*sys.argv[1:])), [], threading.Thread.start
configure(sinks=[sink], audit_schema=AuditEvent); sink.prepare(); sink.database.close()
def tell(*_):
    told.append(log_safe("a.b", None).status)
def start_and_signal(thread):
    start(thread); threading.Thread.start = start
    os.kill(os.getpid(), signal.SIGUSR1)
threading.Thread.start = start_and_signal
signal.signal(signal.SIGUSR1, tell); signal.alarm(240)
found = [sink.count(EventFilter(None)) for _ in range(3)]
assert (told, found) == (["emitted"], [1] * 3)
while [each.name for each in threading.enumerate()].count("sigra-audit-store") > 1:
    time.sleep(.01)  # the other ends; were it not to, the alarm would end this program
sink.close()
"""


@by_an_asynchronous_driver
def test_the_handler_of_a_signal_logs_as_its_thread_starts_the_store_s_loop(
    new_url: Callable[[str], str], driver: str
) -> None:
    """That one reads on in the handler's: of two each had the other's connections, and failed."""
    run_forking(STARTING, driver, new_url(driver.partition("+")[0]))


CLOSING = """
import sys, threading
from drivers import driven_by
from sigra import AuditEvent
from sigra.audit import EventFilter
from sigra.store import SqlAuditSink
sink, found = SqlAuditSink(driven_by(*sys.argv[1:])), []
sink.write(AuditEvent(action="a.b")); ended = threading.Event()
def read():
    try:
        while not ended.is_set(): found.append(sink.count(EventFilter(None)))
    except BaseException as error: found.append(error)
threads = [threading.Thread(target=read) for _ in range(2)]
for each in threads: each.start()
for _ in range(12): ended.wait(.05); sink.database.close()
ended.set()
for each in threads: each.join()
assert {*found} == {1}, {*found}
sink.close()
"""


@by_an_asynchronous_driver
def test_who_reads_on_as_another_thread_closes_the_store_reads_by_connections_of_its_own(
    new_url: Callable[[str], str], driver: str
) -> None:
    """With asyncpg it had those of the loop that ended, and the process died of it."""
    run_forking(CLOSING, driver, new_url(driver.partition("+")[0]))


CLOSED = """
import asyncio, signal, sys, threading, time
from sqlalchemy.ext.asyncio import AsyncEngine
from sigra import AuditEvent
from sigra.audit import EventFilter
from sigra.store import SqlAuditSink
sink, dispose = SqlAuditSink(sys.argv[1]), AsyncEngine.dispose
sink.write(AuditEvent(action="a.b")); interrupted = threading.Event()
async def dispose_late(engine):
    AsyncEngine.dispose = dispose
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    while not interrupted.is_set(): await asyncio.sleep(.02)
    await dispose(engine)
AsyncEngine.dispose = dispose_late
signal.signal(signal.SIGINT, signal.default_int_handler); signal.alarm(240)
try: sink.close()
except KeyboardInterrupt: interrupted.set()
else: raise AssertionError("it was not interrupted")
assert sink.count(EventFilter(None)) == 1
sink.close(); until = time.monotonic() + 240
while "sigra-audit-store" in [each.name for each in threading.enumerate()]:
    assert time.monotonic() < until; time.sleep(.02)
"""


def test_ctrl_c_as_a_store_is_closed_leaves_no_thread(tmp_path: Path) -> None:
    """That of its loop ends by itself once the loop has closed what it had."""
    run_forking(CLOSED, f"sqlite+aiosqlite:///{tmp_path}/audit.db")


MUTE = """
import signal, socket, sys, threading, time
from sigra import AuditEvent
from sigra.store import SqlAuditSink
server = socket.create_server(("127.0.0.1", 0)); main = threading.main_thread().ident
def take():
    connection = server.accept()[0]; connection.recv(1)
    signal.pthread_kill(main, signal.SIGINT); threading.Event().wait()
threading.Thread(target=take, daemon=True).start()
signal.signal(signal.SIGINT, signal.default_int_handler); signal.alarm(240)
sink = SqlAuditSink(f"postgresql+{sys.argv[1]}://u@127.0.0.1:{server.getsockname()[1]}/x")
def late(frame, event, _):
    if (event, frame.f_code.co_name) == ("return", sys.argv[2]): time.sleep(240)
sys.setprofile(late)
try: sink.write(AuditEvent(action="a.b"))
except KeyboardInterrupt: sys.setprofile(None); sink.close()
else: raise AssertionError("it was not interrupted")
"""


@pytest.mark.parametrize("stalled", ["nowhere", "_begin_in"])
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg_async", "psycopg"])
def test_after_ctrl_c_nobody_waits_for_a_server_that_does_not_answer(
    driver: str, stalled: str
) -> None:
    """What it was asked is given up, whatever the interrupted thread was at: close() waited for it."""
    run_forking(MUTE, driver, stalled)


LEFT = """
import asyncio, signal, sys
from sigra import AuditEvent
from sigra.store import SqlAuditSink
signal.alarm(240)
sink, tasks = SqlAuditSink(sys.argv[1]), []
sink.write(AuditEvent(action="a.b"))
loop = sink.database._thread.loop
async def leave(): tasks.append(asyncio.create_task(asyncio.Event().wait()))
asyncio.run_coroutine_threadsafe(leave(), loop).result()
sink.close()
assert tasks[0].cancelled()
"""


def test_what_a_driver_does_by_itself_is_given_up_as_a_store_is_closed(tmp_path: Path) -> None:
    """As asyncpg's wait for a server to hear that a query is cancelled, which may be for ever."""
    run_forking(LEFT, f"sqlite+aiosqlite:///{tmp_path}/audit.db")


def test_what_is_under_way_behind_an_asynchronous_driver_is_kept_until_its_end() -> None:
    """Also where nothing else holds what it waits for; a loop does not."""
    loop, waited_for = asyncio.new_event_loop(), []

    async def work() -> object:
        future = loop.create_future()
        waited_for.append(weakref.ref(future))
        return await future

    told = _begin_in(loop, work())
    loop.run_until_complete(asyncio.sleep(0.01))
    gc.collect()
    future = waited_for[0]()
    assert future is not None
    future.set_result("done")
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    assert told.get_nowait().result() == "done"


def test_the_handler_of_a_signal_that_logs_as_tables_are_made_is_told(url: str) -> None:
    """Its event fails, for it would wait for itself, and they are made all the same."""
    code = (
        "import logging, os, signal, sys, structlog\n"
        "from sqlalchemy import create_engine, event\n"
        "from sigra import AuditEvent, configure, log_safe\n"
        "from sigra.audit import EventFilter\n"
        "from sigra.store import SqlAuditSink\n"
        "logging.disable(); structlog.configure([], logger_factory=structlog.ReturnLoggerFactory())\n"
        "engine = create_engine(sys.argv[1]); sink, told = SqlAuditSink(engine), []\n"
        "configure(sinks=[sink], audit_schema=AuditEvent)\n"
        "def tell(*_): told.append(log_safe('a.b', None, organization_id='acme').status)\n"
        "def kill(*_):\n"
        "    if not told: os.kill(os.getpid(), signal.SIGUSR1)\n"
        "signal.signal(signal.SIGUSR1, tell); signal.alarm(240)\n"
        "event.listen(sink.database._engine, 'connect', kill)\n"
        "assert sink.count(EventFilter('acme')) == 0\n"
        "tell(); assert told == ['failed', 'emitted'] and sink.count(EventFilter('acme')) == 1\n"
        "sink.close()\n"
    )
    run_forking(code, url)


AMID = """
import logging, signal, sys, structlog
import sigra.store.sink as writing
from events import event
from sigra import AuditEvent, audit, configure, log_safe
from sigra.audit import EventFilter
from sigra.store import Batching, SqlAuditSink
logging.disable(); structlog.configure([], logger_factory=structlog.ReturnLoggerFactory())
url, batch, handler = sys.argv[1:]
sink, told = SqlAuditSink(url, batch=Batching(seconds=3600) if batch else None), []
configure(sinks=[sink], audit_schema=AuditEvent)
append = writing.append
def append_and_signal(runner, events):
    append(runner, events)
    if not told: signal.raise_signal(signal.SIGUSR1)
writing.append = append_and_signal
def tell(*_):
    told.append(None)
    try: told[0] = getattr(sink, handler)() if handler != "log" else log_safe("a.b", None).status
    except RuntimeError as error: told[0] = type(error).__name__
signal.signal(signal.SIGUSR1, tell); signal.alarm(240)
try:
    if batch: [sink.write(event(number)) for number in range(3)]; sink.flush()
    else: audit.log_many([{"action": "a.c", "scope": None}] * 3)
except Exception: told.append("failed")
sink.close(); after = SqlAuditSink(url); print(told, after.count(EventFilter(None, True)))
after.write(event(9)); after.close()
"""


@pytest.mark.parametrize(
    ("batch", "handler", "told"),
    [
        ("", "log", "['failed'] 3"),
        ("", "close", "[None, 'failed'] 0"),
        ("batch", "flush", "['RuntimeError'] 3"),
        ("batch", "close", "['RuntimeError'] 3"),
    ],
)
def test_the_handler_of_a_signal_amid_a_write_waits_for_no_lock_of_its_thread(
    tmp_path: Path, batch: str, handler: str, told: str
) -> None:
    """It hung, and with it SQLite's lock. What its thread writes is there, or has failed."""
    url = f"sqlite:///{tmp_path}/audit.db"
    assert run_forking(AMID, url, batch, handler) == f"{told}\n"


INTERRUPTED = """
import itertools, signal, sys, threading
from events import event
from sigra.store import Batching, SqlAuditSink
url, batch = sys.argv[1:]
sink = SqlAuditSink(url, batch=Batching(seconds=3600) if batch else None)
sink.write(event(0)); sink.flush(); signal.alarm(240)
for number in itertools.count(1):
    left = number
    def interrupt(frame, what, _):
        global left
        if frame.f_code.co_filename.endswith("threading.py") or "sigra/store" in frame.f_code.co_filename:
            left -= 1
            if not left: sys.settrace(None); raise KeyboardInterrupt
    sys.settrace(interrupt)
    try: sink.write(event(number)); sink.flush()
    except KeyboardInterrupt: pass
    sys.settrace(None)
    if left: break
    other = threading.Thread(target=lambda: (sink.write(event(-number)), sink.flush()))
    other.start(); other.join()
assert number > 20
"""


@pytest.mark.parametrize("batch", ["", "batch"])
def test_ctrl_c_amid_a_write_keeps_no_other_thread_waiting(tmp_path: Path, batch: str) -> None:
    """As an exception of a signal's handler does, a time limit's, it comes before any call."""
    run_forking(INTERRUPTED, f"sqlite:///{tmp_path}/audit.db", batch)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory has no such limit")
@pytest.mark.parametrize(
    ("driver", "batch"), [("sqlite", "Batching(1, 0.01, 4, 9)"), ("sqlite+aiosqlite", "None")]
)
def test_an_event_that_no_thread_can_be_had_for_fails_and_no_later_one(
    tmp_path: Path, driver: str, batch: str
) -> None:
    """Nobody waits for a thread that was never started, nor for room that it would make."""
    code = (
        "import resource, sys, threading\n"
        "from events import event\n"
        "from sigra.store import Batching, SqlAuditSink\n"
        f"sink = SqlAuditSink(sys.argv[1], batch={batch})\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "before = resource.getrlimit(resource.RLIMIT_AS)\n"
        "threading.stack_size(1 << 30)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 28), before[1]))\n"
        "try: sink.write(event(0))\n"
        "except RuntimeError: failed = True\n"
        "threading.stack_size(0); resource.setrlimit(resource.RLIMIT_AS, before)\n"
        "assert failed\n"
        "for number in range(1, 9): sink.write(event(number))\n"
        "sink.close()\n"
    )
    run_forking(code, f"{driver}:///{tmp_path}/audit.db")
    sink = SqlAuditSink(f"sqlite:///{tmp_path}/audit.db")
    assert sink.count(EventFilter("acme")) == 8
    sink.close()


def test_a_forked_child_shares_no_connection_of_a_given_engine(
    new_url: Callable[[str], str],
) -> None:
    """Where the application's own engine was used before the fork, too."""
    code = (
        "import os, sys\n"
        "from sqlalchemy import create_engine\n"
        "from sigra.store import SqlAuditSink\n"
        "sink = SqlAuditSink(create_engine(sys.argv[1]))\n"
        "ask = lambda c: c.exec_driver_sql('SELECT pg_backend_pid()').scalar()\n"
        "before = sink.database.write(ask)\n"
        "if os.fork() == 0:\n"
        "    os._exit(sink.database.write(ask) == before)\n"
        "status = os.waitstatus_to_exitcode(os.wait()[1])\n"
        "sys.exit(status or sink.database.write(ask) != before)\n"
    )
    run_forking(code, new_url("postgresql"))


def test_a_child_that_is_forked_while_a_thread_connects_writes(
    new_url: Callable[[str], str], open_sink: Callable[..., Any]
) -> None:
    """What an engine asks the server at its first connection, and has no answer to yet, is asked anew."""
    url = new_url("postgresql")
    sink = open_sink(url)
    sink.prepare()
    code = (
        "import os, sys, threading\n"
        "import psycopg\n"
        "from events import event\n"
        "from sqlalchemy import create_engine\n"
        "from sigra.store import SqlAuditSink\n"
        "asked, answered = threading.Event(), threading.Event()\n"
        "class Cursor(psycopg.Cursor):\n"
        "    def execute(self, query, *rest, **options):\n"
        "        if 'version()' in query and threading.current_thread() is thread:\n"
        "            asked.set(); answered.wait()\n"
        "        return super().execute(query, *rest, **options)\n"
        "engine = create_engine(sys.argv[1], connect_args={'cursor_factory': Cursor})\n"
        "sink = SqlAuditSink(engine)\n"
        "thread = threading.Thread(target=sink.write, args=(event(1),))\n"
        "thread.start(); asked.wait()\n"
        "if os.fork() == 0:\n"
        "    sink.write(event(2)); sink.write(event(3)); os._exit(0)\n"
        "status = os.wait()[1]; answered.set(); thread.join(); sys.exit(status)\n"
    )
    run_forking(code, url)
    assert sink.count(EventFilter("acme")) == 3


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_a_forked_child_outlives_its_parents_sink(tmp_path: Path, driver: str) -> None:
    """What a child writes is kept though its parent closes the file first, and while others write."""
    url = f"{driver}:///{tmp_path}/audit.db"
    code = (
        "import os, sys, threading\n"
        "from events import event\n"
        "from sigra.store import SqlAuditSink\n"
        "sink = SqlAuditSink(sys.argv[1]); sink.write(event(0))\n"
        "numbers, ends = range(10, 60), []\n"
        "thread = threading.Thread(target=lambda: [sink.write(event(n)) for n in numbers])\n"
        "thread.start()\n"
        "for child in range(1, 6):\n"
        "    reading, writing = os.pipe()\n"
        "    if os.fork() == 0:\n"
        "        sink.write(event(child)); os.close(writing); os.read(reading, 1)\n"
        "        sink.write(event(child + 100)); os._exit(0)\n"
        "    ends.append(writing)\n"
        "thread.join(); sink.close()\n"
        "for end in ends: os.close(end)\n"
        "sys.exit(sum(os.wait()[1] for _ in ends))\n"
    )
    run_forking(code, url)
    sink = SqlAuditSink(url)
    assert sink.count(EventFilter("acme")) == 61
    assert verify(sink, all_organizations=True).verdict == "intact"
    sink.close()


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_a_child_that_was_forked_with_the_file_open_does_not_use_it(
    tmp_path: Path, driver: str
) -> None:
    """What it wrote there could be lost after it was "emitted": it fails, and its child's too."""
    url = f"{driver}:///{tmp_path}/audit.db"
    code = (
        "import os, sys, threading\n"
        "from events import event\n"
        "from sqlalchemy import text\n"
        "from sigra.store import SqlAuditSink, forking\n"
        "forking._PATIENCE = 0.1\n"
        "sink = SqlAuditSink(sys.argv[1]); sink.write(event(0))\n"
        "reading, done = threading.Event(), threading.Event()\n"
        "def read(connection):\n"
        "    connection.execute(text('SELECT 1')).all(); reading.set(); done.wait()\n"
        "def fails():\n"
        "    for each in (sink, SqlAuditSink(sys.argv[1])):\n"
        "        try: each.write(event(1))\n"
        "        except RuntimeError as error: assert 'forked' in str(error)\n"
        "        else: return False\n"
        "    return True\n"
        "thread = threading.Thread(target=sink.database.read, args=(read,)); thread.start()\n"
        "reading.wait(); child = os.fork()\n"
        "if child == 0:\n"
        "    if not fails(): os._exit(1)\n"
        "    grandchild = os.fork()\n"
        "    if grandchild == 0: os._exit(not fails())\n"
        "    os._exit(os.waitpid(grandchild, 0)[1] != 0)\n"
        "done.set(); thread.join(); assert os.waitpid(child, 0)[1] == 0\n"
        "again = os.fork()\n"
        "if again == 0: sink.write(event(2)); os._exit(0)\n"
        "assert os.waitpid(again, 0)[1] == 0; sink.write(event(3)); sink.close()\n"
    )
    run_forking(code, url)
    sink = SqlAuditSink(url)
    found = [each.target_id for each in sink.stream(EventFilter("acme"))]
    assert found == ["3", "2", "0"]
    sink.close()


def test_a_forked_child_reads_and_begins_with_nothing_of_its_parents(
    url: str, open_sink: Callable[..., Any]
) -> None:
    """Neither a connection of the parent's, nor its lock while a thread makes the tables."""
    code = (
        "import os, sys, threading\n"
        "from events import event\n"
        "from sqlalchemy import create_engine, event as listen, text\n"
        "from sigra.audit import EventFilter\n"
        "from sigra.store import SqlAuditSink, forking\n"
        "forking._PATIENCE = 0.1\n"
        "sink = SqlAuditSink(sys.argv[1])\n"
        "backend = lambda: sink.database.read(lambda c: c.scalar(text('SELECT pg_backend_pid()')))\n"
        "server = sink.database.dialect == 'postgresql'\n"
        "sink.write(event(1)); parents = server and backend()\n"
        "reader = os.fork()\n"
        "if reader == 0:\n"
        "    assert not server or backend() != parents\n"
        "    assert sink.count(EventFilter('acme')) == 1; os._exit(0)\n"
        "assert os.waitpid(reader, 0)[1] == 0\n"
        "engine, parent = create_engine(sys.argv[1]), os.getpid()\n"
        "connecting, forked = threading.Event(), threading.Event()\n"
        "@listen.listens_for(engine, 'do_connect')\n"
        "def wait(*_):\n"
        "    if os.getpid() == parent: connecting.set(); forked.wait()\n"
        "slow = SqlAuditSink(engine)\n"
        "thread = threading.Thread(target=slow.write, args=(event(2),)); thread.start()\n"
        "connecting.wait(); writer = os.fork()\n"
        "if writer == 0:\n"
        "    try: slow.write(event(3))\n"
        "    except RuntimeError as error: assert not server and 'forked' in str(error)\n"
        "    os._exit(0)\n"
        "forked.set(); thread.join(); sys.exit(os.waitpid(writer, 0)[1])\n"
    )
    run_forking(code, url)
    sink = open_sink(url)
    # A thread that connects to SQLite's file may have it open: the child does not use it then.
    assert sink.count(EventFilter("acme")) == (3 if sink.database.dialect == "postgresql" else 2)
    assert verify(sink, all_organizations=True).verdict == "intact"


@pytest.mark.parametrize("driver", [
    "sqlite", "sqlite+aiosqlite",
    pytest.param("postgresql+psycopg", marks=pytest.mark.servers),
    pytest.param("postgresql+psycopg_async", marks=pytest.mark.servers),
])  # fmt: skip
@pytest.mark.parametrize("batch", [False, True])
def test_a_forked_child_closes_its_parents_sink_at_once(
    new_url: Callable[[str], str], driver: str, batch: bool
) -> None:
    """Whatever locks threads of the parent's held, and the parent goes on with what is its own."""
    code = (
        "import os, signal, sys, threading\n"
        "from events import event\n"
        "from sqlalchemy import text\n"
        "from sigra.store import Batching, SqlAuditSink, forking\n"
        "forking._PATIENCE = 0.1\n"
        f"sink = SqlAuditSink(sys.argv[1], batch=Batching() if {batch} else None)\n"
        "sink.write(event(0)); sink.flush()\n"
        "writing, done = threading.Event(), threading.Event()\n"
        "holding = threading.Event()\n"
        "def write(runner): writing.set(); done.wait()\n"
        "def hold(lock):\n"
        "    with lock: holding.set(); done.wait()\n"
        f"lock = sink._batch._changed if {batch} else threading.Lock()\n"
        "threads = [threading.Thread(target=sink.database.transact, args=(write,), daemon=True),\n"
        "           threading.Thread(target=hold, args=(lock,), daemon=True)]\n"
        "for each in threads: each.start()\n"
        "writing.wait(); holding.wait(); child = os.fork()\n"
        "if child == 0: signal.alarm(240); sink.close(); os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "done.set()\n"
        "for each in threads: each.join()\n"
        "sink.write(event(1)); sink.close()\n"
    )
    url = new_url(driver.partition("+")[0])
    run_forking(code, driver + url[url.index(":") :])
    sink = SqlAuditSink(url)
    assert [each.target_id for each in sink.stream(EventFilter("acme"))] == ["1", "0"]
    sink.close()


def test_a_child_of_multiprocessing_writes_what_waits(tmp_path: Path) -> None:
    """It ends by os._exit, and loses no event that was queued in it."""
    url = f"sqlite:///{tmp_path}/audit.db"
    code = (
        "import multiprocessing, sys\n"
        "from events import event\n"
        "from sigra.store import Batching, SqlAuditSink\n"
        "sink = SqlAuditSink(sys.argv[1], batch=Batching(seconds=3600)); sink.prepare()\n"
        "write = lambda: [sink.write(event(number)) for number in range(10)]\n"
        "child = multiprocessing.get_context('fork').Process(target=write)\n"
        "child.start(); child.join(); sys.exit(child.exitcode)\n"
    )
    run_forking(code, url)
    sink = SqlAuditSink(url)
    assert sink.count(EventFilter("acme")) == 10
    sink.close()


AT_THE_END = """
import sys, threading
from drivers import driven_by
from events import event
from sigra.store import Batching, SqlAuditSink
driver, url, batch = sys.argv[1:]
def write():
    threading.main_thread().join()
    sink.write(event(0))
sink = SqlAuditSink(driven_by(driver, url), batch=Batching(seconds=3600) if batch else None)
if batch: sink.write(event(0))
else: threading.Thread(target=write).start()
"""


@pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 3), reason="it starts no thread then, as the docs say"
)
@pytest.mark.parametrize("batch", ["", "batch"])
@pytest.mark.parametrize("driver", ["postgresql+psycopg_async", "postgresql+asyncpg"])
def test_the_first_event_may_come_as_the_program_ends(
    new_url: Callable[[str], str], driver: str, batch: str
) -> None:
    """No thread takes work then, and a server's name is looked up all the same."""
    url = make_url(new_url("postgresql")).set(host="localhost").render_as_string(False)
    run_forking(AT_THE_END, driver, url, batch)
    sink = SqlAuditSink(url)
    assert sink.count(EventFilter("acme")) == 1
    sink.close()
