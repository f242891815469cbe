"""huey keeps the contract in real consumers: on Redis, on SQLite, and on the default file."""

from __future__ import annotations

import asyncio
import os
import pickle
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

if os.environ.get("SIGRA_QUEUES") != "1":
    pytest.skip("set SIGRA_QUEUES=1 (make test-queues)", allow_module_level=True)
pytest.importorskip("huey", reason="the extra huey is not installed here")
from consumer import Consumer, find_server  # noqa: E402
from huey import RedisHuey, SqliteHuey  # noqa: E402
from huey.api import Task  # noqa: E402
from huey.registry import Message  # noqa: E402

from sigra import EnqueueError, InvalidOptionError, configure, tenant_worker  # noqa: E402
from sigra.backends.huey import HueyBackend, JSONSerializer  # noqa: E402
from sigra.testing import BackendContract, contract_workers  # noqa: E402
from sigra.testing.contract_case import IDS  # noqa: E402
from sigra.testing.harness import Journal  # noqa: E402

COMMAND = ("huey_consumer", "huey_app.huey", "-g", "TERM", "-w", "2", "-m", "0.2")


class HueyHarness:
    """A consumer started by huey's own command, and the huey that feeds it."""

    patience = 30.0

    def __init__(self, where: str, folder: Path) -> None:
        import huey_app

        if where == "redis":
            where = find_server("SIGRA_HUEY_REDIS", "redis://127.0.0.1:6379/0")
        os.environ["SIGRA_TEST_HUEY_NAME"] = f"sigra{uuid.uuid4().hex[:10]}"
        self.notes = folder / "notes"
        self.notes.touch()
        env = {"SIGRA_CONSUMER": "1", "SIGRA_TEST_HUEY": where}
        if not where:
            os.environ["SIGRA_HUEY_FILE"] = str(folder / "jobs.db")
        self.backend = HueyBackend(huey_app.make_huey(where))
        self.huey = self.backend.huey
        self.slow, self.unknown = huey_app.slow, huey_app.unknown
        self.note = self.huey.task()(huey_app.note)
        env["SIGRA_NATIVE_NOTES"] = str(self.notes)
        self.consumer = Consumer(COMMAND, "Huey consumer started", folder, env)
        self.consumer.start()

    def close(self) -> None:
        """End the consumer softly, and remove what the run left in the storage."""
        status = self.consumer.stop()
        self.huey.flush()
        assert status == 0, self.consumer.output[-3000:]

    def advance(self) -> None:
        time.sleep(0.02)

    def send(self, name: str, payload: Mapping[str, Any]) -> None:
        kind = self.huey._registry.string_to_task(name)
        self.huey.enqueue(kind(kwargs=dict(payload)))


