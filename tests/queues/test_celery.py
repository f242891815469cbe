"""Celery keeps the contract in real consumers, on Redis and on RabbitMQ."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from consumer import HERE
from consumer_side import held, stands_still
from queue_contract import QueueContract
from queue_harness import QueueHarness, is_let_go, keeps_what_a_failed_job_had, not_hanging
from servers import need

celery = need("celery")
kombu = need("kombu", "celery")

from sigra import (  # noqa: E402
    EnqueueError,
    Failure,
    InvalidOptionError,
    Snooze,
    configure,
    tenant_worker,
)
from sigra.backends.celery import CeleryBackend  # noqa: E402
from sigra.backends.celery_begun import begun_before  # noqa: E402
from sigra.backends.celery_send import _pool_of  # noqa: E402
from sigra.backends.celery_settle import Settle  # noqa: E402
from sigra.backends.rabbitmq_notes import SLOTS  # noqa: E402
from sigra.testing import contract_workers as workers  # noqa: E402
from sigra.testing.contract_case import IDS  # noqa: E402
from sigra.testing.contract_consumers import undeployed  # noqa: E402


@tenant_worker(name="queues.kills_all")
def kills_all(scope, args):
    raise AssertionError("this runs in the consumer")


@tenant_worker(name="queues.overruns")
def overruns(scope, args, seconds=300, deaf=False, dies_after=None, told=None):
    raise AssertionError("this runs in the consumer")


@tenant_worker(name="queues.survives")
def survives(scope, args):
    raise AssertionError("this runs in the consumer")


@tenant_worker(name="queues.asks_celery")
def asks_celery(scope, args):
    raise AssertionError("this runs in the consumer")


@tenant_worker(name="queues.eager")
def eager(scope, args):
    return Failure(args["why"]) if args.get("why") else None


RAN: list[tuple[int, int, int]] = []
"""The attempt, the snoozes and Celery's retries of each run of ``counts_down`` in this process."""


@pytest.fixture
def ran() -> list[tuple[int, int, int]]:
    RAN.clear()
    return RAN


@tenant_worker(name="queues.counts_down", max_attempts=13, backoff=0)
def counts_down(scope, job, left, how):
    ends = left == job.attempt + job.snoozes
    RAN.append((job.attempt, job.snoozes, celery.current_task.request.retries))
    if how == "children":
        if left:
            counts_down.new({**IDS, "left": left - 1, "how": how}, max_attempts=1)
        return None
    return None if ends else Snooze(60) if how == "snoozes" else Failure("said so")


class CeleryHarness(QueueHarness):
    command = (
        f"celery --workdir {HERE} -A celery_app worker -n {{queue}}-{{name}}@%h -c 2 -l INFO "
        "--without-gossip --without-mingle"
    ).split()
    alone = ("-Q", "{queue}")
    ready = r" ready\."
    ahead_of_four: ClassVar[int]
    """How many jobs to fetch ahead for each process, so that four that it holds leave room."""

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

    def noted(self, ids: Collection[str]) -> set[str]:
        """Return which of these jobs have a note that they are begun."""
        raise NotImplementedError

    def full(self, queue: str) -> AbstractContextManager[Callable[[], object]]:
        """Have a queue, which is empty, take nothing until what this gives is called."""
        raise NotImplementedError

    def remove(self) -> None:
        close(self.app)

    def waiting(self, queue: str) -> int:
        with self.app.connection_for_write() as connection:
            try:
                return connection.default_channel.queue_declare(queue, passive=True).message_count
            except connection.channel_errors:
                return -1  # no such queue


class CeleryOnRedis(CeleryHarness):
    outlives_its_server = False  # what kombu raises while it closes a lost connection ends it
    ahead_of_four = 1

    def settings(self) -> dict[str, Any]:
        options = {"visibility_timeout": 10}
        # By default what a dead consumer held is looked for every 100 seconds only.
        options |= {"unacked_restore_interval": 1, "unacked_restore_throttle": 1}
        # And one that is killed while it looks keeps others from looking for five minutes.
        options |= {"unacked_mutex_expire": 5}
        found = {"broker_transport_options": options, "result_backend": self.url}
        # What kombu has taken off Redis and not noted yet dies with it, as its page in
        # docs/queues says; a consumer that has fetched all is never in that instant.
        found["worker_prefetch_multiplier"] = 128
        return {**super().settings(), **found}

    def kill(self) -> None:
        """Kill the consumer once it has fetched all, and noted it."""
        deadline = time.monotonic() + self.patience
        while self.alive and self.waiting(self.queue) > 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)
        super().kill()

    def noted(self, ids: Collection[str]) -> set[str]:
        with self.app.connection_for_write() as connection:
            client = connection.default_channel.client
            return {id for id in ids if client.exists(f"sigra.begun.{id}")}

    @contextmanager
    def full(self, queue: str) -> Iterator[Callable[[], object]]:
        with self.app.connection_for_write() as connection:
            client = connection.default_channel.client
            client.set(queue, "no list")
            yield partial(client.delete, queue)

    def failed(self, native_id: str) -> str | None:
        result = self.app.AsyncResult(native_id)
        return str(result.result) if result.state == "FAILURE" else None


class CeleryOnRabbitMQ(CeleryHarness):
    ahead_of_four = 4  # RabbitMQ 4 gives a consumer no more for what that only holds

    def slots(self) -> list[str]:
        return [f"{self.queue}.begun.{n}" for n in range(SLOTS)]

    def noted(self, ids: Collection[str]) -> set[str]:
        found = set()
        with self.app.connection_for_write() as connection:  # whose end puts them back
            for slot in self.slots():
                channel = connection.channel()
                try:
                    while note := channel.basic_get(slot):
                        found.add(bytes(note.body).decode().partition(" ")[2])
                except connection.channel_errors:
                    pass  # no such queue yet
        return found & set(ids)

    @contextmanager
    def full(self, queue: str) -> Iterator[Callable[[], object]]:
        limit = {"x-max-length": 0, "x-overflow": "reject-publish"}
        with self.app.connection_for_write() as connection:
            channel = connection.default_channel
            channel.queue_delete(queue)
            channel.queue_declare(queue, durable=True, auto_delete=False, arguments=limit)
            yield partial(channel.queue_delete, queue)

    def failed(self, native_id: str) -> str | None:
        return self.logged(rf"\[{native_id}\] reject requeue=False")

    def remove(self) -> None:
        with self.app.connection_for_write() as connection:
            own = self.queue, self.other_queue, self.backend.unknown_queue, *self.slots()
            delete(connection, *own)
        super().remove()


def close(app: Any) -> None:
    """Close an app and the connections by which Sigra sends, which else stay until both are gone."""
    _pool_of(app).connections.force_close_all()
    app.close()


def delete(connection: Any, *queues: str) -> None:
    """Delete queues, and the exchanges that Celery has made for them."""
    for queue in queues:
        connection.default_channel.queue_delete(queue)
        connection.default_channel.exchange_delete(queue)


own_consumer = pytest.mark.usefixtures("idle")
"""What a test says that begins with ``alone``: else a consumer would start to be stopped."""


@contextmanager
def alone(harness: CeleryHarness, *words: str, **env: str) -> Iterator[None]:
    """Put another consumer, which is to be started, in the place of the harness's own."""
    if harness.alive:
        harness.stop()
    own = harness.consumer
    harness.consumer = harness.another(f"alone-{time.monotonic_ns()}", *words, **env)
    try:
        yield
    finally:
        harness.kill()
        harness.consumer = own


