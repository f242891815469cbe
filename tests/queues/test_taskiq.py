"""Taskiq keeps the contract in real consumers, on Redis streams and on RabbitMQ."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import re
import signal
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import pytest
from consumer import Consumer
from consumer_side import held, sleeps
from proxy import Proxy
from queue_contract import LoopContract
from queue_harness import (
    QueueHarness,
    as_jsonpickle,
    is_let_go,
    not_hanging,
    occupy_the_only_thread,
)
from servers import need

taskiq = need("taskiq")

import redis  # noqa: E402
import redis.asyncio as async_redis  # noqa: E402
from taskiq.abc.formatter import TaskiqFormatter  # noqa: E402
from taskiq.acks import AckableMessage, AcknowledgeType  # noqa: E402
from taskiq.exceptions import NoResultError  # noqa: E402
from taskiq.formatters.json_formatter import JSONFormatter  # noqa: E402
from taskiq.receiver import Receiver  # noqa: E402
from taskiq.schedule_sources import LabelScheduleSource  # noqa: E402
from taskiq.serializers import JSONSerializer, PickleSerializer  # noqa: E402
from taskiq_aio_pika import Queue  # noqa: E402
from taskiq_app import make_broker, make_schedules  # noqa: E402
from taskiq_redis import (  # noqa: E402
    ListQueueBroker,
    ListRedisScheduleSource,
    RedisAsyncResultBackend,
    RedisStreamBroker,
)

from sigra import (  # noqa: E402
    EnqueueError,
    Failure,
    InvalidOptionError,
    Snooze,
    SyncBackend,
    configure,
    tenant_worker,
)
from sigra.backends.envelope import MARK, pack  # noqa: E402
from sigra.backends.loop import own_loop, submit  # noqa: E402
from sigra.backends.taskiq import TaskiqBackend  # noqa: E402
from sigra.backends.taskiq_due import Due  # noqa: E402
from sigra.backends.taskiq_held import Held  # noqa: E402
from sigra.backends.taskiq_stream import Notes, keep_awake  # noqa: E402
from sigra.testing import contract_workers as workers  # noqa: E402
from sigra.testing.contract_case import IDS, ContractCase  # noqa: E402

NOWHERE = "redis://127.0.0.1:1/0"


class TaskiqHarness(QueueHarness):
    command = "taskiq worker --workers 1 --max-async-tasks 2 taskiq_app:broker".split()
    ready = "Listening started"

    def __init__(self, servers: str, folder: Path) -> None:
        server, schedules = servers.split()
        self.schedules = schedules if schedules != server else None  # else by the proxy too
        self.dies = folder / "dies"
        super().__init__(server, folder)
        self.broker = make_broker(self.url, self.queue)
        self.backend = TaskiqBackend(self.broker, self.source(), queue=self.queue)
        self.direct = redis.Redis.from_url(schedules, decode_responses=True)
        (folder / "scheduler").mkdir()
        command = "taskiq scheduler --update-interval 1 taskiq_app:scheduler".split()
        self.scheduler = Consumer(command, "Startup completed", folder / "scheduler", self.env())

    def source(self) -> Any:
        return make_schedules(self.schedules or self.url, self.queue)

    def env(self) -> dict[str, str]:
        schedules, dies = self.schedules or self.url, str(self.dies)
        return {**super().env(), "SIGRA_TEST_SCHEDULES": schedules, "SIGRA_TEST_DIES": dies}

    def another_of(self, queue: str) -> Consumer:
        return self.another(self.new_name(), SIGRA_TEST_ALONE=queue)

    def start(self) -> None:
        super().start()
        if not self.scheduler.alive:
            self.scheduler.start()

    def send(self, name: str, payload: Mapping[str, Any]) -> str:
        return self._kick(self.broker.find_task(name).kicker(), **payload).task_id

    def send_note(self, text: str) -> None:
        self._kick(taskiq.kicker.AsyncKicker("native.note", self.broker, {}), text)

    def _kick(self, kicker: Any, *args: Any, **kwargs: Any) -> Any:
        if self.backend._startup.loop is None:  # the backend's first job would start the broker
            submit(own_loop(), self.broker.startup()).result()
        sent = kicker.with_labels(queue_name=self.queue).kiq(*args, **kwargs)
        return submit(own_loop(), sent).result()

    def name_of(self, native_id: str) -> str | None:
        found = re.search(rf"Executing task ([\w.]+) with ID: {native_id}", self.consumer.output)
        return found and found[1]

    def failed(self, native_id: str) -> str | None:
        """Return its error, which taskiq logs; it keeps none without a result backend."""
        refused = "was refused and ends here"
        ended = rf"job {native_id} [^\n]*({refused}|raised \w+\n|failed: [^\n;]*\n)"
        cancelled = f"JobCancelledError: job {native_id} "
        return self.logged(rf"{ended}|{refused}: [^\n]*{native_id}|{cancelled}")

    def kept(self, native_id: str) -> bool:
        """Tell whether it waits for the scheduler."""
        keys = self.direct.scan_iter(f"{self.queue}:data:*")
        return any(native_id in (self.direct.get(key) or "") for key in keys)

    def due(self) -> set[str]:
        """Return the ids of the schedules; that of a job's first run is the job's own."""
        keys = self.direct.scan_iter(f"{self.queue}:data:*")
        return {key.rpartition(":")[2] for key in keys}

    def begun_of(self, job: Any) -> int | None:
        note = self.direct.get(f"sigra:begun:{job.id}")
        return None if note is None else int(note)

    def has_ended(self, job: Any) -> bool:
        """Tell it of a job that a consumer has had."""
        return self.begun_of(job) is None

    def remove(self) -> None:
        self.scheduler.kill()
        submit(own_loop(), self.broker.shutdown()).result()
        if (schedules := self.backend.schedules) is not None:  # which taskiq leaves connected
            submit(own_loop(), schedules._connection_pool.disconnect()).result()
        self.direct.close()


class Limit(taskiq.TaskiqMiddleware):
    """The application's own, by which a task has a time limit."""

    def __init__(self, name, seconds=2):
        self.name, self.seconds = name, seconds

    def pre_send(self, message):
        if message.task_name == self.name:
            message.labels["timeout"] = self.seconds
        return message


