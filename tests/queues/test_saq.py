"""SAQ keeps the contract in real consumers, on Redis and on PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
import time
import uuid
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from consumer import Consumer
from consumer_side import held, sleeps
from queue_contract import LoopContract, PostgresContract
from queue_harness import (
    CUT,
    QueueHarness,
    as_jsonpickle,
    failing,
    not_hanging,
    occupy_the_only_thread,
    told_at_start,
)
from servers import bundled_redis, need

saq = need("saq")

import psycopg  # noqa: E402
from proxy import Proxy  # noqa: E402
from psycopg_pool import AsyncConnectionPool  # noqa: E402
from redis import asyncio as aioredis  # noqa: E402
from redis.asyncio.retry import Retry  # noqa: E402
from redis.backoff import NoBackoff  # noqa: E402
from redis.exceptions import ConnectionError as RedisConnectionError  # noqa: E402
from saq.queue.postgres import PostgresQueue  # noqa: E402
from saq.queue.redis import RedisQueue  # noqa: E402

from sigra import (  # noqa: E402
    Cancel,
    EnqueueError,
    Failure,
    InvalidOptionError,
    Signing,
    Snooze,
    configure,
    tenant_worker,
)
from sigra.backends.loop import own_loop, submit  # noqa: E402
from sigra.backends.saq import SaqBackend  # noqa: E402
from sigra.backends.saq_begin import begin_notes  # noqa: E402
from sigra.testing import contract_workers as workers  # noqa: E402
from sigra.testing.contract_case import IDS  # noqa: E402
from sigra.testing.contract_consumers import undeployed  # noqa: E402

HEARTBEAT = 10
"""Seconds, in the consumer too; on a busy machine one may stand still for half as long."""


class SaqHarness(QueueHarness):
    """Have SAQ sweep thrice after each death of a consumer, and not when consumers like.

    What one had only fetched on Redis comes back with the second sweep. A sweep that is due while
    the server is gone is made once it is back.
    """

    command = ("saq", "saq_app.settings", "-v")
    ready = "Worker starting"
    due = sweeps = 0

    def connect(self, name: str = "") -> Any:
        return saq.Queue.from_url(self.url, name=name or self.queue)

    def __init__(self, server: str, folder: Path) -> None:
        super().__init__(server, folder)
        self.native, self.other = self.connect(), self.connect(self.other_queue)
        for queue in (self.native, self.other):
            self.ask(queue.connect())
        self.backend = SaqBackend(self.native, self.other, heartbeat=HEARTBEAT)
        self.sweep()

    def another_of(self, queue: str) -> Consumer:
        return self.another(self.new_name(), SIGRA_TEST_QUEUE=queue)

    def start(self) -> None:
        super().start()
        if self.consumer.killed_before:
            self.due, self.sweeps = time.monotonic() + HEARTBEAT + 1, 3

    def advance(self) -> None:
        super().advance()
        if self.sweeps and time.monotonic() > self.due and self.proxy.serves:
            self.due, self.sweeps = time.monotonic() + HEARTBEAT + 1, self.sweeps - 1
            self.sweep()

    def sweep(self) -> None:
        """Look for lost jobs; who does so is the only one for a day."""
        if hasattr(self.native, "redis"):
            self.ask(self.native.redis.delete(self.native.namespace("sweep")))
        self.ask(self.native.sweep(lock=24 * 3600))

    def ask(self, work: Coroutine[Any, Any, Any]) -> Any:
        return submit(own_loop(), work).result()

    def send(self, name: str, payload: Mapping[str, Any]) -> str:
        return self.ask(self.native.enqueue(name, kwargs=dict(payload))).key

    def send_note(self, text: str) -> None:
        self.ask(self.native.enqueue("note", text=text))

    def name_of(self, native_id: str) -> str | None:
        return self.ask(self.native.job(native_id)).function

    def failed(self, native_id: str) -> str | None:
        job = self.ask(self.native.job(native_id))
        return job.error if job.status in ("failed", "aborted") else None

    def kept(self, native_id: str) -> bool:
        job = self.ask(self.native.job(native_id))
        return job is not None and job.status != "complete"

    def begun_of(self, job: Any) -> int | None:
        native = self.ask(self.native.job(job.id))
        return native.attempts if native.status == "active" and native.worker_id else None

    def has_ended(self, job: Any) -> bool:
        return self.ask(self.native.job(job.id)).status in ("complete", "failed")

    def remove(self) -> None:
        for queue in (self.native, self.other):
            self.ask(queue.disconnect())


class SaqContract(LoopContract):
    """What is the same on both servers."""

    def test_it_declares_that_no_job_is_lost(self, harness):
        """The suite then kills its consumers again and again, and looks for every job."""
        assert "at_least_once" in harness.backend.capabilities

    def test_a_job_that_was_aborted_runs_when_it_is_retried_by_hand(self, harness, journal):
        """It was refused as one whose consumers die of it."""
        job = sleeps.new(IDS)
        for runs in (1, 2):
            journal.wait(harness, lambda: len(journal.runs()) == runs, "its run")  # noqa: B023
            harness.ask(harness.ask(harness.native.job(job.id)).abort("by hand"))
            journal.wait(harness, lambda: self._status(harness, job) == "aborted", "its end")
            if runs == 1:
                harness.stop()  # SAQ writes that end twice
                harness.ask(harness.ask(harness.native.job(job.id)).retry("retried from ui"))
                harness.start()

    def test_a_job_that_a_stop_meets_as_it_waits_for_a_thread_runs_once(self, harness, journal):
        """It is queued again, and the thread that gets free as the consumer ends does not run it."""
        jobs, ends = self._one_runs_and_one_waits(harness, journal)
        with ThreadPoolExecutor() as thread:
            stopping = thread.submit(harness.stop)
            journal.wait(harness, lambda: self._status(harness, jobs[1]) == "queued", "the stop")
            for end in ends:
                end.touch()
            stopping.result()
        assert len(journal.runs(held.name)) == 1
        harness.start()
        journal.wait(harness, lambda: all(harness.has_ended(job) for job in jobs), "both ends")
        assert [self._status(harness, job) for job in jobs] == ["complete"] * 2
        assert len([run for run in journal.runs() if run["job_id"] == jobs[1].id]) == 1

    def _status(self, harness, job):
        return harness.ask(harness.native.job(job.id)).status


class TestSaqOnRedis(SaqContract):
    harness_class, server = SaqHarness, "redis"

    def test_another_queue_is_one_that_the_backend_was_given(self, harness):
        """The option ``queue`` names one of these, and no other."""
        other = saq.Queue.from_url(harness.url, name=f"{harness.queue}-other")
        with configure(backend=SaqBackend(harness.native, other)):
            job = workers.echo.new(IDS, queue=other.name)
            with pytest.raises(InvalidOptionError, match="no queue 'elsewhere'"):
                workers.echo.new(IDS, queue="elsewhere")
        assert harness.ask(other.job(job.id)).function == job.worker
        assert harness.ask(harness.native.job(job.id)) is None
        harness.ask(other.disconnect())

    def test_a_time_limit_of_its_native_job_uses_up_an_attempt(self, harness, journal):
        """A job that is cut off comes again while it has attempts left: nobody aborted it."""

        async def limit(job):
            job.timeout = 2

        harness.native.register_before_enqueue(limit)
        job = sleeps.new(IDS, max_attempts=2)
        harness.native.unregister_before_enqueue(limit)
        journal.wait(harness, lambda: bool(harness.failed(job.id)), "the job's end")
        assert len(journal.runs(sleeps.name)) == 2
        assert harness.logged(f"job {job.id}.* raised CancelledError")
        assert not harness.logged(f"job {job.id}.*aborted by SAQ")

    def test_a_cancelled_job_is_aborted(self, harness, journal):
        """It is over after one attempt, and SAQ shows the reason."""
        job, _ = self._run(harness, journal, workers.ends, {**IDS, "how": "cancel"}, max_attempts=3)
        journal.wait(harness, lambda: bool(harness.failed(job.id)), "the aborted job")
        native = harness.ask(harness.native.job(job.id))
        assert (native.status, native.attempts) == ("aborted", 1)
        assert "was cancelled: said so" in native.error

    @pytest.mark.parametrize("ends_as", ["failed", "complete"])
    def test_a_job_that_is_retried_by_hand_has_its_last_attempt_once_more(
        self, harness, journal, ends_as
    ):
        """As often as somebody asks on SAQ's page, with events of its own each time."""

        def by_hand(id):
            harness.ask(harness.ask(harness.native.job(id)).retry("retried from ui"))

        def is_complete(id):
            return harness.ask(harness.native.job(id)).status == "complete"

        completed = is_complete if ends_as == "complete" else None
        self._is_run_by_hand(harness, journal, by_hand, completed)

    def test_the_error_of_an_unknown_worker_names_it(self, harness, journal):
        """The job is among the failed ones, to be run again after a deploy."""
        job = undeployed.new(IDS)
        journal.wait(harness, lambda: bool(harness.failed(job.id)), "the failed job")
        assert job.worker in harness.failed(job.id)

    def test_a_job_longer_than_the_heartbeat_runs_once(self, harness, journal):
        """While its consumer lives the sweep takes it for none that is lost."""
        workers.waits.new({**IDS, "seconds": HEARTBEAT + 3}, max_attempts=2)
        journal.wait(harness, lambda: bool(journal.audited("contract.begun")), "its begin")
        time.sleep(HEARTBEAT + 1)
        harness.sweep()
        journal.wait(harness, lambda: bool(journal.audited("contract.ended")), "its end")
        assert len(journal.events("contract.begun")) == 1

    def test_a_job_that_a_stop_cuts_off_keeps_its_attempts(self, harness, journal):
        """SAQ's own grace period is over before the job is."""
        job = workers.waits.new({**IDS, "seconds": 8})
        journal.wait(harness, lambda: bool(journal.events("contract.begun")), "its begin")
        harness.stop()
        harness.start()
        journal.wait(harness, lambda: len(journal.events("contract.ended")) >= 2, "its second run")
        assert [run["attempt"] for run in journal.runs() if run["job_id"] == job.id] == [1] * 4

    def test_the_log_says_what_becomes_of_a_job_that_is_cut_off(self, harness, journal):
        """At a stop it runs again, whatever its attempts; where somebody aborts it, it does not."""
        job = sleeps.new(IDS)
        journal.wait(harness, lambda: bool(journal.runs()), "its first run")
        harness.stop()
        cut = f"job {job.id}.* attempt 1 of 1, raised CancelledError; "
        assert harness.logged(f"{cut}cut off by the worker's stop, it runs again")
        harness.start()
        journal.wait(harness, lambda: len(journal.runs()) == 2, "its second run")
        harness.ask(harness.ask(harness.native.job(job.id)).abort("by hand"))
        aborted = f"{cut}aborted by SAQ, it does not run again"
        journal.wait(harness, lambda: bool(harness.logged(aborted)), "the log of its abort")
        journal.wait(harness, lambda: self._status(harness, job) == "aborted", "its end")

    def test_new_in_a_running_loop_says_what_to_do(self, harness):
        """It would have to wait for the loop that it stops: the error names ``.anew()``."""

        async def enqueue():
            workers.echo.new(IDS)

        with pytest.raises(EnqueueError, match=r"await worker\.anew"):
            asyncio.run(enqueue())

    def test_a_server_that_does_not_answer_is_an_enqueue_error(self, harness, monkeypatch):
        """And when it does again, the same process sends on."""
        monkeypatch.setattr("sigra.backends.saq._TIMEOUT", 0.2)
        told = r"no answer within 0\.2 s\. Job [-\w]+ may have been sent"
        with harness.proxy.held(), pytest.raises(EnqueueError, match=told):
            workers.agnostic.new({})
        monkeypatch.undo()
        assert harness.kept(workers.echo.new(IDS, delay=60).id)


