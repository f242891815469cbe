"""Celery keeps the contract in real consumers, on Redis and on RabbitMQ."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

if os.environ.get("SIGRA_QUEUES") != "1":
    pytest.skip("set SIGRA_QUEUES=1 (make test-queues)", allow_module_level=True)
celery = pytest.importorskip("celery", reason="the extra celery is not installed here")

from sigra import AuditEvent, EnqueueError, configure, tenant_worker  # noqa: E402
from sigra.backends.celery import CeleryBackend  # noqa: E402
from sigra.testing import BackendContract  # noqa: E402
from sigra.testing import contract_workers as workers  # noqa: E402
from sigra.testing.harness import Journal  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
HERE = Path(__file__).parent
IDS = {"organization_id": "acme", "actor_id": "ann"}
REDIS = os.environ.get("SIGRA_REDIS_URL", "redis://127.0.0.1:6379/11")
RABBITMQ = os.environ.get("SIGRA_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")


@tenant_worker(name="sigra.tests.celery.slow", audit_schema=AuditEvent)
def slow(scope, n):
    raise AssertionError("this runs in the consumer")


@tenant_worker(name="sigra.tests.celery.unknown")
def unknown(scope):
    raise AssertionError("no consumer knows it")


def need(url: str) -> None:
    """Skip without the server; on the CI machine, which runs it, fail."""
    from kombu.utils.url import parse_url

    parts = parse_url(url)
    address = parts["hostname"], parts["port"] or 5672
    try:
        socket.create_connection(address, timeout=3).close()
    except OSError as error:
        complaint = f"no server at {address[0]}:{address[1]} ({error})"
        if os.environ.get("CI") == "true":
            pytest.fail(complaint)
        pytest.skip(complaint)


def settings(url: str) -> dict:
    name = f"sigra-{uuid.uuid4().hex[:10]}"
    found = {"broker_url": url, "task_default_queue": name, "broker_heartbeat": 0}
    # Longer than the visibility time-out, and Redis would deliver a killer's job twice.
    found["worker_lost_wait"] = 1
    if url.startswith("redis"):
        options = {"global_keyprefix": f"{name}:", "visibility_timeout": 6}
        # By default what a dead consumer held is looked for every 100 seconds only.
        options |= {"unacked_restore_interval": 1, "unacked_restore_throttle": 1}
        found["broker_transport_options"] = options
        found["result_backend"] = url
        found["result_backend_transport_options"] = {"global_keyprefix": f"{name}:"}
    return found


class CeleryHarness:
    """A consumer process group, started by Celery's own command, and what feeds it."""

    patience = 40.0

    def __init__(self, url: str, folder: Path) -> None:
        self.folder, self.settings = folder, settings(url)
        self.app = celery.Celery("sigra_tests", set_as_current=False)
        self.app.conf.update(self.settings)
        self.backend = CeleryBackend(self.app)
        self.log = folder / "worker.log"
        self.notes = folder / "notes"
        self.notes.touch()
        self.start()

    def start(self) -> None:
        environment = {
            **os.environ,
            "SIGRA_CELERY": json.dumps(self.settings),
            "SIGRA_NATIVE_NOTES": str(self.notes),
        }
        command = [sys.executable, "-m", "celery", "--workdir", str(HERE), "-A", "celery_app"]
        command += "worker -c 2 -l INFO --without-gossip --without-mingle".split()
        ready = self.text().count(" ready.")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while self.text().count(" ready.") == ready:
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.1)

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End the consumer softly, and remove what the run left on the server."""
        self.process.send_signal(signal.SIGTERM)
        try:
            assert self.process.wait(20) == 0, self.text()[-2000:]
        finally:
            if self.process.poll() is None:
                self.kill()
            self.remove()
            self.app.close()

    def remove(self) -> None:
        name = self.settings["task_default_queue"]
        if self.settings["broker_url"].startswith("redis"):
            import redis

            with redis.Redis.from_url(self.settings["broker_url"]) as client:
                for key in client.scan_iter(f"*{name}*"):
                    client.delete(key)
            return
        with self.app.connection_for_write() as connection:
            for queue in (name, f"{name}.unknown"):
                connection.default_channel.queue_delete(queue)

    def waiting(self, queue: str) -> int:
        if self.settings["broker_url"].startswith("redis"):
            import redis

            with redis.Redis.from_url(self.settings["broker_url"]) as client:
                return client.llen(f"{self.settings['task_default_queue']}:{queue}")
        with self.app.connection_for_write() as connection:
            try:
                return connection.default_channel.queue_declare(queue, passive=True).message_count
            except connection.channel_errors:
                return -1  # no such queue

    def advance(self) -> None:
        time.sleep(0.05)

    def send(self, name, payload) -> None:
        self.app.send_task(name, kwargs=dict(payload))


class CeleryContract(BackendContract):
    url = ""

    @pytest.fixture(scope="class")
    def journal(self, tmp_path_factory):
        return Journal(tmp_path_factory.mktemp("journal"))

    @pytest.fixture(scope="class")
    def harness(self, journal, tmp_path_factory):
        need(self.url)
        harness = CeleryHarness(self.url, tmp_path_factory.mktemp("consumer"))
        yield harness
        harness.stop()

    def test_a_native_task_beside_it_works(self, harness, journal):
        harness.app.send_task("native.note", args=["hello"])
        journal.wait(harness, lambda: "hello" in harness.notes.read_text(), "the native task")

    def test_the_jobs_id_and_the_workers_name_are_celerys(self, harness, journal):
        job, _ = self._run(harness, journal, workers.echo, IDS)
        assert job.native_id == job.id
        line = f"Task sigra.contract.echo[{job.id}] received"
        journal.wait(harness, lambda: line in harness.text(), "the task's log line")

    def test_a_hand_built_job_without_keys_is_shown_as_failed(self, harness, journal):
        sent = harness.app.send_task(workers.echo.name, kwargs={"organization_id": "acme"})
        journal.wait(harness, lambda: f"[{sent.id}]" in harness.text(), "the task")
        journal.wait(harness, lambda: "no 'actor_id'" in harness.text(), "its error")
        if self.url.startswith("redis"):
            found = harness.app.AsyncResult(sent.id)
            journal.wait(harness, lambda: found.state == "FAILURE", "its state")

    def test_text_that_kombu_would_decode_arrives_as_it_is(self, harness, journal):
        value = {"__type__": "datetime", "__value__": "2026-01-01"}
        _, (run,) = self._run(harness, journal, workers.echo, {**IDS, "value": value})
        assert run["args"]["value"] == value

    def test_anew_sends_too(self, harness, journal):
        import asyncio

        asyncio.run(workers.echo.anew_many([IDS, IDS]))
        journal.wait(harness, lambda: len(journal.runs()) == 2, "two jobs")

    def test_a_job_that_kills_its_process_ends(self, harness, journal):
        job, _ = self._run(harness, journal, workers.kills, IDS, 2, max_attempts=2)
        journal.wait(harness, lambda: f"job {job.id}" in harness.text(), "its end")
        time.sleep(2)
        self._run(harness, journal, workers.agnostic, {})
        assert [run["attempt"] for run in journal.runs(workers.kills.name)] == [1, 1]

    def test_a_job_of_an_unknown_worker_is_kept(self, harness, journal):
        unknown.new(IDS)
        queue = f"{harness.settings['task_default_queue']}.unknown"
        journal.wait(harness, lambda: f"waits in queue {queue}" in harness.text(), "a line")
        journal.wait(harness, lambda: harness.waiting(queue) == 1, "the job kept")

    def test_after_kill_9_every_job_runs_with_the_same_event_ids(self, harness, journal):
        jobs = slow.new_many([{**IDS, "n": n} for n in range(40)], max_attempts=2)
        journal.wait(harness, lambda: len(journal.events("test.ended")) >= 6, "some jobs")
        harness.kill()
        begun = len(journal.events("test.begun"))
        harness.start()

        def done():
            return len({event["job_id"] for event in journal.events("test.ended")}) == 40

        journal.wait(harness, done, "all 40 jobs")
        assert begun < 40
        for action in ("test.begun", "test.ended"):
            events = journal.events(action)
            assert {event["job_id"] for event in events} == {job.id for job in jobs}
            assert len({event["event_id"] for event in events}) == 40
            assert {event["attempt"] for event in events} == {1}
        assert len(journal.events("test.begun")) > 40  # those that were killed began twice


class TestCeleryOnRedis(CeleryContract):
    url = REDIS


class TestCeleryOnRabbitMQ(CeleryContract):
    url = RABBITMQ


@pytest.mark.parametrize(
    "setting", [{"task_serializer": "pickle"}, {"accept_content": ["json", "pickle"]}]
)
def test_pickle_is_refused(setting):
    app = celery.Celery(set_as_current=False)
    app.conf.update(setting)
    with pytest.raises(ValueError, match=r"task_serializer='json' and accept_content"):
        CeleryBackend(app)


def test_an_app_that_takes_no_json_is_refused():
    app = celery.Celery(set_as_current=False)
    app.conf.update(accept_content=["yaml"])
    with pytest.raises(ValueError, match="add 'json' to accept_content"):
        CeleryBackend(app)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://guest:guest@127.0.0.1:1//"])
def test_a_broker_that_is_down_is_an_enqueue_error(url):
    app = celery.Celery(broker=url, set_as_current=False)
    begun = time.monotonic()
    with configure(backend=CeleryBackend(app)), pytest.raises(EnqueueError) as caught:
        workers.echo.new(IDS)
    assert time.monotonic() - begun < 10
    assert caught.value.__cause__ is not None