@contextmanager
def limited(
    harness: CeleryHarness, seconds: float | None, name: str = overruns.name, **limits: float
) -> Iterator[None]:
    """Start another consumer, in the harness's place, that gives a worker so long."""
    annotations = {name: {"time_limit": seconds, **limits}}
    settings = {**harness.settings(), "task_annotations": annotations}
    with alone(harness, SIGRA_CELERY=json.dumps(settings)):
        harness.start()
        yield


def purged(harness: CeleryHarness, queue: str) -> int:
    """Empty a queue, if there is one; return how many messages were there."""
    if harness.waiting(queue) < 1:
        return 0
    with harness.app.connection_for_write() as connection:
        return connection.default_channel.queue_purge(queue)


def soon_giving_up(harness: CeleryHarness, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return an app of this process's, for which a broker is down after two seconds."""
    soon = {"read_timeout": 2, "write_timeout": 2, "confirm_publish": True}
    short = {"amqp": soon, "redis": {"socket_timeout": 2}}
    monkeypatch.setattr("sigra.backends.celery_send._OPTIONS", short)
    app = celery.Celery("sigra_tests", set_as_current=False)
    app.conf.update(harness.settings())
    return app


class CeleryContract(QueueContract):
    # Celery's pool may end before it reads of a job's end: 1 of 75 stops of a plain app.
    repeats_at_stop = True

    def test_a_job_of_an_older_task_with_args_by_position_is_refused(self, harness, journal):
        """A worker takes args by name: the job fails, the log says why, and no body runs."""
        sent = harness.app.send_task(workers.agnostic.name, args=["42", 7]).id
        journal.wait(harness, lambda: bool(harness.failed(sent)), "the failed job")
        assert harness.logged(f"job {sent} of {workers.agnostic.name} was refused.*by position")
        assert journal.runs() == []

    def test_text_that_kombu_would_decode_arrives_as_it_is(self, harness, journal):
        """Args that look like kombu's own form of a datetime stay what they are."""
        value = {"__type__": "datetime", "__value__": "2026-01-01"}
        _, (run,) = self._run(harness, journal, workers.echo, {**IDS, "value": value})
        assert run["args"]["value"] == value

    def test_a_job_whose_envelope_is_no_json_is_refused(self, harness, journal):
        """As text it comes where it has what kombu would decode."""
        sent = harness.send(workers.echo.name, {"sigra": "{"})
        journal.wait(harness, lambda: bool(harness.failed(sent)), "the failed job")
        assert harness.logged(f"job {sent} of {workers.echo.name} .*was refused and ends here")

    @own_consumer
    @pytest.mark.parametrize(
        ("pool", "attempts", "noted"),
        [("-c 1", 1, True), ("-c 1", 3, True), ("-P solo", 3, True), ("-P solo", 1, False)],
    )
    def test_a_job_that_kills_its_whole_consumer_each_time_ends(
        self, harness, journal, pool, attempts, noted
    ):
        """What was fetched beside it keeps its only attempt; no note is left over.

        Where begins are not noted, one more is needed to tell.
        """
        with alone(harness, *pool.split(), **({} if noted else {"SIGRA_UNNOTED": "1"})):
            job = kills_all.new({**IDS, "seconds": 1}, max_attempts=attempts)
            innocent = [each.id for each in workers.echo.new_many([IDS] * 20)]

            def ran():
                runs = [run["job_id"] for run in journal.runs(workers.echo.name)]
                return [id for id in runs if id in innocent]  # what a test before left may run too

            def over():
                if not harness.alive:
                    harness.start()
                return harness.failed(job.native_id) and len(ran()) >= len(innocent)

            journal.wait(harness, over, "the jobs' ends")
            harness.stop()
        assert len(journal.runs(kills_all.name)) == attempts + (not noted)
        assert sorted(ran()) == sorted(innocent)
        assert harness.noted([job.id, *innocent]) == set()

    @pytest.mark.parametrize("by", ["a time limit", "a revoke"])
    def test_what_celery_itself_kills_leaves_no_note(self, harness, journal, by):
        """A note that outlived its run would count as one more death."""
        limit = {"time_limit": 2} if by == "a time limit" else {}
        payload = {**IDS, "seconds": 60}
        sent = harness.app.send_task(workers.waits.name, kwargs=payload, **limit).id
        if limit:  # its only attempt was used up, so that its next run is refused
            journal.wait(harness, lambda: bool(harness.failed(sent)), "its end")
            assert harness.logged(f"Hard time limit .*{sent}")
        else:
            journal.wait(harness, lambda: bool(journal.runs(workers.waits.name)), "its begin")
            assert harness.noted([sent]) == {sent}
            harness.app.control.revoke(sent, terminate=True, signal="SIGKILL")
            killed = f"Terminating {sent}"
            journal.wait(harness, lambda: bool(harness.logged(killed)), "its end")
        harness.stop()  # so that all that follows its end is done
        assert harness.noted([sent]) == set()
        assert len(journal.runs(workers.waits.name)) <= 1
        assert journal.audited("contract.ended") == set()

    @own_consumer
    @pytest.mark.parametrize("deaf", [False, True])
    def test_a_job_that_a_hard_time_limit_cuts_off_has_its_other_attempts(
        self, harness, journal, deaf
    ):
        """As the attempt that it was, with the same event ids; also where it is deaf to signals.

        It was taken off the queue, and what its process had sent was there or not.
        """
        with limited(harness, 2):
            job = overruns.new({**IDS, "deaf": deaf}, max_attempts=3, backoff=300)
            journal.wait(harness, lambda: bool(harness.failed(job.native_id)), "the job's end")
            self._run(harness, journal, workers.agnostic, {})
            assert not harness.logged("again in")
            assert (
                harness.consumer.output.count(f"job {job.id} of {overruns.name} was refused") == 1
            )
            assert ("is told to end" in harness.consumer.output) != deaf
            harness.stop()
        assert [run["attempt"] for run in journal.runs(overruns.name)] == [1] * 3
        assert len({event["event_id"] for event in journal.events("queues.overran")}) == 1
        assert harness.noted([job.id]) == set()

    @own_consumer
    def test_a_job_that_ends_as_a_hard_time_limit_cuts_it_off_is_not_sent_again(
        self, harness, journal
    ):
        """It was, before its process was told to end; one that failed then had two next runs."""
        with limited(harness, 2, survives.name):
            job = survives.new(IDS, max_attempts=3)
            ended = rf"{survives.name}\[{job.native_id}\] succeeded"
            journal.wait(harness, lambda: bool(harness.logged(ended)), "its end")
            self._run(harness, journal, workers.agnostic, {})
            harness.stop()  # so that what was sent again has run
        assert [run["attempt"] for run in journal.runs(survives.name)] == [1]
        assert harness.waiting(harness.queue) <= 0
        assert harness.noted([job.id]) == set()

    @own_consumer
    def test_a_job_whose_process_died_before_its_time_was_over_has_its_other_attempts(
        self, harness, journal
    ):
        """Celery may only notice that later: it looks every five seconds.

        And what the app allows its tasks of Celery's own retries has nothing to do with it.
        """
        with limited(harness, 3, max_retries=0):
            job = overruns.new({**IDS, "dies_after": 2.9}, max_attempts=2)
            journal.wait(harness, lambda: bool(harness.failed(job.native_id)), "the job's end")
            harness.stop()  # killed, it would leave a job whose end is only logged to the next test
        assert [run["attempt"] for run in journal.runs(overruns.name)] == [1, 1]

    @pytest.mark.parametrize("size", [0, 200_000], ids=["small", "large"])
    def test_a_job_that_a_process_was_given_just_before_a_warm_stop_runs_once(
        self, harness, journal, size
    ):
        """Celery did not hear of its end: the process had not yet said that it began.

        Of a large one the process had a part, and waited for the rest, which never came.
        """
        end = harness.folder / "end"
        held.new_many([{**IDS, "until": str(end)}] * 2)
        journal.wait(harness, lambda: len(journal.runs()) == 2, "a job in each process")
        processes = [run["pid"] for run in journal.runs()]
        end.touch()
        journal.wait(harness, lambda: len(journal.events()) == 2, "their end")
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        job = workers.echo.new({**IDS, "text": "x" * size})
        journal.wait(harness, lambda: bool(harness.logged(f"{job.id}. received")), "the job")
        time.sleep(0.5)  # a process is given it
        with ThreadPoolExecutor() as pool:
            stopped = pool.submit(harness.stop)
            journal.wait(harness, lambda: bool(harness.logged("Warm shutdown")), "the stop")
            workers.echo.new(IDS)  # has an idle consumer see that it is told to stop
            time.sleep(1)  # the pool forgets what it gave
            for process in processes:
                os.kill(process, signal.SIGCONT)
            stopped.result()
        harness.start()
        self._run(harness, journal, workers.echo, IDS)
        journal.wait(harness, lambda: len(journal.runs()) >= 5, "each of the jobs")
        ran = [run["job_id"] for run in journal.runs()]
        assert len(ran) == len(set(ran))

    @own_consumer
    def test_a_job_that_is_cut_off_in_a_warm_stop_is_told_to_end_once(
        self, harness, journal, tmp_path
    ):
        """Told twice, its process would end at once, whatever it does to end well."""
        told = tmp_path / "told"
        with limited(harness, 3):
            job = overruns.new({**IDS, "told": str(told)})
            journal.wait(harness, lambda: bool(journal.runs(overruns.name)), "its begin")
            harness.stop()
        assert told.read_text() == "told\n"
        harness.start()
        journal.wait(harness, lambda: bool(harness.failed(job.native_id)), "its end")

    @own_consumer
    def test_a_soft_time_limit_is_an_exception_in_the_body(self, harness, journal):
        """It is retried as any other exception, and uses up an attempt."""
        with limited(harness, None, soft_time_limit=2):
            job = overruns.new(IDS, max_attempts=2, backoff=0)
            journal.wait(harness, lambda: bool(harness.failed(job.native_id)), "the job's end")
            assert harness.logged("raised SoftTimeLimitExceeded; again in 0 s")
            harness.stop()
        assert [run["attempt"] for run in journal.runs(overruns.name)] == [1, 2]

    @pytest.mark.parametrize("how", [{"countdown": 0}, {"throw": False, "max_retries": 9}])
    def test_a_retry_of_celery_s_in_a_body_is_a_failed_attempt(self, harness, journal, how):
        """Celery sent a next run of its own beside ours: of three attempts seven were begun."""
        # With a wait: without one Celery may write that an attempt is retried after the last's end.
        job = asks_celery.new({**IDS, "how": how}, max_attempts=3, backoff=1)
        journal.wait(harness, lambda: bool(harness.failed(job.native_id)), "the job's end")
        self._run(harness, journal, workers.agnostic, {})  # what was sent besides would be begun
        assert [run["attempt"] for run in journal.runs(asks_celery.name)] == [1, 2, 3]
        assert harness.logged(f"{job.id} .*attempt 1 of 3, raised LookupError; again in 1 s")

    @own_consumer
    @pytest.mark.parametrize(
        ("place", "seconds", "expected"),
        [
            ("sigra.backends.external.Consumed", 300, [(1, 0), (1, 0), (1, 1)]),
            ("sigra.backends.celery_run._settle", 8, [(1, 0), (1, 1)]),
        ],
    )
    def test_a_soft_time_limit_that_strikes_behind_the_body_leaves_the_other_attempts(
        self, harness, journal, tmp_path, place, seconds, expected
    ):
        """The job comes again as if its process had died; what is sent after the body is sent."""
        args = {**IDS, "marker": str(tmp_path / "stood still"), "place": place, "seconds": seconds}
        with limited(harness, None, stands_still.name, soft_time_limit=4):
            job = stands_still.new(args, max_attempts=2)
            over = rf"\[{job.id}\] succeeded"
            journal.wait(harness, lambda: bool(harness.logged(over)), "the job's end")
            harness.stop()
        runs = [(run["attempt"], run["snoozes"]) for run in journal.runs(stands_still.name)]
        assert runs == expected

    def test_a_job_that_a_revoke_ends_is_not_sent_again(self, harness, journal):
        """Though it has attempts left: only consumers that heard of the revoke would refuse it."""
        job = workers.waits.new({**IDS, "seconds": 60}, max_attempts=3, backoff=0)
        journal.wait(harness, lambda: bool(journal.runs(workers.waits.name)), "its begin")
        harness.app.control.revoke(job.native_id, terminate=True)
        told = f"{job.id} .*raised SystemExit; its process is told to end, and its consumer"
        journal.wait(harness, lambda: bool(harness.logged(told)), "its end")
        harness.stop()
        harness.start()
        self._run(harness, journal, workers.agnostic, {})
        assert not harness.logged("Discarding revoked task")
        assert len(journal.runs(workers.waits.name)) == 1

    @own_consumer
    def test_a_job_that_goes_on_when_its_process_is_told_to_end_is_done(self, harness, journal):
        """And what its process runs after it fails as anywhere."""
        with alone(harness, "-c", "1"):
            harness.start()
            survives.new(IDS)
            journal.wait(harness, lambda: bool(journal.runs(survives.name)), "its begin")
            os.kill(journal.runs(survives.name)[0]["pid"], signal.SIGTERM)
            failing = workers.ends.new({**IDS, "how": "raise"}, max_attempts=2, backoff=0)
            journal.wait(harness, lambda: bool(harness.failed(failing.native_id)), "its end")
        runs = journal.runs()
        assert [(run["worker"], run["attempt"]) for run in runs] == [
            (survives.name, 1),
            (workers.ends.name, 1),
            (workers.ends.name, 2),
        ]
        assert len({run["pid"] for run in runs}) == 1

    def test_the_children_that_follow_killed_ones_run_jobs(self, harness, journal):
        """Their parent took the notes away, by a connection that is not theirs."""
        sent = [job.id for job in workers.waits.new_many([{**IDS, "seconds": 60}] * 2)]
        journal.wait(harness, lambda: len(journal.runs(workers.waits.name)) >= 2, "their begins")
        assert harness.noted(sent) == set(sent)
        harness.app.control.revoke(sent, terminate=True, signal="SIGKILL")
        workers.echo.new_many([IDS] * 20)
        journal.wait(harness, lambda: len(journal.runs(workers.echo.name)) >= 20, "20 jobs")
        harness.stop()
        assert harness.noted(sent) == set()

    def test_a_job_that_kills_its_consumer_at_once_is_begun_once(self, harness, journal):
        """The broker has the note before the body begins."""
        job = kills_all.new(IDS)

        def over():
            if not harness.alive:
                harness.start()
            return harness.failed(job.native_id)

        journal.wait(harness, over, "the job's end")
        assert len(journal.runs(kills_all.name)) == 1
        self._run(harness, journal, workers.agnostic, {})
        assert harness.noted([job.id]) == set()

    @own_consumer
    def test_a_job_of_an_unknown_worker_is_kept_once_and_as_it_was_sent(self, harness, journal):
        """Also where the app may make no queue, and where Celery cannot write that a task failed."""
        settings = {**harness.settings(), "task_create_missing_queues": False}
        settings |= {"result_backend": "redis://127.0.0.1:1/0"}
        queue = harness.backend.unknown_queue
        purged(harness, queue)  # for kombu deletes on Redis only what it has made itself
        with harness.app.connection_for_write() as connection:
            connection.default_channel.queue_delete(queue)  # or an earlier consumer has made it
        with alone(harness, SIGRA_CELERY=json.dumps(settings)):
            harness.start()
            job = undeployed.new(IDS, delay=3600)
            journal.wait(harness, lambda: harness.kept(job.native_id), "the job kept")
            old = celery.Celery("sigra_tests", set_as_current=False)
            old.conf.update({**harness.settings(), "task_protocol": 1})
            with configure(backend=CeleryBackend(old)):
                also = undeployed.new(IDS)
            told = (
                f"{also.native_id} waits in queue {queue}: no worker is named '{undeployed.name}'"
                f"; import its module in a consumer, and start one with -Q {queue}"
            )
            journal.wait(harness, lambda: bool(harness.logged(told)), "one of Celery 3's protocol")
            close(old)
            journal.wait(harness, lambda: harness.waiting(queue) == 2, "both kept")
            harness.stop()  # killed before it acknowledged one, it would have it kept once more
            assert harness.waiting(harness.queue) < 1  # acknowledged
        with harness.app.connection_for_write() as connection:
            message = connection.default_channel.basic_get(queue, no_ack=True)
        purged(harness, queue)
        due = datetime.fromisoformat(message.headers["eta"]).timestamp()
        assert due == pytest.approx(time.time() + 3600, abs=600)

    def test_a_kept_job_is_in_all_as_it_was_sent(self, harness, journal):
        """Compressed, with its priority; and an unknown task of the app's own stays Celery's."""
        queue, sent = harness.backend.unknown_queue, {}
        # A consumer that was stopped before it acknowledged a kept job has it kept once more.
        self._run(harness, journal, workers.agnostic, {})
        purged(harness, queue)
        app = celery.Celery("sigra_tests", set_as_current=False)
        app.conf.update({**harness.settings(), "task_compression": "gzip"})
        app.conf.task_default_priority = 3

        def note(body, headers, properties, **_):
            sent.update(body=json.loads(json.dumps(body)), headers=headers, properties=properties)

        with configure(backend=CeleryBackend(app)):
            celery.signals.before_task_publish.connect(note)
            job = undeployed.new(IDS)
            celery.signals.before_task_publish.disconnect(note)
        journal.wait(harness, lambda: harness.kept(job.native_id), "the job kept")
        harness.app.send_task("native.gone")
        dropped = "unregistered task of type 'native.gone'"
        journal.wait(harness, lambda: bool(harness.logged(dropped)), "what Celery says of its own")
        self._run(harness, journal, workers.agnostic, {})
        with app.connection_for_write() as connection:
            kept = kombu.Queue(queue, channel=connection.default_channel).get(no_ack=True)
        assert purged(harness, queue) == 0
        assert kept.payload == sent["body"]
        assert sent["headers"].items() <= kept.headers.items()
        assert kept.headers["compression"] == "application/x-gzip"
        for name in ("correlation_id", "priority"):
            assert kept.properties[name] == (sent["properties"] | {"priority": 3})[name]
        close(app)

    def test_an_unreadable_message_of_an_unknown_task_ends_no_consumer(self, harness, journal):
        """Whether it is one of Sigra's cannot be told: Celery says that it is unknown."""
        own = {"task": "native.torn", "id": str(uuid.uuid4())}
        with harness.app.connection_for_write() as connection:
            connection.Producer().publish(
                b"{",
                exchange="",
                routing_key=harness.queue,
                content_type="application/json",
                content_encoding="utf-8",
                headers=own,
            )
        dropped = "unregistered task of type 'native.torn'"
        journal.wait(harness, lambda: bool(harness.logged(dropped)), "what Celery says")
        self._run(harness, journal, workers.agnostic, {})
        assert harness.alive

    @own_consumer
    def test_what_the_consumer_of_unknown_jobs_knows_runs_and_the_rest_stays(
        self, harness, journal
    ):
        """Not round and round, as fast as the broker gives them out, and logged each time."""
        queue = harness.backend.unknown_queue
        purged(harness, queue)
        with alone(harness, "-Q", queue):
            harness.start()
            undeployed.new_many([IDS] * 8, queue=queue)
            workers.echo.new(IDS, queue=queue)
            journal.wait(harness, lambda: bool(journal.runs(workers.echo.name)), "the known job")
            harness.stop()
            assert not harness.logged("waits in queue")
        assert purged(harness, queue) in (8, 9)  # a stop may come before the known one's ack

    @own_consumer
    def test_a_job_that_cannot_be_kept_yet_is_kept_later(self, harness, journal):
        """The consumer held it, and ran no other when it held so many as it fetches ahead."""
        queue, settings = harness.backend.unknown_queue, harness.settings()
        settings["worker_prefetch_multiplier"] = harness.ahead_of_four
        purged(harness, queue)
        with alone(harness, SIGRA_CELERY=json.dumps(settings)), harness.full(queue) as room:
            harness.start()
            last = undeployed.new_many([IDS] * 4)[-1]
            refused = f"{last.native_id} could not be moved to queue .* yet"
            journal.wait(harness, lambda: bool(harness.logged(refused)), "the last one's refusal")
            self._run(harness, journal, workers.agnostic, {})
            room()
            journal.wait(harness, lambda: harness.waiting(queue) >= 4, "the jobs kept")
        assert purged(harness, queue) == 4

    @own_consumer
    @pytest.mark.parametrize("worker", [workers.ends, workers.kills])
    def test_a_result_backend_that_is_down_holds_no_job(self, harness, journal, worker):
        """Celery writes there what came of it before it lets go of the message, and raised."""
        settings = {**harness.settings(), "result_backend": "redis://127.0.0.1:1/0"}
        settings["worker_prefetch_multiplier"] = 1
        with alone(harness, SIGRA_CELERY=json.dumps(settings)):
            harness.start()
            jobs = worker.new_many([{**IDS, "how": "raise"}] * 2)
            self._run(harness, journal, workers.agnostic, {})
            journal.wait(harness, lambda: len(journal.runs(worker.name)) >= 2, "both jobs")
            harness.stop()
        harness.start()
        self._run(harness, journal, workers.echo, IDS)
        assert sorted(run["job_id"] for run in journal.runs(worker.name)) == [
            job.id for job in jobs
        ]

    def test_a_forked_process_leaves_its_parent_s_connections(self, harness):
        """It ended them, and what waited for RabbitMQ's answer was sent twice."""
        app, queue = celery.Celery("sigra_tests", set_as_current=False), f"{harness.queue}.forks"
        app.conf.update({**harness.settings(), "task_default_queue": queue})
        child = get_context("fork").Process(target=os.getpid)
        try:
            with configure(backend=CeleryBackend(app)), ThreadPoolExecutor() as thread:
                workers.echo.new(IDS)  # from now on it is connected
                with harness.proxy.held():
                    sending = thread.submit(workers.echo.new, IDS)
                    time.sleep(0.5)
                    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
                        child.start()
                    child.join()
                sending.result(harness.patience)
            assert harness.waiting(queue) == 2
        finally:
            with app.connection_for_write() as connection:
                delete(connection, queue)
            close(app)

    def test_a_broker_that_gives_no_answer_is_an_enqueue_error(self, harness, monkeypatch):
        """What it may not have is not recorded as sent, and the next job is."""
        app, queue = soon_giving_up(harness, monkeypatch), f"{harness.queue}.silent"
        app.conf.task_default_queue = queue  # which leaves the next test no job that may yet run
        with configure(backend=CeleryBackend(app)), app.connection_for_write() as connection:
            workers.echo.new(IDS)  # from now on it is connected
            with ThreadPoolExecutor() as thread, harness.proxy.held():
                sending = thread.submit(workers.echo.new, IDS)
                with pytest.raises(EnqueueError, match="TimeoutError.* may have been sent") as told:
                    sending.result(harness.patience)
            assert len(told.value.unsure) == 1
            workers.echo.new(IDS)
            delete(connection, queue)
        close(app)

    def test_a_broker_that_gives_no_answer_holds_no_job(self, harness, monkeypatch, caplog):
        """Whose begin it does not take note of then."""
        app = soon_giving_up(harness, monkeypatch)
        CeleryBackend(app)
        task = app.tasks[workers.echo.name]

        def begin():
            task.push_request(id="held", delivery_info={}, is_eager=False)
            with begun_before(task, 0):
                pass

        begin()  # from now on it is connected
        with ThreadPoolExecutor() as thread, harness.proxy.held():
            thread.submit(begin).result(harness.patience)
        assert "job held runs, but its start could not be counted" in caplog.messages
        close(app)

    def _comes_again(self, harness, journal, job):
        """Wait until it was refused, and has ended; a second begin would be in the journal."""
        journal.wait(harness, lambda: bool(harness.failed(job.native_id)), "its refusal")
        journal.wait(harness, lambda: bool(journal.audited("contract.ended")), "its end")
        assert len(journal.events("contract.begun")) == 1


class TestCeleryOnRedis(CeleryContract):
    harness_class, server = CeleryOnRedis, "redis"

    def test_a_job_longer_than_the_visibility_timeout_is_begun_once(self, harness, journal):
        """What Redis delivers again while it runs is refused, for it has one attempt."""
        self._comes_again(harness, journal, workers.waits.new({**IDS, "seconds": 15}))


class TestCeleryOnRabbitMQ(CeleryContract):
    harness_class, server = CeleryOnRabbitMQ, "rabbitmq"

    @own_consumer
    def test_a_job_whose_next_run_cannot_be_sent_runs_this_one_again(self, harness, journal):
        """It is put back until its consumer can send the next one: it is not acknowledged."""
        with alone(harness, "-c", "1"):
            harness.start()
            self._run(harness, journal, workers.agnostic, {})
            with harness.proxy.refusing():
                job = workers.recovers.new({**IDS, "failures": 1}, max_attempts=2, backoff=0)
                journal.wait(harness, lambda: len(journal.runs(job.worker)) >= 2, "the run, again")
            journal.wait(
                harness, lambda: journal.runs(job.worker)[-1]["attempt"] == 2, "the next run"
            )

    @own_consumer
    def test_the_queue_of_unknown_jobs_is_as_its_consumer_declares_it(self, harness, journal):
        """With priorities, too: RabbitMQ would refuse it else."""
        app, queue = celery.Celery("sigra_tests", set_as_current=False), f"{harness.queue}.prior"
        settings = {**harness.settings(), "task_default_queue": queue, "task_queue_max_priority": 5}
        app.conf.update(settings)
        env = {"SIGRA_CELERY": json.dumps(settings)}
        backend, unknown = CeleryBackend(app), f"{queue}.unknown"
        try:
            with configure(backend=backend), alone(harness, **env):
                harness.start()
                undeployed.new(IDS)
                journal.wait(harness, lambda: harness.waiting(unknown) == 1, "the job kept")
            with alone(harness, "-Q", unknown, **env):
                harness.start()
        finally:
            with app.connection_for_write() as connection:
                delete(connection, queue, unknown)
            close(app)

    @own_consumer
    def test_less_than_a_second_is_a_second_on_quorum_queues(self, harness, journal):
        """Celery sends no less there: such a retry ran twenty times as attempt 1, and was lost."""
        app, queue = celery.Celery("sigra_tests", set_as_current=False), f"{harness.queue}.quorum"
        own = {"queue": queue, "queue_type": "quorum", "exchange_type": "topic"}
        settings = harness.settings() | {f"task_default_{name}": own[name] for name in own}
        app.conf.update(settings)
        env = {"SIGRA_CELERY": json.dumps(settings), "SIGRA_UNNOTED": "1"}
        levels = [f"celery_delayed_{level}" for level in (*range(28), "delivery")]
        with app.connection_for_write() as connection, suppress(*connection.channel_errors):
            connection.channel().exchange_declare(levels[-1], "topic", passive=True)
            levels.clear()  # they are somebody else's, whose jobs may wait there
        try:
            with configure(backend=CeleryBackend(app)), alone(harness, **env):
                harness.start()
                soon = {"delay": 0.5, "max_attempts": 2, "backoff": 0.5}
                args = {**IDS, "how": "raise"}
                _, runs = self._run(harness, journal, workers.ends, args, runs=2, **soon)
        finally:
            with app.connection_for_write() as connection:
                delete(connection, queue, *levels)
            close(app)
        assert [run["attempt"] for run in runs] == [1, 2]

    def test_a_job_is_kept_though_somebody_deleted_the_queue_of_the_last(self, harness, journal):
        """It was acknowledged, and nowhere: RabbitMQ confirms what no queue takes."""
        queue = harness.backend.unknown_queue
        for _ in range(2):
            with harness.app.connection_for_write() as connection:
                connection.default_channel.queue_delete(queue)
            job = undeployed.new(IDS)
            journal.wait(harness, lambda: harness.kept(job.native_id), "the job kept")  # noqa: B023
        purged(harness, queue)

    @own_consumer
    def test_a_job_is_kept_where_the_queue_is_not_as_this_release_has_it(self, harness, journal):
        """A queue of unknown jobs that was declared otherwise is used as it is."""
        queue = harness.backend.unknown_queue
        other = {"durable": True, "auto_delete": False, "arguments": {"x-max-priority": 5}}
        with harness.app.connection_for_write() as connection, alone(harness):
            channel = connection.default_channel
            channel.queue_delete(queue)
            channel.queue_declare(queue, **other)
            harness.start()
            job = undeployed.new(IDS)
            journal.wait(harness, lambda: harness.kept(job.native_id), "the job kept")
            channel.queue_delete(queue)

    def test_a_queue_s_name_that_rabbitmq_does_not_hold_is_refused(self, harness):
        """Too long in UTF-8, or with a line end: ``.new()`` says so, and names the option."""
        with pytest.raises(
            InvalidOptionError, match="has at most 255 bytes of UTF-8 here, not 256"
        ):
            workers.echo.new(IDS, queue="ü" * 128)
        for name in ("two\nlines", "two\rlines"):
            with pytest.raises(InvalidOptionError, match="line ends, which RabbitMQ leaves out"):
                workers.echo.new(IDS, queue=name)
        with pytest.raises(InvalidOptionError, match="begin with amq., which RabbitMQ keeps"):
            workers.echo.new(IDS, queue="amq.mail")

    def test_a_queue_that_somebody_deleted_is_an_enqueue_error_and_made_anew(self, harness):
        """RabbitMQ confirmed what no queue took."""
        app, queue = celery.Celery("sigra_tests", set_as_current=False), f"{harness.queue}.deleted"
        app.conf.update({**harness.settings(), "task_default_queue": queue})
        with configure(backend=CeleryBackend(app)), app.connection_for_write() as connection:
            workers.echo.new(IDS)  # from now on this process has declared it
            connection.default_channel.queue_delete(queue)
            with pytest.raises(EnqueueError, match="NO_ROUTE"):
                workers.echo.new(IDS)
            workers.echo.new(IDS)
            assert harness.waiting(queue) == 1
            delete(connection, queue)
        close(app)

    def test_a_job_whose_consumer_lost_its_connection_meanwhile_is_begun_once(
        self, harness, journal
    ):
        """The broker delivers it again, and that delivery is refused."""
        job = workers.waits.new({**IDS, "seconds": 10})
        journal.wait(harness, lambda: bool(journal.audited("contract.begun")), "its begin")
        harness.proxy.cut()
        time.sleep(0.5)
        harness.proxy.restore()
        self._comes_again(harness, journal, job)


@pytest.mark.parametrize(
    "setting",
    [
        {"task_serializer": "pickle"},
        {"accept_content": ["json", "pickle"]},
        {"result_serializer": "pickle"},
        {"result_accept_content": ["json", "application/x-python-serialize"]},
    ],
)
def test_pickle_is_refused(setting):
    """Neither tasks nor results may be pickled, by whichever setting."""
    app = celery.Celery(set_as_current=False)
    app.conf.update(setting)
    with pytest.raises(ValueError, match=r"task_serializer='json' and accept_content"):
        CeleryBackend(app)


def test_pickle_that_is_set_when_the_backend_is_made_is_refused_by_a_consumer():
    """A setting that comes after the backend is seen when the consumer starts."""
    app = celery.Celery(set_as_current=False)
    CeleryBackend(app)
    app.conf.accept_content = ["json", "pickle"]
    with pytest.raises(ValueError, match=r"task_serializer='json' and accept_content"):
        Settle(SimpleNamespace(app=app))


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


def test_a_process_that_is_told_to_end_as_it_settles_a_job_does_that_first():
    """Its consumer would send the job's next run beside it."""
    program = """if True:
        import os, signal, time
        from billiard.common import reset_signals
        from sigra.backends.celery_limit import settling

        reset_signals()
        settling()
        os.kill(os.getpid(), signal.SIGTERM)
        print("settled", flush=True)
        time.sleep(60)
    """
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=240)
    assert ran.stdout == b"settled\n"