class SaqPostgresHarness(SaqHarness):
    table = "saq_jobs"

    def connect(self, name: str = "") -> Any:
        from psycopg_pool import AsyncConnectionPool
        from saq.queue.postgres import PostgresQueue

        pool = AsyncConnectionPool(
            self.url, open=False, timeout=5, check=AsyncConnectionPool.check_connection
        )
        return PostgresQueue(pool, name=name or self.queue, manage_pool_lifecycle=True)


class TestSaqOnPostgres(PostgresContract, SaqContract):
    harness_class, server = SaqPostgresHarness, "postgres"

    @pytest.mark.parametrize(
        ("how", "status"), [("value", "complete"), ("failure", "failed"), ("cancel", "aborted")]
    )
    def test_a_job_whose_end_cannot_be_written_at_once_is_begun_once(
        self, harness, journal, how, status
    ):
        """SAQ queues it again: it was cancelled or discarded, and ran as if somebody had asked."""
        job = workers.ends.new({**IDS, "how": how}, max_attempts=2 - (how == "failure"), delay=2)
        ends = f"OF status ON saq_jobs WHEN NEW.key = '{job.id}' AND NEW.status = '{status}'"
        with failing(harness.server, ends, times=1):
            journal.wait(harness, lambda: self._status(harness, job) == status, "its end")
        assert len(journal.runs()) == 1

    @pytest.mark.parametrize("how", ["failure", "snooze"])
    def test_a_job_that_a_stop_meets_as_its_next_run_is_queued_goes_on(self, harness, journal, how):
        """SAQ ended it as an aborted one."""
        worker, args = workers.recovers, {**IDS, "failures": 1}
        if how == "snooze":
            worker, args = workers.snoozes, {**IDS, "times": 1}
        with psycopg.connect(harness.server, autocommit=True) as conn:
            conn.execute("SELECT pg_advisory_lock(7)")
            conn.execute("""CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NEW; END $$""")
            conn.execute("""CREATE TRIGGER waiting BEFORE UPDATE OF status ON saq_jobs FOR EACH ROW
                WHEN (OLD.status = 'active' AND NEW.status = 'queued') EXECUTE FUNCTION wait()""")
            job = worker.new(args, max_attempts=2, backoff=1)
            journal.wait(harness, lambda: bool(journal.runs()), "its first run")
            with ThreadPoolExecutor() as thread:
                stopping = thread.submit(harness.stop)
                time.sleep(5)  # more than its grace period
                conn.execute("SELECT pg_advisory_unlock(7)")
                stopping.result()
            conn.execute("DROP FUNCTION wait CASCADE")
        harness.start()
        journal.wait(harness, lambda: self._status(harness, job) != "queued", "its next run")
        journal.wait(harness, lambda: self._status(harness, job) == "complete", "its end")
        assert len(journal.runs()) == 2

    def test_a_job_whose_begin_could_not_be_written_has_all_its_attempts(self, harness, journal):
        """SAQ had counted one: with no other left the job ended, and had never run."""
        job = workers.echo.new(IDS, delay=2)
        begins = f"""OF status ON saq_jobs WHEN NEW.key = '{job.id}' AND NEW.status = 'active'
            AND convert_from(NEW.job, 'UTF8')::json ->> 'started' > '0'"""
        ended = {"complete", "failed"}
        with failing(harness.server, begins, times=1):
            journal.wait(harness, lambda: self._status(harness, job) in ended, "its end")
        assert (self._status(harness, job), len(journal.runs())) == ("complete", 1)

    @pytest.mark.parametrize("how", [CUT, "RAISE 'not now'"], ids=["cut", "refused"])
    def test_a_job_that_has_waited_runs_once_though_its_begin_is_not_written_at_once(
        self, harness, journal, how
    ):
        """It is tried again where the connection broke; else the job comes again, as it was."""
        jobs, ends = self._one_runs_and_one_waits(harness, journal)
        begins = f"""OF status ON saq_jobs WHEN NEW.key = '{jobs[1].id}' AND NEW.status = 'active'
            AND convert_from(NEW.job, 'UTF8')::json ->> 'attempts' = '1'"""
        with failing(harness.server, begins, times=1, how=how):
            for end in ends:
                end.touch()
            journal.wait(harness, lambda: all(harness.has_ended(job) for job in jobs), "both ends")
        assert [self._status(harness, job) for job in jobs] == ["complete"] * 2
        assert len(journal.runs(held.name)) == 2
        harness.stop()  # the next test has a consumer with all its threads


async def fetched(queue, job):
    """Wait until a consumer has a job that has not begun; return what its queue has of it."""
    async with asyncio.timeout(60):
        while (found := await queue.job(job.id)).attempts or not found.worker_id:
            await asyncio.sleep(0.01)
    return found


async def left_of(queue, job):
    """Disconnect a queue; return what it had of a job."""
    native = await queue.job(job.id)
    await queue.disconnect()
    return native


async def run_once(queue, backend, worker):
    """Run one job of a worker in a consumer until that ends; return what its queue has of it."""
    job = await worker.anew(IDS)
    process = saq.Worker(queue, backend.functions).process()
    await asyncio.wait({asyncio.ensure_future(process)})
    return await left_of(queue, job)


def a_moment_later(coroutine):
    """Run a coroutine while a write of the running job is tried again."""
    asyncio.get_running_loop().call_later(1.5, asyncio.ensure_future, coroutine)


def test_a_job_whose_fetch_is_undone_is_run_by_who_fetches_it_next(postgres, caplog):
    """SAQ has handed it to its consumer by then, where it ran too, at the same time."""
    queues = [saq.Queue.from_url(postgres, name="undone") for _ in range(2)]
    backends = [SaqBackend(queue) for queue in queues]
    runs: list[str] = []

    @tenant_worker(name="tests.undone", backend=backends[0])
    async def waits(scope):
        runs.append("begun")
        await ended.wait()

    async def fetch_twice():
        for queue in queues:
            await queue.connect()
        job = await waits.anew(IDS)
        first, second = (
            saq.Worker(queue, backend.functions, dequeue_timeout=1)
            for queue, backend in zip(queues, backends, strict=True)
        )
        with psycopg.connect(postgres, autocommit=True) as conn:
            conn.execute(f"""CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN {CUT}; END $$""")
            conn.execute("""CREATE CONSTRAINT TRIGGER cutting AFTER UPDATE ON saq_jobs
                INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION cut()""")
            await first.process()
            conn.execute("DROP FUNCTION cut CASCADE")
        running = asyncio.create_task(second.process())
        while not runs:
            await asyncio.sleep(0.01)
        await queues[0]._dequeue()  # which ends well, and brings nothing
        again = asyncio.create_task(first.process())
        await asyncio.wait({again}, timeout=5)
        ended.set()
        await asyncio.gather(running, again)
        native = await queues[0].job(job.id)
        for queue in queues:
            await queue.disconnect()
        return native

    ended = asyncio.Event()
    native = asyncio.run(fetch_twice())
    assert (runs, native.status, native.attempts) == (["begun"], "complete", 1)
    assert "does not run here: its fetch was rolled back" in caplog.text


def test_a_restart_of_postgres_costs_no_job(postgres):
    """Its pool looked at one lost connection after the other, which took longer than the timeout."""
    proxy = Proxy(postgres)
    queue = saq.Queue.from_url(proxy.url, name="restart")
    with configure(backend=SaqBackend(queue)), not_hanging():
        first = workers.echo.new(IDS)
        submit(own_loop(), queue.pool.wait()).result()  # until it has all its connections
        proxy.cut()
        proxy.restore()
        second = workers.echo.new(IDS)
    submit(own_loop(), queue.disconnect()).result()
    proxy.close()
    with psycopg.connect(postgres) as conn:
        found = conn.execute("SELECT key FROM saq_jobs WHERE queue = 'restart'").fetchall()
    assert {first.id, second.id} == {key for (key,) in found}


def test_a_job_for_which_the_pool_had_no_connection_was_not_sent(postgres):
    """As when the application has closed it: the error said that the job may have been sent."""
    queue = saq.Queue.from_url(postgres, name="closed")
    with configure(backend=SaqBackend(queue)), not_hanging():
        workers.echo.new(IDS)
        submit(own_loop(), queue.pool.close()).result()
        with pytest.raises(EnqueueError, match="did not take the job: PoolClosed") as caught:
            workers.echo.new(IDS)
    assert caught.value.unsure == ()


