"""What every queue's tests run: the shipped suite, and the cases that need our own set-up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, ClassVar

import prefork
import pytest
from consumer import HERE
from consumer_side import held, one_thread, tokens_of
from older_release import older_pack
from queue_harness import QueueHarness, collect, cut_at_commit, not_hanging, threads_of

from sigra import EnqueueError, InvalidOptionError
from sigra.backends.postgres_pool import OwnPool
from sigra.job import Job
from sigra.testing import ConsumerContract
from sigra.testing import contract_workers as workers
from sigra.testing.contract_case import IDS
from sigra.testing.harness import Journal
from sigra.workers import (
    AuditCleanup,
    EmailDelivery,
    TokenCleanup,
    afor_each_organization,
    for_each_organization,
)

NEVER = datetime.max.replace(tzinfo=timezone.utc)


class QueueContract(ConsumerContract):
    """Subclass it as ``Test...`` and say which harness, on which server.

    ``server``: a fixture of conftest.py, which has the other fixtures too: ``redis``,
    ``postgres``, ``rabbitmq``, or ``folder`` for a queue that needs none.
    """

    harness_class: ClassVar[type[Any]]
    server: ClassVar[str]

    # A queue's own deprecations are not ours to end.
    pytestmark = pytest.mark.filterwarnings("default")

    def test_a_task_of_the_users_own_stays_as_it_is(
        self, harness: QueueHarness, journal: Journal
    ) -> None:
        harness.send_note("hello")
        journal.wait(harness, lambda: harness.notes.read_text() == "hello\n", "the native task")
        harness.notes.write_text("")

    @pytest.mark.parametrize(("option", "value"), [("delay", 1e12), ("run_at", NEVER)])
    def test_what_no_date_is_given_is_refused_by_its_option(
        self, harness: QueueHarness, option: str, value: Any
    ) -> None:
        """Nobody is told to enqueue it again, nor waits for a job that its queue loses."""
        options: Any = {option: value}
        with pytest.raises(InvalidOptionError) as raised:
            workers.echo.new(IDS, **options)
        assert raised.value.option == option

    def test_the_queues_own_tools_show_the_workers_name(
        self, harness: QueueHarness, journal: Journal
    ) -> None:
        job = workers.waits.new({**IDS, "seconds": 0.5})
        journal.wait(harness, lambda: harness.name_of(job.native_id) == job.worker, "its name")
        journal.wait(harness, lambda: bool(journal.audited("contract.ended")), "its end")

    def test_the_workers_that_come_along_run(self, harness: QueueHarness, journal: Journal) -> None:
        """An email is sent, dead tokens go, and each organization gets its job."""
        engine = tokens_of(str(harness.notes)).engine
        with engine.begin() as conn:
            columns = "id INTEGER PRIMARY KEY, context TEXT, inserted_at DATETIME"
            conn.exec_driver_sql(f"CREATE TABLE tokens ({columns})")
            for age in ("-1 minutes", "-16 minutes"):
                row = f"(context, inserted_at) VALUES ('magic_link', datetime('now', '{age}'))"
                conn.exec_driver_sql(f"INSERT INTO tokens {row}")

        def tokens() -> int:
            with engine.connect() as conn:
                return int(conn.exec_driver_sql("SELECT count(*) FROM tokens").scalar_one())

        unique = "unique" in harness.backend.capabilities
        harness.stop()  # the first is unfinished when the second comes, on a busy machine too
        EmailDelivery.new({"type": "greet", "user_id": "ann"})
        TokenCleanup.new({})
        AuditCleanup.new({})
        for_each_organization(workers.echo, ["acme"], tick="1")
        jobs = for_each_organization(workers.echo, ["globex", "acme", "initech"], tick="1")
        harness.start()
        assert [False, unique, False] == [job.duplicate for job in jobs]
        journal.wait(harness, lambda: harness.notes.read_text() == "hello ann\n", "the email")
        journal.wait(harness, lambda: tokens() == 1, "one token")
        expected = ["acme", *([] if unique else ["acme"]), "globex", "initech"]

        def organizations() -> list[str]:
            return sorted(run["organization_id"] for run in journal.runs(workers.echo.name))

        journal.wait(harness, lambda: len(organizations()) >= len(expected), "their jobs")
        assert organizations() == expected
        harness.notes.write_text("")
        engine.dispose()
        Path(f"{harness.notes}.db").unlink()  # the consumers to come need no table

    @pytest.mark.parametrize("makes", ["plain", "async"])
    def test_a_round_that_comes_again_adds_what_does_not_run_yet(
        self, harness: QueueHarness, journal: Journal, makes: str
    ) -> None:
        """Each duplicate has the native id of its own organization's job."""
        self._require(harness, "unique")
        end = harness.folder / f"end of {makes}"
        args = {"until": str(end)}

        def make(*organizations: str) -> list[Job]:
            if makes == "plain":
                return for_each_organization(held, organizations, args, tick="1")
            return asyncio.run(afor_each_organization(held, organizations, args, tick="1"))

        (first,) = make("acme")
        journal.wait(harness, lambda: bool(journal.runs()), "the first job")
        jobs = make("acme", "globex", "initech")
        assert [True, False, False] == [job.duplicate for job in jobs]
        again = make("initech", "acme", "globex", "hooli")
        assert [True, True, True, False] == [job.duplicate for job in again]
        named = [job.native_id for job in (jobs[2], first, jobs[1])]
        assert named == [job.native_id for job in again[:3]] and jobs[0].native_id == named[1]
        end.touch()
        journal.wait(harness, lambda: len(journal.runs()) == 4, "the jobs of four organizations")

    def test_a_server_that_is_gone_is_an_enqueue_error_and_comes_back(
        self, harness: QueueHarness, journal: Journal
    ) -> None:
        """Nothing of the batch is sent, and the consumer goes on where the server is back."""
        if harness.proxy is None:
            pytest.skip("this queue has no server that could be gone")
        harness.proxy.cut()
        try:
            with not_hanging(), pytest.raises(EnqueueError) as caught:
                workers.echo.new_many([{**IDS, "gone": True}] * 2)
            assert caught.value.__cause__ is not None
            time.sleep(1)  # so that the consumer misses it too
        finally:
            harness.proxy.restore()
        self._comes_back(harness, journal)
        # What the test before ran may come again, where its acknowledgement was cut off.
        assert [run for run in journal.runs(workers.echo.name) if "gone" in run["args"]] == []

    def test_a_job_that_runs_while_its_server_is_gone_ends(
        self, harness: QueueHarness, journal: Journal
    ) -> None:
        """Its body runs to its end; where the queue did not hear of it, it runs once more."""
        if harness.proxy is None:
            pytest.skip("this queue has no server that could be gone")
        attempts = 2 if "max_attempts" in harness.backend.capabilities else 1
        job = workers.waits.new({**IDS, "seconds": 1}, max_attempts=attempts)
        journal.wait(harness, lambda: bool(journal.audited("contract.begun")), "the job")
        harness.proxy.cut()
        try:
            journal.wait(harness, lambda: bool(journal.audited("contract.ended")), "its end")
            time.sleep(0.5)  # so that it cannot be told to the server
        finally:
            harness.proxy.restore()
        self._comes_back(harness, journal)
        journal.wait(harness, lambda: harness.settled(job.native_id), "what came of it")
        assert len(journal.events("contract.ended")) <= attempts

    def _is_run_by_hand(
        self,
        harness: QueueHarness,
        journal: Journal,
        by_hand: Callable[[str], object],
        completed: Callable[[str], bool] | None = None,
    ) -> None:
        """Have a job end, and run it again by its native id, twice.

        It fails for good or, if there is a way to see that it is ``completed``, succeeds.
        """
        args, ended = {**IDS, "failures": 1 if completed else 9}, completed or harness.failed
        job, _ = self._run(harness, journal, workers.recovers, args, 2, max_attempts=2, backoff=0)
        for runs in (3, 4):
            journal.wait(harness, lambda: bool(ended(job.native_id)), "its end")
            by_hand(job.native_id)
            journal.wait(harness, lambda: len(journal.events()) == runs, "its end")  # noqa: B023
        journal.wait(harness, lambda: bool(ended(job.native_id)), "its end")
        assert [run["attempt"] for run in journal.runs()] == [1, 2, 2, 2]
        assert len({event["event_id"] for event in journal.events()}) == 4

    def _comes_back(self, harness: QueueHarness, journal: Journal) -> None:
        """Wait until the consumer, or the next one where it has ended, runs another job."""

        def taken() -> bool:
            try:
                workers.agnostic.new({})
            except EnqueueError:  # this process may not have noticed yet
                return False
            return True

        journal.wait(harness, taken, "the server to take a job")

        def back() -> bool:
            if not harness.alive:
                assert not harness.outlives_its_server
                harness.start()
            return bool(journal.runs(workers.agnostic.name))

        journal.wait(harness, back, "the consumer to come back")
        if not harness.outlives_its_server:  # it may end later, as soon as all of it has found out
            harness.stop()
            harness.start()

    def test_a_rolling_deploy_loses_nothing(self, harness: QueueHarness, journal: Journal) -> None:
        """Consumers of two releases, side by side, with the jobs of both: each runs once.

        With ``repeats_at_stop`` what ended as the older release stopped may run again.
        """
        older = harness.another(f"older-{time.monotonic_ns()}", SIGRA_TEST_OLDER="1")
        older.start()
        try:
            args = [{**IDS, "failures": 1} for _ in range(20)]
            jobs = workers.recovers.new_many(args, max_attempts=2, backoff=0)
            expected = {job.id for job in jobs}
            for job in jobs[10:]:  # once more, as the older release's producers would
                payload = {**older_pack(job), "id": f"older-{job.id}"}
                harness.send(job.worker, payload)
                expected.add(payload["id"])

            def attempts() -> list[tuple[str, int]]:
                runs = [run for run in journal.runs() if run["job_id"] in expected]
                return sorted((run["job_id"], run["attempt"]) for run in runs)

            def refused() -> bool:
                if "waits: unreadable job envelope: version" in older.output:
                    return True
                if len(attempts()) >= 2 * len(expected) - 20:
                    # The newer release was faster: one job more for the two to meet over.
                    expected.add(workers.recovers.new(args[0], max_attempts=2, backoff=0).id)
                return False

            journal.wait(harness, refused, "the older release to meet a newer job")
            time.sleep(2)  # in which each sends jobs on to the other
            older.stop()
        finally:
            older.kill()

        every = 2 * len(expected)
        journal.wait(harness, lambda: len(attempts()) >= every, f"{every} attempts")
        assert set(attempts()) == {(id, attempt) for id in expected for attempt in (1, 2)}
        assert self.repeats_at_stop or len(attempts()) == every


