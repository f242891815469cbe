"""PgQueuer keeps the contract in real consumer processes, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from consumer import BIN
from consumer_side import held
from queue_contract import OwnPoolContract
from queue_harness import (
    OwnPoolHarness,
    cut_at_commit,
    failing,
    not_hanging,
    told_at_start,
    transact,
)
from servers import need, own_database

need("pgqueuer")

import asyncpg  # noqa: E402
import pgqueuer_app  # noqa: E402
import psycopg  # noqa: E402
from pgqueuer import PgQueuer, Queries, RetryRequested  # noqa: E402
from pgqueuer.db import AsyncpgDriver, SyncPsycopgDriver  # noqa: E402
from pgqueuer.domain.settings import DBSettings  # noqa: E402
from pgqueuer.queries import EntrypointExecutionParameter, SyncQueries  # noqa: E402
from sqlalchemy import create_engine  # noqa: E402
from sqlalchemy.orm import Session  # noqa: E402

from sigra import EnqueueError, InvalidOptionError, configure, tenant_worker  # noqa: E402
from sigra.backends.pgqueuer import PgQueuerBackend  # noqa: E402
from sigra.backends.pgqueuer_notes import Notes, surely_retry  # noqa: E402
from sigra.testing import contract_workers  # noqa: E402
from sigra.testing.contract_case import IDS  # noqa: E402
from sigra.testing.harness import Journal  # noqa: E402

COMMAND = """
pgq run pgqueuer_app:main --dequeue-timeout=1 --heartbeat-timeout=5 --batch-size=2
--max-concurrent-tasks=4 --restart-on-failure --restart-delay=0.5 --log-level=DEBUG
"""


class Tracing:
    def trace_publish(self, entrypoints: list[str]) -> Iterator[Any]:
        yield from [{"trace": "one"}] * len(entrypoints)


class PgQueuerHarness(OwnPoolHarness):
    table = "pgqueuer"
    command = COMMAND.split()
    ready = "Running: PgQueuer"
    concurrency = 4

    def __init__(self, server: str, folder: Path) -> None:
        super().__init__(server, folder)
        install = [str(BIN / "pgq"), f"--pg-dsn={server}", "install"]
        subprocess.run(install, check=True, capture_output=True)
        os.environ["PGDSN"] = self.url
        self.backend = PgQueuerBackend()

    def remove(self) -> None:
        del os.environ["PGDSN"]

    def log(self, native_id: str) -> list[Any]:
        return self.query("SELECT * FROM pgqueuer_log WHERE job_id = %s ORDER BY id", native_id)

    def _put(self, name: str, payload: bytes) -> str:
        with psycopg.connect(self.server, autocommit=True) as conn:
            (id,) = SyncQueries(SyncPsycopgDriver(conn)).enqueue(name, payload)
            return str(id)

    def send(self, name: str, payload: Mapping[str, Any]) -> str:
        return self._put(name, json.dumps(payload).encode())

    def send_note(self, text: str) -> None:
        self._put("native.note", text.encode())

    def name_of(self, native_id: str) -> str | None:
        return next((row["entrypoint"] for row in self.log(native_id)), None)

    def failed(self, native_id: str) -> str | None:
        failed, last = (
            self.rows("id = %s AND status = 'failed'", native_id),
            self.log(native_id)[-1],
        )
        if last["status"] == "canceled":
            return last["status"]
        return last["traceback"]["exception_message"] if failed else None

    def kept(self, native_id: str) -> bool:
        return bool(self.rows("id = %s", native_id))

    def settled(self, native_id: str) -> bool:
        return self.log(native_id)[-1]["status"] == "successful"

    def transact(self, worker: Any, args: Mapping[str, Any], **how: bool) -> Any:
        return transact(self.server, worker, args, **how)


@pytest.fixture
def harness(harness: PgQueuerHarness, journal: Journal) -> Iterator[PgQueuerHarness]:
    """Let each test find the table empty."""
    yield harness
    if not harness.alive:
        harness.start()
    journal.wait(harness, lambda: not harness.rows("status = 'picked'"), "what runs")
    harness.query("DELETE FROM pgqueuer")
    journal.clear()


@contextmanager
def not_queued_again(harness: PgQueuerHarness, times: int) -> Iterator[Any]:
    """Enqueue a job that fails once, whose next run cannot be queued so many times."""
    args, options = {**IDS, "failures": 1}, {"max_attempts": 2, "backoff": 0}
    harness.stop()
    job = contract_workers.recovers.new(args, **options)
    update = f"OF status ON pgqueuer WHEN NEW.id = {job.native_id} AND NEW.status = 'queued'"
    with failing(harness.server, update, times=times):
        harness.start()
        yield job


class TestPgQueuer(OwnPoolContract):
    harness_class, server = PgQueuerHarness, "postgres"

    @pytest.mark.parametrize(
        ("how", "status"),
        [
            ("value", "successful"),
            ("failure", "failed"),
            ("raise", "failed"),
            ("cancel", "canceled"),
            ("exit", "failed"),
            ("interrupt", "failed"),
        ],
    )
    def test_an_outcome_has_pgqueuers_word(
        self, harness: PgQueuerHarness, journal: Journal, how: str, status: str
    ) -> None:
        """PgQueuer's own log shows how a job ended."""
        job = contract_workers.ends.new({**IDS, "how": how})
        words = ["queued", "picked", status]
        journal.wait(
            harness, lambda: [row["status"] for row in harness.log(job.native_id)] == words, status
        )

    @pytest.mark.parametrize("grouped", [False, True])
    def test_pgqueuers_own_word_for_a_retry_is_a_failed_attempt_as_any_other(
        self, harness: PgQueuerHarness, journal: Journal, grouped: bool
    ) -> None:
        """With no attempt left it ends the job: PgQueuer ran it again, and it was called lost."""
        job = pgqueuer_app.asks.new({**IDS, "grouped": grouped}, max_attempts=2, backoff=0)
        journal.wait(harness, lambda: bool(harness.failed(job.native_id)), "its end")
        assert "said so" in harness.failed(job.native_id)
        words = ["queued", "picked", "queued", "picked", "failed"]
        assert [row["status"] for row in harness.log(job.native_id)] == words

    def test_a_snooze_burns_no_native_attempt_and_a_failure_does(
        self, harness: PgQueuerHarness, journal: Journal
    ) -> None:
        """PgQueuer's own count of attempts is right for whoever looks at it."""
        snoozed = contract_workers.snoozes.new({**IDS, "times": 60})
        failed = contract_workers.recovers.new({**IDS, "failures": 9}, max_attempts=9, backoff=60)

        def waits(job: Any, attempts: int, failures: int, snoozes: int) -> bool:
            """Tell whether it waits for another run, with these counts and so many snoozes."""
            query = "SELECT attempts, headers->'sigra' AS own FROM pgqueuer WHERE id = %s"
            for row in harness.query(f"{query} AND status = 'queued'", job.native_id):
                own = row["own"] or {"failures": 0, "snoozes": 0}
                counts = row["attempts"], own["failures"]
                return counts == (attempts, failures) and own["snoozes"] >= snoozes
            return False  # it runs just now

        journal.wait(harness, lambda: waits(snoozed, 0, 0, 2), "two snoozes")
        journal.wait(harness, lambda: waits(failed, 1, 1, 0), "a failure")

    def test_what_cannot_be_noted_at_once_is_noted_later(
        self, harness: PgQueuerHarness, journal: Journal
    ) -> None:
        """That a job begins, and how it goes on: PgQueuer itself would count it as failed."""
        with failing(harness.server, "OF headers, execute_after ON pgqueuer", times=2):
            self._run(harness, journal, contract_workers.echo, IDS)
        args = {**IDS, "times": 1}
        harness.stop()
        job = contract_workers.snoozes.new(args)
        update = f"OF headers, execute_after ON pgqueuer WHEN NEW.id = {job.native_id}"
        update += " AND NEW.headers->'sigra'->>'snoozes' = '1'"
        with failing(harness.server, update, times=2):
            harness.start()
            journal.wait(harness, lambda: harness.settled(job.native_id), "its end")
        assert [run["snoozes"] for run in journal.runs(job.worker)] == [0, 1]

    def test_a_next_run_that_cannot_be_queued_at_once_is_queued_later(
        self, harness: PgQueuerHarness, journal: Journal
    ) -> None:
        """PgQueuer itself tries once, and then holds the job as failed."""
        with not_queued_again(harness, times=2) as job:
            journal.wait(harness, lambda: harness.settled(job.native_id), "its end")
        assert [run["attempt"] for run in journal.runs(job.worker)] == [1, 2]
        assert not harness.logged(
            "comes back as if its consumer had died"
        )  # it would come again too

    def test_a_job_whose_next_run_cannot_be_queued_for_long_comes_again(
        self, harness: PgQueuerHarness, journal: Journal
    ) -> None:
        """As one whose consumer died does, but none of its attempts is lost."""
        with not_queued_again(harness, times=10**6) as job:
            waits = f"job {job.native_id}: it comes back as if its consumer had died"
            journal.wait(harness, lambda: bool(harness.logged(waits)), "the last try")
        journal.wait(harness, lambda: harness.settled(job.native_id), "its end")
        assert [run["attempt"] for run in journal.runs(job.worker)] == [1, 2]

    def test_a_next_run_that_was_queued_is_not_queued_again_where_the_answer_is_lost(
        self, harness: PgQueuerHarness
    ) -> None:
        """Another consumer may have begun it meanwhile, or even have ended it."""

        async def retry_with_its_answer_lost() -> tuple[int, int]:
            conn = await asyncpg.connect(harness.url)
            queries = Queries.from_asyncpg_connection(conn)
            name = "native.nobody"
            await queries.enqueue(name, b"")

            async def take() -> Any:
                return await queries.dequeue(
                    batch_size=1,
                    entrypoints={name: EntrypointExecutionParameter(concurrency_limit=0)},
                    queue_manager_id=uuid4(),
                    global_concurrency_limit=None,
                    heartbeat_timeout=timedelta(seconds=30),
                )

            retry, begun = queries.retry_job, []

            async def queue_and_lose_the_answer(*args: Any) -> None:
                await retry(*args)
                if not begun:
                    begun.extend(await take())
                    raise ConnectionError("connection was closed in the middle of operation")

            queries.retry_job = queue_and_lose_the_answer
            surely_retry(queries, {name})
            (job,) = await take()
            await queries.retry_job(job, timedelta(0), None)
            taken_twice = await take()
            await conn.execute("DELETE FROM pgqueuer")
            await conn.close()
            return len(begun), len(taken_twice)

        assert asyncio.run(retry_with_its_answer_lost()) == (1, 0)

    def test_a_job_that_failed_for_good_stays_so_where_its_consumer_dies_then(
        self, harness: PgQueuerHarness, journal: Journal
    ) -> None:
        """It is not begun anew, though PgQueuer has not written its end."""
        with failing(harness.server, "OF status ON pgqueuer WHEN NEW.status = 'failed'", 10**6):
            args = {**IDS, "failures": 9}
            job, _ = self._run(
                harness, journal, contract_workers.recovers, args, 2, max_attempts=2, backoff=0
            )
            journal.wait(harness, lambda: bool(harness.logged("Flush failed")), "the refusal")
            harness.kill()
        harness.start()
        journal.wait(harness, lambda: bool(harness.failed(job.native_id)), "its end")
        assert [run["attempt"] for run in journal.runs()] == [1, 2]

    def test_jobs_on_a_connection_that_commits_by_itself_may_have_been_sent(
        self, harness: PgQueuerHarness
    ) -> None:
        """So PgQueuer's drivers for psycopg do: the error said that they were not sent."""
        told = pytest.raises(EnqueueError, match=r"may have been sent all the same")
        with psycopg.connect(harness.server, autocommit=True) as conn:
            backend = PgQueuerBackend(SyncQueries(SyncPsycopgDriver(conn)))
            cut = cut_at_commit(harness.server, harness.table)
            with configure(backend=backend), cut, not_hanging(), told as caught:
                contract_workers.echo.new_many([IDS] * 2, delay=3600)
        assert len(caught.value.unsure) == 2

    @pytest.mark.parametrize("kind", ["plain", "async"])
    def test_a_job_that_pgqueuer_cancels_runs_to_its_end(
        self, harness: PgQueuerHarness, kind: str
    ) -> None:
        """So it does where it has lost its server, and deleted the job as one that was canceled."""
        harness.stop()
        begun, end = threading.Event(), threading.Event()

        def plain(scope: Any) -> None:  # noqa: ARG001
            begun.set()
            end.wait(60)

        async def of_the_loop(scope: Any) -> None:
            await asyncio.to_thread(plain, scope)

        body = plain if kind == "plain" else of_the_loop
        worker = tenant_worker(name=f"queues.pgqueuer.{kind}")(body)

        async def consume() -> Any:
            async with asyncpg.create_pool(harness.server) as pool:
                pgq = PgQueuer.from_asyncpg_pool(pool)
                with configure(backend=PgQueuerBackend(pgq)):
                    job = await worker.anew(IDS)
                    running = asyncio.create_task(pgq.run(timedelta(seconds=1)))
                    await asyncio.to_thread(begun.wait, 60)
                    for _ in range(3):  # its queue, which waits for the job, and then the job twice
                        running.cancel()
                        await asyncio.wait({running}, timeout=0.5)
                    end.set()
                    await asyncio.wait({running})
            return job

        with not_hanging():
            job = asyncio.run(consume())
        words = [row["status"] for row in harness.log(job.native_id)]
        assert words == ["queued", "picked", "successful"]

    def test_a_job_that_waits_for_a_thread_has_not_begun(
        self, harness: PgQueuerHarness, journal: Journal
    ) -> None:
        """It runs elsewhere if its consumer is killed: PgQueuer takes more jobs than have a thread."""
        harness.stop()
        few, end = harness.another("few", SIGRA_TEST_THREADS="1"), harness.folder / "end of three"
        few.start()
        held.new_many([{**IDS, "until": str(end)}] * 3)
        taken = "status = 'picked'"
        journal.wait(harness, lambda: bool(journal.runs()) and len(harness.rows(taken)) == 3, "all")
        few.kill()
        end.touch()
        harness.start()
        journal.wait(harness, lambda: not harness.rows("status <> 'failed'"), "their ends")
        assert len(journal.runs()) == 3 and len(harness.rows("status = 'failed'")) == 1

    def _requeue(self, harness: PgQueuerHarness, job: Any) -> None:
        command = [str(BIN / "pgq"), f"--pg-dsn={harness.server}", "requeue", job.native_id]
        subprocess.run(command, check=True, capture_output=True)

    def test_a_job_that_is_queued_again_by_hand_has_its_attempts_anew(
        self, harness: PgQueuerHarness, journal: Journal
    ) -> None:
        """Its audit events are new ones, not duplicates of the first run's."""
        args = {**IDS, "failures": 9}
        job, _ = self._run(
            harness, journal, contract_workers.recovers, args, 2, max_attempts=2, backoff=0
        )
        journal.wait(harness, lambda: bool(harness.failed(job.native_id)), "its end")
        self._requeue(harness, job)
        journal.wait(harness, lambda: len(journal.events()) == 4, "the ends of two more attempts")
        assert [run["attempt"] for run in journal.runs()] == [1, 2, 1, 2]
        assert len({event["event_id"] for event in journal.events()}) == 4

    def test_a_job_that_was_refused_unread_goes_on_where_it_was_when_it_is_queued_by_hand(
        self, harness: PgQueuerHarness, journal: Journal
    ) -> None:
        """Its first attempt ran again, and its audit events were taken for those of the first."""
        recovers, args = contract_workers.recovers, {**IDS, "failures": 1}
        job, _ = self._run(harness, journal, recovers, args, 1, max_attempts=2, backoff=2)
        journal.wait(harness, lambda: bool(harness.rows("status = 'queued'")), "its retry")
        (row,) = harness.rows()
        change = "UPDATE pgqueuer SET payload = %s WHERE id = %s"
        signed = b'{"sigra": 2, "key": "one that it lacks", "signed": "", "mac": ""}'
        harness.query(change, signed, row["id"])
        journal.wait(harness, lambda: bool(harness.failed(job.native_id)), "its refusal")
        harness.query(change, row["payload"], row["id"])
        self._requeue(harness, job)
        journal.wait(harness, lambda: harness.settled(job.native_id), "its end")
        assert [run["attempt"] for run in journal.runs()] == [1, 2]

    def test_what_is_noted_of_the_begins_of_a_batch_is_one_transaction(
        self, harness: PgQueuerHarness
    ) -> None:
        """Each job has its own count, and what else is in its headers stays."""
        with psycopg.connect(harness.server, autocommit=True) as conn:
            queries = SyncQueries(SyncPsycopgDriver(conn))
            for number in range(3):
                queries.enqueue("native.nobody", b"", headers={"own": number})
        jobs = [SimpleNamespace(**row) for row in harness.rows()]

        async def begin() -> None:
            conn = await asyncpg.connect(harness.url)
            notes = Notes(Queries.from_asyncpg_connection(conn))
            await asyncio.gather(*(notes.begin(job, {"deliveries": job.id}) for job in jobs))
            await conn.close()

        asyncio.run(begin())
        rows = harness.query("SELECT *, xmin::text AS transaction FROM pgqueuer ORDER BY id")
        assert len({row["transaction"] for row in rows}) == 1
        expected = [{**job.headers, "sigra": {"deliveries": job.id}} for job in jobs]
        assert [row["headers"] for row in rows] == expected

    def test_a_job_whose_begin_cannot_be_noted_runs_later(
        self, harness: PgQueuerHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It does not fail: that the database is away is no fault of its own."""
        monkeypatch.setattr("sigra.backends.insist.WAITS", (0.0,))

        async def begin() -> None:
            conn = await asyncpg.connect(harness.url)
            notes = Notes(Queries.from_asyncpg_connection(conn))
            await conn.close()
            await notes.begin(SimpleNamespace(id=1, headers=None, attempts=0), {})

        with pytest.raises(RetryRequested) as raised, not_hanging():
            asyncio.run(begin())
        assert raised.value.delay == timedelta(seconds=1)

    @pytest.mark.parametrize("payload", [None, b"[1]", b"\xff", b"{"])
    def test_a_payload_that_is_no_object_is_held(
        self, harness: PgQueuerHarness, journal: Journal, payload: bytes | None
    ) -> None:
        """What is no envelope fails for good, where it can be looked at."""
        native_id = harness._put(contract_workers.echo.name, payload)
        journal.wait(harness, lambda: bool(harness.failed(native_id)), "its end")

    @pytest.mark.parametrize("text", [r"a\x00b", r"a\ud800b"])
    def test_an_error_that_jsonb_refuses_is_told_all_the_same(
        self, harness: PgQueuerHarness, journal: Journal, text: str
    ) -> None:
        """What PostgreSQL cannot hold of an error's text is escaped, and the retry comes."""
        job = pgqueuer_app.says.new({**IDS, "text": text}, max_attempts=2, backoff=0)
        journal.wait(harness, lambda: text in (harness.failed(job.native_id) or ""), "its end")
        words = [row["status"] for row in harness.log(job.native_id)]
        assert words == ["queued", "picked", "queued", "picked", "failed"]

    def test_a_concurrency_limit_of_an_entrypoint_holds(
        self, harness: PgQueuerHarness, journal: Journal
    ) -> None:
        """As the consumer's ``main`` sets it."""
        pgqueuer_app.alone.new_many([IDS] * 4)
        journal.wait(harness, lambda: len(journal.events()) == 8, "the jobs")
        actions = [event["action"] for event in journal.events()]
        assert actions == ["contract.begun", "contract.ended"] * 4

    def test_priority_and_time_reach_their_columns(self, harness: PgQueuerHarness) -> None:
        """PgQueuer sorts by its own columns."""
        job = contract_workers.echo.new(IDS, priority=7, delay=60)
        (row,) = harness.rows("id = %s", job.native_id)
        assert row["priority"] == 7
        assert row["execute_after"] - row["created"] == timedelta(seconds=60)

    def test_a_duplicate_does_not_end_the_callers_transaction(
        self, harness: PgQueuerHarness
    ) -> None:
        """What follows it in the transaction is committed."""
        first = contract_workers.echo.new(IDS, unique="k", delay=60)
        with psycopg.connect(harness.url) as conn:
            batch = contract_workers.echo.new_many([IDS, IDS], unique="k", conn=conn)
            assert [job.duplicate for job in batch] == [True, True]
            assert [job.native_id for job in batch] == [first.native_id] * 2
            contract_workers.agnostic.new({}, conn=conn, delay=60)
        assert len(harness.rows()) == 2

    def test_a_unique_job_is_held_while_it_runs_and_one_of_a_batch_goes_in(
        self, harness: PgQueuerHarness, journal: Journal
    ) -> None:
        """The key is one for the worker, also while its job runs and within a batch."""
        end = harness.folder / "end"
        args = {**IDS, "until": str(end)}
        first = held.new(args, unique="k")
        journal.wait(harness, lambda: bool(journal.runs()), "the first job")
        assert [row["status"] for row in harness.rows("id = %s", first.native_id)] == ["picked"]
        for again in (held.new(args, unique="k"), asyncio.run(held.anew(args, unique="k"))):
            assert (True, first.native_id) == (again.duplicate, again.native_id)
        batch = contract_workers.echo.new_many([IDS] * 3, unique="k")
        assert [job.duplicate for job in batch] == [False, True, True]
        assert {batch[0].native_id} == {job.native_id for job in batch}
        end.touch()

    @pytest.mark.parametrize("commit", [False, True])
    def test_an_async_transaction_of_psycopg(self, harness: PgQueuerHarness, commit: bool) -> None:
        """A job shares the fate of the transaction; ``.new()`` says that it is for ``.anew()``."""

        async def produce() -> None:
            async with await psycopg.AsyncConnection.connect(harness.url) as conn:
                await contract_workers.echo.anew(IDS, conn=conn, delay=60)
                with pytest.raises(EnqueueError, match="anew"):
                    contract_workers.echo.new(IDS, conn=conn)
                await (conn.commit() if commit else conn.rollback())

        asyncio.run(produce())
        assert len(harness.rows()) == commit

    def test_a_unique_key_that_postgresql_does_not_hold_is_refused(
        self, harness: PgQueuerHarness
    ) -> None:
        """A NUL is told at ``.new()``, with the option's name."""
        with pytest.raises(InvalidOptionError, match="'unique'.*NUL"):
            contract_workers.echo.new(IDS, unique="a\0b")

    def test_a_unique_key_of_any_length_is_held(self, harness: PgQueuerHarness) -> None:
        """PostgreSQL's index holds 2,704 bytes."""
        long = "".join(map(chr, range(0x4E00, 0x9000)))
        jobs = [contract_workers.echo.new(IDS, unique=key, delay=60) for key in (long, long, "k")]
        assert [job.duplicate for job in jobs] == [False, True, False]

    def test_a_tracer_of_the_application_s_queries_traces_jobs_in_its_transactions_too(
        self, harness: PgQueuerHarness
    ) -> None:
        """Whichever connection they are enqueued by."""

        async def produce() -> None:
            async with await psycopg.AsyncConnection.connect(harness.url) as conn:
                await contract_workers.echo.anew(IDS, conn=conn, delay=60)

        with psycopg.connect(harness.url, autocommit=True) as own:
            queries = SyncQueries(SyncPsycopgDriver(own), tracer=Tracing())
            with configure(backend=PgQueuerBackend(queries)):
                contract_workers.echo.new(IDS, delay=60)
                with psycopg.connect(harness.url) as conn:
                    contract_workers.echo.new(IDS, conn=conn, delay=60)
                asyncio.run(produce())
        assert [{"trace": "one"}] * 3 == [row["headers"] for row in harness.rows()]

    def test_a_transaction_s_jobs_go_to_the_table_that_the_application_s_queries_name(
        self, harness: PgQueuerHarness
    ) -> None:
        """Here to none: there is no such table."""

        async def produce() -> None:
            async with await psycopg.AsyncConnection.connect(harness.url) as conn:
                await contract_workers.echo.anew(IDS, conn=conn)

        with psycopg.connect(harness.url, autocommit=True) as own:
            queries = SyncQueries(SyncPsycopgDriver(own))
            queries.qbq = type(queries.qbq)(settings=DBSettings(queue_table="elsewhere"))
            with configure(backend=PgQueuerBackend(queries)):
                with psycopg.connect(harness.url) as conn:
                    with pytest.raises(EnqueueError, match='"elsewhere" does not exist'):
                        contract_workers.echo.new(IDS, conn=conn)
                with pytest.raises(EnqueueError, match='"elsewhere" does not exist'):
                    asyncio.run(produce())

    def test_a_loop_s_connection_whose_loop_is_not_known_is_to_be_awaited(
        self, harness: PgQueuerHarness
    ) -> None:
        """It is not used by another loop, in which its answers would never come."""

        async def connect() -> Any:
            return await asyncpg.connect(harness.url)

        with asyncio.Runner() as runner:
            conn = runner.run(connect())
            with configure(backend=PgQueuerBackend(Queries(AsyncpgDriver(conn)))):
                with pytest.raises(EnqueueError, match="is async; use await"), not_hanging():
                    contract_workers.echo.new(IDS)
            runner.run(conn.close())

    def test_a_session_is_no_connection(self, harness: PgQueuerHarness) -> None:
        """The error says what ``conn`` has to be."""
        with Session(create_engine("sqlite://")) as session:
            with pytest.raises(InvalidOptionError, match=r"psycopg or asyncpg, not sqlalchemy"):
                contract_workers.echo.new(IDS, conn=session)

    @pytest.mark.parametrize("commit", [False, True])
    def test_a_transaction_of_asyncpg(self, harness: PgQueuerHarness, commit: bool) -> None:
        """A batch shares the fate of the transaction, and one must have been begun."""

        async def produce() -> None:
            conn = await asyncpg.connect(harness.url)
            with pytest.raises(InvalidOptionError, match="in no transaction.*begin one"):
                await contract_workers.echo.anew(IDS, conn=conn)
            transaction = conn.transaction()
            await transaction.start()
            await contract_workers.echo.anew_many([IDS, IDS], conn=conn, delay=60)
            await (transaction.commit() if commit else transaction.rollback())
            await conn.close()

        asyncio.run(produce())
        assert len(harness.rows()) == 2 * commit

    def test_a_closed_connection_of_asyncpg_is_said_to_be_closed(
        self, harness: PgQueuerHarness
    ) -> None:
        """It was said to be in no transaction, and that one should begin one."""

        async def produce() -> None:
            conn = await asyncpg.connect(harness.url)
            await conn.close()
            await contract_workers.echo.anew(IDS, conn=conn)

        with pytest.raises(EnqueueError, match="connection is closed"):
            asyncio.run(produce())

    @pytest.mark.parametrize("how", ["psycopg", "async psycopg", "asyncpg"])
    def test_a_delay_in_a_transaction_begins_when_the_job_is_made(
        self, harness: PgQueuerHarness, how: str
    ) -> None:
        """PgQueuer itself counts it from the transaction's begin, so that the job came early."""
        args, options = [IDS, IDS], {"run_at": datetime.now(UTC) + timedelta(seconds=60)}

        async def produce() -> None:
            if how == "asyncpg":
                conn = await asyncpg.connect(harness.url)
                async with conn.transaction():
                    await conn.execute("SELECT pg_sleep(1.5)")
                    await contract_workers.echo.anew_many(args, conn=conn, **options)
                await conn.close()
            else:
                async with await psycopg.AsyncConnection.connect(harness.url) as conn:
                    await conn.execute("SELECT pg_sleep(1.5)")
                    await contract_workers.echo.anew_many(args, conn=conn, **options)

        if how == "psycopg":
            with psycopg.connect(harness.url) as conn:
                conn.execute("SELECT pg_sleep(1.5)")
                contract_workers.echo.new_many(args, conn=conn, **options)
        else:
            asyncio.run(produce())
        early = [options["run_at"] - row["execute_after"] for row in harness.rows()]
        assert len(early) == 2 and max(early) < timedelta(seconds=0.2)

    def test_a_pool_is_no_connection(self, harness: PgQueuerHarness) -> None:
        """It takes another connection for each statement, which is in no transaction."""

        async def produce() -> None:
            async with asyncpg.create_pool(harness.url, min_size=1) as pool:
                with pytest.raises(InvalidOptionError, match=r"asyncpg, not asyncpg\.pool\.Pool"):
                    await contract_workers.echo.anew(IDS, conn=pool, delay=60)
                async with pool.acquire() as conn, conn.transaction():
                    await contract_workers.echo.anew(IDS, conn=conn, delay=60)

        asyncio.run(produce())
        assert len(harness.rows()) == 1

    def test_a_transaction_awaits_with_a_blocking_connection(
        self, harness: PgQueuerHarness
    ) -> None:
        """``.anew()`` takes a connection of psycopg too, in whose transaction the job is."""
        with psycopg.connect(harness.url) as conn:
            asyncio.run(contract_workers.echo.anew(IDS, conn=conn, delay=60))
            conn.rollback()
        assert harness.rows() == []

    def test_a_job_enqueues_from_its_thread_and_from_its_loop(
        self, harness: PgQueuerHarness, journal: Journal
    ) -> None:
        """A body may use ``.new()`` or ``.anew()``, whichever its kind has."""
        pgqueuer_app.parent.new(IDS)
        pgqueuer_app.parent_async.new(IDS)
        journal.wait(harness, lambda: len(journal.runs()) == 2, "two children")
        assert {run["args"]["by"] for run in journal.runs()} == {"thread", "loop"}

    @pytest.mark.parametrize(
        "native", [Queries.from_asyncpg_connection, PgQueuer.from_asyncpg_connection]
    )
    def test_queries_of_a_loop(self, harness: PgQueuerHarness, native: Any) -> None:
        """They are awaited in their loop, and reached from threads while it runs."""

        async def produce() -> None:
            conn = await asyncpg.connect(harness.url)
            with configure(backend=PgQueuerBackend(native(conn))):
                await contract_workers.echo.anew(IDS, delay=60)
                with pytest.raises(EnqueueError, match="anew"):
                    contract_workers.echo.new(IDS)
                await asyncio.to_thread(contract_workers.echo.new, IDS, delay=60)
            await conn.close()

        asyncio.run(produce())
        assert len(harness.rows()) == 2

    @pytest.mark.programs
    @pytest.mark.parametrize(
        ("imports", "warns"), [((), True), (("sigra.testing.contract_workers",), False)]
    )
    def test_a_consumer_that_starts_without_a_worker_says_so(
        self, harness: PgQueuerHarness, imports: Any, warns: bool
    ) -> None:
        """Somebody forgot to import their modules: PgQueuer takes none of their jobs."""
        program = f"""
        import asyncio, psycopg
        from pgqueuer import PgQueuer
        from pgqueuer.types import QueueExecutionMode
        from sigra.backends.pgqueuer import PgQueuerBackend

        async def main():
            connect = psycopg.AsyncConnection.connect
            async with await connect({harness.server!r}, autocommit=True) as conn:
                pgq = PgQueuer.from_psycopg_connection(conn)
                PgQueuerBackend(pgq)
                await pgq.run(mode=QueueExecutionMode.drain)

        asyncio.run(main())
        """
        assert warns == told_at_start(program, *imports)

    def test_an_entrypoint_of_the_users_keeps_its_name(self, harness: PgQueuerHarness) -> None:
        """A native entrypoint is not replaced."""

        async def own(job: Any) -> None: ...

        async def register() -> None:
            conn = await asyncpg.connect(harness.url)
            pgq = PgQueuer.from_asyncpg_connection(conn)
            pgq.entrypoint("sigra.contract.echo")(own)
            with pytest.raises(RuntimeError, match=r"contract\.echo already in registry"):
                PgQueuerBackend(pgq)
            await conn.close()

        asyncio.run(register())

    def test_two_backends_on_one_pgqueuer_are_as_one(self, harness: PgQueuerHarness) -> None:
        """A module that is executed again makes a second one: a worker has one entrypoint."""

        async def register() -> Any:
            conn = await asyncpg.connect(harness.url)
            pgq = PgQueuer.from_asyncpg_connection(conn)
            PgQueuerBackend(pgq)
            retry = pgq.queries.retry_job
            PgQueuerBackend(pgq)
            tenant_worker(name="queues.pgqueuer.late")(late)
            await conn.close()
            return pgq, retry

        def late(scope: Any) -> None: ...

        pgq, retry = asyncio.run(register())
        assert {"sigra.contract.echo", "queues.pgqueuer.late"} <= set(pgq.qm.entrypoint_registry)
        assert pgq.queries.retry_job is retry


@pytest.mark.parametrize("part", ["itself", "queries"])
def test_a_pgqueuer_in_memory_is_refused(part: str) -> None:
    """It has no rows, in which the begins are noted: no job would run, and nothing would say so."""
    pgq = PgQueuer.in_memory()
    with pytest.raises(TypeError, match=r"needs PostgreSQL, not PgQueuer\.in_memory\(\)"):
        PgQueuerBackend(pgq if part == "itself" else pgq.queries)


def test_a_job_for_which_there_was_no_connection_was_not_sent() -> None:
    """asyncpg says only that the time is up."""

    async def send(port: int) -> None:
        url = f"postgresql://postgres@127.0.0.1:{port}/none"
        async with asyncpg.create_pool(url, min_size=0, timeout=0.2) as pool:
            with configure(backend=PgQueuerBackend(Queries.from_asyncpg_pool(pool))):
                await contract_workers.echo.anew(IDS)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        with not_hanging(), pytest.raises(EnqueueError, match="did not take") as caught:
            asyncio.run(send(silent.getsockname()[1]))
    assert caught.value.unsure == ()


def test_what_is_no_pgqueuer_is_refused() -> None:
    """A URL would be taken for a connection of a loop's."""
    with pytest.raises(TypeError, match="takes PgQueuer, Queries or SyncQueries, not str; .*PGDSN"):
        PgQueuerBackend("postgresql://127.0.0.1/shop")


def test_a_database_without_tables_is_told_how_it_was_chosen(
    postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where PGDSN is forgotten it is libpq's default, and the error says so."""
    with own_database(postgres_server) as url:
        for name, value in psycopg.conninfo.conninfo_to_dict(url).items():
            monkeypatch.setenv({"dbname": "PGDATABASE"}.get(name, f"PG{name.upper()}"), str(value))
        monkeypatch.delenv("PGDSN", raising=False)
        told = 'relation "pgqueuer" does not exist; PGDSN names the database.*libpq.*pgq install'
        with configure(backend=PgQueuerBackend()), pytest.raises(EnqueueError, match=told):
            contract_workers.agnostic.new({})