class TaskiqContract(LoopContract):
    def test_a_consumer_that_stops_leaves_no_notes(self, harness, journal):
        """Those of the jobs that have just ended are gone from Redis, and not after a week."""
        jobs = workers.echo.new_many([IDS] * 20)
        journal.wait(harness, lambda: len(journal.runs()) == 20, "the jobs")
        harness.stop()
        assert [job.id for job in jobs if harness.direct.exists(f"sigra:begun:{job.id}")] == []

    def test_a_delayed_job_is_cancelled_by_its_native_id(self, harness, journal):
        """It is its schedule's id too, until its first run; the other jobs' schedules stay."""
        first, second = workers.echo.new_many([IDS] * 2, delay=3600)
        assert (harness.kept(first.native_id), harness.kept(second.native_id)) == (True, True)
        schedules = harness.backend.schedules
        submit(own_loop(), schedules.delete_schedule(first.native_id)).result()
        assert (harness.kept(first.native_id), harness.kept(second.native_id)) == (False, True)

    def test_a_job_that_taskiq_cuts_off_uses_up_an_attempt(self, harness, journal, monkeypatch):
        """With a label ``timeout`` it comes again, as one whose consumer died, and then ends."""
        limited = [*harness.broker.middlewares, Limit(sleeps.name)]
        monkeypatch.setattr(harness.broker, "middlewares", limited)
        job = sleeps.new(IDS, max_attempts=2)
        journal.wait(harness, lambda: bool(harness.failed(job.native_id)), "the job's end")
        self._run(harness, journal, workers.agnostic, {})
        assert [run["attempt"] for run in journal.runs(sleeps.name)] == [1, 1]

    def test_a_job_that_taskiq_cuts_off_at_once_ends(self, harness, journal, monkeypatch):
        """With the label 0 it came again each second, for ever, and its attempts were not counted."""
        limited = [*harness.broker.middlewares, Limit(workers.echo.name, 0)]
        monkeypatch.setattr(harness.broker, "middlewares", limited)
        job = workers.echo.new(IDS)
        journal.wait(harness, lambda: bool(harness.failed(job.native_id)), "the job's end")
        assert len(journal.runs(workers.echo.name)) <= 1

    @pytest.mark.parametrize(
        "labels",
        [{"ack_type": "odd"}, {"ack_type": [1]}, {"queue_name": "nobody's"}, {"queue_name": [1]}],
        ids=str,
    )
    def test_labels_that_say_something_else_keep_no_job_from_its_end(
        self, harness, journal, labels
    ):
        """It was never acknowledged, or its next run could not be sent, or went to no consumer."""
        with configure(backend=SyncBackend()):
            args = {**IDS, "failures": 1}
            job = workers.recovers.new(args, delay=3600, max_attempts=2, backoff=0)
        for number in range(3):  # more than the consumer runs at a time
            facts: Any = {"task_id": f"{job.id}-{number}", "task_name": job.worker}
            payload = {**pack(job), "id": facts["task_id"]}
            sent = taskiq.TaskiqMessage(**facts, labels=labels, args=[], kwargs=payload)
            message = harness.broker.formatter.dumps(sent)
            message.labels = {"queue_name": harness.queue}
            submit(own_loop(), harness.backend._startup()).result()
            submit(own_loop(), harness.broker.kick(message)).result()
        journal.wait(harness, lambda: len(journal.runs()) == 6, "the runs")
        self._run(harness, journal, workers.echo, IDS)

    def test_a_job_that_fails_where_taskiq_cuts_it_off_is_retried(
        self, harness, journal, monkeypatch
    ):
        """As where a driver makes an error of its own of it: it was said to come again, and lost."""
        limited = [*harness.broker.middlewares, Limit(sleeps.name)]
        monkeypatch.setattr(harness.broker, "middlewares", limited)
        args = {**IDS, "fails": True}
        _, runs = self._run(harness, journal, sleeps, args, 2, max_attempts=2, backoff=1)
        assert [run["attempt"] for run in runs] == [1, 2]

    def test_a_job_that_taskiq_cuts_off_as_it_waits_for_a_thread_has_not_begun(
        self, harness, journal, monkeypatch
    ):
        """It comes again with all its attempts: with one it ended without having run."""
        limited = [*harness.broker.middlewares, Limit(held.name)]
        monkeypatch.setattr(harness.broker, "middlewares", limited)
        jobs, ends = self._one_runs_and_one_waits(harness, journal)
        journal.wait(harness, lambda: bool(harness.failed(jobs[0].native_id)), "the first's end")
        for end in ends:
            end.touch()
        journal.wait(harness, lambda: len(journal.runs(held.name)) == 2, "the other's begin")
        assert not harness.failed(jobs[1].native_id)

    def test_threads_that_send_their_first_jobs_at_once_start_the_broker_once(
        self, harness, journal
    ):
        """All but one found it half started, or started it anew, and their jobs were refused."""
        broker, together = make_broker(harness.url, harness.queue), threading.Barrier(8)

        def send():
            together.wait(harness.patience)
            return workers.echo.new(IDS).id

        backend = TaskiqBackend(broker, harness.source(), queue=harness.queue)
        with configure(backend=backend), ThreadPoolExecutor(8) as threads:
            sent = [each.result() for each in [threads.submit(send) for _ in range(8)]]
        journal.wait(harness, lambda: len(journal.runs()) >= len(sent), "the jobs")
        assert sorted(run["job_id"] for run in journal.runs()) == sorted(sent)
        submit(own_loop(), broker.shutdown()).result()

    def test_a_job_of_an_older_task_with_args_by_position_is_refused(self, harness, journal):
        """The log has its id and says why, not what Python says of the task's own parameters."""
        sent = harness._kick(harness.broker.find_task(workers.agnostic.name).kicker(), 9).task_id
        self._run(harness, journal, workers.agnostic, {})
        assert harness.logged(f"job {sent} of {workers.agnostic.name} was refused.*by position")
        assert len(journal.runs()) == 1

    def test_a_server_that_gives_no_answer_may_have_a_job(self, harness, journal, monkeypatch):
        """The error names it, and it runs: the next one has been sent for sure."""
        broker = make_broker(harness.url, harness.queue)
        backend = TaskiqBackend(broker, harness.source(), queue=harness.queue)
        with configure(backend=backend):
            self._run(harness, journal, workers.echo, IDS)  # from now on it is connected
            monkeypatch.setattr(backend, "_timeout", 0.5)  # too short for a busy machine's start
            with harness.proxy.held(), pytest.raises(EnqueueError) as caught:
                workers.echo.new_many([IDS] * 2)
            monkeypatch.undo()
            (unsure,) = caught.value.unsure
            assert f"Job {unsure} may have been sent" in str(caught.value)
            self._run(harness, journal, workers.agnostic, {})
        submit(own_loop(), broker.shutdown()).result()

    def test_another_queue_is_named(self, harness, journal):
        """A job runs from the queue that the option names, where a consumer listens."""
        self._run(harness, journal, workers.echo, IDS, queue=f"{harness.queue}-other")

    def test_a_queue_that_the_broker_has_not_is_refused(self, harness):
        """The error names the queue, at ``.new()``."""
        with pytest.raises(InvalidOptionError, match="this broker has no queue 'elsewhere'"):
            workers.echo.new(IDS, queue="elsewhere")


@pytest.fixture(scope="class")
def redis_alone(redis):
    return f"{redis} {redis}"


@pytest.fixture(scope="class")
def rabbitmq_and_redis(rabbitmq, redis):
    return f"{rabbitmq} {redis}"