def test_an_end_that_a_broken_connection_keeps_from_being_written_is_written_after_all(postgres):
    """Where it broke once more, SAQ itself left the job as a running one, to be run again."""
    queue = saq.Queue.from_url(postgres, name="cut")
    backend = SaqBackend(queue)

    @tenant_worker(name="tests.cut", backend=backend)
    def ends(scope):
        return 7

    async def run_it():
        await queue.connect()
        job = await ends.anew(IDS)
        writes = "OF status ON saq_jobs WHEN OLD.status = 'active' AND NEW.status <> 'active'"
        with failing(postgres, writes, times=2, how=CUT):
            process = saq.Worker(queue, backend.functions).process()
            await asyncio.wait({asyncio.ensure_future(process)})
        return await left_of(queue, job)

    native = asyncio.run(run_it())
    assert (native.status, native.attempts) == ("complete", 1)


def test_an_end_is_written_where_postgres_takes_no_writes_for_a_moment(postgres):
    """As in a failover: the job stayed a running one, to be run a second time."""
    pool = AsyncConnectionPool(postgres, min_size=1, max_size=1, open=False)
    sizes: Any = {"min_size": 1, "max_size": 1, "manage_pool_lifecycle": True}
    queue = PostgresQueue(pool, name="read-only", **sizes)
    backend = SaqBackend(queue)

    async def set_read_only(value):
        async with pool.connection() as conn:  # the only one
            await conn.execute(f"SET default_transaction_read_only = {value}")

    @tenant_worker(name="tests.read_only", backend=backend)
    async def ends(scope):
        await set_read_only("on")
        a_moment_later(set_read_only("off"))

    async def run_it():
        await queue.connect()
        return await run_once(queue, backend, ends)

    native = asyncio.run(run_it())
    assert (native.status, native.attempts) == ("complete", 1)


def test_a_sign_of_life_that_could_not_be_written_is_given_again_before_it_is_missed(postgres):
    """With three that broken connections cut off, a running job was begun a second time."""
    queue = saq.Queue.from_url(postgres, name="alive")
    backend, ended = SaqBackend(queue, heartbeat=24), asyncio.Event()

    @tenant_worker(name="tests.alive", backend=backend)
    async def waits(scope):
        await ended.wait()

    async def run_it(signs):
        await queue.connect()
        job = await waits.anew(IDS)
        running = asyncio.create_task(saq.Worker(queue, backend.functions).process())
        beats = """ON saq_jobs WHEN NEW.status = 'active'
            AND convert_from(OLD.job, 'UTF8') LIKE '%worker_id%'"""
        lost: list[str] = []
        with failing(postgres, beats, times=3):
            while not lost and signs.execute("SELECT last_value FROM failing").fetchone() < (4,):
                await asyncio.sleep(0.1)
                lost += await queue.sweep()
            ended.set()
            await running
        return lost, await left_of(queue, job)

    with psycopg.connect(postgres, autocommit=True) as conn:
        lost, native = asyncio.run(run_it(conn))
    assert (lost, native.status) == ([], "complete")


def test_a_job_that_ended_stays_so_though_a_consumer_died_before_that_was_written(postgres):
    """One that had fetched it again to write its end: the job then ended as a lost one."""
    queue = saq.Queue.from_url(postgres, name="unwritten")
    backend, runs = SaqBackend(queue, heartbeat=1), []

    @tenant_worker(name="tests.unwritten", backend=backend)
    async def ends(scope):
        runs.append("begun")

    async def die_before_it_is_written():
        worker = saq.Worker(queue, backend.functions, poll_interval=0.1)
        await queue.connect()
        job = await ends.anew(IDS)
        with failing(postgres, "OF status ON saq_jobs WHEN NEW.status = 'complete'", times=1):
            await worker.process()
        taken = await queue.dequeue(poll_interval=0.1)
        taken.attempts += 1
        await taken.update(status="active", touched=1)  # long ago
        assert await queue.sweep() == [job.id]
        await worker.process()
        return await left_of(queue, job)

    native = asyncio.run(die_before_it_is_written())
    assert (runs, native.status, native.attempts) == (["begun"], "complete", 1)


def test_a_job_that_a_stop_meets_as_it_begins_is_queued_again(postgres):
    """SAQ left it as a running one, until a sweep took its consumer for dead."""
    queue = saq.Queue.from_url(postgres, name="stopped")
    backend = SaqBackend(queue)

    @tenant_worker(name="tests.stopped", backend=backend)
    async def runs(scope):
        pass

    async def stop_it():
        await queue.connect()
        with psycopg.connect(postgres, autocommit=True) as conn:
            conn.execute("SELECT pg_advisory_lock(7)")
            conn.execute("""CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NEW; END $$""")
            conn.execute("""CREATE TRIGGER waiting BEFORE UPDATE ON saq_jobs FOR EACH ROW
                WHEN (NEW.status = 'active'
                    AND convert_from(NEW.job, 'UTF8')::json ->> 'worker_id' IS NOT NULL)
                EXECUTE FUNCTION wait()""")
            job = await runs.anew(IDS)
            beginning = asyncio.create_task(saq.Worker(queue, backend.functions).process())
            waiting = """SELECT FROM pg_locks JOIN pg_database AS d ON d.oid = database
                WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted"""
            while not conn.execute(waiting).fetchall():
                await asyncio.sleep(0.01)
            beginning.cancel()
            await asyncio.wait({beginning})
            conn.execute("DROP FUNCTION wait CASCADE")
        return await left_of(queue, job)

    with not_hanging():
        native = asyncio.run(stop_it())
    assert (native.status, native.attempts) == ("queued", 0)


@pytest.mark.parametrize(("how", "status"), [("value", "complete"), ("failure", "queued")])
def test_a_job_that_a_stop_meets_as_its_run_is_over_stays_as_that_ended(postgres, how, status):
    """SAQ aborted it, though its end or its next run was written."""
    queue = saq.Queue.from_url(postgres, name="over")
    backend = SaqBackend(queue)

    @tenant_worker(name=f"tests.over_{how}", backend=backend, max_attempts=2)
    async def ends(scope):
        (context,) = worker.job_task_contexts.values()
        context["task"].add_done_callback(lambda _: running.cancel())
        return {"value": 7, "failure": Failure("said so")}[how]

    async def run_it():
        nonlocal worker, running
        await queue.connect()
        job = await ends.anew(IDS)
        worker = saq.Worker(queue, backend.functions)
        running = asyncio.ensure_future(worker.process())
        await asyncio.wait({running})
        return await left_of(queue, job)

    worker = running = None
    assert asyncio.run(run_it()).status == status


def test_an_end_is_written_where_redis_is_gone_for_a_moment(redis):
    """SAQ tried to at once only, and left the job as a running one, to be run again."""
    proxy = Proxy(redis)
    queue = saq.Queue.from_url(proxy.url, name=f"gone-{uuid.uuid4().hex}")
    backend = SaqBackend(queue)

    @tenant_worker(name="tests.gone", backend=backend)
    async def ends(scope):
        proxy.cut()
        asyncio.get_running_loop().call_later(1.5, proxy.restore)

    native = asyncio.run(run_once(queue, backend, ends))
    assert (native.status, native.attempts) == ("complete", 1)


@pytest.mark.parametrize(
    ("refuses", "again"),
    [
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
        ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
    ],
)
def test_an_end_is_written_where_redis_takes_no_writes_for_a_moment(refuses, again):
    """As in a failover, or until a replica is there: SAQ left the job as a running one, to be run again."""
    with bundled_redis() as url:
        queue = saq.Queue.from_url(url, name="failover")
        backend = SaqBackend(queue)

        @tenant_worker(name="tests.failover", backend=backend)
        async def ends(scope):
            await queue.redis.execute_command(*refuses.split())
            a_moment_later(queue.redis.execute_command(*again.split()))

        native = asyncio.run(run_once(queue, backend, ends))
    assert (native.status, native.attempts) == ("complete", 1)


def test_a_next_run_is_queued_where_redis_takes_no_writes_for_a_moment():
    """The job stayed a running one, and ended as one whose consumer had died."""
    with bundled_redis() as url:
        queue = saq.Queue.from_url(url, name="put-off")
        backend = SaqBackend(queue)

        @tenant_worker(name="tests.put_off", backend=backend)
        async def snoozes(scope):
            await queue.redis.config_set("min-replicas-to-write", 1)
            a_moment_later(queue.redis.config_set("min-replicas-to-write", 0))
            return Snooze(60)

        native = asyncio.run(run_once(queue, backend, snoozes))
    assert (native.status, native.kwargs["snoozes"]) == ("queued", 1)


@pytest.mark.parametrize("server", ["redis", "postgres"])
def test_a_next_run_that_was_queued_though_nobody_heard_of_it_is_left_to_who_has_begun_it(
    server, request
):
    """Only the answer was lost: a second try would have queued it again beside that."""
    queue = saq.Queue.from_url(request.getfixturevalue(server), name=f"lost-{uuid.uuid4().hex}")
    backend, retry, tries = SaqBackend(queue), queue.retry, []
    lost = psycopg.OperationalError if server == "postgres" else RedisConnectionError

    @tenant_worker(name=f"tests.lost_answer_{server}", backend=backend)
    async def snoozes(scope):
        return Snooze(60)

    async def retry_and_begin_elsewhere(job, error):
        tries.append(error)
        await retry(job, error)
        begun = await queue.job(job.key)
        await begun.update(status="active", started=1)
        raise lost

    async def run_it():
        await queue.connect()
        queue.retry = retry_and_begin_elsewhere
        return await run_once(queue, backend, snoozes)

    native = asyncio.run(run_it())
    assert (native.status, native.started, len(tries)) == ("active", 1, 1)


