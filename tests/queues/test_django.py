"""Django's tasks keep the contract in real workers, on PostgreSQL and on SQLite."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from contextvars import copy_context
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from queue_contract import PostgresContract, QueueContract
from queue_harness import QueueHarness, failing, not_hanging
from servers import need

need("django_tasks_db", "django")

import django  # noqa: E402
import django_app  # noqa: E402
from asgiref.sync import async_to_sync, sync_to_async  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import (  # noqa: E402
    OperationalError,
    close_old_connections,
    connection,
    connections,
    transaction,
)
from django.db.backends.signals import connection_created  # noqa: E402
from django.test import override_settings  # noqa: E402
from django.utils.module_loading import import_string  # noqa: E402
from django.utils.timezone import override as override_zone  # noqa: E402

os.environ["DJANGO_SETTINGS_MODULE"] = "django_app"
django.setup()

import django_jobs  # noqa: E402
from django_tasks_db.models import DBTaskResult  # noqa: E402

from sigra import EnqueueError, InvalidOptionError, Ok, configure, worker  # noqa: E402
from sigra.backends import django as module  # noqa: E402
from sigra.backends.asyncio import AsyncioBackend  # noqa: E402
from sigra.backends.django import DjangoBackend, task_of  # noqa: E402
from sigra.backends.external import aconsume, consume  # noqa: E402
from sigra.backends.orm_thread import execute_apart, run_in_place  # noqa: E402
from sigra.backends.thread import ThreadBackend  # noqa: E402
from sigra.registry import backend_class  # noqa: E402
from sigra.testing import RecordingBackend, aperform_job, perform_job  # noqa: E402
from sigra.testing import contract_workers as workers  # noqa: E402
from sigra.testing.contract_case import IDS  # noqa: E402
from sigra.testing.contract_consumers import undeployed  # noqa: E402

LOOK = "sigra.backends.django.worker:sigra:rescue"
"""The path of the task that looks for lost jobs."""


class DjangoHarness(QueueHarness):
    command = (
        "django-admin db_worker --settings django_app --interval 0.1 --no-startup-delay".split()
    )
    alone = ("--queue-name={queue}",)
    other_queue = "other"
    ready = "Starting worker"
    patience = 240.0
    table = "django_tasks_database_dbtaskresult"
    concurrency = 1
    outlives_its_server = False

    def __init__(self, server: str, folder: Path) -> None:
        super().__init__(server, folder)
        own = {"default": django_app.database(self.url), "other": django_app.database(str(folder))}
        connections.settings = connections.configure_settings(own)
        self.forget_connections()
        asyncio.run(sync_to_async(self.forget_connections)())
        call_command("migrate", verbosity=0)
        self.backend = DjangoBackend()
        self.rows = DBTaskResult.objects

    def advance(self) -> None:
        """Close a connection that broke, as Django does between requests."""
        super().advance()
        if not connection.in_atomic_block:
            close_old_connections()

    def forget_connections(self) -> None:
        """Close those of this thread, and let those that follow have the settings of then."""
        for one in connections.all(initialized_only=True):
            one.close()
            del connections[one.alias]

    def send(self, name: str, payload: Mapping[str, Any]) -> str:
        return task_of(name).enqueue(**payload).id

    def send_note(self, text: str) -> None:
        django_jobs.note.enqueue(text)

    def name_of(self, native_id: str) -> str | None:
        return self.rows.get(id=native_id).task_name

    def failed(self, native_id: str) -> str | None:
        """Return the error of the last of the rows that a job has had."""
        rows = self.rows.filter(id=native_id)
        if job_id := rows.get().args_kwargs["kwargs"].get("id"):
            rows = self.rows.filter(args_kwargs__kwargs__id=job_id)
        last = rows.latest("enqueued_at")
        return last.traceback if last.status == "FAILED" else None

    def kept(self, native_id: str) -> bool:
        return self.rows.filter(id=native_id).exclude(status="SUCCESSFUL").exists()

    def forget_rows(self) -> None:
        """Delete all but what runs: the consumer would end where it finds its row gone."""
        self.rows.exclude(status="RUNNING").delete()

    def transact(self, worker: Any, args: Mapping[str, Any], *, commit: bool, awaited: bool) -> Any:
        new = async_to_sync(worker.anew) if awaited else worker.new
        with transaction.atomic():
            job = new(args, conn=connection)
            transaction.set_rollback(not commit)
        return job

    def remove(self) -> None:
        self.forget_connections()
        asyncio.run(sync_to_async(self.forget_connections)())


def eager_celery(request):
    app = need("celery").Celery(broker="memory://", set_as_current=False)
    app.conf.task_always_eager = True
    return backend_class("celery")(app)


def immediate_huey(request):
    kind = need("huey").MemoryHuey
    serializer = import_string("sigra.backends.huey.JSONSerializer")()
    return backend_class("huey")(kind(immediate=True, serializer=serializer))


def sync_rq(request):
    connection = need("redis").Redis.from_url(request.getfixturevalue("redis"))
    request.addfinalizer(connection.close)
    queue = need("rq").Queue("q", is_async=False, connection=connection, serializer="json")
    return backend_class("rq")(queue)


@contextmanager
def no_connections_left_by_threads():
    """Close, after the block, what other threads opened in it; Django does so after a request."""
    opened = []

    def keep(connection, **_):
        if threading.current_thread() is not threading.main_thread():
            opened.append(connection.connection)

    connection_created.connect(keep)
    try:
        yield
    finally:
        connection_created.disconnect(keep)
        for one in opened:
            one.close()


class DjangoContract(QueueContract):
    """What is Django's own, whichever database it has."""

    def row(self, harness, journal, native_id, status):
        """Return the row of a task, once it has this status."""
        rows = harness.rows.filter(id=native_id, status=status)
        journal.wait(harness, rows.exists, f"a task that is {status}")
        return rows.get()

    def test_jobs_of_several_threads_arrive(self, harness, journal):
        with no_connections_left_by_threads():
            super().test_jobs_of_several_threads_arrive(harness, journal)

    def test_the_path_in_the_table_names_the_worker(self, harness, journal):
        """Who looks at the table sees which worker a row is for."""
        job, _ = self._run(harness, journal, workers.echo, IDS)
        row = self.row(harness, journal, job.native_id, "SUCCESSFUL")
        assert row.task_path == "sigra.backends.django.worker:sigra:contract:echo"

    def test_a_finished_job_leaves_one_row(self, harness, journal):
        """No second row comes of a job that succeeded."""
        harness.forget_rows()
        job, _ = self._run(harness, journal, workers.echo, IDS)
        self.row(harness, journal, job.native_id, "SUCCESSFUL")
        # Of this worker alone: what an earlier case had killed may run meanwhile.
        path = harness.rows.get(id=job.native_id).task_path
        rows = harness.rows.filter(task_path=path)
        assert [str(row.id) for row in rows] == [job.native_id]

    @pytest.mark.parametrize(
        ("how", "error"),
        [
            ("failure", "JobFailedError"),
            ("raise", "ValueError: said so"),
            ("cancel", "JobCancelledError"),
            ("exit", "SystemExit: 3"),
        ],
    )
    def test_a_job_that_ends_badly_is_a_failed_task(self, harness, journal, how, error):
        """Its row holds the error, as for a native task."""
        job = workers.ends.new({**IDS, "how": how})
        assert error in self.row(harness, journal, job.native_id, "FAILED").traceback

    @pytest.mark.parametrize("enqueued", [False, True])
    def test_a_failed_job_that_is_run_again_by_hand_has_its_last_attempt_once_more(
        self, harness, journal, enqueued
    ):
        """As a row that is made ready again, or as a new one with its args; its events are new."""

        def again(native_id: str) -> None:
            job_id = harness.rows.get(id=native_id).args_kwargs["kwargs"]["id"]
            row = harness.rows.filter(args_kwargs__kwargs__id=job_id).latest("enqueued_at")
            if enqueued:
                row.task_result.task.enqueue(**row.args_kwargs["kwargs"])
            else:
                assert harness.rows.filter(id=row.id, status="FAILED").update(status="READY") == 1

        self._is_run_by_hand(harness, journal, again)

    def test_a_job_whose_consumers_died_is_run_again_by_hand(self, harness, journal):
        """As one whose attempts are used up: it was refused for good as one that kills them."""
        job = workers.echo.new(IDS, delay=3600)
        row = harness.rows.filter(id=job.native_id)
        died = {"args": [], "kwargs": {**row.get().args_kwargs["kwargs"], "deliveries": 1}}
        row.update(args_kwargs=died, run_after=row.get().enqueued_at)
        error = self.row(harness, journal, job.native_id, "FAILED").traceback
        assert ("PoisonedJobError" in error, journal.runs()) == (True, [])
        row.update(status="READY")
        self.row(harness, journal, job.native_id, "SUCCESSFUL")

    @pytest.mark.parametrize("deployed", [False, True])
    def test_a_refused_job_that_is_run_again_by_hand_is_no_death_of_a_consumer(
        self, harness, journal, deployed
    ):
        """It is refused for the same reason, and runs if a deploy has mended that."""
        job = workers.echo.new(IDS, delay=3600)
        row = harness.rows.filter(id=job.native_id)
        whole = row.get().args_kwargs["kwargs"]
        lacking = {**whole, "args": {"organization_id": "42"}}
        past = row.get().enqueued_at
        row.update(args_kwargs={"args": [], "kwargs": lacking}, run_after=past)
        assert "'actor_id'" in self.row(harness, journal, job.native_id, "FAILED").traceback
        if deployed:  # as if the worker now took what the job has
            kept = {**row.get().args_kwargs["kwargs"], "args": whole["args"]}
            row.update(args_kwargs={"args": [], "kwargs": kept})
        row.update(status="READY", traceback="")
        ended = self.row(harness, journal, job.native_id, "SUCCESSFUL" if deployed else "FAILED")
        assert ("'actor_id'" in ended.traceback) is not deployed

    def test_a_workers_module_is_imported_when_a_job_asks_for_it(self, harness, journal):
        """A consumer runs workers whose modules it has not imported before."""
        _, (run,) = self._run(harness, journal, django_jobs.lazily_found, IDS)
        assert run["worker"] == "django_jobs.lazily_found"

    def test_an_async_worker_has_the_consumers_own_connection(self, harness, journal):
        """Django closes that one when it broke; another thread's would stay broken for good."""
        _, (run,) = self._run(harness, journal, django_jobs.queries, IDS)
        assert run["main"]

    @pytest.mark.parametrize("worker", [django_jobs.sees, django_jobs.sees_plainly])
    @pytest.mark.parametrize("awaited", [False, True])
    def test_in_a_test_a_body_sees_what_the_tests_transaction_holds(self, harness, worker, awaited):
        """However it is run: a TestCase of Django's is one transaction from end to end."""
        with configure(backend=RecordingBackend()), transaction.atomic():
            args = {**IDS, "task_id": str(django_jobs.note.enqueue("never sent").id)}
            new, perform = worker.new, perform_job
            if awaited:
                new, perform = async_to_sync(worker.anew), async_to_sync(aperform_job)
            assert new(args).result()
            assert perform(worker, args) == Ok(True)
            transaction.set_rollback(True)

    @pytest.mark.parametrize("mode", [eager_celery, immediate_huey, sync_rq])
    def test_in_a_queues_own_test_mode_an_async_body_sees_it_too(self, harness, mode, request):
        """A queue that runs its jobs inside ``.new()`` has their queries on that thread's connection."""
        with configure(backend=mode(request)), transaction.atomic():
            task_id = str(django_jobs.note.enqueue("never sent").id)
            django_jobs.deletes.new({**IDS, "task_id": task_id})
            assert not harness.rows.filter(id=task_id).exists()
            transaction.set_rollback(True)

    def test_a_job_of_an_unknown_worker_waits_as_a_task_of_its_own(self, harness, journal):
        """Its row is a failed one that names the worker, and another row waits for a deploy."""
        job = undeployed.new(IDS)
        row = self.row(harness, journal, job.native_id, "FAILED")
        assert "no worker is named 'sigra.contract.undeployed'" in row.traceback
        waiting = harness.rows.filter(args_kwargs__kwargs__id=job.id, status="READY")
        assert waiting.count() == 1

    def test_another_queue_is_named(self, harness):
        """The option ``queue`` is a queue that ``TASKS`` names, and no other."""
        job = workers.echo.new(IDS, queue="other")
        assert harness.rows.get(id=job.native_id).queue_name == "other"
        with pytest.raises(InvalidOptionError, match="no queue 'unheard-of'; it has "):
            workers.echo.new(IDS, queue="unheard-of")

    def test_a_queue_that_the_database_does_not_hold_is_refused(self, harness):
        """A name that PostgreSQL would cut or refuse is told at ``.new()``."""
        with configure(backend=DjangoBackend("any")):
            job = workers.echo.new(IDS, queue="q" * 32, delay=3600)
            assert harness.rows.get(id=job.native_id).queue_name == "q" * 32
            if connection.vendor == "postgresql":
                with pytest.raises(InvalidOptionError, match="at most 32 characters here, not 33"):
                    workers.echo.new(IDS, queue="q" * 33)
                with pytest.raises(InvalidOptionError, match="must not hold a NUL"):
                    workers.echo.new(IDS, queue="q\0")

    def test_a_priority_beyond_djangos_is_refused(self, harness):
        """What Django takes is written, and what it does not is told at ``.new()``."""
        job = workers.echo.new(IDS, priority=100, delay=3600)
        assert harness.rows.get(id=job.native_id).priority == 100
        with pytest.raises(InvalidOptionError, match="-100 to 100"):
            workers.echo.new(IDS, priority=101)

    def test_without_use_tz_a_run_at_is_by_the_consumers_clock(self, harness):
        """A request may have another time zone, which Django's naive dates are not in."""
        due = datetime(2100, 1, 1, tzinfo=timezone.utc)
        with override_settings(USE_TZ=False), override_zone("Asia/Tokyo"):
            job = workers.echo.new(IDS, run_at=due)
            assert harness.rows.get(id=job.native_id).run_after.timestamp() == due.timestamp()

    def test_without_conn_a_job_is_part_of_the_open_transaction_too(self, harness, journal):
        """Where the transaction is rolled back there is no job."""
        with pytest.raises(LookupError), transaction.atomic():
            job = workers.echo.new(IDS)
            assert harness.kept(job.native_id)
            raise LookupError
        self._run(harness, journal, workers.agnostic, {})
        assert not harness.kept(job.native_id)
        assert journal.runs(workers.echo.name) == []

    def test_a_connection_to_elsewhere_is_refused(self, harness):
        """``conn`` is the connection of the database that has the tasks."""
        for other in (connections["other"], object()):
            with pytest.raises(
                InvalidOptionError, match=r"this thread's .*connections\['default'\]"
            ):
                workers.echo.new(IDS, conn=other)

    def test_a_connection_in_no_transaction_is_refused(self, harness):
        """It would not share the fate of anything; no row is written."""
        with pytest.raises(InvalidOptionError, match="in no transaction"):
            workers.echo.new({**IDS, "value": "unshared"}, conn=connection)
        assert not harness.rows.filter(args_kwargs__kwargs__args__value="unshared").exists()

    def test_a_failed_batch_leaves_no_row(self, harness):
        """A batch is written whole or not at all."""
        inserted = []

        def fail_the_third(execute, sql, *args):
            inserted.extend([sql] if sql.startswith("INSERT") else [])
            if len(inserted) == 3:
                raise OperationalError("the disk is full")
            return execute(sql, *args)

        with connection.execute_wrapper(fail_the_third), pytest.raises(EnqueueError, match="full"):
            workers.echo.new_many([{**IDS, "value": "whole"}] * 3)
        # Others the consumer writes meanwhile, such as the next look for lost jobs.
        assert not harness.rows.filter(args_kwargs__kwargs__args__value="whole").exists()

    def test_a_job_that_was_claimed_and_not_begun_runs_as_if_it_was_new(self, harness, journal):
        """A worker that is stopped or killed between the two leaves such a task."""
        harness.stop()
        job = workers.echo.new(IDS)
        harness.rows.get(id=job.native_id).claim("a worker that is no more")
        harness.start()
        runs = partial(journal.runs, job.worker)  # an earlier case's job may run meanwhile
        journal.wait(harness, lambda: bool(runs()), "the job")
        self.row(harness, journal, job.native_id, "SUCCESSFUL")
        assert [run["attempt"] for run in runs()] == [1]

    def test_a_look_for_lost_jobs_is_always_to_come_and_leaves_no_rows(self, harness, journal):
        """One waits from the first job on, also where no job is left; those that were go."""
        harness.forget_rows()
        running = list(harness.rows.filter(task_path=LOOK).values_list("id", flat=True))
        self._run(harness, journal, workers.echo, IDS)
        looks = harness.rows.filter(task_path=LOOK).exclude(id__in=running)
        assert [row.task_name for row in looks] == ["sigra.rescue"]
        first = looks.get().id
        journal.wait(harness, lambda: not looks.filter(id=first).exists(), "it to be forgotten")
        journal.wait(harness, looks.filter(status="READY").exists, "another to wait")
        assert looks.count() <= 4

    def test_a_look_for_lost_jobs_is_where_their_consumer_finds_it(self, harness, journal):
        """In their own queue and alias, whose consumer may have no other; before all jobs."""
        with configure(backend=DjangoBackend("patient")):
            job = workers.echo.new(IDS, queue="other")
        words = "--backend=patient", "--queue-name=other"
        consumer = harness.another(harness.new_name(), *words)
        try:
            consumer.start()
            self.row(harness, journal, job.native_id, "SUCCESSFUL")
            consumer.stop()
        finally:
            consumer.kill()
        look = harness.rows.get(task_path=LOOK, backend_name="patient")
        look.delete()
        assert (look.queue_name, look.priority) == ("other", 100)

    def test_a_look_that_died_with_its_consumer_is_made_up_for(self, harness, journal):
        """By the next job that begins, whatever became of the looks before."""
        harness.stop()
        job = workers.echo.new(IDS)
        harness.rows.get(id=job.native_id).claim("a worker that is no more")
        for look in harness.rows.filter(task_path=LOOK, status="READY"):
            look.claim("a worker that is no more")
        harness.start()
        workers.agnostic.new({})
        journal.wait(harness, lambda: bool(journal.runs(workers.echo.name)), "the lost job")

    def test_a_job_whose_consumer_dies_as_it_is_put_off_goes_on_once(self, harness, journal):
        """The run that was put off does not come again beside the next one."""
        args = {**IDS, "marker": str(harness.folder / "died")}
        job = django_jobs.dies_as_it_is_put_off.new(args, max_attempts=3)
        journal.wait(harness, lambda: not harness.alive, "its death")
        harness.start()
        of_job = harness.rows.filter(args_kwargs__kwargs__id=job.id)
        unfinished = of_job.filter(status__in=["READY", "RUNNING"])
        journal.wait(harness, lambda: not unfinished.exists(), "its end")
        assert [run["snoozes"] for run in journal.runs(job.worker)] == [0, 1]

    def test_each_alias_has_its_own_time_after_which_a_job_is_lost(self, harness, journal):
        """A patient backend's job still runs when another's counts as lost; so does a later one."""
        self._run(harness, journal, workers.echo, IDS)  # from now on a look is to come
        with configure(backend=DjangoBackend("patient")):
            job = workers.echo.new(IDS)
        row = harness.rows.get(id=job.native_id)
        row.claim("a worker that takes its time")
        young = harness.rows.get(id=workers.echo.new(IDS, delay=3600).native_id)
        young.claim("a worker that has just begun it")
        later = datetime(2100, 1, 1, tzinfo=timezone.utc)
        harness.rows.filter(id=young.id).update(started_at=later)
        lost = workers.agnostic.new({})
        harness.rows.get(id=lost.native_id).claim("a worker that is no more")
        journal.wait(harness, lambda: bool(journal.runs(workers.agnostic.name)), "the lost job")
        for running in (row, young):
            running.refresh_from_db()
            assert running.status == "RUNNING"
            running.delete()


