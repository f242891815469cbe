"""Celery keeps the contract in real consumers, on Redis and on RabbitMQ."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from consumer import HERE
from queue_contract import QueueContract
from queue_harness import QueueHarness
from servers import need

celery = need("celery")

from sigra import EnqueueError, configure, tenant_worker  # noqa: E402
from sigra.backends.celery import CeleryBackend  # noqa: E402
from sigra.testing import contract_workers as workers  # noqa: E402
from sigra.testing.contract_case import IDS  # noqa: E402


@tenant_worker(name="queues.kills_all")
def kills_all(scope, args):
    raise AssertionError("this runs in the consumer")


class CeleryHarness(QueueHarness):
    command = (
        f"celery --workdir {HERE} -A celery_app worker -n {{queue}}-{{name}}@%h -c 2 -l INFO "
        "--without-gossip --without-mingle"
    ).split()
    ready = r" ready\."

    def __init__(self, server: str, folder: Path) -> None:
        super().__init__(server, folder)
        self.app = celery.Celery("sigra_tests", set_as_current=False)
        self.app.conf.update(self.settings())
        self.backend = CeleryBackend(self.app)

    def settings(self) -> dict[str, Any]:
        # Longer than the visibility time-out, and Redis would deliver a killer's job twice.
        found = {"broker_url": self.url, "task_default_queue": self.queue, "worker_lost_wait": 1}
        return {**found, "broker_heartbeat": 0}

    def env(self) -> dict[str, str]:
        return {"SIGRA_CELERY": json.dumps(self.settings())}

    def send(self, name: str, payload: Mapping[str, Any]) -> str:
        return self.app.send_task(name, kwargs=dict(payload)).id

    def send_note(self, text: str) -> None:
        self.app.send_task("native.note", args=[text])

    def name_of(self, native_id: str) -> str | None:
        line = self.logged(rf"Task \S+\[{native_id}\] received")
        return line and line.removeprefix("Task ").partition("[")[0]

    def kept(self, native_id: str) -> bool:
        queue = self.backend.unknown_queue
        return bool(self.logged(f"{native_id} waits in queue {queue}")) and self.waiting(queue) == 1

    def waiting(self, queue: str) -> int:
        with self.app.connection_for_write() as connection:
            try:
                return connection.default_channel.queue_declare(queue, passive=True).message_count
            except connection.channel_errors:
                return -1  # no such queue


class CeleryOnRedis(CeleryHarness):
    outlives_its_server = False  # what kombu raises while it closes a lost connection ends it

    def settings(self) -> dict[str, Any]:
        options = {"visibility_timeout": 10}
        # By default what a dead consumer held is looked for every 100 seconds only.
        options |= {"unacked_restore_interval": 1, "unacked_restore_throttle": 1}
        # And one that is killed while it looks keeps others from looking for five minutes.
        options |= {"unacked_mutex_expire": 5}
        found = {"broker_transport_options": options, "result_backend": self.url}
        # What kombu has taken off Redis and not noted yet dies with it, as docs/backends.md
        # says; a consumer that has fetched all is never in that instant.
        found["worker_prefetch_multiplier"] = 128
        return {**super().settings(), **found}

    def kill(self) -> None:
        """Kill the consumer once it has fetched all, and noted it."""
        deadline = time.monotonic() + self.patience
        while self.alive and self.waiting(self.queue) > 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)
        super().kill()

    def failed(self, native_id: str) -> str | None:
        result = self.app.AsyncResult(native_id)
        return str(result.result) if result.state == "FAILURE" else None


class CeleryOnRabbitMQ(CeleryHarness):
    def failed(self, native_id: str) -> str | None:
        return self.logged(rf"\[{native_id}\] reject requeue=False")

    def remove(self) -> None:
        with self.app.connection_for_write() as connection:
            for queue in (self.queue, self.backend.unknown_queue):
                connection.default_channel.queue_delete(queue)
        self.app.close()


class CeleryContract(QueueContract):
    # Celery's pool may end before it reads of a job's end: 1 of 75 stops of a plain app.
    repeats_at_stop = True

    def test_a_job_of_an_older_task_with_args_by_position_is_refused(self, harness, journal):
        sent = harness.app.send_task(workers.agnostic.name, args=["42", 7]).id
        journal.wait(harness, lambda: bool(harness.failed(sent)), "the failed job")
        assert harness.logged(f"job {sent} of {workers.agnostic.name} was refused.*by position")
        assert journal.runs() == []

    def test_text_that_kombu_would_decode_arrives_as_it_is(self, harness, journal):
        value = {"__type__": "datetime", "__value__": "2026-01-01"}
        _, (run,) = self._run(harness, journal, workers.echo, {**IDS, "value": value})
        assert run["args"]["value"] == value

    def test_a_job_that_kills_its_whole_consumer_each_time_ends(self, harness, journal):
        """Its first delivery left no mark; of the redelivered ones max_attempts begin it."""
        job = kills_all.new(IDS, max_attempts=2)

        def over():
            if not harness.alive:
                harness.start()
            return harness.failed(job.native_id)

        journal.wait(harness, over, "the job's end")
        assert len(journal.runs(kills_all.name)) == 3
        self._run(harness, journal, workers.agnostic, {})
        assert harness.waiting(f"sigra.begun.{job.id}") <= 0


class TestCeleryOnRedis(CeleryContract):
    harness_class, server = CeleryOnRedis, "redis"


class TestCeleryOnRabbitMQ(CeleryContract):
    harness_class, server = CeleryOnRabbitMQ, "rabbitmq"


@pytest.mark.parametrize(
    "setting", [{"task_serializer": "pickle"}, {"accept_content": ["json", "pickle"]}]
)
def test_pickle_is_refused(setting):
    app = celery.Celery(set_as_current=False)
    app.conf.update(setting)
    with pytest.raises(ValueError, match=r"task_serializer='json' and accept_content"):
        CeleryBackend(app)


@pytest.mark.parametrize(
    ("brokers", "expected"),
    [
        ("amqp://one", True),
        ("amqps://one;pyamqp://two", True),
        (["amqp://one", "amqp://two"], True),
        ("redis://one", False),
        ("amqp://one;redis://two", False),
        ("sqs://", False),
        (None, False),
    ],
)
def test_no_job_is_lost_on_rabbitmq_alone(brokers, expected):
    """kombu takes a message off Redis before it notes that it has it."""
    backend = CeleryBackend(celery.Celery(broker=brokers, set_as_current=False))
    assert ("at_least_once" in backend.capabilities) == expected


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
    assert time.monotonic() - begun < 60
    assert caught.value.__cause__ is not None