def test_a_begin_that_redis_did_not_hear_of_is_no_attempt(redis):
    """Its connection broke after the job was fetched, and came back for the next write."""
    proxy = Proxy(redis)
    client = aioredis.from_url(proxy.url, retry=Retry(NoBackoff(), 0))
    queue = RedisQueue(client, name=f"unheard-{uuid.uuid4().hex}")
    backend, fetch, retry = SaqBackend(queue), queue.dequeue, queue.retry

    @tenant_worker(name="tests.unheard", backend=backend)
    async def never_begins(scope):
        pass

    async def fetch_and_cut(**options):
        job = await fetch(**options)
        proxy.cut()
        return job

    async def restore_and_retry(job, error):
        proxy.restore()
        await retry(job, error)

    async def begin():
        job = await never_begins.anew(IDS)
        queue.dequeue, queue.retry = fetch_and_cut, restore_and_retry
        await saq.Worker(queue, backend.functions).process()
        return await left_of(queue, job)

    native = asyncio.run(begin())
    assert (native.status, native.attempts) == ("queued", 0)


def test_a_consumer_that_has_made_its_queue_anew_ends_jobs_as_they_end(redis):
    """No SaqBackend was given it, and SAQ itself would complete a job that is to run again."""
    name = f"anew-{uuid.uuid4().hex}"
    queue, anew = (saq.Queue.from_url(redis, name=name) for _ in range(2))
    backend = SaqBackend(queue)

    @tenant_worker(name="tests.anew", backend=backend, max_attempts=2, backoff=60)
    def ends(scope):
        raise LookupError

    async def begin():
        job = await ends.anew(IDS)
        await saq.Worker(anew, backend.functions).process()
        await anew.disconnect()
        return await left_of(queue, job)

    native = asyncio.run(begin())
    assert (native.status, native.kwargs["failures"]) == ("queued", 1)


@pytest.mark.parametrize("server", ["redis", "postgres"])
def test_a_consumer_that_has_made_its_queue_anew_brings_lost_jobs_back(server, request):
    """No SaqBackend was given it, and the job of a dead consumer was running for ever."""
    url, name = request.getfixturevalue(server), f"anew-{uuid.uuid4().hex}"
    queue, anew = (saq.Queue.from_url(url, name=name) for _ in range(2))
    backend = SaqBackend(queue, heartbeat=1)

    async def die_and_sweep():
        with configure(backend=backend):
            job = await workers.echo.anew(IDS)
        dead = await queue.dequeue(timeout=5)
        await dead.update(status="active", started=1)
        await asyncio.sleep(1.5)
        saq.Worker(anew, backend.functions)
        await anew.connect()
        await anew.sweep(lock=1)
        await anew.disconnect()
        return await left_of(queue, job)

    assert asyncio.run(die_and_sweep()).status == "queued"


UNREADABLE = [
    {"function": None},  # whose field is absent
    {"queue": "another"},
    {"of_a_newer_saq": 1},
    {"status": "odd"},
    {"attempts": "1"},
    {"kwargs": 1},
    {"meta": None},
    {"touched": [1]},
    {"key": "another"},
]


async def spoil(queue, id, changes):
    """Write a job as no SAQ of this release does; None leaves a field out."""
    native = await queue.job(id)
    fields = {**json.loads(queue.serialize(native)), **changes}
    text = json.dumps({key: it for key, it in fields.items() if key != "function" or it})
    if hasattr(queue, "redis"):
        await queue.redis.set(native.id, text)
    else:
        async with queue.pool.connection() as conn:
            facts = text.encode(), id
            change = "UPDATE saq_jobs SET job = %s, scheduled = 1 WHERE key = %s"  # the next one
            await conn.execute(change, facts)


@pytest.mark.parametrize(
    ("server", "changes"),
    [
        *(("redis", changes) for changes in UNREADABLE),
        *(("postgres", changes) for changes in UNREADABLE if "status" not in changes),
    ],
    ids=str,
)
def test_a_job_that_saq_cannot_read_keeps_none_that_is_lost_from_coming_back(
    server, request, caplog, changes
):
    """Nothing was swept as long as it was there, and nobody was told; or it came again for ever."""
    url, name = request.getfixturevalue(server), f"unreadable-{uuid.uuid4().hex}"
    queue = saq.Queue.from_url(url, name=name)
    backend = SaqBackend(queue, heartbeat=1)

    async def die_and_sweep():
        with configure(backend=backend):
            odd, job = await workers.echo.anew_many([IDS] * 2)
        for _ in range(2):
            dead = await queue.dequeue(timeout=5)
            await dead.update(status="active", started=1, touched=1)
        await spoil(queue, odd.id, changes)
        swept = []
        for _ in range(2):
            with suppress(Exception) if server == "postgres" else nullcontext():  # by SAQ's own
                swept += await queue.sweep(lock=1, abort=0.1)
        return odd.id, swept, await left_of(queue, job)

    id, swept, native = asyncio.run(die_and_sweep())
    told = [line for line in caplog.messages if "none that this SAQ can run" in line]
    assert (native.status, len(told), id in told[0]) == ("queued", 1, True)
    assert not any(id in key for key in swept)


NEVER = ["soon", True, float("nan"), float("inf"), 10**19]
"""What PostgreSQL does not take as the moment of a job."""


@pytest.mark.parametrize(
    "changes", [*UNREADABLE[:3], *({"scheduled": when} for when in NEVER)], ids=str
)
@pytest.mark.parametrize("server", ["redis", "postgres"])
def test_a_waiting_job_that_saq_cannot_read_keeps_no_other_waiting(
    server, request, caplog, changes
):
    """On PostgreSQL each fetch that came upon it failed: its consumers ran nothing any more."""
    url, name = request.getfixturevalue(server), f"unreadable-{uuid.uuid4().hex}"
    queue = saq.Queue.from_url(url, name=name)
    backend = SaqBackend(queue)

    @tenant_worker(name="tests.beside", backend=backend)
    def beside(scope):
        pass

    async def run_both():
        odd, job = await beside.anew_many([IDS] * 2)
        await spoil(queue, odd.id, changes)
        consumer = saq.Worker(queue, backend.functions, dequeue_timeout=5)
        for _ in range(5):
            if (await queue.job(job.id)).status == "queued":
                await consumer.process()
        return odd.id, await left_of(queue, job)

    with not_hanging():
        id, native = asyncio.run(run_both())
    told = [line for line in caplog.messages if "none that this SAQ can run" in line]
    assert native.status == "complete"
    assert [id in line and "put off by a minute" in line for line in told] == [True] * (
        server == "postgres"
    )


def test_an_unreadable_job_is_put_off_though_a_thousand_of_other_priorities_wait(postgres):
    """A consumer that takes some priorities alone looked among all, and ran nothing any more."""
    name = f"priorities-{uuid.uuid4().hex}"
    queue = saq.Queue.from_url(postgres, name=name, priorities=(1, 9))
    SaqBackend(queue)
    text = json.dumps({"function": "native", "queue": name, "key": "%s"})
    others = """INSERT INTO saq_jobs (key, job, queue, status, priority, scheduled)
    SELECT key, convert_to(format(%s, key), 'UTF8'), %s, 'queued', 0, 1
    FROM (SELECT %s || n FROM generate_series(1, 1001) AS n) AS each (key)"""

    async def native(context):
        pass

    async def run_one():
        await queue.connect()
        odd, job = [await queue.enqueue("native", priority=5) for _ in range(2)]
        await spoil(queue, odd.key, {"of_a_newer_saq": 1})
        async with queue.pool.connection() as conn:
            await conn.execute(others, [text, name, name])
        consumer = saq.Worker(queue, [("native", native)], dequeue_timeout=5)
        for _ in range(3):
            if (await queue.job(job.key)).status == "queued":
                await consumer.process()
        status = (await queue.job(job.key)).status
        async with queue.pool.connection() as conn:
            await conn.execute("DELETE FROM saq_jobs WHERE queue = %s", [name])
        await queue.disconnect()
        return status

    with not_hanging():
        assert asyncio.run(run_one()) == "complete"


@pytest.mark.parametrize(
    ("server", "facts"),  # PostgreSQL takes texts alone as keys
    [("redis", {"key": 7}), ("redis", {"meta": ["a"]}), ("postgres", {"meta": ["a"]})],
    ids=str,
)
def test_a_native_job_that_saq_itself_brings_back_comes_back(server, request, caplog, facts):
    """SAQ takes such a key and such a meta: the job was said to be none that it can run."""
    url, name = request.getfixturevalue(server), f"native-{uuid.uuid4().hex}"
    queue = saq.Queue.from_url(url, name=name)
    SaqBackend(queue)

    async def die_and_sweep():
        await queue.connect()
        native = await queue.enqueue("native", timeout=1, retries=2, **facts)
        dead = await queue.dequeue(timeout=5)
        await dead.update(status="active", started=1)
        await queue.sweep(lock=1, abort=0.1)
        status = (await queue.job(native.key)).status
        await queue.disconnect()
        return status

    status = asyncio.run(die_and_sweep())
    assert (status, "none that this SAQ can run" in caplog.text) == ("queued", False)


def test_a_consumer_that_has_made_its_queue_anew_counts_only_what_begins(redis):
    """No SaqBackend was given it, and a hook of the application that raised used up an attempt."""
    name = f"anew-{uuid.uuid4().hex}"
    queue, anew = (saq.Queue.from_url(redis, name=name) for _ in range(2))
    backend = SaqBackend(queue)

    async def hook(context):
        raise OSError

    async def fail_to_begin():
        with configure(backend=backend):
            job = await workers.echo.anew(IDS)
        await saq.Worker(anew, backend.functions, before_process=hook).process()
        await anew.disconnect()
        return await left_of(queue, job)

    native = asyncio.run(fail_to_begin())
    assert (native.status, native.kwargs["ended"]) == ("queued", 1)