class HueyContract(BackendContract):
    """The shipped suite, and what is huey's own."""

    where = ""

    @pytest.fixture(scope="class")
    @classmethod
    def journal(cls, tmp_path_factory: Any) -> Journal:
        return Journal(tmp_path_factory.mktemp("journal"))

    @pytest.fixture(scope="class")
    @classmethod
    def harness(cls, journal: Journal, tmp_path_factory: Any) -> Iterator[HueyHarness]:
        folder = tmp_path_factory.mktemp("consumer")
        harness = HueyHarness(cls.where.format(folder=folder), folder)
        yield harness
        harness.close()

    def error_of(self, harness: HueyHarness, journal: Journal, native_id: str) -> str:
        """Return what huey stored of a job that went wrong."""
        result = harness.huey._result_handle(Task(id=native_id))
        journal.wait(harness, result.is_ready, "the error")
        return result._result.metadata["traceback"]

    def test_a_native_task_beside_it_works(self, harness, journal):
        harness.note("hello")
        journal.wait(harness, lambda: "hello" in harness.notes.read_text(), "the native task")

    def test_the_jobs_id_and_the_workers_name_are_hueys(self, harness, journal):
        job, _ = self._run(harness, journal, contract_workers.echo, IDS)
        assert job.native_id == job.id
        assert f"Executing sigra.contract.echo: {job.id}" in harness.consumer.output

    def test_a_hand_built_job_without_keys_leaves_an_error_that_names_the_key(
        self, harness, journal
    ):
        harness.send("sigra.contract.echo", {"organization_id": "acme"})
        kind = harness.huey._registry.string_to_task("sigra.contract.echo")
        task = kind(kwargs={"organization_id": "acme"})
        harness.huey.enqueue(task)
        assert "MissingArgError: " in (error := self.error_of(harness, journal, task.id))
        assert "no 'actor_id'" in error

    def test_args_by_position_leave_an_error(self, harness, journal):
        kind = harness.huey._registry.string_to_task("sigra.contract.echo")
        task = kind(args=("acme", "ann"))
        harness.huey.enqueue(task)
        assert "by name" in self.error_of(harness, journal, task.id)

    def test_a_cancelled_job_leaves_an_error(self, harness, journal):
        job = contract_workers.ends.new({**IDS, "how": "cancel"}, max_attempts=3)
        assert "cancelled for good" in self.error_of(harness, journal, job.id)

    def test_a_job_of_an_unknown_worker_waits(self, harness, journal):
        job = harness.unknown.new(IDS)
        said = f"job {job.id} waits: no worker is named 'sigra.tests.huey.unknown'"
        journal.wait(harness, lambda: said in harness.consumer.output, "the log")
        journal.wait(harness, lambda: len(harness.huey.scheduled()) == 1, "the wait")
        assert [task.id for task in harness.huey.scheduled()] == [job.id]
        harness.huey.storage.flush_schedule()

    def test_anew_sends_too(self, harness, journal):
        asyncio.run(contract_workers.echo.anew_many([IDS, IDS]))
        journal.wait(harness, lambda: len(journal.runs()) == 2, "two jobs")

    def test_a_soft_stop_waits_for_the_running_job(self, harness, journal):
        self._run(harness, journal, contract_workers.waits, {**IDS, "seconds": 1})
        assert harness.consumer.stop() == 0
        harness.consumer.start()
        assert [run["phase"] for run in journal.runs()] == ["begun", "ended"]

    def kill_in_the_middle(self, harness, journal, jobs):
        """Enqueue, kill the consumer with -9 in the middle, start it again; return the rest."""
        sent = harness.slow.new_many([{**IDS, "n": n} for n in range(jobs)], max_attempts=2)
        journal.wait(harness, lambda: len(journal.events("test.ended")) >= jobs // 4, "some jobs")
        harness.consumer.kill()
        assert len(journal.events("test.ended")) < jobs
        harness.consumer.start()
        return {job.id for job in sent}


class AtMostOnce:
    """What holds for a huey of the user's own."""

    def test_after_kill_9_only_running_jobs_are_lost(self, harness, journal):
        sent = self.kill_in_the_middle(harness, journal, 200)
        self._run(harness, journal, contract_workers.agnostic, {})  # the last in the queue
        journal.wait(harness, lambda: not harness.huey.pending_count(), "an empty queue")
        begun = [event["job_id"] for event in journal.events("test.begun")]
        assert len(begun) == len(set(begun))
        assert len(sent - set(begun)) <= 2
        assert "at_most_once" in harness.backend.capabilities


class TestOnRedis(AtMostOnce, HueyContract):
    where = "redis"


class TestOnSqlite(AtMostOnce, HueyContract):
    where = "{folder}/huey.db"


class TestOnTheDefaultFile(HueyContract):
    def test_after_kill_9_every_job_runs_with_the_same_event_ids(self, harness, journal):
        sent = self.kill_in_the_middle(harness, journal, 200)

        def done():
            return {event["job_id"] for event in journal.events("test.ended")} == sent

        journal.wait(harness, done, "all 200 jobs")
        assert len({event["event_id"] for event in journal.events("test.begun")}) == 200
        assert {event["attempt"] for event in journal.events("test.ended")} == {1}
        assert "at_most_once" not in harness.backend.capabilities

    def test_a_job_that_kills_its_consumer_ends(self, harness, journal):
        job = contract_workers.kills.new(IDS, max_attempts=2)
        for _ in range(2):
            journal.wait(harness, lambda: not harness.consumer.alive, "the end of the consumer")
            harness.consumer.start()
        assert "PoisonedJobError" in self.error_of(harness, journal, job.id)
        assert len(journal.runs("sigra.contract.kills")) == 2

    def test_a_second_consumer_waits_and_says_why(self, harness, journal, tmp_path):
        env = {"SIGRA_CONSUMER": "1", "SIGRA_TEST_HUEY": ""}
        second = Consumer(COMMAND, "has a consumer already", tmp_path, env)
        second.start()
        self._run(harness, journal, contract_workers.echo, IDS)
        second.kill()


@tenant_worker(name="sigra.tests.huey.producer")
def producer(scope):
    raise AssertionError("nothing consumes here")


@pytest.fixture
def file_backend(tmp_path: Path, monkeypatch: Any) -> Iterator[HueyBackend]:
    """Give the default backend, on a file that nothing consumes."""
    monkeypatch.setenv("SIGRA_HUEY_FILE", str(tmp_path / "jobs.db"))
    backend = HueyBackend()
    with configure(backend=backend, backends={}):
        yield backend


def test_a_huey_that_pickles_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"serializer=sigra.backends.huey.JSONSerializer"):
        HueyBackend(SqliteHuey(filename=str(tmp_path / "huey.db")))


