"""Oban keeps the contract in real consumer processes, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from consumer import BIN, Consumer
from consumer_side import held
from queue_contract import LoopContract, OwnPoolContract
from queue_harness import CUT, OwnPoolHarness, failing, is_let_go, transact
from servers import need

oban = need("oban")

import oban_app  # noqa: E402
import psycopg  # noqa: E402
import psycopg_pool  # noqa: E402
from oban.testing import mode  # noqa: E402
from sqlalchemy import create_engine  # noqa: E402
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine  # noqa: E402
from sqlalchemy.orm import Session  # noqa: E402

from sigra import EnqueueError, InvalidOptionError, configure, tenant_worker  # noqa: E402
from sigra.backends.oban import ObanBackend  # noqa: E402
from sigra.backends.oban_insert import pool_like  # noqa: E402
from sigra.testing import contract_workers  # noqa: E402
from sigra.testing.contract_case import IDS  # noqa: E402
from sigra.testing.harness import Journal  # noqa: E402

CONFIG = """
queues = { default = 2 }
lifeline = { interval = 0.5, rescue_after = 8.0 }
stager = { interval = 0.2 }
"""


class ObanHarness(OwnPoolHarness):
    table = "oban_jobs"
    ready = "Oban started"

    def __init__(self, server: str, folder: Path) -> None:
        (folder / "oban.toml").write_text(CONFIG)
        # A node of one name leads again at once when it was killed.
        words = "oban start --cron-modules=oban_app --node={name} --config="
        self.command = [*f"{words}{folder}/oban.toml".split()]
        super().__init__(server, folder)
        install = [str(BIN / "oban"), "install", f"--dsn={server}"]
        subprocess.run(install, check=True, capture_output=True)
        pool = psycopg_pool.AsyncConnectionPool(self.url, open=False, timeout=5)
        self.oban = oban.Oban(pool=pool)
        self.backend = ObanBackend()

    def another_of(self, queue: str) -> Consumer:
        config = self.folder / "other.toml"
        config.write_text(CONFIG.replace("default", queue))
        return self.another(self.new_name(), f"--config={config}")

    def env(self) -> dict[str, str]:
        return {**super().env(), "OBAN_DSN": self.url, "PGTZ": "Asia/Kathmandu"}

    def send(self, name: str, payload: Mapping[str, Any]) -> str:
        async def send() -> Any:
            async with await psycopg.AsyncConnection.connect(self.server) as conn:
                return await self.oban.enqueue(oban.Job(name, args=dict(payload)), conn=conn)

        return str(asyncio.run(send()).id)

    def send_note(self, text: str) -> None:
        self.send("oban_app.note", {"text": text})

    def row(self, native_id: str) -> dict[str, Any]:
        (row,) = self.query("SELECT * FROM oban_jobs WHERE id = %s", native_id)
        return row

    def name_of(self, native_id: str) -> str | None:
        return self.row(native_id)["worker"]

    def failed(self, native_id: str) -> str | None:
        """Return the last error, or the state itself: a rescue leaves no error."""
        row = self.row(native_id)
        if row["state"] != "discarded":
            return None
        return row["errors"][-1]["error"] if row["errors"] else row["state"]

    def kept(self, native_id: str) -> bool:
        found = self.query("SELECT state FROM oban_jobs WHERE id = %s", native_id)
        return bool(found) and found[0]["state"] != "completed"

    def settled(self, native_id: str) -> bool:
        return self.row(native_id)["state"] == "completed"

    def begun_of(self, job: Any) -> int | None:
        row = self.row(job.native_id)
        return row["attempt"] if row["state"] == "executing" else None

    def has_ended(self, job: Any) -> bool:
        return self.row(job.native_id)["state"] in ("completed", "discarded")

    def transact(self, worker: Any, args: Mapping[str, Any], **how: bool) -> Any:
        return transact(self.server, worker, args, **how)


@pytest.fixture
def harness(harness: ObanHarness, journal: Journal) -> Iterator[ObanHarness]:
    """Let each test find the table empty."""
    yield harness
    if not harness.alive:
        harness.start()
    running = "SELECT 1 FROM oban_jobs WHERE state = 'executing'"
    journal.wait(harness, lambda: not harness.query(running), "what runs")
    harness.query("DELETE FROM oban_jobs")
    journal.clear()


class TestOban(OwnPoolContract, LoopContract):
    harness_class, server = ObanHarness, "postgres"

    @pytest.mark.parametrize("word", ["Snooze", "Cancel"])
    def test_a_job_that_returns_obans_own_word_is_done_and_the_log_says_so(
        self, harness: ObanHarness, journal: Journal, word: str
    ) -> None:
        """Its author meant that it is not: the line names Sigra's word."""
        job = oban_app.returns_obans_word.new({**IDS, "word": word})
        told = rf"job {job.id} of .* returned oban.{word}, .* completed. Return sigra.{word}"
        journal.wait(harness, lambda: bool(harness.logged(told)), "the warning")

    @pytest.mark.parametrize("how", [CUT, "RAISE 'not now'"], ids=["cut", "refused"])
    def test_a_job_that_has_waited_runs_once_though_its_begin_is_not_written_at_once(
        self, harness: ObanHarness, journal: Journal, how: str
    ) -> None:
        """It is tried again where the connection broke; else a rescue has it run, as it was."""
        jobs, ends = self._one_runs_and_one_waits(harness, journal)
        begins = f"OF attempt ON oban_jobs WHEN NEW.id = {jobs[1].native_id} AND NEW.attempt = 1"
        with failing(harness.server, begins, times=1, how=how):
            for end in ends:
                end.touch()
            journal.wait(harness, lambda: all(harness.has_ended(job) for job in jobs), "both ends")
        assert [harness.row(job.native_id)["state"] for job in jobs] == ["completed"] * 2
        assert len(journal.runs(held.name)) == 2
        harness.stop()  # the next test has a consumer with all its threads

    def test_a_job_that_is_taken_away_while_it_waits_for_a_thread_runs_once(
        self, harness: ObanHarness, journal: Journal
    ) -> None:
        """It was rescued: it ran here too, beside who has it now."""
        jobs, ends = self._one_runs_and_one_waits(harness, journal)
        rescue = "UPDATE oban_jobs SET state = 'available', meta = '{}' WHERE id = %s"
        harness.query(rescue, jobs[1].native_id)
        for end in ends:
            end.touch()
        journal.wait(harness, lambda: all(harness.has_ended(job) for job in jobs), "both ends")
        rows = [harness.row(job.native_id) for job in jobs]
        assert [(row["state"], row["attempt"]) for row in rows] == [("completed", 1)] * 2
        assert len(journal.runs(held.name)) == 2
        harness.stop()  # the next test has a consumer with all its threads

    @pytest.mark.parametrize(
        ("how", "state"),
        [
            ("value", "completed"),
            ("failure", "discarded"),
            ("raise", "discarded"),
            ("cancel", "cancelled"),
            ("exit", "discarded"),
            ("interrupt", "discarded"),
        ],
    )
    def test_an_outcome_has_obans_word(
        self, harness: ObanHarness, journal: Journal, how: str, state: str
    ) -> None:
        """Oban's own tools show how a job ended."""
        job = contract_workers.ends.new({**IDS, "how": how})
        journal.wait(harness, lambda: harness.row(job.native_id)["state"] == state, state)
        assert harness.row(job.native_id)["attempt"] == 1

    def test_a_snooze_burns_no_native_attempt_and_a_failure_does(
        self, harness: ObanHarness, journal: Journal
    ) -> None:
        """Oban's own count of attempts is right for whoever looks at it."""
        snoozed = contract_workers.snoozes.new({**IDS, "times": 2})
        failed = contract_workers.recovers.new({**IDS, "failures": 1}, max_attempts=2, backoff=0)

        def done() -> bool:
            return {row["state"] for row in harness.rows()} == {"completed"}

        journal.wait(harness, done, "both")
        assert harness.row(snoozed.native_id)["attempt"] == 1
        assert harness.row(failed.native_id)["attempt"] == 2

    @pytest.mark.parametrize(
        "payload", [{"organization_id": "acme", "failures": 1}, {"sigra": 2, "args": "{"}]
    )
    def test_a_permanent_failure_leaves_obans_attempts_unused(
        self, harness: ObanHarness, journal: Journal, payload: dict[str, Any]
    ) -> None:
        """A job without its keys is not retried, though Oban would have let it."""
        sent = harness.send("sigra.contract.recovers", payload)
        journal.wait(harness, lambda: bool(harness.failed(sent)), "its end")
        row = harness.row(sent)
        assert (row["attempt"], row["max_attempts"]) == (1, 20)

    def test_a_job_of_an_unknown_worker_burns_no_attempt(
        self, harness: ObanHarness, journal: Journal
    ) -> None:
        """It is snoozed until a deploy, and the log names the worker."""

        @tenant_worker(name="not_deployed.worker")
        def unknown(scope: Any) -> None: ...

        job = unknown.new(IDS)
        journal.wait(
            harness, lambda: harness.row(job.native_id)["state"] == "scheduled", "its snooze"
        )
        assert harness.row(job.native_id)["attempt"] == 0
        assert harness.logged("waits for a consumer with its worker: .*not_deployed.worker")

    @pytest.mark.parametrize("text", [r"a\x00b", r"a\ud800b"])
    def test_an_error_that_jsonb_refuses_is_told_all_the_same(
        self, harness: ObanHarness, journal: Journal, text: str
    ) -> None:
        """What PostgreSQL cannot hold of an error's text is escaped."""
        job = oban_app.says.new({**IDS, "text": text})
        journal.wait(harness, lambda: text in (harness.failed(job.native_id) or ""), "its end")

    def test_queue_priority_and_time_reach_their_columns(self, harness: ObanHarness) -> None:
        """Oban sorts by its own columns, where the least priority is the first."""
        before = time.time()
        job = contract_workers.echo.new(IDS, queue="q1", priority=-7, delay=1, max_attempts=3)
        after = time.time()
        row = harness.row(job.native_id)
        assert (row["queue"], row["priority"], row["max_attempts"]) == ("q1", 7, 3)
        due = row["scheduled_at"].replace(tzinfo=UTC).timestamp()
        assert before + 0.999 < due < after + 1.001

    @pytest.mark.parametrize("attempts", [2**15, 2**31 - 1])
    def test_more_attempts_than_oban_s_column_holds_are_refused(
        self, harness: ObanHarness, attempts: int
    ) -> None:
        """It is a smallint."""
        with pytest.raises(InvalidOptionError, match="'max_attempts' .* at most 32767"):
            contract_workers.echo.new(IDS, max_attempts=attempts)

    @pytest.mark.parametrize("priority", [1, -10])
    def test_a_priority_that_oban_lacks_is_refused(
        self, harness: ObanHarness, priority: int
    ) -> None:
        """Oban has ten of them, and none before the default."""
        with pytest.raises(InvalidOptionError, match=r"0 \(the soonest\) to -9"):
            contract_workers.echo.new(IDS, priority=priority)

    @pytest.mark.parametrize("queue", ["a\0b", "q" * 501])
    def test_a_queue_that_postgresql_does_not_hold_is_refused(
        self, harness: ObanHarness, queue: str
    ) -> None:
        """A NUL, or too long a name, is told at ``.new()``."""
        with pytest.raises(InvalidOptionError, match="option 'queue'"):
            contract_workers.echo.new(IDS, queue=queue)

    @pytest.mark.parametrize("commit", [False, True])
    def test_a_transaction_that_blocks(self, harness: ObanHarness, commit: bool) -> None:
        """Jobs on psycopg's connection share the fate of its transaction, for ``.anew()`` too."""
        with psycopg.connect(harness.url) as conn:
            contract_workers.echo.new_many([IDS, IDS], conn=conn, delay=9)
            asyncio.run(contract_workers.echo.anew(IDS, conn=conn, delay=9))
            assert harness.rows() == []
            conn.commit() if commit else conn.rollback()
        assert len(harness.rows()) == 3 * commit

    @pytest.mark.parametrize("commit", [False, True])
    def test_a_transaction_of_sqlalchemy(self, harness: ObanHarness, commit: bool) -> None:
        """So do jobs on SQLAlchemy's asynchronous session or connection."""

        async def produce() -> None:
            engine = create_async_engine(harness.url.replace("postgresql:", "postgresql+psycopg:"))
            async with AsyncSession(engine) as session, engine.connect() as conn:
                for open_ in (session, conn):
                    await contract_workers.echo.anew(IDS, conn=open_, delay=9)
                    await (open_.commit() if commit else open_.rollback())
            await engine.dispose()

        asyncio.run(produce())
        assert len(harness.rows()) == 2 * commit

    @pytest.mark.parametrize(
        "made", [{"row_factory": psycopg.rows.dict_row}, {"cursor_factory": psycopg.RawCursor}]
    )
    def test_rows_and_cursors_of_the_callers_connection_may_be_of_any_kind(
        self, harness: ObanHarness, made: dict[str, Any]
    ) -> None:
        """Oban reads tuples: with dicts a job was inserted, and an error said that it was not."""

        async def produce() -> None:
            kind = {"cursor_factory": psycopg.AsyncRawCursor} if "cursor_factory" in made else made
            async with await psycopg.AsyncConnection.connect(harness.url, **kind) as conn:
                await contract_workers.echo.anew(IDS, conn=conn, delay=9)

        with psycopg.connect(harness.url, **made) as conn:
            jobs = contract_workers.echo.new_many([IDS, IDS], conn=conn, delay=9)
        asyncio.run(produce())
        ids = [str(row["id"]) for row in harness.rows()]
        assert ids[:2] == [job.native_id for job in jobs] and len(ids) == 3

    def test_a_connection_of_sqlalchemy_that_commits_each_statement_is_refused(
        self, harness: ObanHarness
    ) -> None:
        """A session too: SQLAlchemy's rollback does nothing there."""

        async def produce() -> None:
            url = harness.url.replace("postgresql:", "postgresql+psycopg:")
            engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
            async with AsyncSession(engine) as session, engine.connect() as conn:
                for open_ in (session, conn):
                    with pytest.raises(InvalidOptionError, match="in no transaction"):
                        await contract_workers.echo.anew(IDS, conn=open_, delay=9)
            await engine.dispose()

        asyncio.run(produce())
        assert harness.rows() == []

    def test_a_session_of_another_driver_is_refused(self, harness: ObanHarness) -> None:
        """The error says of which URL the engine is to be made."""

        async def produce() -> None:
            engine = create_async_engine(harness.url.replace("postgresql:", "postgresql+asyncpg:"))
            async with AsyncSession(engine) as session:
                with pytest.raises(InvalidOptionError, match=r"not asyncpg.*postgresql\+psycopg"):
                    await contract_workers.echo.anew(IDS, conn=session)
            await engine.dispose()

        asyncio.run(produce())

    def test_a_session_that_blocks_is_no_connection(self, harness: ObanHarness) -> None:
        """The error says what ``conn`` has to be."""
        with Session(create_engine("sqlite://")) as session:
            with pytest.raises(InvalidOptionError, match=r"async one.*not sqlalchemy"):
                contract_workers.echo.new(IDS, conn=session)

    def test_a_connection_in_no_transaction_is_refused(self, harness: ObanHarness) -> None:
        """There a job would not share the fate of anything."""
        with psycopg.connect(harness.url, autocommit=True) as conn:
            for open_ in (conn, conn.cursor()):
                with pytest.raises(InvalidOptionError, match="in no transaction.*begin one"):
                    contract_workers.echo.new(IDS, conn=open_)

    def test_an_async_transaction_is_not_for_new(self, harness: ObanHarness) -> None:
        """The error says what to call in its place."""

        async def produce() -> None:
            async with await psycopg.AsyncConnection.connect(harness.url) as conn:
                contract_workers.echo.new(IDS, conn=conn)

        with pytest.raises(EnqueueError, match=r"conn is async; use await \.anew"):
            asyncio.run(produce())

    def test_a_batch_is_sent_whole_or_not_at_all(self, harness: ObanHarness) -> None:
        """Even by a pool that commits each statement."""
        pool = psycopg_pool.AsyncConnectionPool(
            harness.url, open=False, kwargs={"autocommit": True}
        )
        oban.Oban(pool=pool, name="Other")

        async def produce() -> None:
            async with pool:
                await contract_workers.echo.anew_many(batch, queue="x")

        harness.query(
            "ALTER TABLE oban_jobs ADD CONSTRAINT small CHECK (args->'args'->>'n' <> '2')"
        )
        batch = [{**IDS, "n": n} for n in range(3)]
        with configure(backend=ObanBackend("Other")):
            try:
                with pytest.raises(EnqueueError, match="small"):
                    contract_workers.echo.new_many(batch, queue="x")
                with pytest.raises(EnqueueError, match="small"):
                    asyncio.run(produce())
            finally:
                harness.query("ALTER TABLE oban_jobs DROP CONSTRAINT small")
        assert harness.rows() == []

    @pytest.mark.parametrize("kind", ["async def", "a function of one", "a function"])
    def test_a_pool_that_awaits_its_password_sends_without_awaiting(
        self, harness: ObanHarness, kind: str
    ) -> None:
        """As one does whose passwords are tokens that expire."""

        async def conninfo() -> str:
            return harness.url

        async def kwargs() -> dict[str, str]:
            return {"application_name": "sigra"}

        given: tuple[Any, Any] = {
            "async def": (conninfo, kwargs),
            "a function of one": (lambda: conninfo(), lambda: kwargs()),
            "a function": (lambda: harness.url, dict),
        }[kind]
        pool = psycopg_pool.AsyncConnectionPool(given[0], kwargs=given[1], open=False, timeout=5)
        name = f"Tokens, {kind}"
        oban.Oban(pool=pool, name=name)
        with configure(backend=ObanBackend(name)):
            contract_workers.echo.new(IDS, delay=9)
        assert len(harness.rows()) == 1

    def test_a_pool_whose_cursors_await_replaces_a_connection_that_the_server_closed(
        self, harness: ObanHarness
    ) -> None:
        """Ours looked at each one by such a cursor, which saw nothing, and the next job failed."""
        name = "cursors that await"
        kwargs = {"cursor_factory": psycopg.AsyncClientCursor, "application_name": name}
        pool = psycopg_pool.AsyncConnectionPool(harness.url, kwargs=kwargs, open=False)
        oban.Oban(pool=pool, name=name)
        close = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = %s AND datname = current_database()"
        )
        with configure(backend=ObanBackend(name)):
            contract_workers.echo.new(IDS, delay=9)
            assert len(harness.query(close, name)) == 1
            contract_workers.echo.new(IDS, delay=9)
        assert len(harness.rows()) == 2

    def test_a_job_enqueues_from_its_thread_and_from_its_loop(
        self, harness: ObanHarness, journal: Journal
    ) -> None:
        """A body may use ``.new()`` or ``.anew()``, whichever its kind has."""
        oban_app.parent.new(IDS)
        oban_app.parent_async.new(IDS)
        journal.wait(harness, lambda: len(journal.runs()) == 3, "three children")
        assert {run["args"]["by"] for run in journal.runs()} == {"thread", "loop", "blocking"}

    @pytest.mark.parametrize(
        "value", ["a\x00b", 1e16, [1e300, -0.0, 1e-7, 2.0], {"10e+5 ": "\\u0000"}]
    )
    def test_what_jsonb_would_change_arrives_unchanged(
        self, harness: ObanHarness, journal: Journal, value: Any
    ) -> None:
        """Args come through a JSONB column to the last digit and character."""
        _, (run,) = self._run(harness, journal, contract_workers.echo, {**IDS, "value": value})
        assert repr(run["args"]["value"]) == repr(value)

    def test_in_oban_s_own_test_mode_the_error_of_a_body_stays_in_the_log(
        self, harness: ObanHarness, caplog: pytest.LogCaptureFixture
    ) -> None:
        """``.new()`` does not raise it there either; the job was taken."""

        def fails(scope: Any) -> None:
            raise ValueError("boom")

        made = tenant_worker(name="oban_app.fails_inline", max_attempts=2)(fails)
        with configure(backend=harness.backend), mode("inline"):
            assert made.new(IDS).native_id is not None
            assert asyncio.run(made.anew(IDS)).native_id is not None
        assert caplog.text.count("ValueError: boom") == 2


