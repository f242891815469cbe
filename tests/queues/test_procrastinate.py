"""procrastinate keeps the contract in real worker processes, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from consumer import Consumer
from consumer_side import held
from queue_contract import LoopContract, PostgresContract
from queue_harness import (
    QueueHarness,
    as_jsonpickle,
    cut_at_commit,
    failing,
    is_let_go,
    not_hanging,
    occupy_the_only_thread,
    told_at_start,
    transact,
)
from servers import need, own_database

procrastinate = need("procrastinate")

import procrastinate_app  # noqa: E402
import psycopg  # noqa: E402
import psycopg_pool  # noqa: E402
from procrastinate.testing import InMemoryConnector  # noqa: E402
from sqlalchemy import create_engine  # noqa: E402
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine  # noqa: E402
from sqlalchemy.orm import Session  # noqa: E402

from sigra import (  # noqa: E402
    EnqueueError,
    Failure,
    InvalidOptionError,
    Signing,
    Snooze,
    configure,
    tenant_worker,
)
from sigra.backends import (  # noqa: E402
    procrastinate_insert,
    procrastinate_middleware,
    procrastinate_notes,
    procrastinate_run,
)
from sigra.backends.procrastinate import ProcrastinateBackend  # noqa: E402
from sigra.backends.procrastinate_rescue import RESCUE  # noqa: E402
from sigra.testing import contract_workers  # noqa: E402
from sigra.testing.contract_case import IDS  # noqa: E402
from sigra.testing.contract_consumers import undeployed  # noqa: E402
from sigra.testing.harness import Journal  # noqa: E402


class ProcrastinateHarness(QueueHarness):
    command = ("procrastinate", "--app=procrastinate_app.app", "worker", "--concurrency=2")
    alone = ("--queues={queue}",)
    ready = "Starting worker"
    table = "procrastinate_jobs"
    outlives_its_server = False

    def __init__(self, server: str, folder: Path) -> None:
        super().__init__(server, folder)
        with procrastinate.App(
            connector=procrastinate.SyncPsycopgConnector(conninfo=server)
        ).open() as app:
            app.schema_manager.apply_schema()
        connector = procrastinate.PsycopgConnector(conninfo=self.url, timeout=5)
        self.app = procrastinate.App(connector=connector).open()
        self.backend = ProcrastinateBackend(self.app)

    def hurried(self) -> Consumer:
        """Start, in place of the consumer, one whose stop leaves jobs a fifth of a second."""
        assert self.consumer.stop() == 0
        hurried = self.another(self.new_name(), "--shutdown-graceful-timeout=0.2")
        hurried.start()
        return hurried

    def send(self, name: str, payload: Mapping[str, Any]) -> str:
        return str(self.app.configure_task(name).defer(**payload))

    def send_note(self, text: str) -> None:
        self.app.configure_task("native.note").defer(text=text)

    def someone_waits(self) -> bool:
        """Tell whether a connection to the database waits for another's transaction."""
        asked = (
            "SELECT FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        with psycopg.connect(self.server) as conn:
            return conn.execute(asked).fetchone() is not None

    def rows(self, where: str = "true", *args: Any) -> list[dict[str, Any]]:
        with psycopg.connect(self.server, row_factory=psycopg.rows.dict_row) as conn:
            return conn.execute(
                "SELECT * FROM procrastinate_jobs WHERE task_name NOT IN "
                f"('sigra.rescue') AND {where} ORDER BY id",
                args,
            ).fetchall()

    def sign_of_life(self) -> datetime:
        """Return when a consumer last gave one."""
        with psycopg.connect(self.server) as conn:
            found = conn.execute("SELECT max(last_heartbeat) FROM procrastinate_workers").fetchone()
        assert found is not None
        return found[0]

    def row(self, job: Any) -> dict[str, Any]:
        (row,) = self.rows("id = %s", job.native_id)
        return row

    def name_of(self, native_id: str) -> str | None:
        (row,) = self.rows("id = %s", native_id)
        return row["task_name"]

    def failed(self, native_id: str) -> str | None:
        if not self.rows("id = %s AND status = 'failed'", native_id):
            return None
        return self.logged(rf"\[{native_id}\].*ended with status: Error")

    def kept(self, native_id: str) -> bool:
        return bool(self.rows("id = %s AND status <> 'succeeded'", native_id))

    def settled(self, native_id: str) -> bool:
        return not self.kept(native_id)

    def begun_of(self, job: Any) -> int | None:
        row = self.row(job)
        return row["attempts"] + 1 if row["status"] == "doing" else None  # as a rescue counts

    def has_ended(self, job: Any) -> bool:
        return self.row(job)["status"] in ("succeeded", "failed")

    def transact(self, worker: Any, args: Mapping[str, Any], **how: bool) -> Any:
        return transact(self.server, worker, args, **how)

    def settle(self) -> None:
        deadline = time.monotonic() + self.patience
        waits = "status IN ('todo', 'doing') AND task_name <> %s"  # what no consumer knows
        while open_ := self.rows(waits, undeployed.name):
            assert time.monotonic() < deadline, open_
            time.sleep(0.05)

    def remove(self) -> None:
        self.app.close()


@pytest.fixture
def harness(harness: ProcrastinateHarness, journal: Journal) -> Iterator[ProcrastinateHarness]:
    """Let each test find the table empty."""
    yield harness
    if not harness.alive:
        harness.start()
    harness.settle()
    with psycopg.connect(harness.server) as conn:
        conn.execute("DELETE FROM procrastinate_jobs")
    journal.clear()


class TestProcrastinate(PostgresContract, LoopContract):
    harness_class, server = ProcrastinateHarness, "postgres"

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
    def test_an_outcome_has_procrastinates_word(self, harness: Any, how: str, status: str) -> None:
        """procrastinate's own tools show how a job ended."""
        job = contract_workers.ends.new({**IDS, "how": how}, max_attempts=1)
        harness.settle()
        row = harness.row(job)
        assert (row["task_name"], row["status"], row["attempts"]) == (
            "sigra.contract.ends",
            status,
            1,
        )

    @pytest.mark.parametrize("cancelled", [False, True])
    def test_procrastinates_own_word_for_an_abort_is_a_failed_attempt_as_any_other(
        self, harness: Any, cancelled: bool
    ) -> None:
        """With no attempt left the job has failed: procrastinate showed it as aborted."""
        args = {**IDS, "cancelled": cancelled}
        job = procrastinate_app.aborts.new(args, max_attempts=2, backoff=0)
        harness.settle()
        row = harness.row(job)
        assert (row["status"], row["attempts"]) == ("failed", 2)

    def test_what_failed_is_logged_once_where_it_runs_again(self, harness: Any) -> None:
        """With the job's ids; procrastinate's line says only that it runs again."""
        job = contract_workers.recovers.new({**IDS, "failures": 1}, max_attempts=2, backoff=0)
        harness.settle()
        told = harness.logged(rf"job {job.id} of .* raised RuntimeError; again in 0 s")
        assert told and "Error: the job failed, and runs again in 0 s" in told
        assert 1 == told.count("RuntimeError: attempt 1")

    def test_a_snooze_burns_no_native_attempt(self, harness: Any, journal: Journal) -> None:
        """procrastinate counts one attempt, and the envelope two snoozes."""
        job = contract_workers.snoozes.new({**IDS, "times": 2})
        harness.settle()
        row = harness.row(job)
        assert (row["status"], row["attempts"]) == ("succeeded", 1)
        assert (row["args"]["snoozes"], row["args"]["failures"]) == (2, 0)
        assert harness.logged("Error: the job snoozed, and runs again in 1 s")

    def test_a_snooze_that_cannot_be_written_at_once_is_written_later(
        self, harness: Any, journal: Journal
    ) -> None:
        """A database that refuses for a moment ends no job."""
        with failing(harness.server, "OF args ON procrastinate_jobs", times=2):
            job = contract_workers.snoozes.new({**IDS, "times": 1})
            harness.settle()
        assert harness.row(job)["status"] == "succeeded"
        assert [run["snoozes"] for run in journal.runs()] == [0, 1]

    def test_an_outcome_that_can_never_be_written_costs_an_attempt(
        self, harness: Any, journal: Journal
    ) -> None:
        """The job comes again as the attempt that it was, and ends when none is left."""
        with failing(harness.server, "OF args ON procrastinate_jobs", times=10**6):
            job = contract_workers.recovers.new({**IDS, "failures": 9}, max_attempts=2, backoff=0)
            harness.settle()
        assert [run["attempt"] for run in journal.runs()] == [1, 1]
        assert harness.row(job)["status"] == "failed"

    def test_a_job_whose_end_cannot_be_written_runs_again(
        self, harness: Any, journal: Journal
    ) -> None:
        """Its worker, which lives on, lets it go: else it would hold its unique key for ever."""
        update = "OF status ON procrastinate_jobs WHEN NEW.status = 'succeeded' AND NEW.id = {}"
        harness.stop()
        job = contract_workers.echo.new(IDS, max_attempts=2, unique="k")
        with failing(harness.server, update.format(job.native_id), times=1):
            harness.start()
            harness.settle()
        assert [run["attempt"] for run in journal.runs()] == [1, 1]
        assert len({event["event_id"] for event in journal.events("contract.echo")}) == 1
        assert harness.row(job)["status"] == "succeeded"

    def test_a_job_that_a_middleware_kept_from_its_begin_is_let_go_where_that_cannot_be_written(
        self, harness: Any
    ) -> None:
        """Its worker, which lives on, held it for ever, and its unique key."""
        connector = procrastinate.PsycopgConnector(conninfo=harness.server)
        app, errors = procrastinate.App(connector=connector), [OSError("away")]
        update = "OF status ON procrastinate_jobs WHEN NEW.status = 'todo' AND NEW.id = {}"

        async def raises(proceed: Any, context: Any, _: Any) -> None:
            if context.job.task_name == contract_workers.echo.name and errors:
                raise errors.pop()
            await proceed()

        async def consume() -> None:
            async with app.open_async():
                options = {"install_signal_handlers": False, "update_heartbeat_interval": 1}
                worker = app.run_worker_async(worker_middleware=[raises], **options)
                running = asyncio.ensure_future(worker)
                while not harness.settled(job.native_id):
                    await asyncio.sleep(0.1)
                running.cancel()
                await asyncio.wait({running})

        harness.stop()
        ProcrastinateBackend(app, rescue_after=6)
        job = contract_workers.echo.new(IDS, max_attempts=2, unique="k")
        with failing(harness.server, update.format(job.native_id), times=1), not_hanging():
            asyncio.run(consume())
        assert harness.row(job)["status"] == "succeeded"

    def test_a_job_that_failed_for_good_stays_so_where_its_end_cannot_be_written(
        self, harness: Any, journal: Journal
    ) -> None:
        """It is not begun anew, as one that somebody retries by hand is."""
        update = "OF status ON procrastinate_jobs WHEN NEW.status = 'failed' AND NEW.id = {}"
        args = {**IDS, "failures": 9}
        harness.stop()
        job = contract_workers.recovers.new(args, max_attempts=2, backoff=0)
        with failing(harness.server, update.format(job.native_id), times=1):
            harness.start()
            harness.settle()
        assert [run["attempt"] for run in journal.runs()] == [1, 2]
        assert harness.row(job)["status"] == "failed"

    def test_a_begin_that_cannot_be_written_at_once_is_written_later(
        self, harness: Any, journal: Journal
    ) -> None:
        """That of a job that has waited for a thread; it keeps the thread, and runs once."""
        jobs, ends = self._one_runs_and_one_waits(harness, journal)
        update = "OF args ON procrastinate_jobs WHEN NEW.status = 'doing' AND NEW.id = {}"
        with failing(harness.server, update.format(jobs[1].native_id), times=2):
            for end in ends:
                end.touch()
            harness.settle()
        assert [harness.row(job)["status"] for job in jobs] == ["succeeded"] * 2
        assert len(journal.runs(held.name)) == 2
        harness.stop()  # the next test has a consumer with all its threads

    def test_a_look_for_lost_jobs_whose_worker_died_does_not_count_as_running_for_ever(
        self, harness: Any, journal: Journal
    ) -> None:
        """The next look takes away its row, which nothing else would end."""
        with psycopg.connect(harness.server, autocommit=True) as conn:
            row = "('default', 'sigra.rescue', 'doing')"
            columns = "queue_name, task_name, status"
            conn.execute(f"INSERT INTO procrastinate_jobs ({columns}) VALUES {row}")

            def gone() -> bool:
                running = "status = 'doing' AND worker_id IS NULL"
                asked = f"SELECT FROM procrastinate_jobs WHERE {running}"
                return conn.execute(asked).fetchone() is None

            journal.wait(harness, gone, "the next look")

    def test_a_look_for_lost_jobs_that_cannot_be_deferred_stops_no_consumer(
        self, harness: Any, journal: Journal
    ) -> None:
        """procrastinate stops one that cannot defer a periodic task, as by a ``lock_timeout``."""
        refused = "could not defer sigra.rescue"
        with failing(harness.server, "OR INSERT ON procrastinate_periodic_defers", times=1):
            journal.wait(harness, lambda: bool(harness.logged(refused)), "a look's refusal")
        deferred = rf"(?s){refused}.*Periodic job sigra.rescue\S+ deferred"
        journal.wait(harness, lambda: bool(harness.logged(deferred)), "the next look")

    @pytest.mark.parametrize(
        "args",
        [
            f'{{"organization_id": "1", "actor_id": "2", "odd": {"9" * 5_000}}}',
            f'{{"organization_id": "1", "actor_id": "2", "odd": {"[" * 1_500 + "]" * 1_500}}}',
            "[]",
            "null",
        ],
        ids=["digits", "deep", "list", "null"],
    )
    def test_a_job_whose_args_procrastinate_cannot_handle_fails(
        self, harness: Any, journal: Journal, args: str
    ) -> None:
        """It ended each consumer that fetched it, or counted as running while its consumer lived."""
        row, values = "queue_name, task_name, args", [contract_workers.echo.name, args]
        statement = f"INSERT INTO procrastinate_jobs ({row}) VALUES ('odd', %s, %s) RETURNING id"
        with psycopg.connect(harness.server, autocommit=True) as conn:
            (id,) = conn.execute(statement, values).fetchone()
            end = f"SELECT status FROM procrastinate_jobs WHERE id = {id}"

            def failed() -> bool:
                return conn.execute(end).fetchone() == ("failed",)

            try:
                journal.wait(harness, failed, "the failed job")
            finally:
                conn.execute("DELETE FROM procrastinate_jobs WHERE id = %s", [id])
        assert harness.logged(f"job {id} of {contract_workers.echo.name} was refused and ends here")
        self._run(harness, journal, contract_workers.agnostic, {})
        assert journal.runs(contract_workers.echo.name) == []

    def test_what_an_application_reads_by_its_connector_stays_as_it_is(self, harness: Any) -> None:
        """Its own list became an object, and an int of a native task's infinite."""
        odd = [int("7" * 1_233)]  # as long as a key of RSA
        assert self._read_by_connector(harness, json.dumps(odd)) == odd

    def test_an_application_that_sets_psycopg_s_json_reads_by_that(self, harness: Any) -> None:
        """A native task had a float, where psycopg was told to make a Decimal."""
        psycopg.types.json.set_json_loads(partial(json.loads, parse_float=Decimal))
        try:
            assert str(self._read_by_connector(harness, "0.10")) == "0.10"
        finally:
            psycopg.types.json.set_json_loads(json.loads)

    @pytest.mark.parametrize("way", ["configure", "json_loads"])
    def test_an_application_that_sets_the_json_of_its_connections_reads_by_that(
        self, harness: Any, way: str
    ) -> None:
        """A native task had a float, where its connections were told to make a Decimal."""
        loads = partial(json.loads, parse_float=Decimal)

        async def configure(conn: Any) -> None:
            psycopg.types.json.set_json_loads(loads, conn)

        set_to = {"configure": configure, "json_loads": loads}
        assert str(self._read_by_connector(harness, "0.10", **{way: set_to[way]})) == "0.10"

    def test_a_worker_s_job_runs_where_the_application_reads_floats_as_decimals(
        self, harness: Any, journal: Any
    ) -> None:
        """Each that had a float, as its backoff is, was refused for good as unreadable."""
        loads = partial(json.loads, parse_float=Decimal)
        connector = procrastinate.PsycopgConnector(conninfo=harness.server, json_loads=loads)
        backend = ProcrastinateBackend(app := procrastinate.App(connector=connector))

        async def run_it() -> None:
            async with app.open_async():
                with configure(backend=backend):
                    await contract_workers.echo.anew({**IDS, "payload": [0.1, 2.0]}, backoff=1.5)
                await app.run_worker_async(wait=False, install_signal_handlers=False)

        harness.stop()  # it would fetch the job
        try:
            with not_hanging():
                asyncio.run(run_it())
        finally:
            harness.start()
        (run,) = journal.runs(contract_workers.echo.name)
        assert run["args"]["payload"] == [0.1, 2.0]

    def test_a_native_job_whose_args_the_application_reads_as_its_own_objects_is_fetched(
        self, harness: Any
    ) -> None:
        """The look at how deep they are went through all modules, and never came to an end."""

        class Money:
            def __init__(self, fields: Any) -> None:
                self.fields = fields

        loads = partial(json.loads, object_hook=lambda it: Money(it) if "amount" in it else it)
        connector = procrastinate.PsycopgConnector(conninfo=harness.server)
        ProcrastinateBackend(app := procrastinate.App(connector=connector))
        row = "VALUES ('default', 'native', '{\"price\": {\"amount\": 1}}')"

        async def fetch() -> Any:
            async with app.open_async():
                return await app.job_manager.fetch_job(["default"], worker_id=None)

        harness.stop()  # it would fetch the job
        psycopg.types.json.set_json_loads(loads)
        try:
            with psycopg.connect(harness.server, autocommit=True) as conn, not_hanging():
                conn.execute(f"INSERT INTO procrastinate_jobs (queue_name, task_name, args) {row}")
                job = asyncio.run(fetch())
                conn.execute("DELETE FROM procrastinate_jobs WHERE task_name = 'native'")
        finally:
            psycopg.types.json.set_json_loads(json.loads)
            harness.start()
        assert job.task_kwargs["price"].fields == {"amount": 1}

    def test_a_consumer_with_a_connector_of_its_own_reads_any_row(self, harness: Any) -> None:
        """Django's has one, and ended as it fetched a row with too many digits."""
        assert self._read_by_connector(harness, "9" * 5_000) == math.inf

    def _read_by_connector(self, harness: Any, text: str, **options: Any) -> Any:
        connector = procrastinate.PsycopgConnector(conninfo=harness.server, **options)
        ProcrastinateBackend(app := procrastinate.App(connector=InMemoryConnector()))

        async def read() -> Any:
            async with app.open_async():
                await app.job_manager.fetch_job(["nobody's"], worker_id=1)  # as its consumer does
                query = "SELECT %(text)s::jsonb AS value"
                return (await connector.execute_query_one_async(query, text=text))["value"]

        with not_hanging(), app.replace_connector(connector):
            return asyncio.run(read())

    @pytest.mark.parametrize("status", ["doing", "succeeded"])
    def test_a_lost_job_that_a_consumer_has_again_or_has_ended_by_now_is_left_alone(
        self, harness: Any, journal: Journal, status: str
    ) -> None:
        """Another look has brought it back, or its consumer was but silent for too long."""
        worker = "INSERT INTO procrastinate_workers VALUES (DEFAULT, 'infinity') RETURNING id"
        columns = "INSERT INTO procrastinate_jobs (queue_name, task_name, status, worker_id)"
        row = f"VALUES ('default', '{contract_workers.agnostic.name}', 'doing', %s)"
        beats = "UPDATE procrastinate_workers SET last_heartbeat = '-infinity' WHERE id = %s"
        rescue = "status = 'doing' AND task_name = 'sigra.rescue'"
        looks = f"SELECT FROM procrastinate_jobs WHERE {rescue}"
        with (
            psycopg.connect(harness.server, autocommit=True) as conn,
            psycopg.connect(harness.server) as other,
        ):
            dead, alive = (conn.execute(worker).fetchone() for _ in range(2))
            conn.execute(f"{columns} {row}", dead)
            now = alive if status == "doing" else dead
            update = (
                "UPDATE procrastinate_jobs SET status = %s, worker_id = %s WHERE worker_id = %s"
            )
            other.execute(update, [status, *now, *dead])
            conn.execute(beats, dead)
            journal.wait(harness, harness.someone_waits, "a look that has read it as lost")
            other.commit()
            journal.wait(harness, lambda: conn.execute(looks).fetchone() is None, "the look's end")
            (left,) = harness.rows("worker_id = %s", *now)
            assert (left["status"], left["attempts"]) == (status, 0)
            conn.execute("DELETE FROM procrastinate_jobs WHERE id = %s", [left["id"]])
            gone = "DELETE FROM procrastinate_workers WHERE id IN (%s, %s)"
            conn.execute(gone, [*alive, *dead])
        assert journal.runs() == []

    def test_a_lost_job_whose_lock_a_waiting_one_has_keeps_no_other_from_coming_back(
        self, harness: Any, journal: Journal
    ) -> None:
        """It comes back itself once that one has begun."""
        echo = contract_workers.echo
        first = echo.new(IDS, unique="held", max_attempts=2)
        harness.settle()
        second = echo.new(IDS, max_attempts=2)
        harness.settle()
        waits = echo.new(IDS, unique="held", delay=3_600)
        lost = "SET status = 'doing', worker_id = NULL, attempts = 0 WHERE id IN (%s, %s)"
        due = "SET scheduled_at = now() WHERE id = %s"
        with psycopg.connect(harness.server, autocommit=True) as conn:
            ids = [first.native_id, second.native_id]
            conn.execute(f"UPDATE procrastinate_jobs {lost}", ids)
            journal.wait(harness, lambda: len(journal.runs_of(second)) == 2, "the other lost one")
            assert harness.row(first)["status"] == "doing"
            conn.execute(f"UPDATE procrastinate_jobs {due}", [waits.native_id])
        journal.wait(harness, lambda: len(journal.runs_of(first)) == 2, "the one with the lock")
        assert len(journal.runs_of(waits)) == 1

    def test_a_job_that_is_aborted_before_its_consumer_dies_does_not_run_again(
        self, harness: Any, journal: Journal
    ) -> None:
        """Its thread had not ended when its consumer was killed."""
        end = harness.folder / "end-of-the-aborted"
        job = held.new({**IDS, "until": str(end)}, max_attempts=3)
        journal.wait(harness, lambda: bool(journal.runs(held.name)), "the job")
        harness.app.job_manager.cancel_job_by_id(int(job.native_id), abort=True)
        harness.kill()
        end.touch()
        harness.start()
        harness.settle()
        assert harness.row(job)["status"] == "failed"
        assert len(journal.runs(held.name)) == 1

    def test_a_worker_that_starts_takes_none_for_dead_before_its_time(self, harness: Any) -> None:
        """procrastinate itself forgets one that is silent for 30 seconds: all its jobs are lost."""
        assert harness.consumer.stop() == 0
        connector = procrastinate.PsycopgConnector(conninfo=harness.url)
        app = procrastinate.App(connector=connector)
        ProcrastinateBackend(app, rescue_after=3_600)
        beat = "now() - interval '1 minute'"
        worker = f"INSERT INTO procrastinate_workers VALUES (DEFAULT, {beat}) RETURNING id"
        columns = "INSERT INTO procrastinate_jobs (queue_name, task_name, status, worker_id)"
        row = f"VALUES ('default', '{contract_workers.agnostic.name}', 'doing', %s)"
        with psycopg.connect(harness.server, autocommit=True) as conn:
            silent = conn.execute(worker).fetchone()
            conn.execute(f"{columns} {row}", silent)
            app.run_worker(wait=False, listen_notify=False, install_signal_handlers=False)
            assert len(harness.rows("status = 'doing' AND worker_id = %s", *silent)) == 1
            conn.execute("DELETE FROM procrastinate_jobs WHERE worker_id = %s", silent)
        harness.consumer.start()

    def test_a_plain_native_task_enqueues_before_its_consumer_had_a_job(
        self, harness: Any, journal: Journal
    ) -> None:
        """As its own ``defer`` does there: a periodic task may be what comes first."""
        assert harness.consumer.stop() == 0
        native = harness.app.configure_task("native.hands_over").defer(**IDS)
        harness.consumer.start()
        ended = "status IN ('succeeded', 'failed') AND id = %s"
        journal.wait(harness, lambda: bool(harness.rows(ended, native)), "its end")
        assert harness.app.job_manager.get_job_status(native).value == "succeeded"
        journal.wait(harness, lambda: len(journal.runs()) == 1, "its job")

    def test_a_look_for_lost_jobs_goes_before_all_that_wait(self, harness: Any) -> None:
        """A backlog does not keep back the jobs of a consumer that died."""
        assert harness.consumer.stop() == 0
        contract_workers.echo.new_many([IDS] * 3, priority=9)
        with psycopg.connect(harness.server) as conn:
            conn.execute("DELETE FROM procrastinate_jobs WHERE task_name = 'sigra.rescue'")
            conn.commit()
            harness.app.configure_task("sigra.rescue").defer(timestamp=0)
            fetch = "SELECT task_name FROM procrastinate_fetch_job_v2(NULL, NULL)"
            assert conn.execute(fetch).fetchone() == ("sigra.rescue",)
            conn.rollback()

    def test_a_failed_job_that_is_retried_by_hand_has_its_last_attempt_once_more(
        self, harness: Any, journal: Journal
    ) -> None:
        """As often as somebody asks in procrastinate's shell, with events of its own each time."""
        job = contract_workers.recovers.new({**IDS, "failures": 9}, max_attempts=2, backoff=0)
        for _ in range(2):
            harness.settle()
            now = datetime.now(timezone.utc)
            harness.app.job_manager.retry_job_by_id(int(job.native_id), now)
        harness.settle()
        assert [run["attempt"] for run in journal.runs()] == [1, 2, 2, 2]
        assert len({event["event_id"] for event in journal.events()}) == 4
        assert harness.row(job)["status"] == "failed"

    def test_a_job_of_an_unknown_worker_waits_and_uses_up_no_attempt(
        self, harness: Any, journal: Journal
    ) -> None:
        """procrastinate failed it; retried by hand, it counted as one that had died each time."""
        job = undeployed.new(IDS)
        told = f"job {job.native_id} waits for a consumer with its worker: "
        journal.wait(harness, lambda: bool(harness.logged(told)), "its wait")
        journal.wait(harness, lambda: harness.row(job)["status"] == "todo", "its wait's end")
        assert harness.row(job)["attempts"] == 0

    def test_queue_priority_and_time_reach_their_columns(self, harness: Any) -> None:
        """procrastinate sorts by its own columns."""
        before = time.time()
        job = contract_workers.echo.new(IDS, queue="q1", priority=7, delay=1)
        after = time.time()
        row = harness.row(job)
        assert (row["queue_name"], row["priority"]) == ("q1", 7)
        assert before + 0.999 < row["scheduled_at"].timestamp() < after + 1.001
        assert harness.row(contract_workers.echo.new(IDS))["queue_name"] == "default"

    def test_a_duplicate_does_not_end_the_callers_transaction(self, harness: Any) -> None:
        """What follows it in the transaction is committed."""
        harness.stop()  # the first is unfinished until the end
        contract_workers.echo.new(IDS, unique="k")
        with psycopg.connect(harness.url) as conn:
            assert contract_workers.echo.new(IDS, unique="k", conn=conn).duplicate
            contract_workers.agnostic.new({}, conn=conn)
        assert len(harness.rows()) == 2

    @pytest.mark.parametrize("begun", [True, False])
    @pytest.mark.parametrize("way", ["new", "new conn", "anew", "anew conn"])
    def test_who_waits_for_another_s_transaction_sees_its_job(
        self, harness: Any, journal: Journal, way: str, begun: bool
    ) -> None:
        """Also where a worker begins it before he can look, and his rows are of a class."""
        rows_of = psycopg.rows.class_row(datetime)

        async def anew() -> Any:
            if way == "anew":
                connector = procrastinate.PsycopgConnector(conninfo=harness.url)
                app = procrastinate.App(connector=connector)
                with configure(backend=ProcrastinateBackend(app, rescue_after=None)):
                    async with app.open_async():
                        return await contract_workers.echo.anew(IDS, unique="k")
            async with await psycopg.AsyncConnection.connect(harness.url) as conn:
                conn.row_factory = rows_of
                return await contract_workers.echo.anew(IDS, unique="k", conn=conn)

        def produce() -> Any:
            if way == "new":
                return contract_workers.echo.new(IDS, unique="k")
            if way == "new conn":
                with psycopg.connect(harness.url, row_factory=rows_of) as conn:
                    return contract_workers.echo.new(IDS, unique="k", conn=conn)
            return asyncio.run(anew())

        with ThreadPoolExecutor(1) as thread, psycopg.connect(harness.url) as conn:
            assert not contract_workers.echo.new(IDS, unique="k", conn=conn).duplicate
            waiting = thread.submit(produce)
            journal.wait(harness, harness.someone_waits, "a producer that waits")
            if begun:
                conn.execute("UPDATE procrastinate_jobs SET status = 'doing'")
                conn.commit()
            else:
                conn.rollback()
            assert waiting.result().duplicate is begun
        (row,) = harness.rows()
        assert str(row["id"]) == waiting.result().native_id
        if begun:  # by no worker, so that none ends it
            assert row["status"] == "doing"
            with psycopg.connect(harness.url) as conn:
                conn.execute("DELETE FROM procrastinate_jobs")

    def test_a_duplicate_keeps_no_other_producer_waiting(self, harness: Any) -> None:
        """A transaction that only met the key holds no lock on it."""
        harness.stop()  # the first is unfinished until the end
        first = contract_workers.echo.new(IDS, unique="k")
        with psycopg.connect(harness.url) as conn:
            assert contract_workers.echo.new(IDS, unique="k", conn=conn).duplicate
            with psycopg.connect(harness.url) as other:
                other.execute("SET lock_timeout = 1000")
                assert contract_workers.echo.new(IDS, unique="k", conn=other).duplicate
        assert [str(row["id"]) for row in harness.rows()] == [first.native_id]

    def test_a_backlog_does_not_slow_down_a_job_with_a_unique_key(self, harness: Any) -> None:
        """Its key is looked for by procrastinate's index: all waiting jobs were read each time."""
        query = procrastinate_insert._DEFER_UNIQUE.replace("%(jobs)s", "'{}'")
        columns = "queue_name, task_name, queueing_lock"
        rows = "SELECT 'default', 'native', number FROM generate_series(1, 5000) AS number"
        with psycopg.connect(harness.url) as conn:
            conn.execute(f"INSERT INTO procrastinate_jobs ({columns}) {rows}")
            conn.execute("ANALYZE procrastinate_jobs")
            plan = " ".join(line for (line,) in conn.execute(f"EXPLAIN {query}"))
            conn.rollback()
        assert "Index Scan using procrastinate_jobs_queueing_lock_idx" in plan

    @pytest.mark.parametrize("awaited", [False, True])
    def test_a_transaction_takes_any_number_of_keys(self, harness: Any, awaited: bool) -> None:
        """Each held a lock of the server's, which has room for some thousands, to the end."""
        locks = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()"
        options: Any = [{"unique": f"k{number}", "delay": 4} for number in range(5)]
        held = list[int]()

        async def enqueue() -> None:
            async with await psycopg.AsyncConnection.connect(harness.url) as conn:
                for each in options:
                    await contract_workers.echo.anew(IDS, **each, conn=conn)
                    held.extend(await (await conn.execute(locks)).fetchone() or ())
                await conn.rollback()

        if awaited:
            asyncio.run(enqueue())
        else:
            with psycopg.connect(harness.url) as conn:
                for each in options:
                    contract_workers.echo.new(IDS, **each, conn=conn)
                    held.extend(conn.execute(locks).fetchone() or ())
                conn.rollback()
        assert held == held[:1] * 5

    @pytest.mark.parametrize("commit", [False, True])
    def test_an_async_transaction(self, harness: Any, commit: bool) -> None:
        """A job shares the fate of the transaction; ``.new()`` says that it is for ``.anew()``."""

        async def produce() -> None:
            async with await psycopg.AsyncConnection.connect(harness.url) as conn:
                await contract_workers.echo.anew(IDS, conn=conn)
                with pytest.raises(EnqueueError, match="anew"):
                    contract_workers.echo.new(IDS, conn=conn)
                await (conn.commit() if commit else conn.rollback())

        asyncio.run(produce())
        assert len(harness.rows()) == commit

    @pytest.mark.parametrize("commit", [False, True])
    def test_a_transaction_of_sqlalchemy(self, harness: Any, commit: bool) -> None:
        """A session is refused by an error that says where it holds psycopg's own connection."""
        url = harness.url.replace("postgresql:", "postgresql+psycopg:")

        async def produce() -> None:
            engine = create_async_engine(url)
            async with AsyncSession(engine) as session:
                with pytest.raises(InvalidOptionError, match=r"get_raw_connection\(\)\)\.driver_c"):
                    await contract_workers.echo.anew(IDS, conn=session)
                raw = await (await session.connection()).get_raw_connection()
                await contract_workers.echo.anew(IDS, conn=raw.driver_connection)
                await (session.commit() if commit else session.rollback())
            await engine.dispose()

        asyncio.run(produce())
        engine = create_engine(url)
        with Session(engine) as session:
            with pytest.raises(InvalidOptionError, match=r"not sqlalchemy.*\.driver_connection"):
                contract_workers.echo.new(IDS, conn=session)
            conn = session.connection().connection.driver_connection
            contract_workers.echo.new(IDS, conn=conn)
            session.commit() if commit else session.rollback()
        engine.dispose()
        assert len(harness.rows()) == 2 * commit

    def test_a_connection_in_no_transaction_is_refused(self, harness: Any) -> None:
        """One that a ``conn.transaction()`` has begun is not."""
        with psycopg.connect(harness.url, autocommit=True) as conn:
            with pytest.raises(InvalidOptionError, match="in no transaction.*begin one"):
                contract_workers.echo.new(IDS, conn=conn)
            with conn.transaction(force_rollback=True):
                contract_workers.echo.new(IDS, conn=conn)
        assert harness.rows() == []

    def test_an_app_with_django_s_connector_takes_a_connection_of_psycopg(
        self, harness: Any
    ) -> None:
        """As Django holds one: that connector itself writes by no connection that it is given."""
        from procrastinate.contrib.django.django_connector import DjangoConnector

        backend = ProcrastinateBackend(procrastinate.App(connector=DjangoConnector()))
        with configure(backend=backend), psycopg.connect(harness.url) as conn:
            contract_workers.echo.new(IDS, conn=conn)
            contract_workers.echo.new(IDS, unique="k", conn=conn)
        assert len(harness.rows()) == 2

    def test_an_app_opened_in_a_loop(self, harness: Any, journal: Journal) -> None:
        """There ``.anew()`` sends, ``.new()`` in a thread too, and afterwards nothing does.

        Another loop that comes and goes meanwhile is not taken for it.
        """
        app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=harness.url))
        backend = ProcrastinateBackend(app, rescue_after=None)

        async def produce() -> None:
            async with app.open_async():
                await contract_workers.echo.anew({**IDS, "n": 1})
                with pytest.raises(EnqueueError, match="anew"):
                    contract_workers.echo.new(IDS)
                await asyncio.to_thread(contract_workers.echo.new, {**IDS, "n": 2})
                await asyncio.to_thread(lambda: asyncio.run(contract_workers.echo.anew(IDS)))
                await asyncio.to_thread(contract_workers.echo.new, {**IDS, "n": 4})

        with configure(backend=backend):
            for _ in range(2):  # as each test of an application does
                asyncio.run(produce())
                with pytest.raises(EnqueueError, match="open"):
                    contract_workers.echo.new(IDS)
        journal.wait(harness, lambda: len(journal.runs()) == 8, "eight jobs")

    def test_a_job_enqueues_from_its_thread_and_from_its_loop(
        self, harness: Any, journal: Journal
    ) -> None:
        """A body may use ``.new()`` or ``.anew()``, whichever its kind has."""
        procrastinate_app.parent.new(IDS)
        procrastinate_app.parent_async.new(IDS)
        journal.wait(harness, lambda: len(journal.runs()) == 2, "two children")
        assert {run["args"]["by"] for run in journal.runs()} == {"thread", "loop"}

    @pytest.mark.parametrize(
        "options", [{"unique": "a\0b"}, {"queue": "a\0b"}, {"queue": "q" * 41}, {"queue": "ü" * 21}]
    )
    def test_a_text_that_postgresql_does_not_hold_is_refused(
        self, harness: ProcrastinateHarness, options: dict[str, str]
    ) -> None:
        """A NUL, or too long a name, is told at ``.new()``, with the option's name."""
        with pytest.raises(InvalidOptionError, match=f"option '{min(options)}'.*(NUL|40 bytes)"):
            contract_workers.echo.new(IDS, **options)

    @pytest.mark.parametrize("queue", ["q" * 40, "ü" * 20])
    def test_the_longest_name_of_a_queue_is_held(
        self, harness: ProcrastinateHarness, queue: str
    ) -> None:
        """procrastinate tells its consumers of a job on a channel that has this name."""
        assert not contract_workers.echo.new(IDS, queue=queue).duplicate

    def test_a_unique_key_of_any_length_is_held(self, harness: ProcrastinateHarness) -> None:
        """PostgreSQL's index holds 2,704 bytes."""
        harness.stop()  # the first is unfinished until the end
        long = "".join(map(chr, range(0x4E00, 0x9000)))
        jobs = [contract_workers.echo.new(IDS, unique=key) for key in (long, long, "k")]
        assert [job.duplicate for job in jobs] == [False, True, False]

    def test_a_unique_job_is_held_while_it_runs_and_one_of_a_batch_goes_in(
        self, harness: Any, journal: Journal
    ) -> None:
        """The key is one for the worker, also while its job runs and within a batch."""
        end = harness.folder / "end"
        args = {**IDS, "until": str(end)}
        first = held.new(args, unique="k")
        journal.wait(harness, lambda: bool(journal.runs()), "the first job")
        assert harness.row(first)["status"] == "doing"
        for again in (held.new(args, unique="k"), asyncio.run(held.anew(args, unique="k"))):
            assert (True, first.native_id) == (again.duplicate, again.native_id)
        batch = contract_workers.echo.new_many([IDS] * 3, unique="k")
        assert [job.duplicate for job in batch] == [False, True, True]
        assert {batch[0].native_id} == {job.native_id for job in batch}
        end.touch()

    @pytest.mark.parametrize(
        "value", ["a\x00b", 1e16, [1e300, -0.0, 1e-7, 2.0], {"10e+5 ": "\\u0000"}]
    )
    def test_what_jsonb_would_change_arrives_unchanged(
        self, harness: Any, journal: Journal, value: Any
    ) -> None:
        """Args come through a JSONB column to the last digit and character, in a retry too."""
        contract_workers.recovers.new(
            {**IDS, "failures": 1, "value": value}, max_attempts=2, backoff=0
        )
        journal.wait(harness, lambda: len(journal.runs()) == 2, "two runs")
        for run in journal.runs():
            assert repr(run["args"]["value"]) == repr(value)

    def test_a_stop_puts_an_unfinished_job_back(self, harness: Any, journal: Journal) -> None:
        """It runs again as the attempt that it was, which is what the log says."""
        hurried = harness.hurried()
        job = procrastinate_app.sleeper.new({**IDS, "seconds": 4})
        journal.wait(harness, lambda: bool(journal.runs()), "the job")
        assert hurried.stop() == 0
        said = "attempt 1 of 1, raised CancelledError; cut off by the worker's stop, it runs again"
        assert said in hurried.output
        row = harness.row(job)
        assert (row["status"], row["attempts"]) == ("todo", 0)
        harness.consumer.start()
        harness.settle()
        assert harness.row(job)["status"] == "succeeded"
        assert [run["attempt"] for run in journal.runs()] == [1, 1]

    def test_a_stop_that_meets_a_snooze_as_it_is_written_lets_that_end(
        self, harness: Any, journal: Journal
    ) -> None:
        """Else the job ended there, without the run that it asked for."""
        hurried = harness.hurried()
        with failing(harness.server, "OF args ON procrastinate_jobs", times=3):  # for 3 seconds
            contract_workers.snoozes.new({**IDS, "times": 1})
            journal.wait(harness, lambda: bool(journal.runs()), "the job")
            assert hurried.stop() == 0
        harness.consumer.start()
        harness.settle()
        assert [run["snoozes"] for run in journal.runs()] == [0, 1]

    def test_a_stop_waits_for_a_thread_and_takes_its_outcome(
        self, harness: Any, journal: Journal
    ) -> None:
        """A thread cannot be ended, so its job is done and runs once."""
        hurried = harness.hurried()
        job = contract_workers.waits.new({**IDS, "seconds": 4})
        journal.wait(harness, lambda: bool(journal.runs()), "the job")
        assert hurried.stop() == 0
        assert harness.row(job)["status"] == "succeeded"
        assert len(journal.runs()) == 2  # one run: its beginning and its end

    def test_a_consumer_that_waits_for_a_job_as_it_stops_is_not_taken_for_dead(
        self, harness: Any, journal: Journal
    ) -> None:
        """Procrastinate gives no sign of its life any more: a long job ran in another one too."""
        end = harness.folder / "end-of-the-last"
        held.new({**IDS, "until": str(end)})
        journal.wait(harness, lambda: bool(journal.runs(held.name)), "the job")
        before = len(harness.consumer.output)
        os.kill(harness.consumer.pid, signal.SIGTERM)
        told = "Waiting for job to finish"
        journal.wait(harness, lambda: told in harness.consumer.output[before:], "the stop")
        last = harness.sign_of_life()
        journal.wait(harness, lambda: harness.sign_of_life() > last, "a sign of life")
        end.touch()
        with not_hanging():
            while harness.alive:
                time.sleep(0.05)
        assert journal.audited("queues.held")

    def test_a_consumer_whose_stop_waits_for_a_middleware_is_not_taken_for_dead(
        self, harness: Any
    ) -> None:
        """The job ran in another consumer, and then in this one too.

        Nor if one of its heartbeats cannot be written.
        """
        connector = procrastinate.PsycopgConnector(conninfo=harness.server)
        app = procrastinate.App(connector=connector)

        async def waits(proceed: Any, context: Any, _: Any) -> None:
            if context.job.task_name == contract_workers.echo.name:
                running.cancel()
                await asyncio.sleep(1)
                last = harness.sign_of_life()
                while harness.sign_of_life() == last:
                    await asyncio.sleep(0.1)
            await proceed()

        async def consume() -> None:
            nonlocal running
            async with app.open_async():
                options = {"worker_middleware": [waits], "install_signal_handlers": False}
                running = asyncio.ensure_future(app.run_worker_async(**options))
                await asyncio.wait({running})

        running: Any = None
        harness.stop()
        ProcrastinateBackend(app)
        job = contract_workers.echo.new(IDS)
        beats = "OF last_heartbeat ON procrastinate_workers"
        with not_hanging(), failing(harness.server, beats, 1):
            asyncio.run(consume())
        assert harness.row(job)["status"] == "succeeded"

    def test_a_user_ends_a_running_job(self, harness: Any, journal: Journal) -> None:
        """A job that procrastinate's own API aborts is over, whatever attempts are left."""
        job = procrastinate_app.sleeper.new({**IDS, "seconds": 30}, max_attempts=3, backoff=0)
        journal.wait(harness, lambda: bool(journal.runs()), "the job")
        harness.app.job_manager.cancel_job_by_id(int(job.native_id), abort=True)
        harness.settle()
        assert harness.row(job)["status"] == "aborted"
        assert harness.logged("attempt 1 of 3, raised CancelledError; aborted by procrastinate")

    def test_a_user_ends_a_job_that_waits_for_a_thread(
        self, harness: Any, journal: Journal
    ) -> None:
        """It has not begun, and does not when a thread gets free."""
        jobs, ends = self._one_runs_and_one_waits(harness, journal)
        harness.app.job_manager.cancel_job_by_id(int(jobs[1].native_id), abort=True)
        journal.wait(harness, lambda: harness.row(jobs[1])["status"] == "aborted", "its end")
        for end in ends:
            end.touch()
        harness.settle()
        assert harness.row(jobs[0])["status"] == "succeeded"
        assert len(journal.runs(held.name)) == 1
        harness.stop()  # the next test has a consumer with all its threads

    def test_a_stop_puts_a_job_back_that_waits_for_a_thread(
        self, harness: Any, journal: Journal
    ) -> None:
        """It has used up no attempt, and runs in the next consumer."""
        hurried = harness.hurried()
        jobs, ends = self._one_runs_and_one_waits(harness, journal)
        os.kill(hurried.pid, signal.SIGTERM)
        journal.wait(harness, lambda: harness.row(jobs[1])["status"] == "todo", "it to be put back")
        assert harness.row(jobs[1])["attempts"] == 0
        for end in ends:
            end.touch()
        with not_hanging():
            while hurried.alive:
                time.sleep(0.05)
        harness.consumer.start()
        harness.settle()
        assert [harness.row(job)["status"] for job in jobs] == ["succeeded"] * 2
        assert [run["attempt"] for run in journal.runs(held.name)] == [1, 1]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("begins", ["attempts 1", "body", "ended"]),
        ("aborted", ["attempts 1", "aborted"]),
        ("shutdown", ["attempts 1", "attempts 0", "ended"]),
    ],
)
def test_a_job_that_is_cut_off_as_it_is_noted_to_begin_begins_or_ends(
    how: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its body ran, and nobody waited for what comes of it: after a stop it ran a second time.

    And what a stop writes of it comes last: else it would have used up an attempt.
    """
    said, asked, free = list[str](), list[int](), threading.Event()

    @tenant_worker(name=f"tests.noted_{how}")
    def ends(scope: Any) -> None:
        said.append("body")

    async def run_it() -> None:
        loop, written = asyncio.get_running_loop(), [asyncio.Event(), asyncio.Event()]
        occupy_the_only_thread(free)

        async def note(_context: Any, _payload: Any, attempts: int) -> None:
            asked.append(attempts)
            await written[attempts].wait()
            said.append(f"attempts {attempts}")

        for module in (procrastinate_notes, procrastinate_run):
            monkeypatch.setattr(module, "note", note)
        job = SimpleNamespace(id=1, task_name=ends.name, attempts=0, worker_id=None)
        context: Any = SimpleNamespace(
            app=procrastinate_app.app,
            job=job,
            abort_reason=lambda: SimpleNamespace(value=how) if how == "shutdown" else None,
        )
        running = asyncio.create_task(procrastinate_run.run(context, IDS))
        for attempts in range(2):
            while attempts not in asked:
                await asyncio.sleep(0.01)
            written[0].set()
            free.set()
        steps = [written[1].set, running.cancel]
        for step in steps if how == "begins" else reversed(steps):
            step()
            if how == "shutdown":
                await asyncio.sleep(0.1)
        await asyncio.wait({running})
        said.append("aborted" if running.cancelled() else "ended")
        await loop.shutdown_default_executor()

    with not_hanging():
        asyncio.run(run_it())
    assert said[1:] == expected


def test_a_job_is_let_go_as_it_ends_and_not_as_its_consumer_does() -> None:
    """A consumer that ran many jobs held all of them."""

    @tenant_worker(name="tests.let_go")
    async def ends(scope: Any) -> None:
        pass

    async def run_it() -> weakref.ref[Any]:
        job = SimpleNamespace(id=1, task_name=ends.name, attempts=0, worker_id=1)
        context: Any = SimpleNamespace(app=procrastinate_app.app, job=job)

        async def run_held() -> None:
            procrastinate_middleware.hold(context)
            await procrastinate_run.run(context, IDS)

        running = asyncio.create_task(run_held())
        await running
        return weakref.ref(running)

    async def run_one_and_look() -> None:
        ran = await run_it()
        await asyncio.sleep(0)  # the loop has it in hand as it tells of its end
        gc.collect()
        assert ran() is None

    asyncio.run(run_one_and_look())


async def run_once(app: Any, **options: Any) -> None:
    """Run what waits in memory, also what is to run later."""
    for row in app.connector.jobs.values():
        row["scheduled_at"] = None
    await app.run_worker_async(wait=False, install_signal_handlers=False, **options)


async def run_until_settled(app: Any, worker: Any, **options: Any) -> Any:
    """Enqueue a job in memory, and run it as often as it waits; return its row."""
    with configure(backend=ProcrastinateBackend(app)):
        job = await worker.anew(IDS)
    row = app.connector.jobs[int(job.native_id)]
    while row["status"] == "todo":
        await run_once(app, **options)
    return row


@pytest.mark.parametrize("is_async", [False, True])
def test_the_connector_for_tests_runs_each_attempt(is_async: bool) -> None:
    """It takes no SQL of ours, and knew not even that a plain function waits for a thread."""
    runs = list[tuple[int, int]]()

    def body(scope: Any, job: Any) -> Any:
        runs.append((job.attempt, job.snoozes))
        if job.snoozes == 0:
            return Snooze(1)
        return Failure("once") if job.attempt == 1 else None

    async def awaited(scope: Any, job: Any) -> Any:
        return body(scope, job)

    name = f"tests.in_memory_{is_async}"
    known = tenant_worker(name=name, max_attempts=2, backoff=0)(awaited if is_async else body)
    app = procrastinate.App(connector=InMemoryConnector())

    async def run_it() -> str:
        async with app.open_async():
            row = await run_until_settled(app, known)
        return row["status"]

    with not_hanging():
        assert asyncio.run(run_it()) == "succeeded"
    assert runs == [(1, 0), (1, 1), (2, 1)]


@pytest.mark.parametrize("kind", ["worker_middleware", "task_middleware"])
def test_a_stop_that_meets_a_middleware_before_a_job_leaves_it_its_attempt(kind: str) -> None:
    """procrastinate aborted the job for good, though it had not begun."""
    attempts = list[int]()

    @tenant_worker(name=f"tests.stopped_{kind}")
    async def known(scope: Any, job: Any) -> None:
        attempts.append(job.attempt)

    app = procrastinate.App(connector=InMemoryConnector())

    async def stop_it() -> str:
        async def waits(proceed: Any, context: Any, worker: Any) -> None:
            if context.job.task_name == known.name:
                running.cancel()
                await asyncio.Event().wait()

        async with app.open_async():
            with configure(backend=ProcrastinateBackend(app)):
                job = await known.anew(IDS)
            options = {kind: [waits], "shutdown_graceful_timeout": 0.1}
            running = asyncio.ensure_future(run_once(app, **options))
            await asyncio.wait({running})
            await run_once(app)
        return app.connector.jobs[int(job.native_id)]["status"]

    with not_hanging():
        assert (asyncio.run(stop_it()), attempts) == ("succeeded", [1])


@pytest.mark.parametrize("by", ["its user", "CancelledError", "JobAborted"])
def test_a_job_that_is_aborted_in_a_middleware_before_it_does_not_run_again(by: str) -> None:
    """It ends as procrastinate has it end: aborted."""
    came = list[int]()

    @tenant_worker(name=f"tests.aborted_by_{by.replace(' ', '_')}", max_attempts=2)
    async def known(scope: Any) -> None:
        raise AssertionError("it was aborted")

    app = procrastinate.App(connector=InMemoryConnector())

    async def aborts(proceed: Any, context: Any, worker: Any) -> None:
        if context.job.task_name == known.name:
            came.append(context.job.id)
            if by == "CancelledError":
                raise asyncio.CancelledError
            if by == "JobAborted":
                raise procrastinate.exceptions.JobAborted
            await app.job_manager.cancel_job_by_id_async(context.job.id, abort=True)
            await asyncio.Event().wait()
        await proceed()

    async def run_it() -> str:
        options = {"worker_middleware": [aborts], "abort_job_polling_interval": 0.02}
        async with app.open_async():
            row = await run_until_settled(app, known, **options)
        return row["status"]

    with not_hanging():
        assert (asyncio.run(run_it()), len(came)) == ("aborted", 1)


@pytest.mark.parametrize(("raises", "status"), [(2, "succeeded"), (3, "failed")])
def test_a_middleware_that_raises_before_a_job_uses_up_no_attempt(raises: int, status: str) -> None:
    """procrastinate let the job fail for good; once too often, it still does."""
    attempts, errors = list[int](), [OSError("away")] * raises

    @tenant_worker(name=f"tests.raises_{raises}", max_attempts=2, backoff=0)
    async def known(scope: Any, job: Any) -> None:
        attempts.append(job.attempt)
        if job.attempt == 1:
            raise LookupError

    async def may_raise(proceed: Any, context: Any, worker: Any) -> None:
        if context.job.task_name == known.name and errors:
            raise errors.pop()
        await proceed()

    app = procrastinate.App(connector=InMemoryConnector())

    async def run_it() -> str:
        async with app.open_async():
            row = await run_until_settled(app, known, worker_middleware=[may_raise])
        return row["status"]

    with not_hanging():
        assert asyncio.run(run_it()) == status
    assert attempts == ([1, 2] if status == "succeeded" else [])


async def raises_before(proceed: Any, context: Any, worker: Any) -> None:
    """Keep each job from its begin, as a middleware."""
    raise OSError("away")


def test_a_direct_call_of_a_worker_s_task_is_refused() -> None:
    """With the context of the task that called it, that task's job was given the worker's args."""
    app = procrastinate.App(connector=InMemoryConnector())
    with configure(backend=ProcrastinateBackend(app)):
        task, said = app.tasks[contract_workers.echo.name], list[str]()

    @app.task(name="tests.calls", pass_context=True)
    async def calls(context: Any, first: int) -> None:
        for given in ((context,), ()):
            with pytest.raises(TypeError) as told:
                await task(*given, **IDS)
            said.append(str(told.value).partition(":")[0])

    async def run_it() -> Any:
        async with app.open_async():
            id = await calls.defer_async(first=1)
            await run_once(app)
        return app.connector.jobs[id]

    with not_hanging():
        row = asyncio.run(run_it())
    assert said == [f"a direct call runs no job of {contract_workers.echo.name}"] * 2
    assert (row["status"], row["args"]) == ("succeeded", {"first": 1})


def test_a_hand_built_job_that_a_middleware_kept_from_its_begin_has_the_args_that_it_had() -> None:
    """It fails, as any task does; and what is retried by hand is what was sent."""

    @tenant_worker(name="tests.kept_by_hand")
    async def known(scope: Any) -> None:
        pass

    app = procrastinate.App(connector=InMemoryConnector())

    async def run_it() -> Any:
        async with app.open_async():
            with configure(backend=ProcrastinateBackend(app)):
                id = await app.tasks[known.name].defer_async(**IDS)
            await run_once(app, worker_middleware=[raises_before])
        return app.connector.jobs[id]

    with not_hanging():
        row = asyncio.run(run_it())
    assert (row["status"], row["args"]) == ("failed", IDS)


def test_a_job_that_a_middleware_kept_from_its_begin_runs_when_it_is_retried_by_hand() -> None:
    """It was refused as one whose process had died each time."""

    @tenant_worker(name="tests.kept")
    async def known(scope: Any) -> None:
        pass

    app = procrastinate.App(connector=InMemoryConnector())

    async def run_it() -> str:
        async with app.open_async():
            row = await run_until_settled(app, known, worker_middleware=[raises_before])
            now = datetime.now(timezone.utc)
            await app.job_manager.retry_job_by_id_async(row["id"], retry_at=now)
            await run_once(app)
        return row["status"]

    with not_hanging():
        assert asyncio.run(run_it()) == "succeeded"


@pytest.mark.parametrize("key", [None, "other"])
def test_a_job_that_was_refused_unread_runs_when_it_is_retried_by_hand(key: str | None) -> None:
    """Its consumer had no key, or another one. It was refused as one whose process had died."""
    attempts = list[int]()

    @tenant_worker(name=f"tests.unread_{key}")
    async def known(scope: Any, job: Any) -> None:
        attempts.append(job.attempt)

    app = procrastinate.App(connector=InMemoryConnector())

    def knowing(key: str | None) -> Any:
        keys = {key: b"k" * 32}
        return configure(signing=key and Signing(keys=keys, current=key, application="tests"))

    async def run_it() -> str:
        async with app.open_async():
            with knowing("own"), configure(backend=ProcrastinateBackend(app)):
                job = await known.anew(IDS)
            row = app.connector.jobs[int(job.native_id)]
            for each in (key, key, "own"):
                with knowing(each):
                    await run_once(app)
                if each == key:
                    assert row["status"] == "failed"
                    now = datetime.now(timezone.utc)
                    await app.job_manager.retry_job_by_id_async(row["id"], retry_at=now)
        return row["status"]

    with not_hanging():
        assert asyncio.run(run_it()) == "succeeded"
    assert attempts == [1]


def test_a_job_of_an_unknown_worker_runs_once_its_consumer_knows_it() -> None:
    """Its attempt is the first, however long it waited."""
    attempts, app = list[int](), procrastinate.App(connector=InMemoryConnector())

    def deploy() -> Any:
        @tenant_worker(name="tests.unknown_yet")
        async def known(scope: Any, job: Any) -> None:
            attempts.append(job.attempt)

        return known

    async def run_it() -> str:
        async with app.open_async():
            with configure(backend=ProcrastinateBackend(app)):
                job = await deploy().anew(IDS)
            row = app.connector.jobs[int(job.native_id)]
            definition = weakref.ref(job.definition)
            del job
            while definition() is not None:  # the thread that sent it may hold it for a moment
                gc.collect()
                await asyncio.sleep(0.01)
            consumer = procrastinate.App(connector=app.connector)
            ProcrastinateBackend(consumer)
            for _ in range(2):
                await run_once(consumer)
                assert (row["status"], attempts) == ("todo", [])
            known = deploy()
            await run_once(consumer)
            del known
        return row["status"]

    with not_hanging():
        assert asyncio.run(run_it()) == "succeeded"
    assert attempts == [1]


def test_a_worker_that_comes_after_its_job_enqueues_from_its_thread(postgres_server: str) -> None:
    """Its task was made when the job came, and did not know the loop that sends for threads."""
    sent = list[Any]()

    def deploy() -> Any:
        @tenant_worker(name="tests.comes_later")
        def known(scope: Any) -> None:
            sent.append(contract_workers.echo.new(IDS, delay=3600))

        return known

    async def run_it(url: str) -> None:
        once: Any = {"wait": False, "install_signal_handlers": False}
        producer, app = (
            procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))
            for _ in range(2)
        )
        async with producer.open_async():
            await producer.schema_manager.apply_schema_async()
            with configure(backend=ProcrastinateBackend(producer)):
                await deploy().anew(IDS)
        gc.collect()  # nobody knows the worker any more
        async with app.open_async():
            with configure(backend=ProcrastinateBackend(app)):
                await app.run_worker_async(**once)
                assert sent == []
                known = deploy()
                async with app.connector.pool.connection() as conn:
                    await conn.execute("UPDATE procrastinate_jobs SET scheduled_at = NULL")
                await app.run_worker_async(**once)
                del known

    with own_database(postgres_server) as url, not_hanging():
        asyncio.run(run_it(url))
    assert len(sent) == 1


def test_jobs_on_django_s_own_connection_may_have_been_sent(postgres_server: str) -> None:
    """It commits each statement by itself: the error said that they were not sent."""
    program = """
    import sys
    from urllib.parse import urlsplit
    from django.conf import settings
    url = urlsplit(sys.argv[1])
    settings.configure(DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql", "NAME": url.path[1:], "HOST": url.hostname,
        "PORT": url.port or 5432, "USER": url.username or "", "PASSWORD": url.password or "",
    }})
    from procrastinate import App
    from procrastinate.contrib.django.django_connector import DjangoConnector
    from sigra import EnqueueError, configure
    from sigra.backends.procrastinate import ProcrastinateBackend
    from sigra.testing.contract_case import IDS
    from sigra.testing.contract_workers import echo
    with configure(backend=ProcrastinateBackend(App(connector=DjangoConnector()))):
        try:
            echo.new_many([IDS] * 2)
        except EnqueueError as error:
            print(len(error.unsure), "unsure")
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with own_database(postgres_server) as url:
        app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=url))
        with app.open():
            app.schema_manager.apply_schema()
        with cut_at_commit(url, "procrastinate_jobs"):
            ran = subprocess.run([*command, url], capture_output=True, text=True, timeout=120)
    assert ran.stdout == "2 unsure\n", ran.stderr