class TestTaskiqOnRedis(TaskiqContract):
    harness_class, server = TaskiqHarness, "redis_alone"

    def test_the_queue_of_the_broker_itself_is_named(self, harness, journal):
        """The option takes it as it does any other."""
        self._run(harness, journal, workers.echo, IDS, queue=harness.queue)

    def test_a_scheduler_that_is_killed_as_it_sends_has_sent_few_jobs_twice(self, harness, journal):
        """It had begun to send all that was due, and deleted the schedules only after that.

        Only Redis shows it: on RabbitMQ few were sent twice without the rule, too.
        """
        harness.scheduler.stop()
        jobs = workers.echo.new_many([IDS] * 400, delay=1)
        time.sleep(2)  # so that all are due when it looks, however long a slow machine took
        harness.dies.write_text("100")  # sent
        harness.scheduler.start()
        journal.wait(harness, lambda: not harness.scheduler.alive, "the scheduler's end")
        harness.scheduler.start()
        ids = {job.id for job in jobs}
        journal.wait(harness, lambda: ids.isdisjoint(harness.due()), "the scheduler")
        self._run(harness, journal, workers.agnostic, {})

        def runs():
            return [run["job_id"] for run in journal.runs(workers.echo.name)]

        journal.wait(harness, lambda: ids == set(runs()), "the jobs")
        assert len(runs()) <= len(ids) + 8

    def test_a_job_that_cannot_be_sent_when_it_is_due_is_sent_later(self, harness, journal):
        """taskiq's scheduler tries once, and again only when it is started anew."""
        job = workers.echo.new(IDS, delay=3)
        harness.stop()
        with redis.Redis.from_url(harness.server) as server:
            server.delete(harness.queue)
            server.set(harness.queue, "no stream")
            told = f"could not send job {job.id}, which is due"
            journal.wait(harness, lambda: told in harness.scheduler.output, "the first try")
            server.delete(harness.queue)
        harness.start()
        journal.wait(harness, lambda: len(journal.runs()) == 1, "the job")

    def test_the_note_of_a_job_that_ended_goes(self, harness, journal):
        """It is there while the job runs."""
        end = harness.folder / "end"
        job = held.new({**IDS, "until": str(end)})
        note = f"sigra:begun:{job.id}"
        journal.wait(harness, lambda: harness.direct.get(note) == "1", "its note")
        end.touch()
        journal.wait(harness, lambda: harness.direct.get(note) is None, "its end")
        assert journal.audited("queues.held") == {job.id}

    def test_a_job_that_takes_longer_than_the_idle_timeout_runs_once(self, harness, journal):
        """Taskiq took what a living consumer held for lost: it ran in another one too, or again."""
        end, idle = harness.folder / "end-of-long", [0]
        job = held.new({**IDS, "until": str(end)})
        journal.wait(harness, lambda: len(journal.runs(held.name)) == 1, "the job's begin")
        sent = harness.direct.xrange(harness.queue)
        (place,) = [place for place, message in sent if job.id in message["data"]]

        def kept():
            (pending,) = harness.direct.xpending_range(harness.queue, "taskiq", place, place, 1)
            idle.append(pending["time_since_delivered"])
            return idle[-1] < idle[-2] and pending["times_delivered"] == 1

        for _ in range(4):  # together longer than the timeout
            journal.wait(harness, kept, "a sign of its consumer")
        end.touch()
        self._run(harness, journal, workers.agnostic, {})
        assert len(journal.runs(held.name)) == 1


def test_notes_that_are_being_taken_away_are_waited_for(redis_alone):
    """A consumer that stops in just that moment would leave them."""

    url = redis_alone.split()[0]

    async def clear_twice() -> int:
        pool = async_redis.BlockingConnectionPool.from_url(url, max_connections=1)
        notes, id = Notes(pool), uuid.uuid4().hex
        await notes.begin(id)
        await notes.end(id, comes_again=False)
        only = await pool.get_connection()
        first = asyncio.create_task(notes.clear())
        await asyncio.sleep(0)
        later = asyncio.create_task(_release(pool, only))
        await notes.clear()
        with redis.Redis.from_url(url) as direct:
            left = direct.exists(f"sigra:begun:{id}")
        await asyncio.gather(first, later)
        await pool.disconnect()
        return left

    assert asyncio.run(clear_twice()) == 0


def test_notes_that_could_not_be_taken_away_go_with_the_next_job_s_begin(redis_alone, caplog):
    """A connection that breaks in just that moment leaves none of them for a week.

    The job that begins then runs all the same, and the log has what its lost note may lead to.
    """
    url, ended, other, later = redis_alone.split()[0], *(uuid.uuid4().hex for _ in range(3))
    proxy = Proxy(url)

    async def begin_all() -> None:
        pool = async_redis.ConnectionPool.from_url(proxy.url)
        notes = Notes(pool)
        await notes.begin(ended)
        await notes.end(ended, comes_again=False)
        notes._clearing.cancel()  # it comes a second later: here never
        proxy.cut()
        assert await notes.begin(other) == 0
        await notes.count(other, 0)  # as it waits for a thread
        await notes.end(other, comes_again=True)
        proxy.restore()
        await notes.begin(later)
        await pool.disconnect()

    asyncio.run(begin_all())
    proxy.close()
    with redis.Redis.from_url(url) as direct:
        there = [bool(direct.exists(f"sigra:begun:{id}")) for id in (ended, other, later)]
        direct.delete(f"sigra:begun:{later}")
    assert there == [False, False, True]
    assert f"job {other} runs, but its start could not be counted" in caplog.messages
    assert f"could not update the start count of job {other}" in caplog.messages
    assert "could not delete the start notes of ended jobs: they expire" in caplog.messages


def test_the_note_of_a_job_that_ends_as_others_are_taken_away_goes_too(redis_alone):
    """Not only with the next job, which may not come for a week."""
    url, first, second = redis_alone.split()[0], *(uuid.uuid4().hex for _ in range(2))

    async def end_both() -> None:
        pool = async_redis.BlockingConnectionPool.from_url(url, max_connections=1, timeout=60)
        notes = Notes(pool)
        for id in (first, second):
            await notes.begin(id)
        await notes.end(first, comes_again=False)
        only = await pool.get_connection()
        with redis.Redis.from_url(url) as direct:
            async with asyncio.timeout(60):
                while notes._ended:
                    await asyncio.sleep(0.05)
                await notes.end(second, comes_again=False)
                await pool.release(only)
                while direct.exists(f"sigra:begun:{first}", f"sigra:begun:{second}"):
                    await asyncio.sleep(0.05)
        await pool.disconnect()

    asyncio.run(end_both())


@pytest.mark.parametrize("by", ["a clear", "the next begin"])
def test_a_note_is_taken_away_once(redis_alone, by):
    """After that it is another consumer's, which has the job since."""
    url, id = redis_alone.split()[0], uuid.uuid4().hex

    async def begin_elsewhere() -> None:
        pool = async_redis.ConnectionPool.from_url(url)
        here, elsewhere = Notes(pool), Notes(pool)
        await here.begin(id)
        await here.end(id, comes_again=False)
        await (here.clear() if by == "a clear" else here.begin(f"{id}-2"))
        await elsewhere.begin(id)
        await here.begin(f"{id}-2")
        await pool.disconnect()

    asyncio.run(begin_elsewhere())
    with redis.Redis.from_url(url, decode_responses=True) as direct:
        assert direct.get(f"sigra:begun:{id}") == "1"
        direct.delete(f"sigra:begun:{id}", f"sigra:begun:{id}-2")


async def _release(pool, connection):
    await asyncio.sleep(0.1)
    await pool.release(connection)


def test_jobs_are_sent_from_one_event_loop_after_another(redis_alone):
    """Of a broker that the application did not start: its connections outlive the first."""
    url, queue = redis_alone.split()[0], uuid.uuid4().hex
    broker = make_broker(url, queue)
    with configure(backend=TaskiqBackend(broker, make_schedules(url, queue), queue=queue)):
        sent = [asyncio.run(workers.echo.anew(IDS)).id for _ in range(2)]
        sent.append(workers.echo.new(IDS).id)
    submit(own_loop(), broker.shutdown()).result()
    with redis.Redis.from_url(url) as direct:
        arrived = str(direct.xrange(queue))
    assert [id for id in sent if id not in arrived] == []