def in_a_thread(worker, *args):
    backend = ThreadBackend(max_workers=1)
    with configure(backend=backend), closing(backend):
        jobs = worker.new_many(args, max_attempts=1)
    return [job.result for job in jobs]


def on_a_loop(worker, *args, at_once=1):
    async def main():
        backend = AsyncioBackend(at_once)
        with configure(backend=backend):
            jobs = worker.new_many(args, max_attempts=1)
        await backend.aclose()
        return [job.result for job in jobs]

    return asyncio.run(main())


def by_a_loops_consumer(worker, *args):
    async def main():
        return [(await aconsume(given, worker.name, "x")).verdict.unwrap for given in args]

    return asyncio.run(main())


def by_a_thread(worker, *args):
    """As Dramatiq's consumer does."""
    by = partial(consume, worker=worker.name, backend="x", execute=execute_apart)
    with ThreadPoolExecutor(1) as threads:
        return [consumed.verdict.unwrap for consumed in threads.map(by, args)]


class TestDjangoOnPostgres(PostgresContract, DjangoContract):
    harness_class, server = DjangoHarness, "postgres"

    @pytest.mark.parametrize("host", ["/nowhere", "nowhere.invalid"])
    def test_a_job_for_which_there_was_no_connection_was_not_sent(self, harness, monkeypatch, host):
        """The error said that the job may have been sent."""
        connection.close()
        monkeypatch.setitem(connection.settings_dict, "HOST", host)
        with pytest.raises(EnqueueError, match="did not take the job") as caught:
            workers.echo.new(IDS)
        assert caught.value.unsure == ()

    def test_a_job_that_is_committed_late_comes_back_too(self, harness, journal):
        """Though all who looked for lost jobs in the meantime saw none."""
        harness.forget_rows()
        self._run(harness, journal, workers.echo, IDS)
        looks = harness.rows.filter(task_path=LOOK, status="READY")
        with transaction.atomic():
            job = workers.agnostic.new({})
            harness.rows.get(id=job.native_id).claim("a worker that is no more")
            waiting = list(looks.values_list("id", flat=True))
            journal.wait(harness, lambda: not looks.filter(id__in=waiting).exists(), "a look")
            time.sleep(1)  # until it has ended
        journal.wait(harness, lambda: bool(journal.runs(workers.agnostic.name)), "the lost job")

    def test_a_job_whose_delivery_cannot_be_counted_runs_later(self, harness, journal):
        """Django itself would count it as failed, though it never ran."""
        table = f"{harness.rows.model._meta.db_table} WHEN"
        with failing(harness.server, f"OF args_kwargs ON {table} true", times=1):
            self._run(harness, journal, workers.echo, IDS)

    def test_a_job_whose_next_run_cannot_be_queued_comes_again(self, harness, journal):
        """As one whose consumer died does; Django itself would count it as failed."""
        table = harness.rows.model._meta.db_table
        next_run = "NEW.status = 'READY' AND NEW.args_kwargs->'kwargs'->>'snoozes' = '1'"
        with failing(harness.server, f"OR INSERT ON {table} WHEN {next_run}", times=1):
            self._run(harness, journal, workers.snoozes, {**IDS, "times": 1}, 3, max_attempts=2)
        assert [run["snoozes"] for run in journal.runs(workers.snoozes.name)] == [0, 0, 1]

    @pytest.mark.parametrize(
        ("worker", "args", "attempts", "status"),
        [
            (workers.recovers, {"failures": 1}, 1, "FAILED"),
            (workers.recovers, {"failures": 1}, 2, "FAILED"),
            (workers.snoozes, {"times": 1}, 1, "SUCCESSFUL"),
        ],
    )
    def test_the_end_of_a_run_is_written_once(
        self, harness, journal, worker, args, attempts, status
    ):
        """Who makes its row READY again, as soon as it has ended, keeps the run that he asked for."""
        table = harness.rows.model._meta.db_table
        again = f"OLD.status = '{status}' AND NEW.args_kwargs = OLD.args_kwargs"
        with failing(harness.server, f"ON {table} WHEN {again}", times=1):
            job = worker.new({**IDS, **args}, max_attempts=attempts)
            self.row(harness, journal, job.native_id, status)
            self._run(harness, journal, workers.echo, IDS)
            written_again = django_jobs.ask("SELECT is_called::int FROM failing")
        assert not written_again

    @pytest.mark.parametrize("worker", [django_jobs.asks, django_jobs.asks_on_a_loop])
    @pytest.mark.parametrize("apart", [in_a_thread, on_a_loop, by_a_loops_consumer, by_a_thread])
    def test_a_lost_connection_is_closed_where_nobody_else_does_that(self, harness, worker, apart):
        """Else each later query of that thread would fail, for good."""
        number = "SELECT pg_backend_pid()"
        queries = f"SELECT pg_terminate_backend(({number}))", number
        lost, asked = apart(worker, *({**IDS, "query": query} for query in queries))
        with pytest.raises(OperationalError):
            lost()
        backends = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {asked()}"
        if worker is django_jobs.asks:
            with not_hanging():  # as between two requests, none is kept
                while django_jobs.ask(backends):
                    time.sleep(0.01)

    def test_a_connection_that_grew_too_old_between_two_jobs_is_not_used(self, harness):
        """Its server may have closed it meanwhile."""
        job = {**IDS, "query": "SELECT pg_backend_pid()"}
        by = partial(consume, worker=django_jobs.asks.name, backend="x", execute=execute_apart)

        def grow_old():
            connection.close_at = time.monotonic()

        lasting = {**connection.settings_dict, "CONN_MAX_AGE": 3600}
        with ThreadPoolExecutor(1) as threads:
            threads.submit(setattr, connection, "settings_dict", lasting).result()
            first, again = [threads.submit(by, job).result() for _ in range(2)]
            threads.submit(grow_old).result()
            after = threads.submit(by, job).result()
            threads.submit(lambda: connection.close()).result()
        pids = [each.verdict.unwrap() for each in (first, again, after)]
        assert pids[0] == pids[1] != pids[2]

    def test_a_lost_connection_is_closed_in_hueys_consumer(self, harness, tmp_path):
        """Which would do so by itself for huey's own ``db_task`` alone."""
        sqlite_huey = need("huey").SqliteHuey
        from sigra.backends.huey import HueyBackend, JSONSerializer

        huey = sqlite_huey(filename=tmp_path / "huey.db", serializer=JSONSerializer())
        connection.cursor().execute("CREATE SEQUENCE seen")
        queries = "SELECT pg_terminate_backend(pg_backend_pid())", "SELECT setval('seen', 7)"
        ended = closing(huey.storage)
        with ended, configure(backend=HueyBackend(huey)), ThreadPoolExecutor(1) as threads:
            for query in queries:
                django_jobs.asks.new({**IDS, "query": query}, max_attempts=1)
                threads.submit(huey.execute, huey.dequeue()).result()
        assert django_jobs.ask("SELECT last_value FROM seen") == 7

    def test_jobs_that_query_at_once_on_a_loop_all_end(self, harness):
        """Though asgiref marks the context that the loop's jobs begin in."""
        args = [{**IDS, "query": "SELECT 1"}] * 8
        assert [1] * 8 == [
            ended() for ended in on_a_loop(django_jobs.asks_on_a_loop, *args, at_once=8)
        ]