@pytest.mark.parametrize("option", ["unique", "conn"])
@pytest.mark.parametrize("awaited", [False, True])
def test_the_connector_for_tests_refuses_what_it_cannot_do(option: str, awaited: bool) -> None:
    """A key ended in a ``KeyError`` of the connector's, and no rollback took a job away."""
    app = procrastinate.App(connector=InMemoryConnector())
    value: Any = "key" if option == "unique" else procrastinate_app.app
    with app.open(), configure(backend=ProcrastinateBackend(app)):
        with pytest.raises(InvalidOptionError, match="InMemoryConnector") as caught:
            if awaited:
                asyncio.run(contract_workers.echo.anew(IDS, **{option: value}))
            else:
                contract_workers.echo.new(IDS, **{option: value})
    assert caught.value.option == option
    assert not app.connector.jobs


def test_a_look_for_lost_jobs_finds_none_in_memory() -> None:
    """A suite's log had an error of it every ten seconds."""
    app = procrastinate.App(connector=InMemoryConnector())
    ProcrastinateBackend(app)
    with app.open():
        app.configure_task(RESCUE).defer(timestamp=0)
        app.run_worker(wait=False, install_signal_handlers=False)
    assert {row["status"] for row in app.connector.jobs.values()} == {"succeeded"}


