"""Django's tasks keep the contract in real workers, on PostgreSQL and on SQLite."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

if os.environ.get("SIGRA_QUEUES") != "1":
    pytest.skip("set SIGRA_QUEUES=1 (make test-queues)", allow_module_level=True)
if sys.version_info < (3, 12):
    pytest.skip("Django 6 needs Python 3.12", allow_module_level=True)
pytest.importorskip("django_tasks_db", reason="the extra django is not installed here")
import django  # noqa: E402
import psycopg  # noqa: E402
from consumer import Consumer, find_server  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connections, transaction  # noqa: E402

from sigra import EnqueueError, InvalidOptionError, configure  # noqa: E402
from sigra.testing import BackendContract, contract_workers  # noqa: E402
from sigra.testing.contract_case import IDS  # noqa: E402
from sigra.testing.harness import Journal  # noqa: E402

COMMAND = "django-admin db_worker --settings django_app --interval 0.1 --no-startup-delay"


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory: Any) -> Iterator[None]:
    """Set Django up with one database on each server, and remove what is on PostgreSQL."""
    server = urlsplit(
        find_server("SIGRA_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")
    )
    name = f"sigra_{uuid.uuid4().hex[:12]}"
    postgres = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "HOST": server.hostname,
        "PORT": server.port or 5432,
        "USER": server.username or "postgres",
        "PASSWORD": server.password or "",
    }
    file = tmp_path_factory.mktemp("database") / "db.sqlite3"
    sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(file), "OPTIONS": {"timeout": 20}}
    os.environ["SIGRA_TEST_DJANGO"] = json.dumps(
        {"default": {}, "postgres": postgres, "sqlite": sqlite}
    )
    os.environ["DJANGO_SETTINGS_MODULE"] = "django_app"
    with psycopg.connect(server.geturl(), autocommit=True) as conn:
        conn.execute(f'CREATE DATABASE "{name}"')
        django.setup()
        for database in ("postgres", "sqlite"):
            os.environ["SIGRA_TEST_DATABASE"] = database
            call_command("migrate", database=database, verbosity=0)
        yield
        connections.close_all()
        conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


class DjangoHarness:
    """A worker started by Django's own command, and the database that feeds it."""

    patience = 30.0

    def __init__(self, database: str, folder: Path) -> None:
        from django.apps import apps

        from sigra.backends.django import DjangoBackend

        os.environ["SIGRA_TEST_DATABASE"] = self.database = database
        self.backend = DjangoBackend()
        self.slow = apps.get_app_config("django_app").slow
        self.notes = folder / "notes"
        self.notes.touch()
        env = {
            "SIGRA_CONSUMER": "1",
            "SIGRA_TEST_DATABASE": database,
            "SIGRA_NATIVE_NOTES": str(self.notes),
        }
        self.consumer = Consumer(COMMAND.split(), "Starting worker", folder, env)
        self.consumer.start()

    def advance(self) -> None:
        time.sleep(0.02)

    def send(self, name: str, payload: Mapping[str, Any]) -> None:
        from sigra.backends.django import task_of

        task_of(name).enqueue(**payload)

    @property
    def rows(self) -> Any:
        from django_tasks_db.models import DBTaskResult

        return DBTaskResult.objects

    def row(self, native_id: str, status: str, journal: Journal) -> Any:
        """Return the row of a task, once it has this status."""
        rows = self.rows.filter(id=native_id, status=status)
        journal.wait(self, rows.exists, f"a task that is {status}")
        return rows.get()