def test_jobs_are_sent_after_a_lifespan_that_has_shut_the_broker_down(redis_alone):
    """A suite's next test sends without one; the broker is started anew, in a loop that lasts."""
    url, queue = redis_alone.split()[0], uuid.uuid4().hex
    broker = make_broker(url, queue)

    async def lifespan():
        await broker.startup()
        sent.append((await workers.echo.anew(IDS)).id)
        await broker.shutdown()

    sent = []
    with configure(backend=TaskiqBackend(broker, make_schedules(url, queue), queue=queue)):
        for _ in range(2):
            asyncio.run(lifespan())
        sent.append(asyncio.run(workers.echo.anew(IDS)).id)
        sent.append(workers.echo.new(IDS).id)
    submit(own_loop(), broker.shutdown()).result()
    with redis.Redis.from_url(url) as direct:
        arrived = str(direct.xrange(queue))
    assert [id for id in sent if id not in arrived] == []


class AloneHarness(TaskiqHarness):
    """A consumer without a scheduler."""

    def source(self) -> None:
        return None

    def env(self) -> dict[str, str]:
        return {**super().env(), "SIGRA_TEST_SCHEDULES": ""}


class TestTaskiqWithoutSchedules(ContractCase):
    harness_class, server = AloneHarness, "redis_alone"

    def test_a_snoozed_job_waits_in_its_consumer(self, harness, journal):
        """Without a source of schedules it comes again with the same attempt all the same."""
        _, runs = self._run(harness, journal, workers.snoozes, {**IDS, "times": 2}, 3)
        assert [(run["attempt"], run["snoozes"]) for run in runs] == [(1, 0), (1, 1), (1, 2)]
        assert all(later["at"] - run["at"] >= 1 for run, later in pairwise(runs))

    def test_what_is_due_later_is_refused(self, harness):
        """Without a source of schedules nobody would send it again."""
        for option in ({"max_attempts": 2}, {"delay": 1}):
            with pytest.raises(InvalidOptionError):
                workers.echo.new(IDS, **option)


class RabbitMQHarness(TaskiqHarness):
    def delete(self) -> None:
        """Delete the queue in which the jobs are, as somebody else would."""
        submit(own_loop(), self.broker.write_channel.queue_delete(self.queue)).result()

    def remove(self) -> None:
        submit(own_loop(), self._delete()).result()
        super().remove()

    async def _delete(self) -> None:
        if self.broker.write_channel is None:  # none of its own jobs was sent
            await self.broker.startup()
        await delete(self.broker.write_channel, self.queue)


async def delete(channel: Any, queue: str) -> None:
    """Delete what a broker of ``make_broker`` has made on RabbitMQ."""
    for end in ("", "-other", "-dead"):
        await channel.queue_delete(queue + end)
    await channel.exchange_delete(queue)


class TestTaskiqOnRabbitMQ(TaskiqContract):
    harness_class, server = RabbitMQHarness, "rabbitmq_and_redis"

    def test_a_job_runs_whose_queue_somebody_deleted(self, harness, journal):
        """RabbitMQ drops what no queue takes, and taskiq does not ask: the queue is made anew."""
        self._run(harness, journal, workers.echo, IDS)  # from now on it is connected
        harness.delete()
        self._run(harness, journal, workers.echo, IDS)

    def test_a_job_runs_whose_queue_somebody_deleted_before_it_was_due(self, harness, journal):
        """``taskiq scheduler`` makes the queue anew, where no consumer does."""
        harness.stop()
        os.killpg(harness.scheduler.pid, signal.SIGSTOP)  # it sends nothing before that
        job = workers.echo.new(IDS, delay=2)
        harness.delete()
        os.killpg(harness.scheduler.pid, signal.SIGCONT)
        journal.wait(harness, lambda: not harness.kept(job.id), "the scheduler")
        harness.start()
        journal.wait(harness, lambda: bool(journal.runs()), "the job")
        assert [run["job_id"] for run in journal.runs()] == [job.id]

    def test_of_two_backends_on_one_broker_a_job_is_sent_into_the_new_queue_once(self, harness):
        """Making the queue anew is done once for a broker, not by each backend."""
        queue = f"{harness.queue}-twice"
        broker = make_broker(harness.server, queue)
        for _ in range(2):
            backend = TaskiqBackend(broker, queue=queue)
        with configure(backend=backend):
            workers.echo.new(IDS)  # from now on it is connected
            channel = broker.write_channel
            submit(own_loop(), channel.queue_delete(queue)).result()
            workers.echo.new(IDS)

        async def count():
            there = await (await channel.get_underlay_channel()).queue_declare(queue, passive=True)
            return there.message_count

        assert submit(own_loop(), count()).result() == 1
        submit(own_loop(), delete(channel, queue)).result()
        submit(own_loop(), broker.shutdown()).result()

    def test_a_broker_that_routes_by_a_label_of_another_name_takes_a_job(self, harness, journal):
        """It is a setting of the broker's: no queue took a job, and ``.new()`` failed."""
        broker = make_broker(harness.server, harness.queue)
        broker._label_for_routing = "route"  # as label_for_routing="route" does
        with configure(backend=TaskiqBackend(broker)):
            self._run(harness, journal, workers.echo, IDS, queue=f"{harness.queue}-other")
        submit(own_loop(), broker.shutdown()).result()

    def test_a_job_that_no_queue_takes_is_an_enqueue_error(self, harness):
        """Its queue is there, and not bound to the broker's exchange."""
        unbound = Queue(name=f"{harness.queue}-dead", declare=False)
        broker = make_broker(harness.server, harness.queue).with_queues(unbound)
        with configure(backend=TaskiqBackend(broker)):
            with pytest.raises(
                EnqueueError,
                match=f"no queue on RabbitMQ took the message of '{workers.echo.name}'",
            ):
                workers.echo.new(IDS)
        submit(own_loop(), broker.shutdown()).result()

    def test_a_producer_remembers_no_job_that_is_sent(self, harness):
        """Its channel would tell each of them of all that comes back, for as long as it lives."""
        workers.echo.new(IDS)  # from now on it is connected
        sending = harness.broker.write_channel.get_underlay_channel()
        told = submit(own_loop(), sending).result().on_return_callbacks
        before = len(told)
        workers.echo.new(IDS)
        assert len(told) == before

    def test_a_task_of_the_application_s_own_that_no_queue_takes_is_dropped(self, harness):
        """As without Sigra: nothing changes for it."""
        unbound = Queue(name=f"{harness.queue}-dead", declare=False)
        broker = make_broker(harness.server, harness.queue).with_queues(unbound)
        TaskiqBackend(broker)
        submit(own_loop(), broker.startup()).result()
        own = broker.task("native.own")(lambda: None)
        submit(own_loop(), own.kiq()).result()
        submit(own_loop(), broker.shutdown()).result()


def test_pickle_is_refused():
    """The error names the serializer to set."""
    broker = RedisStreamBroker(NOWHERE).with_serializer(PickleSerializer())
    with pytest.raises(ValueError, match=r"broker.with_serializer\(JSONSerializer\(\)\)"):
        TaskiqBackend(broker)