def test_the_environment_names_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without arguments the app is the one of ``PROCRASTINATE_APP``."""
    monkeypatch.setenv("PROCRASTINATE_APP", "procrastinate_app.app")
    assert ProcrastinateBackend()._app is procrastinate_app.app


def test_an_unreachable_database_is_an_enqueue_error() -> None:
    """It comes in bounded time, and is chained to procrastinate's own error."""
    # app.open() itself would wait for the pool; a pool that lost its database is this one.
    connector = procrastinate.SyncPsycopgConnector()
    pool = psycopg_pool.ConnectionPool(
        "postgresql://postgres@127.0.0.1:1/none", timeout=1, open=True
    )
    app = procrastinate.App(connector=connector)
    app.open(pool)
    try:
        with configure(backend=ProcrastinateBackend(app)):
            with not_hanging(), pytest.raises(EnqueueError) as caught:
                contract_workers.echo.new(IDS)
        assert isinstance(caught.value.__cause__, procrastinate.exceptions.ConnectorException)
    finally:
        pool.close()


def test_an_app_that_is_not_open_says_how() -> None:
    """The error names the call that opens it."""
    app = procrastinate.App(connector=procrastinate.PsycopgConnector())
    with configure(backend=ProcrastinateBackend(app)):
        with pytest.raises(EnqueueError, match=r"app\.open\(\)"):
            contract_workers.echo.new(IDS)


