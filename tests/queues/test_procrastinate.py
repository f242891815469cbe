"""procrastinate passes the suite in real worker processes, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import procrastinate
import psycopg
import psycopg_pool
import pytest
from consumer import Consumer, find_server

from sigra import EnqueueError, configure
from sigra.backends.procrastinate import ProcrastinateBackend
from sigra.testing import BackendContract, contract_workers
from sigra.testing.contract_case import IDS
from sigra.testing.harness import Journal

COMMAND = ("procrastinate", "--app=procrastinate_app.app", "worker", "--concurrency=2")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """Make a database of this run's own, and drop it."""
    server = find_server("SIGRA_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")
    name = f"sigra_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(f'CREATE DATABASE "{name}"')
        url = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
        os.environ["SIGRA_TEST_PROCRASTINATE"] = url
        with procrastinate.App(
            connector=procrastinate.SyncPsycopgConnector(conninfo=url)
        ).open() as app:
            app.schema_manager.apply_schema()
        yield url
        conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="module")
def app(database: str) -> Iterator[Any]:
    """Open the module's app as a producer without a loop does."""
    import procrastinate_app

    with procrastinate_app.app.open():
        yield procrastinate_app.app


@pytest.fixture(scope="module")
def consumer(app: Any, journal: Journal, tmp_path_factory: Any) -> Iterator[Consumer]:
    folder = tmp_path_factory.mktemp("consumer")
    consumer = Consumer(COMMAND, "Starting worker", folder, {"SIGRA_CONSUMER": "1"})
    consumer.start()
    yield consumer
    consumer.kill()


class ProcrastinateHarness:
    patience = 20.0

    def __init__(self, app: Any, database: str) -> None:
        import procrastinate_app

        self.app, self.database = app, database
        self.backend = procrastinate_app.backend

    def advance(self) -> None:
        time.sleep(0.02)

    def send(self, name: str, payload: Mapping[str, Any]) -> None:
        self.app.configure_task(name).defer(**payload)

    def rows(self, where: str = "true", *args: Any) -> list[dict[str, Any]]:
        with psycopg.connect(self.database, row_factory=psycopg.rows.dict_row) as conn:
            return conn.execute(
                "SELECT * FROM procrastinate_jobs WHERE task_name NOT IN "
                f"('sigra.rescue') AND {where} ORDER BY id",
                args,
            ).fetchall()

    def row(self, job: Any) -> dict[str, Any]:
        (row,) = self.rows("id = %s", job.native_id)
        return row

    def settle(self, status: tuple[str, ...] = ("todo", "doing"), patience: float = 20.0) -> None:
        deadline = time.monotonic() + patience
        while open_ := self.rows("status::text = ANY(%s)", list(status)):
            assert time.monotonic() < deadline, open_
            time.sleep(0.05)


@pytest.fixture
def harness(app: Any, database: str, consumer: Consumer, journal: Journal) -> Iterator[Any]:
    if not consumer.alive:
        consumer.start()
    harness = ProcrastinateHarness(app, database)
    yield harness
    if not consumer.alive:
        consumer.start()
    harness.settle()
    with psycopg.connect(database) as conn:
        conn.execute("DELETE FROM procrastinate_jobs")
    journal.clear()


@pytest.fixture
def on(harness: ProcrastinateHarness) -> Iterator[ProcrastinateHarness]:
    with configure(backend=harness.backend, backends={}):
        yield harness


class TestProcrastinate(BackendContract):
    pass


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("value", "succeeded"),
        ("failure", "failed"),
        ("raise", "failed"),
        ("cancel", "aborted"),
        ("exit", "failed"),
    ],
)
def test_an_outcome_has_procrastinates_word(on: Any, how: str, status: str) -> None:
    job = contract_workers.ends.new({**IDS, "how": how}, max_attempts=1)
    on.settle()
    row = on.row(job)
    assert (row["task_name"], row["status"], row["attempts"]) == ("sigra.contract.ends", status, 1)


def test_a_snooze_burns_no_native_attempt(on: Any, journal: Journal) -> None:
    job = contract_workers.snoozes.new({**IDS, "times": 2})
    on.settle()
    row = on.row(job)
    assert (row["status"], row["attempts"]) == ("succeeded", 1)
    assert (row["args"]["snoozes"], row["args"]["failures"]) == (2, 0)


def test_a_hand_built_job_without_keys_is_failed_once(on: Any, consumer: Consumer) -> None:
    on.send("sigra.contract.recovers", {"organization_id": "acme", "failures": 1})
    on.settle()
    (row,) = on.rows()
    assert (row["status"], row["attempts"]) == ("failed", 1)
    assert "actor_id" in consumer.output