class DjangoContract(BackendContract):
    """The shipped suite, and what is Django's own."""

    database = ""

    @pytest.fixture(scope="class")
    @classmethod
    def journal(cls, tmp_path_factory: Any) -> Journal:
        return Journal(tmp_path_factory.mktemp("journal"))

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, project: None, journal: Journal, tmp_path_factory: Any) -> Iterator[Any]:
        harness = DjangoHarness(cls.database, tmp_path_factory.mktemp("consumer"))
        yield harness
        assert harness.consumer.stop() == 0, harness.consumer.output[-3000:]

    def test_a_native_task_beside_it_works(self, harness, journal):
        import django_jobs

        django_jobs.note.enqueue("hello")
        journal.wait(harness, lambda: "hello" in harness.notes.read_text(), "the native task")

    def test_the_workers_name_is_the_tasks(self, harness, journal):
        job, _ = self._run(harness, journal, contract_workers.echo, IDS)
        row = harness.row(job.native_id, "SUCCESSFUL", journal)
        assert row.task_name == "sigra.contract.echo"
        assert row.task_path == "sigra.backends.django.worker:sigra:contract:echo"

    def test_a_finished_job_leaves_one_row(self, harness, journal):
        harness.rows.all().delete()
        job, _ = self._run(harness, journal, contract_workers.echo, IDS)
        harness.row(job.native_id, "SUCCESSFUL", journal)
        assert [str(row.id) for row in harness.rows.all()] == [job.native_id]

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
        job = contract_workers.ends.new({**IDS, "how": how})
        assert error in harness.row(job.native_id, "FAILED", journal).traceback

    def test_a_hand_built_job_without_keys_is_a_failed_task(self, harness, journal):
        from sigra.backends.django import task_of

        sent = task_of("sigra.contract.echo").enqueue(organization_id="acme")
        row = harness.row(sent.id, "FAILED", journal)
        assert row.exception_class_path == "sigra.errors.MissingArgError"
        assert "no 'actor_id'" in row.traceback

    def test_a_workers_module_is_imported_when_a_job_asks_for_it(self, harness, journal):
        import django_jobs

        _, (run,) = self._run(harness, journal, django_jobs.lazily_found, IDS)
        assert run["worker"] == "django_jobs.lazily_found"

    def test_a_job_of_an_unknown_worker_waits(self, harness, journal):
        import django_jobs

        job = django_jobs.unknown.new(IDS)
        row = harness.row(job.native_id, "FAILED", journal)
        assert "no worker is named 'django_jobs.unknown'" in row.traceback
        waiting = harness.rows.filter(task_path=row.task_path, status="READY")
        assert [row.args_kwargs["kwargs"]["id"] for row in waiting] == [job.id]
        waiting.delete()

    def test_anew_sends_too(self, harness, journal):
        asyncio.run(contract_workers.echo.anew_many([IDS, IDS]))
        journal.wait(harness, lambda: len(journal.runs()) == 2, "two jobs")

    def test_another_queue_is_named(self, harness, journal):
        job = contract_workers.echo.new(IDS, queue="other")
        assert harness.rows.get(id=job.native_id).queue_name == "other"
        with pytest.raises(EnqueueError, match="'unheard-of' is not valid"):
            contract_workers.echo.new(IDS, queue="unheard-of")

    def test_a_priority_beyond_djangos_is_refused(self, harness, journal):
        job = contract_workers.echo.new(IDS, priority=100, delay=60)
        assert harness.rows.get(id=job.native_id).priority == 100
        with pytest.raises(InvalidOptionError, match="-100 to 100"):
            contract_workers.echo.new(IDS, priority=101)

    @pytest.mark.parametrize("named", [True, False])
    def test_a_transaction_that_commits_leaves_one_job(self, harness, journal, named):
        options = {"conn": connections[self.database]} if named else {}
        with transaction.atomic(using=self.database):
            job = contract_workers.echo.new(IDS, **options)
            other = contract_workers.named.new({**IDS, "number": 1}, **options)
        journal.wait(harness, lambda: len(journal.runs()) == 2, "both jobs")
        assert {run["job_id"] for run in journal.runs()} == {job.id, other.id}

    @pytest.mark.parametrize("named", [True, False])
    def test_a_transaction_that_rolls_back_leaves_no_job(self, harness, journal, named):
        options = {"conn": connections[self.database]} if named else {}
        with pytest.raises(LookupError), transaction.atomic(using=self.database):
            job = contract_workers.echo.new(IDS, **options)
            assert harness.rows.filter(id=job.native_id).exists()
            raise LookupError
        self._run(harness, journal, contract_workers.agnostic, {})
        assert not harness.rows.filter(id=job.native_id).exists()
        assert journal.runs("sigra.contract.echo") == []

    def test_a_connection_to_elsewhere_is_refused(self, harness, journal):
        other = {"postgres": "sqlite", "sqlite": "postgres"}[self.database]
        with pytest.raises(EnqueueError, match=f"connections\\['{self.database}'\\]"):
            contract_workers.echo.new(IDS, conn=connections[other])

    def test_a_failed_batch_leaves_no_row(self, harness, journal):
        harness.rows.all().delete()
        with pytest.raises(EnqueueError):
            contract_workers.echo.new_many([IDS] * 3, queue="unheard-of")
        assert not harness.rows.exists()

    def test_after_kill_9_every_job_runs_with_the_same_event_ids(self, harness, journal):
        jobs = harness.slow.new_many([{**IDS, "n": n} for n in range(200)], max_attempts=2)
        journal.wait(harness, lambda: len(journal.events("test.ended")) >= 50, "some jobs")
        counted = len(journal.events("test.begun"))
        journal.wait(harness, lambda: len(journal.events("test.begun")) > counted, "the next")
        harness.consumer.kill()
        harness.consumer.start()

        def done():
            return len({event["job_id"] for event in journal.events("test.ended")}) == 200

        journal.wait(harness, done, "all 200 jobs")
        assert {event["job_id"] for event in journal.events("test.ended")} == {j.id for j in jobs}
        assert len({event["event_id"] for event in journal.events("test.begun")}) == 200
        assert {event["attempt"] for event in journal.events("test.ended")} == {1}

    def test_a_job_that_kills_its_worker_ends(self, harness, journal):
        job = contract_workers.kills.new(IDS, max_attempts=2)
        for _ in range(2):
            journal.wait(harness, lambda: not harness.consumer.alive, "the end of the worker")
            harness.consumer.start()
        failed = harness.rows.filter(status="FAILED", traceback__contains="PoisonedJobError")
        journal.wait(harness, failed.exists, "the failed task")
        assert [run["attempt"] for run in journal.runs("sigra.contract.kills")] == [1, 1]
        assert "its consumer died" in harness.row(job.native_id, "FAILED", journal).traceback
        assert not harness.rows.filter(status="RUNNING").exists()


class TestOnPostgres(DjangoContract):
    database = "postgres"

    def test_without_a_database_nothing_is_enqueued(self, harness, journal, monkeypatch):
        connection = connections["postgres"]
        connection.close()
        monkeypatch.setitem(connection.settings_dict, "PORT", 1)
        with pytest.raises(EnqueueError, match="refused"):
            contract_workers.echo.new(IDS)


class TestOnSqlite(DjangoContract):
    database = "sqlite"


def test_a_backend_without_consumers_is_refused(project):
    from sigra.backends.django import DjangoBackend

    with pytest.raises(ValueError, match=r"TASKS\['here'\] is ImmediateBackend"):
        DjangoBackend("here")


def test_a_worker_of_any_name_has_a_path_of_its_own(project):
    from django.utils.module_loading import import_string

    from sigra.backends import django as module

    for name in ("plain", "app.jobs.close", "a:b.c", "a.b:c", "100%.x", "ünï"):
        task = module.task_of(name)
        assert (task.name, import_string(task.module_path)) == (name, task)


def test_nothing_else_is_made_up(project):
    from sigra.backends import django as module

    assert not hasattr(module, "DjangoBackends")
    with configure(backend="django"):
        pass