def test_an_eager_job_in_a_thread_of_a_process_of_celery_s_pool_ends():
    """A thread sets no handler of signals."""
    program = """if True:
        import threading
        from billiard.common import reset_signals
        from sigra.backends.celery_limit import settling

        reset_signals()
        thread = threading.Thread(target=settling)
        thread.start()
        thread.join()
    """
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=240)
    assert ran.stderr == b""


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_time_limit_that_celery_tells_of_twice_sends_its_job_once(cancelled):
    """In a warm stop two of its threads look; what a cold one cancelled the broker has back."""
    app = celery.Celery(broker="memory://", set_as_current=False)
    app.conf.task_default_queue, settled = f"sigra-{time.monotonic_ns()}", []

    def settle(*_):
        settled.append("acknowledged")
        request.on_timeout(soft=False, timeout=2)

    with configure(backend=CeleryBackend(app)), app.connection_for_write() as connection:
        Settle(SimpleNamespace(app=app))
        eager.new(IDS)
        queue = kombu.Queue(app.conf.task_default_queue, channel=connection.default_channel)
        task = app.tasks[eager.name]
        request = task.Request(queue.get(), app=app, task=task, on_ack=settle)
        if cancelled:
            request._announce_cancelled(emit_retry=False)
        request.on_timeout(soft=False, timeout=2)
        sent = []
        while message := queue.get():
            sent.append(message.headers["retries"])
    assert (sent, settled) == (([], []) if cancelled else ([1], ["acknowledged"]))


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_a_warm_stop_of_a_consumer_without_processes_tells_of_no_error(tmp_path, pool):
    """Its pool keeps no list of the jobs that it was given."""
    (tmp_path / "shop.py").write_text(
        "import celery\nfrom sigra.backends.celery import CeleryBackend\n"
        "app = celery.Celery(broker='memory://')\nCeleryBackend(app)\n"
    )
    words = ["-A", "shop", "worker", "--pool", pool, "--loglevel", "info", "--without-mingle"]
    command, env = [sys.executable, "-m", "celery", *words], {**os.environ}
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as consumer:
        for line in consumer.stderr:
            if "ready" in line:
                break
        consumer.terminate()
        assert "Traceback" not in consumer.communicate(timeout=240)[1]


