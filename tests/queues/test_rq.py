"""RQ keeps the contract in real workers, on Redis."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

if os.environ.get("SIGRA_QUEUES") != "1":
    pytest.skip("set SIGRA_QUEUES=1 (make test-queues)", allow_module_level=True)
rq = pytest.importorskip("rq", reason="the extra rq is not installed here")
import redis  # noqa: E402

from sigra import AuditEvent, EnqueueError, configure, tenant_worker  # noqa: E402
from sigra.backends.rq import RQBackend, run  # noqa: E402
from sigra.testing import BackendContract  # noqa: E402
from sigra.testing import contract_workers as workers  # noqa: E402
from sigra.testing.harness import Journal  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
HERE = Path(__file__).parent
IDS = {"organization_id": "acme", "actor_id": "ann"}
URL = os.environ.get("SIGRA_RQ_REDIS_URL", "redis://127.0.0.1:6379/12")


@tenant_worker(name="sigra.tests.rq.slow", audit_schema=AuditEvent)
def slow(scope, n):
    raise AssertionError("this runs in the consumer")


def _unknown(scope):
    raise AssertionError("no consumer knows it")


_unknown.__module__ = "not_deployed"
unknown = tenant_worker(name="sigra.tests.rq.unknown")(_unknown)


def connect():
    """Connect, or skip; on the CI machine, which runs the server, fail."""
    connection = redis.Redis.from_url(URL, socket_connect_timeout=3)
    try:
        connection.ping()
    except redis.ConnectionError as error:
        complaint = f"no Redis at {URL} ({error})"
        if os.environ.get("CI") == "true":
            pytest.fail(complaint)
        pytest.skip(complaint)
    return connection


class RQHarness:
    """Workers started by RQ's own command, and the queue that feeds them."""

    patience = 60.0

    def __init__(self, folder: Path) -> None:
        self.connection = connect()
        name = f"sigra-{uuid.uuid4().hex[:10]}"
        self.queue = rq.Queue(name, connection=self.connection, serializer="json")
        self.backend = RQBackend(self.queue)
        self.log, self.notes = folder / "worker.log", folder / "notes"
        self.notes.touch()
        self.start()

    def start(self) -> None:
        command = [
            str(Path(sys.executable).with_name("rq")),
            "worker",
            self.queue.name,
            "--url",
            URL,
        ]
        command += ["-c", "rq_app", "--path", str(HERE), "--serializer", "json"]
        command += "--with-scheduler --maintenance-interval 2 --job-monitoring-interval 1".split()
        command += ["--worker-ttl", "17"]  # idle, a worker does its maintenance every 2 seconds
        environment = {**os.environ, "SIGRA_NATIVE_NOTES": str(self.notes)}
        started = self.text().count("Listening on")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while self.text().count("Listening on") == started:
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.1)

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def kill(self) -> None:
        """Kill the worker; its horse has a group of its own and is killed by its pid."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for pid in [self.process.pid, *map(int, children.read_text().split())]:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End the worker softly, and remove what the run left on the server."""
        self.process.send_signal(signal.SIGTERM)
        try:
            assert self.process.wait(30) == 0, self.text()[-2000:]
        finally:
            if self.process.poll() is None:
                self.kill()
            if URL.endswith("/12"):  # the database is this test's own
                self.connection.flushdb()
            self.connection.close()

    def failed(self, job_id: str) -> str | None:
        """Return the error of a job among RQ's failed ones."""
        if job_id not in self.queue.failed_job_registry.get_job_ids():
            return None
        return self.queue.fetch_job(job_id).latest_result().exc_string

    def advance(self) -> None:
        time.sleep(0.05)

    def send(self, name, payload) -> None:
        self.queue.enqueue(run, name, dict(payload))