async def make_due(queue, job):
    """Have a job that waits for its next run wait no longer."""
    id = queue.job_id(job.id)
    if hasattr(queue, "redis"):
        await queue.redis.zadd(queue.namespace("incomplete"), {id: 1})
        await queue.schedule()
    else:
        async with queue.pool.connection() as conn:
            await conn.execute("UPDATE saq_jobs SET scheduled = 1 WHERE key = %s", [id])


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("server", ["redis", "postgres"])
def test_a_further_run_whose_consumer_dies_comes_again(server, by_hand, request):
    """It has the heartbeat of the first: without one no sweep would ever take it for lost."""
    url, name = request.getfixturevalue(server), f"further-{uuid.uuid4().hex}"
    queue = saq.Queue.from_url(url, name=name)
    backend = SaqBackend(queue, heartbeat=1)

    @tenant_worker(name=f"tests.{name}", backend=backend, max_attempts=1 if by_hand else 2)
    def ends(scope):
        raise LookupError

    async def die_in_the_second():
        job = await ends.anew(IDS)
        await saq.Worker(queue, backend.functions).process()
        if by_hand:
            await (await queue.job(job.id)).retry("retried from ui")
        await make_due(queue, job)
        await (await queue.dequeue(timeout=5)).update(status="active", touched=1)  # long ago
        return await queue.sweep(lock=1), await left_of(queue, job)

    with not_hanging():
        swept, native = asyncio.run(die_in_the_second())
    assert (len(swept), native.status) == (1, "queued")


@pytest.mark.parametrize("server", ["redis", "postgres"])
def test_a_second_attempt_that_could_not_begin_comes_again_at_once(server, request):
    """A hook that raised put it off for as long as it had waited already, here by an hour."""
    url, name = request.getfixturevalue(server), f"hook-{uuid.uuid4().hex}"
    queue = saq.Queue.from_url(url, name=name)
    backend = SaqBackend(queue)

    @tenant_worker(name="tests.hook", backend=backend, max_attempts=2, backoff=3600)
    def ends(scope):
        raise LookupError

    async def hook(context):
        raise OSError

    async def fail_to_begin():
        job = await ends.anew(IDS)
        await saq.Worker(queue, backend.functions).process()
        await make_due(queue, job)
        await saq.Worker(queue, backend.functions, before_process=hook).process()
        return await left_of(queue, job)

    with not_hanging():
        native = asyncio.run(fail_to_begin())
    assert (native.status, native.retry_delay) == ("queued", 1)


def ended_in_a_hook(url, meanwhile, error=None, *, heartbeat=15, max_attempts=1):
    """Run a job; return what is left of it once its hook, after ``meanwhile``, has ended badly.

    ``meanwhile`` is given the job and its backend. Without an ``error`` a stop cuts the hook off.
    """
    queue, running = saq.Queue.from_url(url, name=f"hook-{uuid.uuid4().hex}"), None
    backend = SaqBackend(queue, heartbeat=heartbeat)

    @tenant_worker(name=f"tests.{queue.name}", backend=backend, max_attempts=max_attempts)
    async def runs(scope):
        pass

    async def hook(context):
        await meanwhile(context["job"], backend)
        if error is not None:
            raise error
        running.cancel()
        await asyncio.sleep(60)

    async def end_it():
        nonlocal running
        job = await runs.anew(IDS)
        consumer = saq.Worker(queue, backend.functions, before_process=hook)
        running = asyncio.ensure_future(consumer.process())
        await asyncio.gather(running, return_exceptions=True)
        return await left_of(queue, job)

    with not_hanging():
        return asyncio.run(end_it())


@pytest.mark.parametrize("server", ["redis", "postgres"])
def test_a_stop_that_meets_a_hook_before_a_job_is_no_death_of_its_consumer(server, request):
    """SAQ left the job as a running one, and a sweep then ended it: its only attempt was gone."""
    url = request.getfixturevalue(server)
    native = ended_in_a_hook(url, lambda job, backend: asyncio.sleep(0))
    assert (native.status, native.attempts) == ("queued", 0)


@pytest.mark.parametrize("error", [None, OSError()], ids=["a stop", "an error"])
@pytest.mark.parametrize("server", ["redis", "postgres"])
def test_a_hook_that_ends_badly_leaves_a_job_alone_that_another_has_run(server, error, request):
    """The hook took longer than the job's heartbeat, and the job was queued after its end."""
    url = request.getfixturevalue(server)

    async def run_it_elsewhere(job, backend):
        beside = saq.Queue.from_url(url, name=job.queue.name)
        another = saq.Worker(beside, backend.functions)  # which gives that queue our own sweep
        await beside.connect()
        await asyncio.sleep(1.5)
        await beside.sweep()
        await asyncio.sleep(1.5)
        await beside.schedule()
        await another.process()
        await beside.disconnect()

    native = ended_in_a_hook(url, run_it_elsewhere, error, heartbeat=1, max_attempts=2)
    assert native.status == "complete"


@pytest.mark.parametrize("server", ["redis", "postgres"])
def test_a_stop_that_meets_a_hook_leaves_a_job_aborted_that_somebody_has_aborted(server, request):
    """It was queued again, and ran."""

    async def abort_it(job, backend):
        await (await job.queue.job(job.key)).abort("not this one")

    native = ended_in_a_hook(request.getfixturevalue(server), abort_it)
    assert native.status == "aborting"  # a sweep ends it


def jsonpickled(job: Mapping[str, Any]) -> str:
    return json.dumps(as_jsonpickle(job))


@pytest.mark.parametrize("dump", [pickle.dumps, repr, jsonpickled])
def test_what_does_not_write_json_is_refused(dump):
    """A queue that pickles could run whatever somebody has written to it."""
    queue = saq.Queue.from_url("redis://127.0.0.1:1", dump=dump)
    with pytest.raises(ValueError, match="does not write JSON"):
        SaqBackend(queue)


def test_a_direct_call_of_a_worker_s_function_is_refused(redis):
    """It wrote the worker's args into the job of the function that called it, and queued that again."""
    queue = saq.Queue.from_url(redis, name=f"called-{uuid.uuid4().hex}")
    backend, said = SaqBackend(queue), list[str]()

    async def calls(context, *, first):
        for given in (context, {}):
            with pytest.raises(TypeError) as told:
                await dict(backend.functions)[workers.echo.name](given, **IDS)
            said.append(str(told.value).partition(":")[0])
        return first

    async def run_it():
        await queue.connect()
        job = await queue.enqueue("calls", first=1)
        await saq.Worker(queue, [("calls", calls)]).process()
        await job.refresh()
        await queue.disconnect()
        return job

    with not_hanging():
        native = asyncio.run(run_it())
    assert said == [f"a direct call runs no job of {workers.echo.name}"] * 2
    assert (native.status, native.kwargs, native.result) == ("complete", {"first": 1}, 1)


def test_a_consumer_knows_a_worker_s_function_without_its_name_too():
    """litestar-saq hands SAQ the functions alone, and each job failed with a KeyError."""
    queue = saq.Queue.from_url("redis://127.0.0.1:1")
    functions = [function for _, function in SaqBackend(queue).functions]
    assert workers.echo.name in saq.Worker(queue, functions).functions


def test_a_queue_whose_loop_has_ended_sends_nothing():
    """Its connections ended with the loop, and the error says so."""
    queue = saq.Queue.from_url("redis://127.0.0.1:1")
    asyncio.run(queue.connect())
    with configure(backend=SaqBackend(queue)), pytest.raises(EnqueueError, match="has ended"):
        workers.echo.new(IDS)


def test_after_a_disconnect_the_next_loop_connects_the_queue(redis):
    """As when tests have a lifespan each, which disconnects the queue as it ends."""
    queue = saq.Queue.from_url(redis, name=f"lifespans-{uuid.uuid4().hex}")

    async def sent_in_a_lifespan() -> str:
        try:
            return (await workers.echo.anew(IDS)).id
        finally:
            await queue.disconnect()

    async def take_away() -> int:
        try:
            return await queue.redis.delete(queue.namespace("queued"), *map(queue.job_id, sent))
        finally:
            await queue.disconnect()

    with configure(backend=SaqBackend(queue)):
        sent = [asyncio.run(sent_in_a_lifespan()) for _ in range(2)]
    assert asyncio.run(take_away()) == 3


def test_a_thread_beside_loops_that_come_and_go_sends(redis):
    """Each request may have a loop of its own, and the jobs are in the queue."""
    queue = saq.Queue.from_url(redis, name=f"loops-{uuid.uuid4().hex}")

    async def take_away() -> int:
        keys = [queue.namespace("queued"), *map(queue.job_id, sent)]
        try:
            return await queue.redis.delete(*keys)
        finally:
            await queue.disconnect()

    with configure(backend=SaqBackend(queue)):
        sent = [asyncio.run(asyncio.to_thread(workers.echo.new, IDS)).id for _ in range(2)]
    assert submit(own_loop(), take_away()).result() == 3


@pytest.mark.parametrize("server", ["redis", "postgres"])
def test_a_thread_and_a_loop_that_send_first_at_once_have_one_loop(server, request):
    """Each connected the queue in its own, and shared with the other what only one of them can use."""
    queue = saq.Queue.from_url(request.getfixturevalue(server), name=f"first-{uuid.uuid4().hex}")
    connect, loops = queue.connect, list[Any]()
    connecting, both = threading.Event(), threading.Event()

    async def slowly() -> None:
        loops.append(asyncio.get_running_loop())
        connecting.set()
        await asyncio.to_thread(both.wait)
        await connect()

    async def take_away() -> None:
        assert await queue.count("queued") == 2
        for key in sent:
            await queue.abort(await queue.job(key), "the test is over")
        await queue.disconnect()

    async def send() -> list[str]:
        first = asyncio.create_task(asyncio.to_thread(workers.echo.new, IDS))
        await asyncio.to_thread(connecting.wait)
        second = asyncio.create_task(workers.echo.anew(IDS))
        await asyncio.sleep(0)
        both.set()
        return [(await job).id for job in (first, second)]

    queue.connect = slowly
    with configure(backend=SaqBackend(queue)):
        sent = asyncio.run(send())
    assert loops == [own_loop()]
    submit(own_loop(), take_away()).result()