def test_jsonpickle_is_refused():
    """It writes JSON, and makes any object of it."""

    class JSONPickle(JSONSerializer):
        def dumpb(self, value):
            return super().dumpb(as_jsonpickle(value))

    broker = RedisStreamBroker(NOWHERE).with_serializer(JSONPickle())
    with pytest.raises(ValueError, match=r"broker.with_serializer\(JSONSerializer\(\)\)"):
        TaskiqBackend(broker)


class Pickles(TaskiqFormatter):
    """Write messages whole by pickle, whatever serializer the broker has."""

    def dumps(self, message):
        return taskiq.BrokerMessage(
            task_id=message.task_id,
            task_name=message.task_name,
            message=pickle.dumps(message),
            labels=message.labels,
        )

    def loads(self, message):
        return pickle.loads(message)  # noqa: S301


def test_a_formatter_that_pickles_is_refused():
    """It needs no serializer: jobs were pickled by a broker whose serializer writes JSON."""
    broker = RedisStreamBroker(NOWHERE).with_formatter(Pickles())
    with pytest.raises(ValueError, match="this broker's Pickles does not write JSON"):
        TaskiqBackend(broker)


def test_schedules_that_pickle_are_refused():
    """That of the source is named too."""
    with pytest.raises(ValueError, match=r"ListRedisScheduleSource\(..., serializer=JSONSer"):
        TaskiqBackend(RedisStreamBroker(NOWHERE), ListRedisScheduleSource(NOWHERE))


def test_schedules_that_take_none_are_refused():
    """A consumer would try for ever to have such a source retry a job, and would not stop."""
    broker = RedisStreamBroker(NOWHERE)
    source = ListRedisScheduleSource(NOWHERE, serializer=JSONSerializer())
    labels = LabelScheduleSource(broker)
    for wrong in (taskiq.TaskiqScheduler(broker, [source]), [source], labels):
        with pytest.raises(ValueError, match=f"this {type(wrong).__name__} takes no schedules"):
            TaskiqBackend(broker, wrong)
    assert "delay" in TaskiqBackend(broker, source).capabilities


def test_results_that_are_pickled_are_refused():
    """Whoever reads one would run what somebody else has put into Redis."""
    results = RedisAsyncResultBackend(NOWHERE)
    broker = RedisStreamBroker(NOWHERE).with_result_backend(results)
    with pytest.raises(ValueError, match=r"RedisAsyncResultBackend\(..., serializer=JSONSer"):
        TaskiqBackend(broker)
    results = RedisAsyncResultBackend(NOWHERE, serializer=JSONSerializer())
    TaskiqBackend(RedisStreamBroker(NOWHERE).with_result_backend(results))


def test_a_result_backend_that_is_set_later_is_looked_at_when_the_broker_starts():
    """The order of an app's lines does not decide whether its results are pickled."""
    TaskiqBackend(broker := taskiq.InMemoryBroker())
    broker.with_result_backend(RedisAsyncResultBackend(NOWHERE))
    with pytest.raises(ValueError, match="does not write JSON"):
        asyncio.run(broker.startup())


@pytest.mark.parametrize("formatter", [Pickles(), JSONFormatter()])
def test_a_formatter_that_is_set_later_is_looked_at_when_the_broker_starts(formatter):
    """It took the place of Sigra's: a job whose worker is not imported was dropped."""
    TaskiqBackend(broker := taskiq.InMemoryBroker())
    broker.with_formatter(formatter)
    if isinstance(formatter, Pickles):
        with pytest.raises(ValueError, match="this broker's Pickles does not write JSON"):
            asyncio.run(broker.startup())
        return
    asyncio.run(broker.startup())
    job = taskiq.TaskiqMessage(
        task_id="1", task_name="not.imported", labels={}, args=[], kwargs={MARK: 2}
    )
    broker.formatter.loads(formatter.dumps(job).message)
    assert broker.find_task("not.imported") is not None


def test_a_broker_that_acknowledges_nothing_may_lose_jobs():
    """What ListQueueBroker takes off its list, and dies with, is gone."""
    broker = ListQueueBroker(NOWHERE).with_serializer(JSONSerializer())
    assert "at_least_once" not in TaskiqBackend(broker).capabilities
    assert "at_least_once" in TaskiqBackend(RedisStreamBroker(NOWHERE)).capabilities


def test_workers_run_on_the_broker_that_taskiq_has_for_tests(journal):
    """An app's tests that have it can keep it."""

    async def produce():
        broker = taskiq.InMemoryBroker(await_inplace=True)
        with configure(backend=TaskiqBackend(broker)):
            await broker.startup()
            await workers.echo.anew(IDS)
            await broker.shutdown()

    asyncio.run(produce())
    assert [run["worker"] for run in journal.runs()] == [workers.echo.name]


def test_a_direct_call_of_a_worker_s_task_is_refused():
    """There is no message of taskiq's, and the error told only that."""
    broker = taskiq.InMemoryBroker()
    with configure(backend=TaskiqBackend(broker)):
        task = broker.find_task(workers.echo.name)
    with pytest.raises(TypeError, match=f"a direct call runs no job of {workers.echo.name}: call"):
        asyncio.run(task(**IDS))


def test_a_middleware_tells_a_run_that_comes_again_from_one_that_failed():
    """By taskiq's own label, as OpenTelemetry's does; taskiq's retries leave it alone all the same."""
    told, runs = [], []

    class Told(taskiq.TaskiqMiddleware):
        def on_error(self, message, result, exception):
            told.append((type(exception).__name__, message.labels["retry_on_error"]))

    @tenant_worker(name="queues.comes_again")
    def comes_again(scope, job):
        runs.append(job.snoozes)
        return Snooze(1) if job.snoozes == 0 else Failure("said so")

    async def produce():
        broker = taskiq.InMemoryBroker(await_inplace=True)
        broker.add_middlewares(Told(), taskiq.SimpleRetryMiddleware())
        with configure(backend=TaskiqBackend(broker)):
            await broker.startup()
            await comes_again.anew(IDS)
            await broker.shutdown()

    asyncio.run(produce())
    assert runs == [0, 1]
    assert sorted(told) == [("JobFailedError", False), ("NoResultError", True)]


def begins_of_one_that_is_cut_off(send):
    """Send a job that overruns its first two runs, where nothing is noted; tell how often it ran.

    ``send`` is given the broker and the worker; the broker's backend is the configured one.
    """
    runs = []

    @tenant_worker(name="queues.cut_off")
    async def overruns(scope):
        runs.append("begun")
        await asyncio.sleep(60 if len(runs) < 3 else 0)

    async def produce():
        broker = taskiq.InMemoryBroker(await_inplace=True)
        broker.add_middlewares(Limit(overruns.name))
        with configure(backend=TaskiqBackend(broker)):
            await broker.startup()
            await send(broker, overruns)
            await broker.shutdown()

    asyncio.run(produce())
    return runs


def test_a_job_that_is_cut_off_where_nothing_is_noted_uses_up_its_attempt():
    """Without Redis its message alone says that it had begun: else it began again for ever."""
    runs = begins_of_one_that_is_cut_off(lambda _, overruns: overruns.anew(IDS))
    assert runs == ["begun"]