class PostgresContract:
    """What queues keep whose jobs are rows of a PostgreSQL ``table``, which their harness names."""

    @pytest.mark.parametrize("count", [1, 2])
    def test_jobs_whose_commit_is_not_confirmed_may_have_been_sent(
        self, harness: Any, count: int
    ) -> None:
        """They may be there: who was told to enqueue them again had them twice."""
        told = pytest.raises(EnqueueError, match=r"may have been sent all the same")
        with cut_at_commit(harness.server, harness.table), not_hanging(), told as caught:
            workers.echo.new_many([IDS] * count, delay=3600)
        harness.advance()  # on Django this thread's connection is broken
        assert len(caught.value.unsure) == (1 if harness.backend.name == "saq" else count)


class OwnPoolContract(PostgresContract, QueueContract):
    """What queues keep whose producers have connections of our own to PostgreSQL.

    Their harness is one of ``OwnPoolHarness``.
    """

    def test_a_producer_that_forks_sends_from_both_processes(self, harness: Any) -> None:
        before = len(harness.rows())
        queue = harness.backend.name
        program = [sys.executable, str(HERE / "prefork.py"), queue, harness.server]
        subprocess.run(program, check=True, timeout=harness.patience)
        assert len(harness.rows()) - before == 4 * prefork.EACH

    def test_connections_that_nobody_uses_any_more_end(self, harness: Any) -> None:
        """A suite that makes a backend for each test keeps neither their threads nor these."""
        pool = OwnPool(harness.server, timeout=5.0, max_size=1, name="nobody-s")
        with pool.connection() as conn:
            conn.execute("SELECT 1")
        threads = threads_of("nobody-s")
        del pool, conn
        collect()
        for thread in threads:  # the last to have the pool may be one of them: see the next test
            thread.join(harness.patience)
        assert threads
        assert not any(thread.is_alive() for thread in threads)

    def test_a_pool_that_one_of_its_own_threads_is_the_last_to_have_ends(
        self, harness: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """That thread cannot wait for itself: psycopg's pool then says so on standard error."""
        told, ended = list[Any](), threading.Event()
        monkeypatch.setattr(sys, "unraisablehook", told.append)

        class LastToHave(list[Any]):
            def run(self) -> None:
                ended.wait(harness.patience)
                self.clear()

        pool = OwnPool(harness.server, timeout=5.0, max_size=1, name="its-own-s")._pool_here()
        pool.run_task(LastToHave([pool]))
        threads = threads_of("its-own-s")
        del pool
        ended.set()
        for thread in threads:
            thread.join(harness.patience)
        assert threads
        assert not any("join" in str(each.exc_value) for each in told)  # else: what others left

    def test_a_program_ends_though_its_pool_is_open(self, harness: Any) -> None:
        """psycopg's pool waited five seconds for each of its threads, and said so."""
        assert self._said_by_a_pool_s_program(harness, "use(pool)") == ""

    def test_a_forked_child_that_ends_leaves_its_parent_s_connections(self, harness: Any) -> None:
        """One that the parent was using is not ended with it."""
        program = """
        import os, sys
        use(pool)  # from now on it holds a connection
        end = os.pipe()
        if not (child := os.fork()):
            os.read(end[0], 1)
            sys.exit()
        with pool.connection() as conn:
            os.write(end[1], b"now")
            os.waitpid(child, 0)
            conn.execute("SELECT 1")
        """
        assert self._said_by_a_pool_s_program(harness, program) == ""

    def _said_by_a_pool_s_program(self, harness: Any, program: str) -> str:
        first = """
        import sys
        from sigra.backends.postgres_pool import OwnPool
        def use(pool):
            with pool.connection() as conn:
                conn.execute("SELECT 1")
        pool = OwnPool(sys.argv[1], timeout=60.0, max_size=1)
        """
        lines = textwrap.dedent(first) + textwrap.dedent(program)
        command = [sys.executable, "-W", "ignore", "-c", lines, harness.server]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=harness.patience)
        return ran.stderr

    def test_connections_that_the_server_has_closed_are_replaced(self, harness: Any) -> None:
        """As when it has started anew, or closes what was idle for long: no job is refused.

        psycopg's pool would look at one after the other, and wait for longer before each.
        """
        pool = OwnPool(harness.server, timeout=60.0, max_size=8)
        with ExitStack() as lent:
            conns = [lent.enter_context(pool.connection()) for _ in range(8)]
            pids = [conn.info.backend_pid for conn in conns]
        del conns, lent
        assert harness.query("SELECT pg_terminate_backend(unnest(%s), 60000) AS gone", pids) == [
            {"gone": True}
        ] * len(pids)
        with pool.connection() as conn:
            assert conn.info.backend_pid not in pids

    def test_a_server_that_takes_its_time_is_waited_for(self, harness: Any) -> None:
        """psycopg looks in between, and finds nothing yet."""
        pool = OwnPool(harness.server, timeout=60.0, max_size=1)
        with pool.connection() as conn:
            assert conn.execute("SELECT 7 FROM pg_sleep(0.5)").fetchone() == (7,)

    @pytest.mark.parametrize("stalls", ["server", "table"])
    def test_a_server_that_gives_no_answer_is_an_enqueue_error(
        self, harness: Any, stalls: str
    ) -> None:
        """Nothing of the batch is sent, neither then nor later, and the next job is."""
        workers.echo.new(IDS, delay=3600)  # from now on a connection is open
        with ThreadPoolExecutor() as thread, harness.stalled(stalls):
            sending = thread.submit(workers.echo.new_many, [IDS] * 2, delay=3600)
            with pytest.raises(EnqueueError, match=r"PoolTimeout|gave no answer within"):
                sending.result(harness.patience)
        workers.echo.new(IDS, delay=3600)
        assert len(harness.rows()) == 2