@pytest.mark.parametrize(
    ("how", "status"), [("value", "complete"), ("failure", "failed"), ("cancel", "aborted")]
)
def test_a_job_that_ended_stays_so_where_a_sweep_takes_it_as_it_is_fetched(redis, how, status):
    """A sweep without Sigra takes it for lost, waits for its end, and then sends it once more."""
    queue = saq.Queue.from_url(redis, name=f"swept-{uuid.uuid4().hex}")
    elsewhere = saq.Queue.from_url(redis, name=queue.name)
    backend, runs, sweeps = SaqBackend(queue), [], []

    @tenant_worker(name=f"tests.swept_{how}", backend=backend)
    def ends(scope):
        runs.append(how)
        return {"value": 7, "failure": Failure("said so"), "cancel": Cancel("said so")}[how]

    async def swept_meanwhile(**options):
        job = await fetch(**options)
        sweeps.append(asyncio.create_task(elsewhere.sweep(abort=60)))
        while await queue.count("active"):
            await asyncio.sleep(0.01)
        return job

    async def run_it():
        worker = saq.Worker(queue, backend.functions)
        job = await ends.anew(IDS)
        queue.dequeue = swept_meanwhile
        await worker.process()
        assert await sweeps[0] == [queue.job_id(job.id)]
        queue.dequeue = fetch
        first = await queue.job(job.id)
        assert first.error == queue.swept_error_message
        await asyncio.sleep(first.retry_delay)
        await queue.schedule()
        await worker.process()
        left = sum([await queue.count(kind) for kind in ("queued", "active", "incomplete")])
        last = await queue.job(job.id)
        await queue.disconnect()
        await elsewhere.disconnect()
        return last, left

    fetch = queue.dequeue
    native, left = asyncio.run(run_it())
    assert (runs, native.status, native.attempts, left) == ([how], status, 1, 0)
    assert (native.error is None) if how == "value" else ("said so" in native.error)


@pytest.mark.parametrize("server", ["redis", "postgres"])
def test_a_job_that_ended_while_lost_ones_were_brought_back_stays_so(server, request):
    """SAQ's sweep read it before, and judged it by that when it had waited at each lost one."""
    queue = saq.Queue.from_url(request.getfixturevalue(server), name="sweeps")
    backend, runs = SaqBackend(queue, heartbeat=5), []

    @tenant_worker(name=f"tests.swept_late_{server}", backend=backend)
    async def waits(scope):
        runs.append("begun")
        while not swept.is_set():
            await asyncio.sleep(0.1)

    async def sweep_meanwhile():
        await queue.connect()
        lost = [await waits.anew(IDS) for _ in range(2)]
        taken = [await queue.dequeue(timeout=5) for _ in lost]
        for each in taken:
            await each.update(status="active")
        await asyncio.sleep(6)
        last = await waits.anew(IDS)
        running = asyncio.create_task(saq.Worker(queue, backend.functions).process())
        while not runs:
            await asyncio.sleep(0.01)
        sweeping = asyncio.create_task(queue.sweep(abort=2))
        while "active" in [job.status for job in await queue.jobs([lost[0].id])]:
            await asyncio.sleep(0.01)
        swept.set()
        await running
        await sweeping
        status = [job.status for job in await queue.jobs([job.id for job in (*lost, last)])]
        await queue.disconnect()
        return len(taken), status

    swept = asyncio.Event()
    assert asyncio.run(sweep_meanwhile()) == (2, ["queued", "queued", "complete"])


def test_a_job_that_is_just_fetched_is_left_alone_until_its_consumer_can_only_be_dead(redis):
    """SAQ's sweep took it for lost at once, and ran it twice if it took longer than five seconds."""
    queue = saq.Queue.from_url(redis, name=f"fetched-{uuid.uuid4().hex}")
    backend = SaqBackend(queue, heartbeat=1)

    async def fetch_and_sweep():
        with configure(backend=backend):
            job = await workers.echo.anew(IDS)
        fetched = await queue.dequeue()
        first = await queue.sweep(lock=1)
        await asyncio.sleep(1.5)
        lists = await queue.sweep(lock=1), await queue.count("active"), await queue.count("queued")
        return job.id, fetched.key, first, lists, await left_of(queue, job)

    id, key, first, lists, native = asyncio.run(fetch_and_sweep())
    assert (key, first, lists) == (id, [], ([queue.job_id(id)], 0, 0))
    assert (native.status, native.attempts, native.scheduled > 0) == ("queued", 0, True)


@pytest.mark.parametrize("server", ["redis", "postgres"])
def test_a_job_that_gives_a_sign_of_life_as_a_sweep_reads_it_is_left_where_it_runs(server, request):
    """It was silent for too long, but is not lost: a second consumer would run it too."""
    url, name = request.getfixturevalue(server), f"silent-{uuid.uuid4().hex}"
    queue, elsewhere = (saq.Queue.from_url(url, name=name) for _ in range(2))
    backend, read = SaqBackend(queue, heartbeat=5), queue.deserialize

    def read_and_beat(*args):
        queue.deserialize = read
        job = read(*args)
        submit(own_loop(), beat(job.key)).result(60)
        return job

    async def beat(key):
        await elsewhere.connect()
        await (await elsewhere.job(key)).update(touched=saq.utils.now())
        await elsewhere.disconnect()

    async def run_and_sweep():
        await queue.connect()
        with configure(backend=backend):
            job = await workers.echo.anew(IDS)
        await (await queue.dequeue(timeout=5)).update(status="active", touched=1)  # long ago
        queue.deserialize = read_and_beat
        return await queue.sweep(lock=1), await left_of(queue, job)

    swept, native = asyncio.run(run_and_sweep())
    assert (swept, native.status) == ([], "active")


@pytest.mark.parametrize("by_then", ["aborting", "queued", "active"])
@pytest.mark.parametrize("server", ["redis", "postgres"])
def test_a_job_that_is_taken_away_while_it_waits_for_a_thread_does_not_begin(
    server, by_then, request, caplog
):
    """A sweep without Sigra may take it for lost, and has sent it again: it would run twice.

    ``by_then``: the sweep is still at it, or has sent the job, or that runs elsewhere.
    """
    queue = saq.Queue.from_url(request.getfixturevalue(server), name=f"away-{uuid.uuid4().hex}")
    backend, runs, free = SaqBackend(queue), [], threading.Event()

    @tenant_worker(name=f"tests.away_{server}_{by_then}", backend=backend)
    def ends(scope):
        runs.append("begun")

    async def run_it():
        await queue.connect()
        occupy_the_only_thread(free)
        job = await ends.anew(IDS)
        running = asyncio.create_task(saq.Worker(queue, backend.functions).process())
        found = await fetched(queue, job)
        found.retry_delay = 60
        if by_then == "aborting":
            await found.update(status=by_then, error=queue.swept_error_message)
        else:
            await queue.retry(found, "swept")
        if by_then == "active":
            elsewhere = await queue.job(job.id)
            elsewhere.attempts += 1
            await elsewhere.update(status="active", started=1)
        free.set()
        await running
        return await left_of(queue, job)

    native = asyncio.run(run_it())
    assert (runs, native.status, native.attempts) == ([], by_then, 0)
    assert by_then == "aborting" or native.started == (by_then == "active")
    assert "does not run here: its queue has sent it again" in caplog.text


def test_a_job_that_has_waited_does_not_run_if_its_begin_is_not_written(postgres):
    """Nobody would know that it had begun, and it could take down one consumer after another."""
    queue = saq.Queue.from_url(postgres, name=f"refused-{uuid.uuid4().hex}")
    backend, runs, free = SaqBackend(queue), [], threading.Event()

    @tenant_worker(name="tests.refused", backend=backend)
    def ends(scope):
        runs.append("begun")

    async def run_it():
        await queue.connect()
        occupy_the_only_thread(free)
        job = await ends.anew(IDS)
        begins = f"""OF status ON saq_jobs WHEN NEW.key = '{job.id}' AND NEW.status = 'active'
            AND convert_from(NEW.job, 'UTF8')::json ->> 'attempts' = '1'"""
        with failing(postgres, begins, times=1):
            running = asyncio.create_task(saq.Worker(queue, backend.functions).process())
            await fetched(queue, job)
            free.set()
            await running
        return await left_of(queue, job)

    with not_hanging():
        native = asyncio.run(run_it())
    assert (runs, native.status, native.attempts) == ([], "queued", 0)


def test_a_completed_job_that_fails_as_it_is_run_again_is_kept_like_any_that_failed(redis):
    """SAQ would have forgotten it after ten minutes, like one that completed."""
    queue = saq.Queue.from_url(redis, name=f"kept-{uuid.uuid4().hex}")
    backend = SaqBackend(queue)

    @tenant_worker(name="tests.kept", backend=backend)
    async def fails_later(scope, job):
        return Failure("said so") if job.snoozes else None

    async def run_twice():
        await queue.connect()
        worker, job = saq.Worker(queue, backend.functions), await fails_later.anew(IDS)
        await worker.process()
        native = await queue.job(job.id)
        first = native.status, native.ttl
        native.retry_delay = 0
        await native.retry("retried from ui")
        await worker.process()
        return first, await left_of(queue, job)

    first, native = asyncio.run(run_twice())
    assert (first, native.status) == (("complete", 600), "failed")
    assert native.ttl == 365 * 24 * 3600


@pytest.mark.parametrize("server", ["redis", "postgres"])
def test_a_job_that_was_refused_unread_runs_when_it_is_retried_by_hand(server, request):
    """Its consumer lacked its key. Once it had that, the job was refused as one that kills it."""
    url = request.getfixturevalue(server)
    queue = saq.Queue.from_url(url, name=f"unread-{uuid.uuid4().hex}")
    backend, attempts = SaqBackend(queue), []

    @tenant_worker(name=f"tests.unread_{server}", backend=backend)
    async def known(scope, job):
        attempts.append(job.attempt)

    def knowing(key):
        signing = Signing(keys={key: b"k" * 32}, current=key, application="tests")
        return configure(signing=signing)

    async def run_it():
        await queue.connect()
        worker = saq.Worker(queue, backend.functions)
        with knowing("own"):
            job = await known.anew(IDS)
        for key in ("other", "other", "own"):
            with knowing(key):
                await worker.process()
            native = await queue.job(job.id)
            if key == "other":
                assert (native.status, attempts) == ("failed", [])
                native.retry_delay = 0
                await native.retry("retried from ui")
        return await left_of(queue, job)

    with not_hanging():
        native = asyncio.run(run_it())
    assert (native.status, attempts) == ("complete", [1])