class TestDjangoOnSqlite(DjangoContract):
    harness_class, server = DjangoHarness, "folder"


def test_an_interrupt_ends_an_async_body_and_its_last_queries_too():
    """A consumer that is told to end at once waits for what it leaves, and for no more."""
    seen = []

    async def body():
        try:
            await asyncio.sleep(0.1)  # what comes just before a thread waits does not wake it
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            seen.append(await sync_to_async(threading.current_thread)())

    with pytest.raises(KeyboardInterrupt), not_hanging():
        run_in_place(body(), copy_context())
    assert seen == [threading.main_thread()]


def test_the_next_job_does_not_wait_for_the_loop_of_one_that_was_interrupted():
    """asgiref would send it to that loop, which may be about to end and then never runs it."""

    async def interrupted():
        loop = asyncio.get_running_loop()
        close, loop.close = loop.close, lambda: (time.sleep(0.5), close())
        await sync_to_async(threading.current_thread)()
        await asyncio.sleep(0.1)  # as above
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    async def following():
        return 7

    with not_hanging():
        with pytest.raises(KeyboardInterrupt):
            run_in_place(interrupted(), copy_context())
        assert 7 == run_in_place(following(), copy_context())


@pytest.mark.parametrize("error", [LookupError("said so"), SystemExit(3)])
def test_what_an_async_body_raises_reaches_who_runs_it_in_place(error):
    """Else its job would count as done, with None as result."""

    async def body():
        raise error

    with pytest.raises(type(error)) as raised, not_hanging():
        run_in_place(body(), copy_context())
    assert raised.value is error