class LoopContract(QueueContract):
    """What queues keep that take a job for begun as they give it to a loop.

    There a plain function may wait for a thread. ``harness.begun_of(job)`` returns how many of its
    runs the queue takes for begun, once a consumer has it.
    """

    def test_a_job_that_waits_for_a_thread_has_not_begun(
        self, harness: Any, journal: Journal
    ) -> None:
        """It runs elsewhere if its consumer is killed, and had ended as one whose consumer died."""
        jobs, ends = self._one_runs_and_one_waits(harness, journal)
        harness.kill()
        for end in ends:
            end.touch()
        harness.start()
        journal.wait(harness, lambda: len(journal.audited("queues.held")) == 1, "its end")
        journal.wait(harness, lambda: all(harness.has_ended(job) for job in jobs), "both ends")
        assert len(journal.runs(held.name)) == 2

    def test_a_job_that_has_waited_for_a_thread_begins_with_its_body(
        self, harness: Any, journal: Journal
    ) -> None:
        """If its consumer dies with it then, that has used up an attempt."""
        jobs, ends = self._one_runs_and_one_waits(harness, journal)
        ends[0].touch()
        journal.wait(harness, lambda: len(journal.runs(held.name)) == 2, "the other's begin")
        assert harness.begun_of(jobs[1]) == 1
        harness.kill()
        ends[1].touch()
        harness.start()
        journal.wait(harness, lambda: harness.has_ended(jobs[1]), "the other's end")
        assert len(journal.runs(held.name)) == 2

    def _one_runs_and_one_waits(
        self, harness: Any, journal: Journal
    ) -> tuple[list[Any], list[Any]]:
        """Return two jobs, of which the second waits for the first's thread, and what ends them."""
        one_thread.new(IDS)
        journal.wait(harness, lambda: bool(journal.runs(one_thread.name)), "one thread")
        ends = [harness.folder / f"{time.monotonic_ns()} {number}" for number in range(2)]
        jobs = []
        for end in ends:
            jobs.append(held.new({**IDS, "until": str(end)}))
            journal.wait(harness, lambda: bool(journal.runs(held.name)), "the first's begin")
        journal.wait(harness, lambda: [harness.begun_of(job) for job in jobs] == [1, 0], "the wait")
        return jobs, ends