def test_a_request_class_of_the_app_s_own_hears_of_a_hard_time_limit():
    """As the one in Celery's documentation does, to log it."""
    from billiard.einfo import ExceptionInfo
    from celery.worker.request import Request

    told = []

    class Telling(Request):
        def on_timeout(self, soft, timeout):
            super().on_timeout(soft, timeout)
            told.append("on_timeout")

        def on_failure(self, exc_info, *args, **kwargs):
            super().on_failure(exc_info, *args, **kwargs)
            told.append("on_failure")

    app = celery.Celery(broker="memory://", set_as_current=False)
    app.Task.Request, app.conf.task_default_queue = Telling, f"sigra-{time.monotonic_ns()}"
    with configure(backend=CeleryBackend(app)), app.connection_for_write() as connection:
        Settle(SimpleNamespace(app=app))
        eager.new(IDS)
        queue = kombu.Queue(app.conf.task_default_queue, channel=connection.default_channel)
        task = app.tasks[eager.name]
        request = task.Request(queue.get(), app=app, task=task)
        request.on_timeout(soft=False, timeout=2)
        assert told == ["on_timeout"]
        try:
            raise celery.exceptions.TimeLimitExceeded(2)
        except celery.exceptions.TimeLimitExceeded:
            request.on_failure(ExceptionInfo())  # of which Celery tells then
        assert told == ["on_timeout", "on_failure"]
        assert queue.get().headers["retries"] == 1
        assert queue.get() is None