def test_a_job_that_had_waited_for_a_thread_and_is_cut_off_uses_up_its_attempt():
    """As one that began at once does: else it began again while its thread was at it."""
    runs, free, end = [], threading.Event(), threading.Event()

    @tenant_worker(name="queues.waits_and_overruns")
    def overruns(scope):
        runs.append("begun")
        end.wait(5 if len(runs) < 3 else 0)

    async def produce():
        occupy_the_only_thread(free)
        asyncio.get_running_loop().call_later(0.5, free.set)
        broker = taskiq.InMemoryBroker(await_inplace=True)
        broker.add_middlewares(Limit(overruns.name))
        with configure(backend=TaskiqBackend(broker)):
            await broker.startup()
            await overruns.anew(IDS)
            await broker.shutdown()
        end.set()

    asyncio.run(produce())
    assert runs == ["begun"]


def test_a_hand_built_job_that_is_cut_off_ends(caplog):
    """Its plain args have no place for a count: with one they would be refused."""

    def send_by_hand(broker, overruns):
        return broker.find_task(overruns.name).kicker().kiq(**IDS)

    runs = begins_of_one_that_is_cut_off(send_by_hand)
    assert runs == ["begun"]
    assert "refused" not in caplog.text


def test_a_job_that_is_cancelled_with_its_consumer_is_not_sent_again(caplog):
    """As where that stops: RabbitMQ or Redis delivers the job again by themselves."""
    runs = []

    @tenant_worker(name="queues.stopped")
    async def stopped(scope):
        runs.append("begun")
        await asyncio.sleep(60 if len(runs) < 2 else 0)

    async def produce():
        broker = taskiq.InMemoryBroker(await_inplace=True)
        with configure(backend=TaskiqBackend(broker)):
            await broker.startup()
            consuming = asyncio.create_task(stopped.anew(IDS))
            async with asyncio.timeout(60):
                while not runs:
                    await asyncio.sleep(0.01)
            consuming.cancel()
            while others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others)
            await broker.shutdown()

    asyncio.run(produce())
    assert runs == ["begun"]
    (told,) = [record.getMessage() for record in caplog.records if record.name == "sigra.job"]
    assert "attempt 1 of 1, raised CancelledError" in told


def test_the_times_that_a_middleware_noted_do_not_go_with_the_next_run():
    """OpenTelemetry's counts with them, fails on the texts that a schedule makes of them, and then
    the job's result is not kept."""
    noted = []

    class Times(taskiq.TaskiqMiddleware):
        def pre_send(self, message):
            noted.append("_taskiq_queue_time" in message.labels)
            message.labels["_taskiq_queue_time"] = 1.5
            return message

    @tenant_worker(name="queues.timed")
    def timed(scope, job):
        return Snooze(1) if job.snoozes == 0 else None

    async def produce():
        broker = taskiq.InMemoryBroker(await_inplace=True)
        broker.add_middlewares(Times())
        with configure(backend=TaskiqBackend(broker)):
            await broker.startup()
            await timed.anew(IDS)
            await broker.shutdown()

    asyncio.run(produce())
    assert noted == [False, False]


@pytest.mark.parametrize("error", [NoResultError(), ValueError("said so")])
def test_a_job_that_failed_for_good_has_its_error_as_result(error):
    """Also taskiq's own word for having none: who waits for the job would wait for ever."""

    @tenant_worker(name=f"tests.taskiq.{type(error).__name__}")
    def raises(scope):
        raise error

    async def produce():
        broker = taskiq.InMemoryBroker(await_inplace=True)
        with configure(backend=TaskiqBackend(broker)):
            await broker.startup()
            job = await raises.anew(IDS)
            result = await broker.result_backend.get_result(job.native_id)
            await broker.shutdown()
        return result

    result = asyncio.run(produce())
    assert result.is_err and str(error) in str(result.error)


def test_a_task_that_has_a_workers_name_is_refused():
    """A native task is not replaced."""
    broker = RedisStreamBroker(NOWHERE)
    broker.task(workers.echo.name)(lambda: None)
    with pytest.raises(ValueError, match=r"a task of its own named 'sigra.contract.echo'"):
        TaskiqBackend(broker)


def test_a_worker_that_asks_for_a_dependency_of_taskiq_s_is_refused():
    """It got the object that stands for the dependency, and failed where it used it."""

    def depends(scope, invoice_id, session=taskiq.TaskiqDepends(dict)):
        pass

    depends.__annotations__["invoice_id"] = "OnlyForTypeCheckers"
    TaskiqBackend(broker := taskiq.InMemoryBroker())
    with pytest.raises(ValueError, match="parameter 'session' of worker 'queues.depends'"):
        tenant_worker(name="queues.depends")(depends)
    assert broker.find_task("queues.depends") is None


def test_a_worker_whose_annotation_asks_for_a_dependency_is_refused():
    """It got the default, which taskiq itself would leave out."""

    def depends(scope, invoice_id, session: Annotated[Any, "", taskiq.TaskiqDepends(dict)] = None):
        pass

    TaskiqBackend(taskiq.InMemoryBroker())
    told = r"parameter 'session' of worker 'queues.annotated' is TaskiqDepends\(\.\.\.\)"
    with pytest.raises(ValueError, match=told):
        tenant_worker(name="queues.annotated")(depends)


def test_a_worker_that_asks_for_a_dependency_of_fastapi_s_is_refused(monkeypatch):
    """Taskiq resolves those too, by the class that FastAPI makes them of, if it is installed."""

    class Depends:
        pass

    def depends(scope, invoice_id, session=Depends()):
        pass

    monkeypatch.setattr("taskiq_dependencies.graph.FastapiDepends", Depends)
    TaskiqBackend(taskiq.InMemoryBroker())
    told = r"parameter 'session' of worker 'queues.depends_on_fastapi' is Depends\(\.\.\.\)"
    with pytest.raises(ValueError, match=told):
        tenant_worker(name="queues.depends_on_fastapi")(depends)


@pytest.mark.parametrize("field", ["task_name", "task_id"])
def test_a_job_of_a_name_or_id_that_no_broker_carries_is_refused(field):
    """Its scheduler tried for ever to send its next run, and RabbitMQ broke the connection."""
    broker = taskiq.InMemoryBroker()
    TaskiqBackend(broker)
    facts: Any = {"task_name": "queues.unknown", "task_id": "1", field: "w" * 300_000}
    sent = taskiq.TaskiqMessage(**facts, labels={}, args=[], kwargs={MARK: 2})
    with pytest.raises(ValueError, match="name and id have over 10000 characters"):
        broker.formatter.loads(broker.formatter.dumps(sent).message)
    assert broker.find_task(facts["task_name"]) is None


def test_a_redis_that_is_down_is_an_enqueue_error():
    """It comes in bounded time, and is chained to the client's own error."""
    schedules = ListRedisScheduleSource(NOWHERE, serializer=JSONSerializer())
    backend = TaskiqBackend(RedisStreamBroker(NOWHERE), schedules)
    with not_hanging(), configure(backend=backend), pytest.raises(EnqueueError) as caught:
        workers.echo.new_many([IDS, IDS])
    assert isinstance(caught.value.__cause__, redis.ConnectionError)