class TestRQ(BackendContract):
    @pytest.fixture(scope="class")
    def journal(self, tmp_path_factory):
        return Journal(tmp_path_factory.mktemp("journal"))

    @pytest.fixture(scope="class")
    def harness(self, journal, tmp_path_factory):
        harness = RQHarness(tmp_path_factory.mktemp("consumer"))
        yield harness
        harness.stop()

    def test_a_native_job_beside_it_works(self, harness, journal):
        harness.queue.enqueue("rq_app.note", "hello")
        journal.wait(harness, lambda: "hello" in harness.notes.read_text(), "the native job")

    def test_the_jobs_id_and_the_workers_name_are_rqs(self, harness, journal):
        job, _ = self._run(harness, journal, workers.echo, IDS)
        assert job.native_id == job.id
        assert harness.queue.fetch_job(job.id).description == job.worker
        assert f"sigra.contract.echo ({job.id})" in harness.text()

    def test_a_hand_built_job_without_keys_is_a_failed_job(self, harness, journal):
        sent = harness.queue.enqueue(run, workers.echo.name, {"organization_id": "acme"})
        journal.wait(harness, lambda: bool(harness.failed(sent.id)), "the failed job")
        assert "MissingArgError" in harness.failed(sent.id)
        assert "no 'actor_id'" in harness.failed(sent.id)

    def test_a_cancelled_job_is_a_failed_job(self, harness, journal):
        job, _ = self._run(harness, journal, workers.ends, {**IDS, "how": "cancel"}, max_attempts=3)
        journal.wait(harness, lambda: bool(harness.failed(job.id)), "the failed job")
        assert "cancelled for good" in harness.failed(job.id)

    def test_a_job_of_an_unknown_worker_is_kept(self, harness, journal):
        job = unknown.new(IDS)
        journal.wait(harness, lambda: bool(harness.failed(job.id)), "the failed job")
        assert "no worker is named 'sigra.tests.rq.unknown'" in harness.failed(job.id)

    def test_anew_sends_too(self, harness, journal):
        asyncio.run(workers.echo.anew_many([IDS, IDS]))
        journal.wait(harness, lambda: len(journal.runs()) == 2, "two jobs")

    def test_another_queue_is_named(self, harness, journal):
        other = f"{harness.queue.name}-other"
        job = workers.echo.new(IDS, queue=other)
        queue = rq.Queue(other, connection=harness.connection, serializer="json")
        assert queue.job_ids == [job.id]

    def test_a_job_that_kills_its_process_ends(self, harness, journal):
        job, _ = self._run(harness, journal, workers.kills, IDS, 2, max_attempts=2)
        journal.wait(harness, lambda: bool(harness.failed(job.id)), "the failed job")
        self._run(harness, journal, workers.agnostic, {})
        assert [run["attempt"] for run in journal.runs(workers.kills.name)] == [1, 1]

    def test_after_kill_9_every_job_runs_with_the_same_event_ids(self, harness, journal):
        harness.patience = 150.0  # RQ gives a dead worker's job up after a minute
        jobs = slow.new_many([{**IDS, "n": n} for n in range(12)], max_attempts=2)
        journal.wait(harness, lambda: len(journal.events("test.ended")) >= 3, "some jobs")
        counted = len(journal.events("test.begun"))
        journal.wait(harness, lambda: len(journal.events("test.begun")) > counted, "the next")
        harness.kill()
        harness.start()

        def done():
            return len({event["job_id"] for event in journal.events("test.ended")}) == 12

        journal.wait(harness, done, "all 12 jobs")
        for action in ("test.begun", "test.ended"):
            events = journal.events(action)
            assert {event["job_id"] for event in events} == {job.id for job in jobs}
            assert len({event["event_id"] for event in events}) == 12
            assert {event["attempt"] for event in events} == {1}
        assert len(journal.events("test.begun")) == 13  # the one that was killed began twice


@pytest.mark.parametrize("serializer", [None, "pickle"])
def test_pickle_is_refused(serializer):
    queue = rq.Queue("q", connection=redis.Redis(), serializer=serializer)
    with pytest.raises(ValueError, match=r"Queue\(..., serializer='json'\)"):
        RQBackend(queue)


def test_a_redis_that_is_down_is_an_enqueue_error():
    queue = rq.Queue("q", connection=redis.Redis(port=1), serializer="json")
    begun = time.monotonic()
    with configure(backend=RQBackend(queue)), pytest.raises(EnqueueError) as caught:
        workers.echo.new_many([IDS, IDS])
    assert time.monotonic() - begun < 15
    assert isinstance(caught.value.__cause__, redis.ConnectionError)


def test_by_name_it_is_rqs_own_default_queue(monkeypatch):
    monkeypatch.setenv("RQ_REDIS_URL", "redis://localhost:6399/5")
    queue = RQBackend().queue
    assert queue.name == "default"
    assert queue.connection.connection_pool.connection_kwargs["port"] == 6399