@pytest.mark.parametrize("broker", ["memory://", "redis://127.0.0.1:1/0"])
def test_an_eager_job_needs_no_broker_for_a_note(broker, caplog):
    """A job that runs inside ``.new()`` cannot be delivered again, so nothing is noted."""
    app = celery.Celery(broker=broker, set_as_current=False)
    app.conf.task_always_eager = True
    with configure(backend=CeleryBackend(app)):
        eager.new(IDS)
    assert [
        record.getMessage() for record in caplog.records if "could not be counted" in record.msg
    ] == []


RUNS = {
    "fails": [(attempt, 0, attempt - 1) for attempt in range(1, 13)],
    "snoozes": [(1, snoozes, 0) for snoozes in range(12)],
    "children": [(1, 0, 0)] * 13,
}


@pytest.mark.parametrize("how", RUNS)
def test_an_eager_job_holds_no_producer_while_it_runs(how, ran):
    """The pool has ten: the eleventh run waited for ever for one of those inside which it ran."""
    app = celery.Celery(broker="memory://", set_as_current=False)
    app.conf.update(task_always_eager=True, broker_pool_acquire_timeout=5)
    with not_hanging(), configure(backend=CeleryBackend(app)):
        counts_down.new({**IDS, "left": 12, "how": how}, max_attempts=13 if how == "fails" else 1)
    assert ran == RUNS[how]