@pytest.mark.parametrize(("busy", "counted"), [(True, [0, 1]), (False, [1, 1])])
def test_a_plain_function_that_may_wait_for_a_thread_is_not_counted_before(
    redis, monkeypatch, busy, counted
):
    """Of a consumer that died, many had been fetched, and ended without a run."""
    queue = saq.Queue.from_url(redis, name=f"busy-{uuid.uuid4().hex}")
    update, written = queue.update, []

    async def write(job, **changes):
        if changes.get("status") == "active":
            written.append(job.attempts)
        await update(job, **changes)

    queue.update = write
    backend = SaqBackend(queue)
    monkeypatch.setattr("sigra.backends.saq_begin.is_busy", lambda: busy)

    @tenant_worker(name=f"tests.busy_{busy}", backend=backend)
    def plain(scope):
        pass

    @tenant_worker(name=f"tests.busy_{busy}_async", backend=backend)
    async def later(scope):
        pass

    async def run_both():
        await queue.connect()
        worker, jobs = saq.Worker(queue, backend.functions), []
        for function in (plain, later):
            jobs.append(await function.anew(IDS))
            await worker.process()
        ended = [await queue.job(job.id) for job in jobs]
        await queue.disconnect()
        return [(native.status, native.attempts) for native in ended]

    assert (asyncio.run(run_both()), written) == ([("complete", 1)] * 2, counted)


def test_a_job_that_a_stop_meets_as_it_is_noted_to_begin_keeps_its_attempts(redis, monkeypatch):
    """What was written of its begin stayed, though it does not begin: with one attempt it ended."""
    queue = saq.Queue.from_url(redis, name=f"noted-{uuid.uuid4().hex}")
    backend, runs, free = SaqBackend(queue), [], threading.Event()

    @tenant_worker(name="tests.noted", backend=backend)
    def ends(scope):
        runs.append("begun")

    async def run_it():
        await queue.connect()
        occupy_the_only_thread(free)
        worker = saq.Worker(queue, backend.functions)
        worker.event = asyncio.Event()

        def notes(job):
            made = begin_notes(job)

            async def note():
                worker.event.set()
                running.cancel()
                for _ in range(20):  # until the run has heard of it
                    await asyncio.sleep(0)
                await made["note"]()

            return made | {"note": note}

        monkeypatch.setattr("sigra.backends.saq_run.begin_notes", notes)
        job = await ends.anew(IDS)
        running = asyncio.create_task(worker.process())
        await fetched(queue, job)
        free.set()
        await running
        return await left_of(queue, job)

    native = asyncio.run(run_it())
    assert (runs, native.status, native.attempts) == ([], "queued", 0)


def test_a_job_that_a_stop_cuts_off_is_queued_when_its_body_has_ended(redis):
    """Else another consumer would run it beside what its body still puts in order."""
    queue = saq.Queue.from_url(redis, name=f"cut-off-{uuid.uuid4().hex}")
    backend, told = SaqBackend(queue), []

    @tenant_worker(name="tests.puts_in_order", backend=backend)
    async def puts_in_order(scope):
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            for _ in range(20):
                await asyncio.sleep(0)
            told.append("over")

    async def cut_it_off():
        nonlocal begun
        begun = asyncio.Event()
        await queue.connect()
        worker = saq.Worker(queue, backend.functions)
        worker.event = asyncio.Event()
        retry = queue.retry

        async def retry_and_tell(*args):
            told.append("queued")
            await retry(*args)

        queue.retry = retry_and_tell
        job = await puts_in_order.anew(IDS)
        running = asyncio.create_task(worker.process())
        await begun.wait()
        worker.event.set()
        running.cancel()
        await asyncio.wait({running})
        return await left_of(queue, job)

    begun = None
    with not_hanging():
        native = asyncio.run(cut_it_off())
    assert (told, native.status, native.attempts) == (["over", "queued"], "queued", 0)


@pytest.mark.parametrize("server", ["redis", "postgres"])
def test_the_reason_of_who_aborts_a_job_is_its_error(server, request):
    """The next sign of life overwrote it: SAQ then showed "abort"."""
    queue = saq.Queue.from_url(request.getfixturevalue(server), name=f"why-{uuid.uuid4().hex}")
    backend = SaqBackend(queue, heartbeat=1)

    @tenant_worker(name=f"tests.why_{server}", backend=backend)
    async def never_ends(scope):
        await asyncio.Event().wait()

    async def abort_it():
        await queue.connect()
        job = await never_ends.anew(IDS)
        worker = saq.Worker(queue, backend.functions)
        running = asyncio.create_task(worker.process())
        while not (found := await queue.job(job.id)).worker_id:
            await asyncio.sleep(0.01)
        await found.abort("the customer has gone")
        while (await queue.job(job.id)).touched == found.touched:  # until the next sign of life
            await asyncio.sleep(0.01)
        await worker.abort(0)
        await running
        return await left_of(queue, job)

    native = asyncio.run(abort_it())
    assert (native.status, native.error) == ("aborted", "the customer has gone")


@pytest.mark.parametrize("server", ["redis", "postgres"])
def test_an_abort_while_a_sign_of_life_is_written_is_not_overwritten(server, request):
    """Its reason was; on Redis the abort itself could be, and the job ran on."""
    url, name = request.getfixturevalue(server), f"meets-{uuid.uuid4().hex}"
    queue, elsewhere = (saq.Queue.from_url(url, name=name) for _ in range(2))
    backend, reads, read = SaqBackend(queue, heartbeat=1), [], queue.deserialize

    @tenant_worker(name=f"tests.meets_{server}", backend=backend)
    async def never_ends(scope, job):
        queue.deserialize = partial(read_and_abort, job.id)
        await asyncio.Event().wait()

    def read_and_abort(id, *args):
        if not reads:  # what the first sign of life reads changes before that is written
            submit(own_loop(), abort(id)).result()
        reads.append(args)
        return read(*args)

    async def abort(id):
        await elsewhere.connect()
        await (await elsewhere.job(id)).abort("the customer has gone")
        await elsewhere.disconnect()

    async def abort_it():
        await queue.connect()
        job = await never_ends.anew(IDS)
        worker = saq.Worker(queue, backend.functions)
        running = asyncio.create_task(worker.process())
        while not running.done():
            await asyncio.sleep(0.1)
            if len(reads) > 4:  # there were others
                await worker.abort(0)
        return await left_of(queue, job)

    native = asyncio.run(asyncio.wait_for(abort_it(), 60))
    assert (native.status, native.error) == ("aborted", "the customer has gone")


@pytest.mark.parametrize("server", ["redis", "postgres"])
def test_a_job_that_is_aborted_just_before_its_consumer_dies_ends_so(server, request):
    """On Redis it was aborting for ever, on no list; on PostgreSQL it ran again."""
    queue = saq.Queue.from_url(request.getfixturevalue(server), name=f"both-{uuid.uuid4().hex}")
    backend = SaqBackend(queue, heartbeat=1)

    async def abort_and_die():
        await queue.connect()
        with configure(backend=backend):
            job = await workers.echo.anew(IDS)
        fetched = await queue.dequeue(timeout=5)
        fetched.attempts += 1
        await fetched.update(status="active", started=1)
        await (await queue.job(job.id)).abort("the customer has gone")
        while (native := await queue.job(job.id)).status == "aborting":
            await asyncio.sleep(0.1)
            await queue.sweep(lock=1)
        await queue.disconnect()
        return native

    native = asyncio.run(asyncio.wait_for(abort_and_die(), 60))
    assert (native.status, native.error) == ("aborted", "the customer has gone")


def test_a_delayed_job_that_is_aborted_ends_so_on_redis(redis):
    """SAQ takes it for one that runs, and nobody ended it."""
    queue = saq.Queue.from_url(redis, name=f"delayed-{uuid.uuid4().hex}")
    backend = SaqBackend(queue)

    async def abort_it():
        with configure(backend=backend):
            job = await workers.echo.anew(IDS, delay=3600)
        await (await queue.job(job.id)).abort("the customer has gone")
        await queue.sweep(lock=1)
        left = sum([await queue.count(kind) for kind in ("queued", "active", "incomplete")])
        return left, await left_of(queue, job)

    left, native = asyncio.run(abort_it())
    assert (left, native.status, native.error) == (0, "aborted", "the customer has gone")


def test_a_job_whose_fetch_only_seemed_to_fail_runs_where_it_was_fetched(postgres):
    """Its answer was lost: else the job waited until a sweep took its consumer for dead."""
    queue = saq.Queue.from_url(postgres, name="seemed")
    fetch, answers, runs = queue._dequeue, [psycopg.OperationalError], []

    async def fetch_and_lose_the_answer():
        await fetch()
        if queue._waiting and answers:
            raise answers.pop()

    queue._dequeue = fetch_and_lose_the_answer
    backend = SaqBackend(queue)

    @tenant_worker(name="tests.seemed", backend=backend)
    async def ends(scope):
        runs.append("begun")

    async def fetch_twice():
        await queue.connect()
        job = await ends.anew(IDS)
        consumer = saq.Worker(queue, backend.functions, dequeue_timeout=1)
        for _ in range(2):
            await consumer.process()
        return await left_of(queue, job)

    native = asyncio.run(fetch_twice())
    assert (answers, runs, native.status) == ([], ["begun"], "complete")


@pytest.mark.parametrize("busy", [True, False])
def test_a_job_that_waits_for_a_thread_stays_uncounted(redis, monkeypatch, busy):
    """Its heartbeat leaves it so; one that was counted as it was fetched no longer is."""
    queue = saq.Queue.from_url(redis, name=f"uncounted-{uuid.uuid4().hex}")
    backend, free = SaqBackend(queue, heartbeat=1 if busy else 3600), threading.Event()
    monkeypatch.setattr("sigra.backends.saq_begin.is_busy", lambda: busy)

    @tenant_worker(name=f"tests.uncounted_{busy}", backend=backend)
    def plain(scope):
        pass

    async def run_it():
        occupy_the_only_thread(free)
        job = await plain.anew(IDS)
        running = asyncio.create_task(saq.Worker(queue, backend.functions).process())
        async with asyncio.timeout(60):
            while not (first := await queue.job(job.id)).worker_id:
                await asyncio.sleep(0.01)
            later = first
            while later.touched == first.touched if busy else later.attempts:
                await asyncio.sleep(0.01)
                later = await queue.job(job.id)
        free.set()
        await running
        return later.attempts, await left_of(queue, job)

    waiting, native = asyncio.run(run_it())
    assert (waiting, native.attempts, native.status) == (0, 1, "complete")