def test_a_coroutine_that_cannot_run_on_the_callers_loop_is_refused_in_so_many_words():
    """With Django there as without it: a plain function gives one, and a loop runs."""

    @worker(name="django.gives")
    def gives():
        return asyncio.sleep(0)

    async def enqueue():
        with configure(backend=RecordingBackend()):
            return gives.new({})

    with pytest.raises(RuntimeError, match="make it an async def"):
        asyncio.run(enqueue()).result()


def test_a_backend_of_another_package_is_refused():
    """Django's immediate backend would run jobs in the request.

    The error has its whole path: huey has one too, which has consumers, and is named HueyBackend.
    """
    with pytest.raises(ValueError, match=r"'here'\] is django\.[a-z.]+\.ImmediateBackend, but"):
        DjangoBackend("here")


@pytest.mark.parametrize("kind", ["immediate.Immediate", "dummy.Dummy"])
def test_a_backend_that_a_test_puts_in_its_place_is_refused(kind):
    """Django's habit for tests: ``.new()`` told of a job that failed unseen, and never ran."""
    backend = DjangoBackend()
    tasks = {"default": {"BACKEND": f"django.tasks.backends.{kind}Backend"}}
    with (
        override_settings(TASKS=tasks),
        configure(backend=backend),
        pytest.raises(EnqueueError, match=r"TASKS\['default'\] is django\.tasks\.backends"),
    ):
        workers.echo.new(IDS)


@pytest.mark.parametrize("given", [None, b"default"])
def test_what_is_no_alias_is_refused(given):
    """It is told what to pass."""
    with pytest.raises(TypeError, match=r"takes the alias of an entry of TASKS, a str, not \w+;"):
        DjangoBackend(given)


@pytest.mark.parametrize("name", ["plain", "app.jobs.close", "a:b.c", "a.b:c", "100%.x", "ünï"])
def test_a_worker_of_any_name_has_a_path_of_its_own(name):
    """Django imports the task by a path that no two workers share."""
    task = task_of(name)
    assert (task.name, import_string(task.module_path)) == (name, task)


def test_the_module_makes_up_no_other_attribute():
    """A mistyped name of the module's is an ``AttributeError`` as ever."""
    assert not hasattr(module, "DjangoBackends")