def test_a_pickle_is_not_read():
    with pytest.raises(ValueError):
        JSONSerializer().deserialize(pickle.dumps({"value": 1}))


def test_what_is_no_json_is_refused_at_the_call():
    with pytest.raises(ValueError):
        JSONSerializer().serialize(float("nan"))
    with pytest.raises(TypeError):
        JSONSerializer().serialize({1, 2})


@pytest.mark.parametrize("expires", [60, timedelta(seconds=60), datetime(2030, 1, 2, 3, 4, 5, 6)])
def test_a_native_message_comes_back_as_it_was(expires):
    after = Message("b", "app.after", kwargs={"x": [1]}, args=())
    message = Message(
        "a", "app.first", datetime(2030, 1, 1), 2, 0.5, 3, (1, "ü"), {"k": None}, after, after,
        expires, datetime(2030, 1, 3), 9, ("c", 2, 0, after), 2,
    )  # fmt: skip
    read = JSONSerializer().deserialize(JSONSerializer().serialize(message))
    lasting = 60.0 if isinstance(expires, timedelta) else expires
    assert read == message._replace(expires=lasting)


@pytest.mark.parametrize(
    "data", [None, [1, {"task": 2}], (None, True), (datetime(2030, 1, 1), False)]
)
def test_what_huey_stores_beside_tasks_comes_back(data):
    assert JSONSerializer().deserialize(JSONSerializer().serialize(data)) == data


def test_a_batch_that_fails_leaves_nothing_in_the_file(file_backend, monkeypatch):
    taken = iter(range(2))
    native = file_backend.huey.serialize_task
    monkeypatch.setattr(
        file_backend.huey, "serialize_task", lambda task: (next(taken), native(task))[1]
    )
    with pytest.raises(EnqueueError):
        producer.new_many([IDS] * 3)
    assert file_backend.huey.pending_count() == 0


def test_without_a_server_nothing_is_enqueued():
    huey = RedisHuey("x", url="redis://127.0.0.1:1/0", serializer=JSONSerializer())
    with configure(backend=HueyBackend(huey)), pytest.raises(EnqueueError, match="Connection"):
        producer.new(IDS)


def test_priority_is_refused_where_the_storage_has_none():
    backend = HueyBackend(RedisHuey("x", serializer=JSONSerializer()))
    with configure(backend=backend), pytest.raises(InvalidOptionError, match="priority"):
        producer.new(IDS, priority=1)


def test_a_larger_priority_is_taken_sooner_by_what_was_scheduled_too(file_backend):
    huey = file_backend.huey
    late = producer.new(IDS, priority=5, delay=0.01)
    huey.add_schedule(huey.dequeue())  # as a consumer does with what is not due
    plain, urgent = producer.new(IDS), producer.new(IDS, priority=9)
    time.sleep(0.02)
    assert huey.read_schedule() == []
    assert [task.id for task in huey.pending()] == [urgent.id, late.id, plain.id]