def test_an_eager_job_that_snoozes_for_ever_is_given_up(ran, caplog):
    """Its waits are skipped, so ``.new()`` would never return."""
    app = celery.Celery(broker="memory://", set_as_current=False)
    app.conf.task_always_eager = True
    with not_hanging(), configure(backend=CeleryBackend(app)):
        job = counts_down.new({**IDS, "left": -1, "how": "snoozes"})
    assert len(ran) == 1000
    given_up = f"job {job.id} of queues.counts_down is given up: it has not ended after 1000 runs"
    assert given_up in caplog.text


def test_an_eager_job_that_waits_for_a_deploy_is_given_up(caplog):
    """It went round for ever."""
    app = celery.Celery(broker="memory://", set_as_current=False)
    app.conf.update(task_always_eager=True, broker_pool_acquire_timeout=5)
    with not_hanging(), configure(backend=CeleryBackend(app)):
        written = {"sigra": 99, "args": {}}
        app.signature(eager.name, kwargs=written).apply_async(task_id="newer")
    assert "job newer of queues.eager is given up: it waits for a deploy" in caplog.text


def test_an_eager_retry_needs_no_result_backend(ran):
    """It stores no result; with Redis away, Celery tried again and again to write that state."""
    away = "redis://127.0.0.1:1/0"
    app = celery.Celery(broker="memory://", backend=away, set_as_current=False)
    app.conf.task_always_eager = True
    with not_hanging(), configure(backend=CeleryBackend(app)):
        counts_down.new({**IDS, "left": 2, "how": "fails"})
    assert ran == RUNS["fails"][:2]