def test_without_a_heartbeat_no_job_is_lost_and_none_is_sent(redis):
    """As SAQ's own ``heartbeat=0`` says."""
    queue = saq.Queue.from_url(redis, name=f"never-{uuid.uuid4().hex}")
    backend, swept, touched = SaqBackend(queue, heartbeat=0), [], []

    @tenant_worker(name="tests.never_lost", backend=backend)
    async def looks(scope, job):
        for _ in range(2):
            await asyncio.sleep(0.1)
            swept.extend(await queue.sweep(lock=1))
            touched.append((await queue.job(job.id)).touched)

    native = asyncio.run(run_once(queue, backend, looks))
    assert (native.status, swept) == ("complete", [])
    assert touched[0] == touched[1]


def test_a_sweep_brings_lost_jobs_back_beside_one_that_is_gone(redis):
    """As one whose time in Redis is over, while its id is still on a list."""
    queue = saq.Queue.from_url(redis, name=f"gone-{uuid.uuid4().hex}")
    backend = SaqBackend(queue, heartbeat=1)

    async def lose_both():
        with configure(backend=backend):
            gone, lost = await workers.echo.anew(IDS), await workers.echo.anew(IDS)
        for _ in range(2):
            await (await queue.dequeue(timeout=5)).update(status="active", touched=1)  # long ago
        await queue.redis.delete(queue.job_id(gone.id))
        return queue.job_id(lost.id) in await queue.sweep(lock=1), await left_of(queue, lost)

    swept, native = asyncio.run(lose_both())
    assert (swept, native.status) == (True, "queued")


class NamedByTheApplication(RedisQueue):
    """A queue whose ids in Redis begin with the application's name, as applications make one."""

    def namespace(self, key):
        return f"shop:{self.name}:{key}"

    def job_id(self, job_key):
        return f"shop:{self.name}:job:{job_key}"


def test_a_sweep_brings_lost_jobs_back_whose_ids_the_application_makes(redis, caplog):
    """Their keys were not found in their ids: each was said to be unreadable, and never came."""
    queue = NamedByTheApplication.from_url(redis, name=f"named-{uuid.uuid4().hex}")
    backend = SaqBackend(queue, heartbeat=1)

    async def lose_it():
        with configure(backend=backend):
            lost = await workers.echo.anew(IDS)
        await (await queue.dequeue(timeout=5)).update(status="active", touched=1)  # long ago
        await queue.sweep(lock=1)
        return await left_of(queue, lost)

    assert asyncio.run(lose_it()).status == "queued"
    assert "none that this SAQ can run" not in caplog.text


def test_a_function_of_the_user_s_own_that_fails_or_is_aborted_keeps_its_arguments(redis):
    """One of ours is noted there, which no function of the user's takes."""
    queue = saq.Queue.from_url(redis, name=f"own-{uuid.uuid4().hex}")
    SaqBackend(queue)
    told = []

    async def own(context, **given):
        told.append(given)
        if len(told) == 1:
            raise OSError
        await asyncio.Event().wait()

    async def run_twice():
        consumer = saq.Worker(queue, [("own", own)])
        await queue.connect()
        job = await queue.enqueue("own", text="hello", retries=2)
        await consumer.process()
        running = asyncio.create_task(consumer.process())
        async with asyncio.timeout(60):
            while len(told) < 2:
                await asyncio.sleep(0.01)
        await (await queue.job(job.key)).abort("by hand")
        await consumer.abort(0)
        await running
        native = await queue.job(job.key)
        await queue.disconnect()
        return native

    native = asyncio.run(run_twice())
    assert (told, native.kwargs) == ([{"text": "hello"}] * 2, {"text": "hello"})


@pytest.mark.parametrize(("raises", "end"), [(1, "complete"), (2, "failed")])
def test_a_hook_that_raises_before_a_job_is_no_death_of_its_consumer(redis, raises, end):
    """The job begins a second later; if the hook raises again, that is the job's error."""
    queue = saq.Queue.from_url(redis, name=f"hook-{uuid.uuid4().hex}")
    backend, runs, raised = SaqBackend(queue), [], []

    @tenant_worker(name=f"tests.hook_{raises}", backend=backend)
    async def ends(scope):
        runs.append("begun")

    async def hook(context):
        if len(raised) < raises:
            raised.append(context["job"].key)
            raise OSError("no such tenant")

    async def run_it():
        job = await ends.anew(IDS)
        worker = saq.Worker(queue, backend.functions, before_process=hook)
        for _ in range(2):
            await worker.process()
            await asyncio.sleep(2)
            await queue.schedule()
        first = await queue.job(job.id)
        if first.status == "failed":
            await (await queue.job(job.id)).retry("retried from ui")
            await asyncio.sleep(2)
            await queue.schedule()
            await worker.process()
        return first, await left_of(queue, job)

    first, last = asyncio.run(run_it())
    assert (first.status, last.status, runs) == (end, "complete", ["begun"])
    assert end == "complete" or "OSError: no such tenant" in first.error


def test_a_job_that_fails_as_its_consumer_stops_is_not_said_to_run_again(redis, caplog):
    """Only what the stop cuts off does."""
    queue = saq.Queue.from_url(redis, name=f"fails-{uuid.uuid4().hex}")
    backend = SaqBackend(queue)

    @tenant_worker(name="tests.fails_as_it_stops", backend=backend)
    async def fails(scope):
        consumer.event.set()
        raise LookupError("said so")

    consumer = saq.Worker(queue, backend.functions)

    async def run_it():
        job = await fails.anew(IDS)
        await consumer.process()
        return await left_of(queue, job)

    assert asyncio.run(run_it()).status == "failed"
    (told,) = [line for line in caplog.messages if "raised LookupError" in line]
    assert "again" not in told


def test_a_body_that_goes_on_after_its_time_ends_as_any_that_is_cut_off(redis, caplog):
    """Also once SAQ no longer waits for it: nobody aborted it."""
    queue = saq.Queue.from_url(redis, name=f"goes-on-{uuid.uuid4().hex}")
    backend, end = SaqBackend(queue), asyncio.Event()

    @tenant_worker(name="tests.goes_on", backend=backend, max_attempts=2)
    async def goes_on(scope):
        try:
            await asyncio.sleep(60)
        finally:
            await end.wait()

    async def limit(job):
        job.timeout = 1

    async def run_it():
        queue.register_before_enqueue(limit)
        job = await goes_on.anew(IDS)
        await saq.Worker(queue, backend.functions, cancellation_hard_deadline_s=0.1).process()
        assert "raised CancelledError" not in caplog.text
        end.set()
        async with asyncio.timeout(60):
            while "raised CancelledError" not in caplog.text:
                await asyncio.sleep(0.01)
        return await left_of(queue, job)

    assert asyncio.run(run_it()).status == "queued"
    (told,) = [line for line in caplog.messages if "raised CancelledError" in line]
    assert "aborted" not in told


def test_on_redis_a_job_of_an_older_release_outlives_who_sweeps(redis):
    """Such a job has a heartbeat of SAQ's: a consumer that was killed as it swept lost it."""
    queue = saq.Queue.from_url(redis, name=f"older-{uuid.uuid4().hex}")
    backend = SaqBackend(queue)

    async def limit(job):
        job.heartbeat, job.meta = 1, {}

    async def die_sweeping():
        queue.register_before_enqueue(limit)
        with configure(backend=backend):
            job = await workers.echo.anew(IDS)
        lost = await queue.dequeue(timeout=5)
        lost.attempts += 1
        await RedisQueue.update(queue, lost, status="active")  # as SAQ alone does
        await asyncio.sleep(1.5)
        await queue.redis.set(queue.namespace("sweep"), 1)  # as while an older consumer sweeps
        before = await queue.sweep(), await queue.count("active")
        await queue.redis.delete(queue.namespace("sweep"))
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(queue.sweep(abort=60), 20)
        lists = [await queue.count(kind) for kind in ("queued", "active", "incomplete")]
        return before, lists, await left_of(queue, job)

    before, lists, native = asyncio.run(die_sweeping())
    assert (before, lists) == (([], 1), [0, 0, 1])
    assert (native.status, native.attempts, native.scheduled > 0) == ("queued", 1, True)


def test_on_redis_a_job_of_the_users_own_may_be_lost(redis):
    """That of a dead consumer is on no list while SAQ sweeps, and stays so if that dies too."""
    queue = saq.Queue.from_url(redis, name="swept")
    backend = SaqBackend(queue)

    async def die_sweeping() -> int:
        await queue.enqueue("f", heartbeat=1, timeout=0, retries=2)
        lost = await queue.dequeue(timeout=5)
        await lost.update(status="active", touched=1)  # long ago
        sweeping = asyncio.create_task(queue.sweep(abort=60))
        while await queue.count("active"):
            await asyncio.sleep(0.01)
        sweeping.cancel()
        await queue.redis.delete(queue.namespace("sweep"))
        await queue.sweep()
        left = sum([await queue.count(kind) for kind in ("queued", "active", "incomplete")])
        await queue.disconnect()
        return left

    assert asyncio.run(die_sweeping()) == 0
    assert "at_least_once" in backend.capabilities


@pytest.mark.programs
@pytest.mark.parametrize(
    ("imports", "warns"), [((), True), (("sigra.testing.contract_workers",), False)]
)
def test_a_consumer_that_starts_without_a_worker_says_so(imports, warns):
    """Somebody forgot to import their modules: SAQ fails all their jobs."""
    program = """
    from saq import Queue
    from sigra.backends.saq import SaqBackend
    SaqBackend(Queue.from_url("redis://127.0.0.1:1")).functions
    """
    assert warns == told_at_start(program, *imports)


def test_by_name_it_is_saqs_own_default_queue():
    """Without arguments the queue is the one that SAQ calls default."""
    assert SaqBackend().queue.name == "default"