@pytest.mark.parametrize("name", ["Oban", "nowhere"])
def test_no_instance_of_that_name_is_an_enqueue_error(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names what was looked for, and its last words make such an instance."""
    monkeypatch.setattr("oban.oban._instances", {})
    with configure(backend=ObanBackend(name)):
        with pytest.raises(EnqueueError, match=f"{name!r} not found") as told:
            contract_workers.echo.new(IDS)
        made = told.value.reason.rpartition("configure(): ")[2]
        names = {"Oban": oban.Oban, "AsyncConnectionPool": psycopg_pool.AsyncConnectionPool}
        instance = eval(made, {**names, "dsn": ""})
        assert oban.Oban.get_instance(name) is instance


def test_an_instance_in_place_of_its_name_is_refused() -> None:
    """``.new()`` would say that it is not found, though it is there."""
    pool: Any = psycopg_pool.AsyncConnectionPool("postgresql://127.0.0.1/shop", open=False)
    given: Any = oban.Oban(name="given", pool=pool)
    with pytest.raises(TypeError, match="takes the name of an Oban, not Oban$"):
        ObanBackend(given)


def test_a_users_worker_keeps_its_name() -> None:
    """A native worker is not replaced."""

    @oban.worker()
    class Own:
        async def process(self, job: Any) -> None: ...

    def own(scope: Any) -> None: ...

    ObanBackend()
    with pytest.raises(ValueError, match=r"Oban itself has a worker named '.*Own'"):
        tenant_worker(name=f"{Own.__module__}.{Own.__qualname__}")(own)


@pytest.mark.filterwarnings("default")  # of what other tests left
def test_a_pool_that_nobody_uses_any_more_is_let_go():
    """A suite that makes one for each test does not keep them all, with ours beside them."""

    def make():
        pool = psycopg_pool.AsyncConnectionPool(open=False)
        pool_like(pool)
        return pool

    assert is_let_go(make)