@pytest.mark.parametrize(
    ("name", "args", "goes_on"),
    [
        ("queues.eager", {}, True),
        ("queues.eager", {"why": "said so"}, False),
        ("queues.counts_down", {"left": 3, "how": "fails"}, True),
        ("queues.counts_down", {"left": -1, "how": "fails"}, False),
        ("queues.counts_down", {"left": 3, "how": "snoozes"}, True),
    ],
)
def test_an_eager_chain_goes_on_once_its_job_has_succeeded(name, args, goes_on):
    """It ended at a snooze, and went on after a job that failed in all of several attempts."""
    app = celery.Celery(broker="memory://", set_as_current=False)
    app.conf.task_always_eager, followed = True, []

    @app.task(name="native.follows", shared=False)
    def follows():
        followed.append(True)

    with not_hanging(), configure(backend=CeleryBackend(app)):
        first = app.signature(name, kwargs={**IDS, **args})
        celery.chain(first, follows.si(), app=app).apply_async()
    assert followed == [True] * goes_on


@pytest.mark.parametrize("attempts", [1, 2])
def test_new_raises_no_error_of_a_body_though_celery_is_told_to_propagate_them(attempts, caplog):
    """A suite that runs eagerly hears of it by the log alone, and the job has all its attempts."""
    app = celery.Celery(broker="memory://", set_as_current=False)
    app.conf.update(task_always_eager=True, task_eager_propagates=True)
    with configure(backend=CeleryBackend(app)), caplog.at_level("WARNING", "sigra.job"):
        eager.new({**IDS, "why": "said so"}, max_attempts=attempts, backoff=0)
    ends = [record.getMessage() for record in caplog.records if record.name == "sigra.job"]
    assert len([end for end in ends if "failed: said so" in end]) == attempts


@pytest.mark.parametrize(("immutable", "state"), [(True, "SUCCESS"), (False, "REJECTED")])
def test_a_worker_after_another_in_a_chain_takes_no_result(immutable, state, caplog):
    """Celery passes it by position, and so a worker takes it for a task of before."""
    app = celery.Celery(broker="memory://", set_as_current=False)
    app.conf.task_always_eager = True
    with configure(backend=CeleryBackend(app)):
        first = app.signature(eager.name, kwargs=IDS)
        chained = celery.chain(first, first.clone().set(immutable=immutable), app=app)
        assert chained.apply_async().state == state
    assert immutable != ("do not pass on the result" in caplog.text)


@pytest.mark.parametrize("how", ["map", "starmap"])  # chunks are several of the latter
def test_a_worker_takes_no_map_or_starmap(how, caplog):
    """Celery calls the task in the process, with args by position."""
    app = celery.Celery(broker="memory://", set_as_current=False)
    app.conf.task_always_eager = True
    with configure(backend=CeleryBackend(app)):
        made = getattr(app.tasks[eager.name], how)([[IDS]])
        assert made.apply_async().state == "FAILURE"
    assert "a direct call runs no job of queues.eager" in caplog.text


def _called(task):
    task(**IDS)


def _run(task):
    task.run(**IDS)


def _called_by_itself(task):
    """Celery gives the call the request of the job whose body makes it, with its id."""
    made = task.apply(kwargs={**IDS, "calls": "itself"})
    raise TypeError(str(made.result))


@pytest.mark.parametrize("call", [_called, _run, _called_by_itself])
def test_a_direct_call_of_a_worker_s_task_is_refused(call):
    """What it raised for a retry or a snooze was the caller's: Celery took that native task off."""
    app, bodies = celery.Celery(broker="memory://", set_as_current=False), list[Any]()

    @tenant_worker(name="queues.snoozes")
    def snoozes(scope, calls=None):
        bodies.append(calls)
        if calls:
            app.tasks[snoozes.name](**IDS)
        return Snooze(1)

    with configure(backend=CeleryBackend(app)):
        task = app.tasks[snoozes.name]
        with pytest.raises(TypeError, match="a direct call runs no job of queues.snoozes: call"):
            call(task)
    assert bodies == (["itself"] if call is _called_by_itself else [])


def test_what_an_app_s_own_tasks_retry_by_themselves_is_no_job(caplog):
    """It went round for ever once it had ended, as one that killed its consumer."""

    class Retrying(celery.Task):
        autoretry_for = (Exception,)
        default_retry_delay = 0

    app = celery.Celery(broker="memory://", task_cls=Retrying, set_as_current=False)
    app.conf.task_always_eager = True
    with configure(backend=CeleryBackend(app)), caplog.at_level("WARNING", "sigra.job"):
        eager.new({**IDS, "why": "said so"})
    ends = [record.getMessage() for record in caplog.records if record.name == "sigra.job"]
    assert [end.partition(", attempt ")[2] for end in ends] == ["1 of 1, failed: said so"]