def test_a_next_run_whose_schedules_are_away_is_sent_once_they_are_back(
    redis_alone, monkeypatch, caplog
):
    """Its consumer acknowledges this run after that: else the job was lost."""
    monkeypatch.setattr("sigra.backends.taskiq_run._RECONNECT", 0.1)
    url, queue = redis_alone.split()[0], uuid.uuid4().hex
    proxy = Proxy(url)

    @tenant_worker(name="queues.put_off", max_attempts=2, backoff=3600)
    async def fails(scope):
        proxy.cut()
        return Failure("not yet")

    async def restore():
        async with asyncio.timeout(60):
            while "could not send the next run of job" not in caplog.text:
                await asyncio.sleep(0.01)
        proxy.restore()

    async def produce():
        broker = taskiq.InMemoryBroker(await_inplace=True)
        schedules = make_schedules(proxy.url, queue)
        with configure(backend=TaskiqBackend(broker, schedules)):
            await broker.startup()
            await asyncio.gather(restore(), fails.anew(IDS))
            await broker.shutdown()
        await schedules._connection_pool.disconnect()

    asyncio.run(produce())
    proxy.close()
    with redis.Redis.from_url(url) as direct:
        assert len(direct.keys(f"{queue}:data:*")) == 1


def test_a_job_that_was_snoozed_has_its_result_under_its_own_id():
    """Who waits for it knows no other."""

    @tenant_worker(name="queues.snoozed_with_result")
    async def snoozes(scope, job):
        return 7 if job.snoozes else Snooze(1)

    async def produce():
        broker = taskiq.InMemoryBroker(await_inplace=True)
        with configure(backend=TaskiqBackend(broker)):
            await broker.startup()
            job = await snoozes.anew(IDS)
            result = await broker.result_backend.get_result(job.native_id)
            await broker.shutdown()
        return result.return_value

    assert asyncio.run(produce()) == 7


def test_a_job_is_acknowledged_once_it_has_run_whatever_its_consumer_does_with_tasks():
    """``taskiq worker --ack-type when_received`` would lose those of a consumer that is killed."""
    sent, told = [], []

    class Broker(taskiq.InMemoryBroker):
        async def kick(self, message):
            sent.append(message)

    @tenant_worker(name="queues.acknowledged")
    async def runs(scope):
        told.append("run")

    async def receive():
        broker = Broker()
        with configure(backend=TaskiqBackend(broker)):
            await runs.anew(IDS)
        receiver = Receiver(broker, ack_type=AcknowledgeType.WHEN_RECEIVED, max_async_tasks=1)
        message = AckableMessage(data=sent[0].message, ack=lambda: told.append("acknowledged"))
        await receiver.callback(message)
        await broker.shutdown()

    asyncio.run(receive())
    assert told == ["run", "acknowledged"]


def test_a_hand_built_job_that_fails_is_not_retried_by_taskiq():
    """Though the application has all its tasks retried."""
    runs = []

    @tenant_worker(name="queues.built_and_fails")
    async def fails(scope):
        runs.append("begun")
        return Failure("said so")

    async def produce():
        broker = taskiq.InMemoryBroker(await_inplace=True)
        broker.add_middlewares(taskiq.SimpleRetryMiddleware(default_retry_label=True))
        with configure(backend=TaskiqBackend(broker)):
            await broker.startup()
            await broker.find_task(fails.name).kicker().kiq(**IDS)
            await broker.shutdown()

    asyncio.run(produce())
    assert runs == ["begun"]


def test_a_job_is_scheduled_for_no_earlier_second_than_it_is_due(redis_alone):
    """The fraction of a second counts too."""
    url, queue = redis_alone.split()[0], uuid.uuid4().hex
    broker, schedules = make_broker(url, queue), make_schedules(url, queue)
    due = datetime.now(timezone.utc) + timedelta(hours=1)
    with configure(backend=TaskiqBackend(broker, schedules)):
        job = workers.echo.new(IDS, run_at=due)
    submit(own_loop(), schedules._connection_pool.disconnect()).result()
    submit(own_loop(), broker.shutdown()).result()
    with redis.Redis.from_url(url) as direct:
        scheduled = json.loads(direct.get(f"{queue}:data:{job.native_id}"))
    assert datetime.fromisoformat(scheduled["time"]) >= due


def test_a_task_of_the_application_s_own_that_a_consumer_does_not_know_stays_unknown():
    """taskiq drops it, and says so; it is none of our workers."""
    TaskiqBackend(broker := taskiq.InMemoryBroker())
    message = taskiq.TaskiqMessage(
        task_id="1", task_name="native.elsewhere", labels={}, args=[], kwargs={"text": "hello"}
    )
    read = broker.formatter.loads(broker.formatter.dumps(message).message)
    assert (read.kwargs, broker.find_task("native.elsewhere")) == ({"text": "hello"}, None)


@pytest.mark.parametrize(
    ("pattern", "queue"),
    [("b.*", "b.eu"), ("b.#", "b.eu.west"), ("b.#", "b"), ("#.eu", "b.eu"), ("#", "b")],
)
def test_a_queue_that_is_bound_by_a_pattern_keeps_its_jobs(pattern, queue):
    """Their next run went to another queue, the first one."""
    bound = [Queue(name=name, routing_key=key) for name, key in [("one", "a.*"), ("two", pattern)]]
    broker = make_broker("amqp://nowhere", "unused").with_queues(*bound)
    TaskiqBackend(broker, queue=queue)
    message = taskiq.TaskiqMessage(
        task_id="1", task_name=workers.echo.name, labels={"queue_name": queue}, args=[], kwargs={}
    )
    read = broker.formatter.loads(broker.formatter.dumps(message).message)
    assert read.labels["queue_name"] == queue


@pytest.mark.parametrize("waits", [False, True])
def test_a_note_that_nobody_takes_away_expires(redis_server, waits):
    """Its job may never come again: such notes stayed in Redis for ever."""
    notes, id = Notes(async_redis.ConnectionPool.from_url(redis_server)), uuid.uuid4().hex

    async def begin():
        await notes.begin(id)
        if waits:
            await notes.count(id, 0)
        await notes._redis.connection_pool.disconnect()

    asyncio.run(begin())
    with redis.Redis.from_url(redis_server) as direct:
        assert 0 < direct.ttl(f"sigra:begun:{id}") <= 7 * 24 * 3600
        direct.delete(f"sigra:begun:{id}")


def test_a_note_goes_though_an_earlier_event_loop_ended_before_it_cleared(redis_server):
    """The notes of a later loop's jobs do not stay for a week."""
    notes, id = Notes(async_redis.ConnectionPool.from_url(redis_server)), uuid.uuid4().hex

    async def one_job(number, *, waits):
        await notes.begin(f"{id}-{number}")
        await notes.end(f"{id}-{number}", comes_again=False)
        if waits:
            await asyncio.wait({notes._clearing})
        await notes._redis.connection_pool.disconnect()

    asyncio.run(one_job(1, waits=False))
    asyncio.run(one_job(2, waits=True))
    with redis.Redis.from_url(redis_server) as direct:
        assert direct.exists(f"sigra:begun:{id}-2") == 0


def test_a_due_job_whose_schedule_cannot_be_deleted_is_sent_once(redis_alone):
    """taskiq deletes it too, and says why it could not; to send the job again would not help."""
    url, queue = redis_alone.split()[0], uuid.uuid4().hex
    broker, schedules = make_broker(url, queue), make_schedules(NOWHERE, queue)
    TaskiqBackend(broker, schedules)

    async def send():
        broker.is_scheduler_process = True
        await broker.startup()
        due = broker.find_task(workers.echo.name).kicker().with_labels(schedule_id="due")
        async with asyncio.timeout(60):
            await due.kiq(**{MARK: 2})
        await broker.shutdown()

    asyncio.run(send())
    with redis.Redis.from_url(url) as direct:
        assert direct.xlen(queue) == 1