def test_queue_priority_and_time_reach_their_columns(on: Any) -> None:
    before = time.time()
    job = contract_workers.echo.new(IDS, queue="q1", priority=7, delay=1)
    row = on.row(job)
    assert (row["queue_name"], row["priority"]) == ("q1", 7)
    assert 0.9 < row["scheduled_at"].timestamp() - before < 2
    assert on.row(contract_workers.echo.new(IDS))["queue_name"] == "default"


def test_a_transaction_that_rolls_back_leaves_no_job(on: Any, database: str) -> None:
    with psycopg.connect(database) as conn:
        contract_workers.echo.new(IDS, conn=conn)
        contract_workers.echo.new_many([IDS, IDS], conn=conn)
        conn.rollback()
    assert on.rows() == []


def test_a_transaction_that_commits_leaves_one(on: Any, database: str, journal: Journal) -> None:
    with psycopg.connect(database) as conn:
        job = contract_workers.echo.new(IDS, conn=conn)
        assert on.rows() == []
        conn.commit()
    journal.wait(on, lambda: bool(journal.runs()), "the job")
    assert [row["id"] for row in on.rows()] == [int(job.native_id)]


def test_a_duplicate_does_not_end_the_callers_transaction(on: Any, database: str) -> None:
    contract_workers.echo.new(IDS, unique="k", delay=1)
    with psycopg.connect(database) as conn:
        assert contract_workers.echo.new(IDS, unique="k", conn=conn).duplicate
        contract_workers.agnostic.new({}, conn=conn)
    assert len(on.rows()) == 2


@pytest.mark.parametrize("commit", [False, True])
def test_an_async_transaction(on: Any, database: str, commit: bool) -> None:
    async def produce() -> None:
        async with await psycopg.AsyncConnection.connect(database) as conn:
            await contract_workers.echo.anew(IDS, conn=conn)
            with pytest.raises(EnqueueError, match="anew"):
                contract_workers.echo.new(IDS, conn=conn)
            await (conn.commit() if commit else conn.rollback())

    asyncio.run(produce())
    assert len(on.rows()) == commit


def test_anew_through_an_app_that_was_opened_without_a_loop(on: Any, journal: Journal) -> None:
    asyncio.run(contract_workers.echo.anew_many([IDS, IDS]))
    journal.wait(on, lambda: len(journal.runs()) == 2, "two jobs")


def test_an_app_opened_in_a_loop(on: Any, database: str, journal: Journal) -> None:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=database))
    backend = ProcrastinateBackend(app, rescue_after=None)

    async def produce() -> None:
        async with app.open_async():
            await contract_workers.echo.anew({**IDS, "n": 1})
            with pytest.raises(EnqueueError, match="anew"):
                contract_workers.echo.new(IDS)
            await asyncio.to_thread(contract_workers.echo.new, {**IDS, "n": 2})

    with configure(backend=backend):
        asyncio.run(produce())
        with pytest.raises(EnqueueError, match="open"):
            contract_workers.echo.new(IDS)
    journal.wait(on, lambda: len(journal.runs()) == 2, "two jobs")


def test_a_job_enqueues_from_its_thread_and_from_its_loop(on: Any, journal: Journal) -> None:
    import procrastinate_app

    procrastinate_app.parent.new(IDS)
    procrastinate_app.parent_async.new(IDS)
    journal.wait(on, lambda: len(journal.runs()) == 2, "two children")
    assert {run["args"]["by"] for run in journal.runs()} == {"thread", "loop"}


def test_a_unique_job_is_held_while_it_runs_and_one_of_a_batch_goes_in(
    on: Any, journal: Journal
) -> None:
    first = contract_workers.waits.new({**IDS, "seconds": 1}, unique="k")
    journal.wait(on, lambda: bool(journal.runs()), "the first job")
    assert on.row(first)["status"] == "doing"
    assert contract_workers.waits.new({**IDS, "seconds": 0}, unique="k").duplicate
    batch = contract_workers.echo.new_many([IDS] * 3, unique="k")
    assert [job.duplicate for job in batch] == [False, True, True]


def test_an_unreachable_database_is_an_enqueue_error() -> None:
    # app.open() itself would wait for the pool; a pool that lost its database is this one.
    connector = procrastinate.SyncPsycopgConnector()
    pool = psycopg_pool.ConnectionPool(
        "postgresql://postgres@127.0.0.1:1/none", timeout=1, open=True
    )
    app = procrastinate.App(connector=connector)
    app.open(pool)
    try:
        with configure(backend=ProcrastinateBackend(app)):
            begun = time.monotonic()
            with pytest.raises(EnqueueError) as caught:
                contract_workers.echo.new(IDS)
        assert isinstance(caught.value.__cause__, procrastinate.exceptions.ConnectorException)
        assert time.monotonic() - begun < 5
    finally:
        pool.close()