def test_a_task_class_of_the_app_s_own_may_send_once_its_transaction_is_committed():
    """By then another thread may have the producer by which the job was to be sent."""
    after_commit = []

    class AfterCommit(celery.Task):
        def apply_async(self, *args, **options):
            after_commit.append(partial(super().apply_async, *args, **options))

    app = celery.Celery(broker="memory://", task_cls=AfterCommit, set_as_current=False)
    app.conf.task_default_queue = "after-commit"
    with configure(backend=CeleryBackend(app)):
        jobs = [eager.new(IDS), *eager.new_many([IDS, IDS])]
        with app.connection_for_write() as connection:
            queue = connection.SimpleQueue("after-commit")
            assert queue.qsize() == 0
            for send in after_commit:
                send()
            sent = [queue.get(timeout=10).headers["id"] for _ in jobs]
    assert sent == [job.id for job in jobs]


@pytest.mark.parametrize("proxy", [celery.local.Proxy, None], ids=["proxy", "app"])
def test_an_app_may_be_given_by_a_proxy(proxy):
    """As ``celery.current_app`` is: each ``.new()`` failed, for it takes no weak reference."""
    app = celery.Celery(broker="memory://", set_as_current=False)
    backend = CeleryBackend(proxy(lambda: app) if proxy else app)
    with configure(backend=backend):
        assert eager.new(IDS).native_id
    assert backend.app is app


def test_what_is_given_in_place_of_an_app_is_refused_if_it_is_false_too():
    """As an address that a setting leaves empty: it is not the current app that is meant."""
    with pytest.raises(TypeError, match="takes a Celery app, not str;"):
        CeleryBackend("")


def test_a_task_class_of_the_app_s_own_may_ask_for_args_and_change_them():
    """Celery's ``delay`` passes them by position, so such a class works with native tasks."""
    seen = []

    class Stamping(celery.Task):
        def apply_async(self, args, kwargs, **options):
            seen.append(tuple(args))
            return super().apply_async(args, {**kwargs, "stamped": 1}, **options)

    def route(name, args, kwargs, options, task=None, **_):
        seen.append(tuple(args))

    app = celery.Celery(broker="memory://", task_cls=Stamping, set_as_current=False)
    app.conf.task_routes = (route,)
    with configure(backend=CeleryBackend(app)):
        assert eager.new(IDS).native_id
    assert seen == [(), ()]


def test_a_task_class_may_add_keys_beside_text_that_kombu_would_decode(caplog):
    """Such an envelope travels as text, which was then taken for the args of a job sent by hand."""

    class Stamping(celery.Task):
        def apply_async(self, args, kwargs, **options):
            return super().apply_async(args, {**kwargs, "stamped": 1}, **options)

    app = celery.Celery(broker="memory://", task_cls=Stamping, set_as_current=False)
    app.conf.task_always_eager = True
    with configure(backend=CeleryBackend(app)), caplog.at_level("WARNING", "sigra.job"):
        eager.new({**IDS, "why": "said so", "value": {"__type__": "datetime"}})
    ends = [record.getMessage() for record in caplog.records if record.name == "sigra.job"]
    assert [end.partition(", attempt ")[2] for end in ends] == ["1 of 1, failed: said so"]


def test_celery_s_retry_in_the_last_attempt_says_that_none_is_left(caplog):
    """Code that catches that error, to mark a row as failed, goes on to do so."""

    @tenant_worker(name="queues.asks", max_attempts=2, backoff=0)
    def asks(scope):
        try:
            raise LookupError
        except LookupError:
            celery.current_task.retry(countdown=60)

    app = celery.Celery(broker="memory://", set_as_current=False)
    app.conf.task_always_eager = True
    with configure(backend=CeleryBackend(app)), caplog.at_level("WARNING", "sigra.job"):
        asks.new(IDS)
    ends = [record.getMessage() for record in caplog.records if record.name == "sigra.job"]
    assert [end.partition(", attempt ")[2] for end in ends] == [
        "1 of 2, raised LookupError; again in 0 s",
        "2 of 2, raised MaxRetriesExceededError",
    ]


def test_celery_s_retry_raises_the_error_that_it_is_given_in_the_last_attempt_too(caplog):
    """And neither the one that is being handled nor that no attempt is left."""

    @tenant_worker(name="queues.asks_with", max_attempts=1)
    def asks(scope):
        try:
            raise LookupError
        except LookupError:
            celery.current_task.retry(exc=OSError())

    app = celery.Celery(broker="memory://", set_as_current=False)
    app.conf.task_always_eager = True
    with configure(backend=CeleryBackend(app)), caplog.at_level("WARNING", "sigra.job"):
        asks.new(IDS)
    ends = [record.getMessage() for record in caplog.records if record.name == "sigra.job"]
    assert [end.partition(", attempt ")[2] for end in ends] == ["1 of 1, raised OSError"]


def test_an_app_that_takes_no_json_is_refused():
    """The error names the setting to change."""
    app = celery.Celery(set_as_current=False)
    app.conf.update(accept_content=["yaml"])
    with pytest.raises(ValueError, match="add 'json' to accept_content"):
        CeleryBackend(app)


def test_a_task_is_called_as_its_worker_s_function():
    """By module and name Elastic's agent names a run: it had one name for those of all workers."""
    app = celery.Celery("called", broker="memory://", set_as_current=False)

    @tenant_worker(name="queues.called")
    def called(scope):
        pass

    with configure(backend=CeleryBackend(app)):
        task = app.tasks["queues.called"]
    assert (task.__module__, task.__name__) == (__name__, "called")


@pytest.mark.filterwarnings("ignore::UserWarning")  # newer releases of Celery's warn of it too
def test_a_workers_name_that_a_native_task_has_is_refused():
    """Celery keeps the task that came first, which would run the envelope as its args."""
    app = celery.Celery(broker="memory://", set_as_current=False)

    @app.task(name=workers.echo.name, shared=False)  # or each later app of this process has it
    def native(**_):
        pass

    with (
        configure(backend=CeleryBackend(app)),
        pytest.raises(EnqueueError, match="a task of its own that is named 'sigra.contract.echo'"),
    ):
        workers.echo.new(IDS)
    with pytest.raises(ValueError, match="a task of its own named 'sigra.contract.echo'"):
        Settle(SimpleNamespace(app=app))  # a producer's app may have no such task


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://guest:guest@127.0.0.1:1//"])
def test_a_broker_that_is_down_is_an_enqueue_error(url):
    """It comes in bounded time, and is chained to the broker's own error."""
    app = celery.Celery(broker=url, set_as_current=False)
    with (
        not_hanging(),
        configure(backend=CeleryBackend(app)),
        pytest.raises(EnqueueError) as caught,
    ):
        workers.echo.new(IDS)
    assert caught.value.__cause__ is not None


@pytest.mark.filterwarnings("default")  # of what other tests left
def test_an_app_that_nobody_uses_any_more_is_let_go(monkeypatch):
    """A suite that makes one for each test does not keep them all, with their connections."""
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", False)  # with Django, Celery keeps the first one

    def make():
        app = celery.Celery(broker="memory://", set_as_current=False)
        with configure(backend=CeleryBackend(app)):
            workers.echo.new(IDS)
        return app

    assert is_let_go(make)


def test_what_a_failed_job_had_in_hand_is_let_go_as_it_ends():
    """As Celery does with what its own tasks have; it may be large."""
    app = celery.Celery(broker="memory://", set_as_current=False)
    app.conf.task_always_eager = True
    assert not keeps_what_a_failed_job_had(CeleryBackend(app))