def test_a_job_of_plain_args_is_sent_each_time_that_its_cron_says(redis_alone):
    """Of a job that ``.new()`` made the schedule goes as it is sent; this one's is the user's."""
    url, queue = redis_alone.split()[0], uuid.uuid4().hex
    broker, schedules = make_broker(url, queue), make_schedules(url, queue)
    TaskiqBackend(broker, schedules)

    async def send_twice():
        broker.is_scheduler_process = True
        await broker.startup()
        kicker = broker.find_task(workers.echo.name).kicker()
        await kicker.schedule_by_cron(schedules, "* * * * *", **IDS)
        for _ in range(2):
            (task,) = await schedules.get_schedules()
            await taskiq.TaskiqScheduler(broker, [schedules]).on_ready(schedules, task)
        await schedules.delete_schedule(task.schedule_id)
        await broker.shutdown()
        await schedules._connection_pool.disconnect()

    asyncio.run(send_twice())
    with redis.Redis.from_url(url) as direct:
        assert direct.xlen(queue) == 2


@pytest.mark.parametrize("knows_it", [True, False])
def test_a_scheduler_tries_once_to_send_a_task_of_the_application_s_own(knows_it):
    """As without Sigra: nothing changes for it. It need not import the task."""
    broker = RedisStreamBroker(NOWHERE)
    TaskiqBackend(broker)
    broker.is_scheduler_process = True
    if knows_it:
        broker.task("native.own")(lambda: None)

    async def send():
        async with asyncio.timeout(60):
            await taskiq.kicker.AsyncKicker("native.own", broker, {}).kiq()

    with pytest.raises(taskiq.exceptions.SendTaskError):
        asyncio.run(send())


def test_a_scheduler_that_knows_no_worker_sends_what_is_due_once_it_can(
    redis_alone, monkeypatch, caplog
):
    """It need not import the workers to try again."""
    monkeypatch.setattr("sigra.backends.taskiq_queues._AGAIN", 0.1)
    proxy, queue = Proxy(redis_alone.split()[0]), uuid.uuid4().hex
    broker = make_broker(proxy.url, queue)
    TaskiqBackend(broker)

    async def send():
        broker.is_scheduler_process = True
        await broker.startup()
        job = taskiq.kicker.AsyncKicker("queues.elsewhere", broker, {"schedule_id": "due"})
        proxy.cut()
        sending = asyncio.create_task(job.with_task_id("a-job").kiq(**{MARK: 2}))
        async with asyncio.timeout(60):
            while "could not send job a-job, which is due" not in caplog.text:
                assert not sending.done()
                await asyncio.sleep(0.01)
            proxy.restore()
            await sending
        await broker.shutdown()

    asyncio.run(send())
    with redis.Redis.from_url(redis_alone.split()[0]) as direct:
        assert direct.xlen(queue) == 1
    proxy.close()


def test_due_jobs_whose_sending_hangs_make_way_for_others(monkeypatch):
    """Few are sent at a time: where those got no answer, no other one was sent."""
    monkeypatch.setattr("sigra.backends.taskiq_due._LONG", 0.1)
    sent, answered = [], asyncio.Event()

    async def kick():
        sent.append("a job")

    async def send_all():
        due = Due(None, None)
        hanging = [asyncio.create_task(due.send(None, answered.wait)) for _ in range(20)]
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await due.send(None, kick)
        answered.set()
        await asyncio.wait(hanging)

    asyncio.run(send_all())
    assert sent == ["a job"]


def test_a_due_job_whose_sending_is_cut_off_is_not_sent_behind_it():
    """Who runs taskiq's scheduler with ``--send-timeout`` is told that it was not sent."""
    sent, asked, answered = [], asyncio.Event(), asyncio.Event()

    async def kick():
        asked.set()
        await answered.wait()
        sent.append("a job")

    async def cut_off():
        sending = asyncio.create_task(Due(None, None).send(None, kick))
        await asked.wait()
        sending.cancel()
        await asyncio.wait({sending})
        answered.set()
        if behind := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(behind)
        return sending.cancelled()

    assert asyncio.run(cut_off())
    assert sent == []


def with_one_held(url, check):
    """Run ``check`` with the look for what a consumer holds, its one message's acknowledgement
    in a list, and a function that returns how many milliseconds ago Redis last heard of it.

    The message is in the broker's second stream, and waits for some time already.
    """
    queue = uuid.uuid4().hex
    broker, stream = make_broker(url, queue), f"{queue}-other"

    async def run():
        await broker.startup()
        held, group = Held(broker), broker.consumer_group_name
        id = direct.xadd(stream, {"data": "a job"})
        direct.xreadgroup(group, broker.consumer_name, {stream: ">"})

        def idle():
            return direct.xpending_range(stream, group, id, id, 1)[0]["time_since_delivered"]

        while idle() < 300:
            await asyncio.sleep(0.01)
        async with asyncio.timeout(60):
            await check(held, [broker._ack_generator(id=id, queue_name=stream)], idle)
        await broker.shutdown()

    with redis.Redis.from_url(url) as direct:
        asyncio.run(run())


def test_what_a_consumer_holds_of_another_stream_is_held_too(redis_alone):
    """A job of a queue that its option names would run in another consumer as well."""

    async def check(held, acks, idle):
        while idle() >= 300:
            await held.refresh()
        assert acks

    with_one_held(redis_alone.split()[0], check)


def test_what_nobody_can_acknowledge_any_more_comes_again(redis_alone):
    """Its consumer said for as long as it lived that it held such a job."""

    async def check(held, acks, idle):
        acks.clear()
        before = idle()
        await held.refresh()
        assert idle() >= before

    with_one_held(redis_alone.split()[0], check)


def test_a_consumer_goes_on_looking_for_lost_jobs_where_redis_was_gone(redis_alone, caplog):
    """And as long as there is nothing to look for, it sends itself nothing."""
    url, queue = redis_alone.split()[0], uuid.uuid4().hex
    proxy = Proxy(url)

    async def look(direct):
        broker = make_broker(proxy.url, queue)
        broker.idle_timeout = 30
        await broker.startup()
        awake = asyncio.create_task(keep_awake(broker, {}, Held(broker)))
        await asyncio.sleep(0.3)
        quiet = direct.xlen(queue)
        proxy.cut()
        async with asyncio.timeout(60):
            while f"could not look for lost jobs of queue {queue}" not in caplog.text:
                await asyncio.sleep(0.01)
            proxy.restore()
            direct.xadd(f"{queue}-other", {"data": "lost"})
            direct.xreadgroup("taskiq", "one that died", {f"{queue}-other": ">"})
            while direct.xlen(queue) < 1:
                await asyncio.sleep(0.01)
        awake.cancel()
        await broker.shutdown()
        return quiet

    with redis.Redis.from_url(url) as direct:
        assert asyncio.run(look(direct)) == 0
    proxy.close()


@pytest.mark.filterwarnings("default")  # of what other tests left
def test_a_broker_that_nobody_uses_any_more_is_let_go():
    """A suite that makes one for each test does not keep them all, with their connections."""

    def make():
        broker = taskiq.InMemoryBroker(await_inplace=True)

        async def produce():
            with configure(backend=TaskiqBackend(broker)):
                await broker.startup()
                await workers.echo.anew(IDS)
                await broker.shutdown()

        asyncio.run(produce())
        return broker

    assert is_let_go(make)