@pytest.mark.parametrize("kind", ["PsycopgConnector", "SyncPsycopgConnector"])
def test_jsonpickle_is_refused(kind: str) -> None:
    """It writes JSON, and makes any object of it; a job with nested args failed unread."""

    def dumps(value: Any) -> str:
        return json.dumps(as_jsonpickle(value))

    def backend_of(own: Any) -> ProcrastinateBackend:
        connector = getattr(procrastinate, kind)(json_dumps=own)
        return ProcrastinateBackend(procrastinate.App(connector=connector))

    with pytest.raises(ValueError, match=rf"this {kind} .*leave json_dumps= and json_loads= out"):
        backend_of(dumps)
    backend_of(partial(json.dumps, default=str))


def test_no_app_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says where an app may be named."""
    monkeypatch.delenv("PROCRASTINATE_APP", raising=False)
    with pytest.raises(TypeError, match="PROCRASTINATE_APP"):
        ProcrastinateBackend()


@pytest.mark.programs
@pytest.mark.parametrize(
    ("imports", "warns"), [((), True), (("sigra.testing.contract_workers",), False)]
)
def test_a_consumer_that_starts_without_a_worker_says_so(imports: Any, warns: bool) -> None:
    """Somebody forgot to import their modules: all their jobs wait."""
    program = f"""
    from procrastinate import App
    from procrastinate.testing import InMemoryConnector
    from sigra.backends.procrastinate import ProcrastinateBackend
    app = App(connector=InMemoryConnector(), import_paths={imports})
    ProcrastinateBackend(app)
    ProcrastinateBackend(app)
    app.run_worker(wait=False, install_signal_handlers=False)
    """
    assert warns == told_at_start(program)


def test_a_users_task_keeps_its_name() -> None:
    """A native task is not replaced."""
    app = procrastinate.App(connector=procrastinate.PsycopgConnector())
    app.task(name="sigra.contract.echo")(print)
    with pytest.raises(procrastinate.exceptions.TaskAlreadyRegistered, match="contract.echo"):
        ProcrastinateBackend(app)


@pytest.mark.filterwarnings("default")  # of what other tests left
def test_an_app_that_nobody_uses_any_more_is_let_go():
    """A suite that makes one for each test does not keep them all, with their connections."""

    def make():
        app = procrastinate.App(connector=InMemoryConnector())
        ProcrastinateBackend(app)
        procrastinate.App(connector=InMemoryConnector())  # procrastinate keeps the last one
        return app

    assert is_let_go(make)