def test_an_app_that_is_not_open_says_how() -> None:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector())
    with configure(backend=ProcrastinateBackend(app)):
        with pytest.raises(EnqueueError, match=r"app\.open\(\)"):
            contract_workers.echo.new(IDS)


def test_no_app_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROCRASTINATE_APP", raising=False)
    with pytest.raises(TypeError, match="PROCRASTINATE_APP"):
        ProcrastinateBackend()


def test_the_environment_names_the_app(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROCRASTINATE_APP", "procrastinate_app.app")
    assert ProcrastinateBackend()._app is app


def test_a_users_task_keeps_its_name() -> None:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector())
    app.task(name="sigra.contract.echo")(print)
    with pytest.raises(procrastinate.exceptions.TaskAlreadyRegistered, match="contract.echo"):
        ProcrastinateBackend(app)


def test_a_task_of_the_users_own_runs(on: Any, tmp_path: Path) -> None:
    on.send("queues.native", {"path": str(tmp_path / "file")})
    on.settle()
    assert (tmp_path / "file").read_text() == "ran"


@pytest.mark.parametrize("value", ["a\x00b", 1e16, [1e300, -0.0, 1e-7, 2.0], {"10e+5 ": "\\u0000"}])
def test_what_jsonb_would_change_arrives_unchanged(on: Any, journal: Journal, value: Any) -> None:
    contract_workers.recovers.new({**IDS, "failures": 1, "value": value}, max_attempts=2, backoff=0)
    journal.wait(on, lambda: len(journal.runs()) == 2, "two runs")
    for run in journal.runs():
        assert repr(run["args"]["value"]) == repr(value)


def test_a_stop_puts_an_unfinished_job_back(
    on: Any, journal: Journal, consumer: Consumer, tmp_path: Path
) -> None:
    import procrastinate_app

    assert consumer.stop() == 0
    command = (*COMMAND, "--shutdown-graceful-timeout=0.2")
    hurried = Consumer(command, "Starting worker", tmp_path, {"SIGRA_CONSUMER": "1"})
    hurried.start()
    job = procrastinate_app.sleeper.new({**IDS, "seconds": 1.5})
    journal.wait(on, lambda: bool(journal.runs()), "the job")
    assert hurried.stop() == 0
    row = on.row(job)
    assert (row["status"], row["attempts"]) == ("todo", 0)
    consumer.start()
    on.settle()
    assert on.row(job)["status"] == "succeeded"
    assert [run["attempt"] for run in journal.runs()] == [1, 1]


def test_a_stop_waits_for_a_thread_and_takes_its_outcome(
    on: Any, journal: Journal, consumer: Consumer, tmp_path: Path
) -> None:
    assert consumer.stop() == 0
    command = (*COMMAND, "--shutdown-graceful-timeout=0.2")
    hurried = Consumer(command, "Starting worker", tmp_path, {"SIGRA_CONSUMER": "1"})
    hurried.start()
    job = contract_workers.waits.new({**IDS, "seconds": 1.5})
    journal.wait(on, lambda: bool(journal.runs()), "the job")
    assert hurried.stop() == 0
    assert on.row(job)["status"] == "succeeded"
    assert len(journal.runs()) == 2  # one run: its beginning and its end


def test_a_user_ends_a_running_job(on: Any, journal: Journal) -> None:
    import procrastinate_app

    job = procrastinate_app.sleeper.new({**IDS, "seconds": 30}, max_attempts=3, backoff=0)
    journal.wait(on, lambda: bool(journal.runs()), "the job")
    on.app.job_manager.cancel_job_by_id(int(job.native_id), abort=True)
    on.settle()
    assert on.row(job)["status"] == "aborted"


def test_kill_9_in_the_middle_of_200_jobs(on: Any, journal: Journal, consumer: Consumer) -> None:
    import procrastinate_app

    jobs = procrastinate_app.counted.new_many([{**IDS, "n": n} for n in range(200)], max_attempts=3)
    journal.wait(on, lambda: len(journal.runs()) > 50, "the middle")
    consumer.kill()
    assert on.rows("status = 'doing'")
    consumer.start()
    on.settle(patience=40)
    assert {run["job_id"] for run in journal.runs()} == {job.id for job in jobs}
    assert {row["status"] for row in on.rows()} == {"succeeded"}
    assert len(journal.runs()) <= 202  # those that were running, and no others, ran again


def test_a_job_that_kills_its_consumer_ends(on: Any, journal: Journal, consumer: Consumer) -> None:
    job = contract_workers.kills.new(IDS, max_attempts=2)
    deadline = time.monotonic() + 60
    while on.row(job)["status"] in ("todo", "doing"):
        assert time.monotonic() < deadline
        if not consumer.alive:
            consumer.start()
        time.sleep(0.1)
    assert on.row(job)["status"] == "failed"
    assert len(journal.runs()) == 2
