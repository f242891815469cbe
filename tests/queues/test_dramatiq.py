"""Dramatiq keeps the contract in real consumers, on Redis and on RabbitMQ."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import prefork
import pytest
from consumer import HERE
from consumer_side import held
from proxy import Proxy
from queue_contract import QueueContract
from queue_harness import QueueHarness, as_jsonpickle, is_let_go, not_hanging, told_at_start
from servers import need

dramatiq = need("dramatiq")

import redis as redis_client  # noqa: E402
from dramatiq.brokers import rabbitmq  # noqa: E402
from dramatiq.brokers.rabbitmq import RabbitmqBroker  # noqa: E402
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer  # noqa: E402
from dramatiq.brokers.stub import StubBroker  # noqa: E402
from dramatiq.errors import ConnectionClosed  # noqa: E402
from dramatiq.middleware import CurrentMessage, Interrupt, Middleware, MiddlewareError  # noqa: E402
from dramatiq.results import Results  # noqa: E402
from dramatiq.worker import _ConsumerThread  # noqa: E402
from dramatiq_app import (  # noqa: E402
    awaits,
    fails,
    goes_on,
    kills_as_it_is_due,
    limited,
    make_broker,
)
from redis.backoff import NoBackoff  # noqa: E402
from redis.retry import Retry  # noqa: E402

from sigra import (  # noqa: E402
    AuditEvent,
    EnqueueError,
    InvalidOptionError,
    SyncBackend,
    configure,
    tenant_worker,
)
from sigra.backends.dramatiq import DramatiqBackend  # noqa: E402
from sigra.backends.dramatiq_received import Received  # noqa: E402
from sigra.backends.envelope import pack  # noqa: E402
from sigra.backends.rabbitmq_notes import SLOTS  # noqa: E402
from sigra.testing import contract_workers as workers  # noqa: E402
from sigra.testing.contract_case import IDS  # noqa: E402

with warnings.catch_warnings(action="ignore", category=ImportWarning):  # of other backends
    from dramatiq.rate_limits.backends import StubBackend as Limits
    from dramatiq.results.backends import StubBackend

asks_for_a_queue = pytest.mark.skipif(
    tuple(map(int, version("dramatiq").split(".")[:2])) < (2, 2),
    reason="Dramatiq before 2.2 asks RabbitMQ for no answer of whether a queue took a message",
)


def delete(channel: Any, *queues: str) -> None:
    """Delete queues of RabbitMQ, each with those that belong to it."""
    for queue in queues:
        for end in ("", ".DQ", ".XQ", *(f".begun.{slot}" for slot in range(SLOTS))):
            channel.queue_delete(queue + end)


class DramatiqHarness(QueueHarness):
    command = "dramatiq -v -p 1 -t 2 dramatiq_app".split()
    alone = ("-Q", "{queue}")
    ready = "Worker process is ready"

    def __init__(self, server: str, folder: Path) -> None:
        super().__init__(server, folder)
        self.broker = make_broker(self.url, self.queue)
        self.direct = make_broker(server, self.queue)
        self.backend = DramatiqBackend(self.broker, queue=self.queue)

    def send(self, name: str, payload: Mapping[str, Any]) -> str:
        return self.broker.get_actor(name).send(**payload).message_id

    def send_note(self, text: str) -> None:
        self.broker.enqueue(dramatiq.Message(self.queue, "native.note", (text,), {}, {}))

    def name_of(self, native_id: str) -> str | None:
        received = rf"Received message ([\w.]+)\(.* with id '{native_id}'"
        found = re.search(received, self.consumer.output)
        return found and found[1]

    def failed(self, native_id: str) -> str | None:
        """Return its error, which Dramatiq logs, once it is among the dead letters."""
        return self.logged(f"job {native_id} ") if self.kept(native_id) else None

    def send_again(self, native_id: str) -> None:
        """Forget all dead letters, and send this one."""
        letters = [dramatiq.Message.decode(text) for text in self.dead_letters()]
        while self.dead_letters():  # RabbitMQ may just put back what was looked at
            self.direct.flush(self.queue)
        for letter in letters:
            if letter.message_id == native_id:
                self.broker.enqueue(letter)

    def kept(self, native_id: str) -> bool:
        return native_id in [json.loads(text)["message_id"] for text in self.dead_letters()]


class RedisHarness(DramatiqHarness):
    def put(self, body: bytes, id: str) -> None:
        self.direct.do_enqueue(self.queue, id, body)

    def dead_letters(self) -> list[bytes]:
        return self.direct.client.hvals(f"{self.queue}:{self.queue}.XQ.msgs")

    def held_of(self, queue: str) -> int:
        """Return how many messages of a queue the consumers have fetched."""
        books = self.direct.client.keys(f"{self.queue}:__acks__.*.{queue}")
        return sum(self.direct.client.scard(each) for each in books)

    def remove(self) -> None:
        self.broker.client.connection_pool.disconnect()
        self.direct.client.connection_pool.disconnect()


class RabbitMQHarness(DramatiqHarness):
    def __init__(self, server: str, folder: Path) -> None:
        super().__init__(server, folder)
        self.direct.close()
        # Of a connection that is seldom used nothing is heard for minutes.
        self.direct = make_broker(f"{server.rstrip('/')}/?heartbeat=0", self.queue)

    def put(self, body: bytes, _id: str) -> None:
        # Its consumer says that it is ready before it has made the queue: this would go nowhere.
        self.direct.declare_queue(self.queue, ensure=True)
        self.direct.channel.basic_publish("", self.queue, body)

    def dead_letters(self) -> list[bytes]:
        found, channel = [], self.direct.connection.channel()
        while (answer := channel.basic_get(f"{self.queue}.XQ"))[0]:
            found.append(answer[2])
        channel.close()  # which puts them back
        return found

    def remove(self) -> None:
        delete(self.direct.channel, self.queue, f"{self.queue}-other")
        self.broker.close()
        self.direct.close()


def written(
    harness: DramatiqHarness, worker: Any, args: Any, more: Mapping[str, Any] = {}, **changes: Any
) -> tuple[bytes, str]:
    """Return a message of a job, as somebody else may have written it, and its id on Redis.

    ``more``: further options of the message.
    """
    with configure(backend=SyncBackend()):
        job = worker.new(args, delay=3600, max_attempts=2, backoff=0)
    options = {"redis_message_id": job.id, **more}
    message = dramatiq.Message(harness.queue, job.worker, (), pack(job), options, job.id)
    return json.dumps({**message.asdict(), **changes}).encode(), job.id


class DramatiqContract(QueueContract):
    @pytest.mark.parametrize(
        "changes",
        [
            {"options": None},
            {"options": "none"},
            {"options": {"broker_priority": "high"}},
            {"actor_name": ["queues.held"]},
            {"message_id": ["1"]},
            {"kwargs": None},
            {"kwargs": {"self": 1}},
        ],
        ids=str,
    )
    def test_a_message_that_dramatiq_does_not_write_is_a_dead_letter(
        self, harness, journal, changes
    ):
        """It ended the thread that read it, or the one that was to run it, again and again."""
        harness.stop()
        harness.direct.flush(harness.queue)
        for _ in range(4):
            harness.put(*written(harness, workers.agnostic, {"bad": True}, **changes))
        before = harness.consumer.output.count("was refused and is a dead letter")
        harness.start()
        try:
            jobs = workers.echo.new_many([IDS] * 8)
            journal.wait(harness, lambda: len(journal.runs(workers.echo.name)) == 8, "the jobs")
            told = harness.consumer.output.count("was refused and is a dead letter") - before
            assert (4, 4, []) == (
                told,
                len(harness.dead_letters()),
                journal.runs(workers.agnostic.name),
            )
            assert {job.id for job in jobs} == {run["job_id"] for run in journal.runs()}
        finally:
            harness.direct.flush(harness.queue)

    @pytest.mark.parametrize("throws", ["OSError", ["OSError"]])
    def test_a_failed_job_whose_message_names_exceptions_ends_no_thread(
        self, harness, journal, throws
    ):
        """Dramatiq takes them for classes as a run raises, and that ended the thread that ran it."""
        raises = {**IDS, "how": "raise"}
        for _ in range(3):
            harness.put(*written(harness, workers.ends, raises, {"throws": throws}))
        try:
            self._run(harness, journal, workers.echo, IDS)
            journal.wait(harness, lambda: len(harness.dead_letters()) == 3, "the dead letters")
            runs = journal.runs(workers.ends.name)
            assert [1, 1, 1, 2, 2, 2] == sorted(run["attempt"] for run in runs)
        finally:
            harness.direct.flush(harness.queue)

    @pytest.mark.parametrize("eta", ["soon", None])
    def test_a_message_whose_time_is_no_number_runs_now(self, harness, journal, eta):
        """As with Dramatiq 2.0; on RabbitMQ a consumer of an older one ran nothing any more."""
        harness.put(*written(harness, workers.echo, IDS, {"eta": eta}))
        journal.wait(harness, lambda: len(journal.runs(workers.echo.name)) == 1, "the job")

    @pytest.mark.parametrize("id", [7, None])
    def test_a_native_message_whose_id_is_no_text_runs(self, harness, journal, id):
        """Dramatiq runs one that another program wrote so; it became a dead letter."""
        options = {"redis_message_id": f"message-{id}"}
        message = dramatiq.Message(harness.queue, "native.note", (f"id {id}",), {}, options, id)
        harness.put(message.encode(), f"message-{id}")
        journal.wait(harness, lambda: harness.notes.read_text() == f"id {id}\n", "the message")
        harness.notes.write_text("")

    def test_a_message_that_is_no_json_is_a_dead_letter(self, harness, journal):
        """On Redis it ended the thread of its queue, and what that had fetched did not run."""
        harness.stop()
        harness.direct.flush(harness.queue)
        harness.put(b"{", "no JSON")
        workers.echo.new_many([IDS] * 3)
        harness.start()
        try:
            journal.wait(harness, lambda: len(journal.runs()) == 3, "the jobs")
            assert [b"{"] == harness.dead_letters()
        finally:
            harness.direct.flush(harness.queue)

    @pytest.mark.parametrize("name", [None, 1, "nobody's", "amq.x", "q" * 300, "q\r\n"])
    def test_a_message_is_of_the_queue_that_it_is_in_whatever_it_says(self, harness, journal, name):
        """It ended the thread that ran it, and was not acknowledged; nor could a retry be sent."""
        for _ in range(2):
            changes = {"queue_name": name}
            harness.put(*written(harness, workers.recovers, {**IDS, "failures": 1}, **changes))
        journal.wait(harness, lambda: len(journal.runs(workers.recovers.name)) == 4, "the runs")
        job, _ = self._run(harness, journal, workers.echo, IDS)
        assert not harness.logged(f"job {job.id} names another queue")

    def test_a_job_of_an_older_task_with_args_by_position_is_refused(self, harness, journal):
        """A worker takes args by name: the job fails, the log says why, and no body runs."""
        sent = harness.broker.get_actor(workers.agnostic.name).send("42", 7).message_id
        journal.wait(harness, lambda: bool(harness.failed(sent)), "the failed job")
        assert harness.logged(f"job {sent} of {workers.agnostic.name} was refused.*by position")
        assert journal.runs() == []

    def test_a_cancelled_job_is_a_dead_letter(self, harness, journal):
        """It is over, whatever attempts are left, and can be looked at."""
        job, _ = self._run(harness, journal, workers.ends, {**IDS, "how": "cancel"}, max_attempts=3)
        journal.wait(harness, lambda: harness.kept(job.id), "the dead letter")

    def test_a_dead_letter_that_is_sent_again_is_begun_again(self, harness, journal):
        """On Redis it was refused, as if the run that failed had killed its consumer."""
        job = workers.ends.new({**IDS, "how": "raise"}, max_attempts=2, backoff=0)
        for again in range(3):
            if again:
                harness.send_again(job.id)
            journal.wait(harness, lambda: bool(harness.failed(job.id)), "its end")
            assert [run["attempt"] for run in journal.runs_of(job)] == [1, 2] + [2] * again

    @pytest.mark.parametrize("worker", [limited, awaits], ids=["plain", "async"])
    def test_a_time_limit_of_its_actor_uses_up_an_attempt(self, harness, journal, worker):
        """A job that is cut off, one that only awaits too, comes again while attempts are left."""
        job = worker.new(IDS, max_attempts=2, backoff=0)
        journal.wait(harness, lambda: bool(harness.failed(job.id)), "the job's end")
        assert [run["attempt"] for run in journal.runs(worker.name)] == [1, 2]

    def test_a_time_limit_cuts_off_no_retry_that_waits_for_its_broker(self, harness, journal):
        """It is for the body, which had ended: the job was a dead letter with an attempt left."""
        fails.new(IDS)
        journal.wait(harness, lambda: bool(journal.runs(fails.name)), "the job")
        harness.proxy.cut()
        time.sleep(10)  # its limit is 8, so that a machine that stands still for less ends no body
        harness.proxy.restore()

        def attempts():
            return {run["attempt"] for run in journal.runs(fails.name)}

        journal.wait(harness, lambda: attempts() == {1, 2}, "its second attempt")

    def test_another_queue_is_named(self, harness, journal):
        """A job runs from the queue that the option names, where a consumer listens."""
        self._run(harness, journal, workers.echo, IDS, queue=f"{harness.queue}-other")

    @pytest.mark.parametrize("end", [".XQ", ".DQ"])
    def test_a_queue_of_dramatiq_s_own_is_refused(self, harness, end):
        """RabbitMQ took a job into the dead letters, where it does not run."""
        with pytest.raises(InvalidOptionError, match="must not end in .DQ or .XQ"):
            workers.echo.new(IDS, queue=harness.queue + end)


class TestDramatiqOnRedis(DramatiqContract):
    harness_class, server = RedisHarness, "redis"

    def test_a_delayed_job_that_its_consumer_held_as_the_connection_broke_runs(
        self, harness, journal
    ):
        """Once each: Dramatiq forgot it, and Redis held it for a consumer that lived on."""
        jobs = [workers.echo.new(IDS, delay=5) for _ in range(3)]
        delayed = f"{harness.queue}.DQ"
        journal.wait(harness, lambda: harness.held_of(delayed) == 3, "the consumer to hold them")
        harness.proxy.cut()
        time.sleep(0.5)
        harness.proxy.restore()
        journal.wait(harness, lambda: len(journal.runs()) >= 3, "the jobs")
        assert sorted(run["job_id"] for run in journal.runs()) == [job.id for job in jobs]

    def test_a_priority_that_only_rabbitmq_could_refuse_is_no_matter(self, harness, journal):
        """Dramatiq sends it by Redis, which does not look at it: a native message ran."""
        body, id = written(harness, workers.echo, IDS)
        options = {"redis_message_id": id, "broker_priority": 1_000}
        harness.put(json.dumps({**json.loads(body), "options": options}).encode(), id)
        journal.wait(harness, lambda: len(journal.runs(workers.echo.name)) == 1, "the job")

    def test_a_consumer_that_stood_still_begins_nothing_that_another_has_run(
        self, harness, journal
    ):
        """It had fetched the jobs, and ran them again; Redis then kept each of them for ever.

        Nor does what follows a job come twice.
        """
        end, client = harness.folder / "end", harness.direct.client
        messages = f"{harness.queue}:{harness.queue}.msgs"
        send, options = harness.broker.get_actor(held.name).message, {"pipe_ignore": True}
        note = dramatiq.Message(harness.queue, "native.note", ("it follows",), {}, options)
        jobs = [send(**IDS, until=str(end)) for _ in range(4)]
        for job in jobs:
            dramatiq.pipeline([job, note], broker=harness.broker).run()
        journal.wait(harness, lambda: len(journal.runs(held.name)) == 2, "two to run")
        journal.wait(harness, lambda: harness.held_of(harness.queue) == 4, "all to be fetched")
        os.killpg(harness.consumer.pid, signal.SIGSTOP)
        another = harness.another("another")
        another.start()
        end.touch()
        try:
            journal.wait(harness, lambda: not client.hlen(messages), "the others")
            os.killpg(harness.consumer.pid, signal.SIGCONT)
            told = "is skipped: another consumer ran it"
            journal.wait(harness, lambda: harness.consumer.output.count(told) == 2, "the log")
        finally:
            another.stop()
        journal.wait(harness, lambda: not client.hlen(messages), "what follows")
        harness.stop()
        follow = harness.notes.read_text().count("it follows") + client.hlen(messages)
        harness.notes.write_text("")
        ran = sorted(run["job_id"] for run in journal.runs(held.name))
        assert (ran, follow) == (sorted(job.message_id for job in jobs), 4)

    def test_a_consumer_that_stood_still_sends_on_nothing_that_another_has_run(
        self, harness, journal
    ):
        """It held a delayed job, and put it into its queue once more: it ran twice."""
        delayed, client = f"{harness.queue}.DQ", harness.direct.client
        jobs = [workers.echo.new(IDS, delay=2)]
        journal.wait(harness, lambda: harness.held_of(delayed) == 1, "the consumer to hold it")
        os.killpg(harness.consumer.pid, signal.SIGSTOP)
        another = harness.another("beside")
        another.start()
        try:
            journal.wait(harness, lambda: len(journal.runs()) == 1, "the other's run")
            journal.wait(
                harness, lambda: not client.hlen(f"{harness.queue}:{delayed}.msgs"), "its end"
            )
        finally:
            another.stop()
            os.killpg(harness.consumer.pid, signal.SIGCONT)
        jobs.append(workers.echo.new(IDS, delay=2))
        journal.wait(
            harness, lambda: jobs[1].id in {run["job_id"] for run in journal.runs()}, "one more"
        )
        assert [run["job_id"] for run in journal.runs()] == [job.id for job in jobs]

    def test_one_that_stood_still_as_it_had_just_fetched_sends_on_nothing(self, harness, journal):
        """The job was due when it went on: it was sent on before the consumer looked at the time."""
        delayed, broker = f"{harness.queue}.DQ", harness.broker
        harness.stop()
        job = workers.echo.new(IDS, delay=0.1)
        waits = {"queue_name": delayed, "prefetch": 1}
        thread = _ConsumerThread(broker=broker, work_queue=None, worker_timeout=100, **waits)
        with not_hanging():
            for has_stood_still in (True, False):
                thread.consumer = broker.consume(timeout=100, **waits)
                thread.handle_message(next(filter(None, thread.consumer)))
                time.sleep(0.2)  # until it is due
                if has_stood_still:
                    thread.consumer._at -= 3_600
                    with pytest.raises(ConnectionClosed, match="stood still"):
                        thread.handle_delayed_messages()
                    assert not harness.direct.client.llen(f"{harness.queue}:{harness.queue}")
            thread.handle_delayed_messages()
        harness.start()
        journal.wait(harness, lambda: bool(journal.runs()), "its run")
        assert [run["job_id"] for run in journal.runs()] == [job.id]


class TestDramatiqOnRabbitMQ(DramatiqContract):
    harness_class, server = RabbitMQHarness, "rabbitmq"

    def test_who_consumes_dead_letters_sees_of_which_queue_they_are(self, harness):
        """By that name they are sent again: they came back among the dead letters."""
        dead = f"{harness.queue}.XQ"
        harness.direct.channel.basic_publish("", dead, written(harness, workers.echo, IDS)[0])
        consumer = harness.broker.consume(dead, timeout=60_000)
        letter = next(consumer)
        consumer.ack(letter)
        consumer.close()
        assert letter.queue_name == harness.queue

    @asks_for_a_queue
    @pytest.mark.parametrize("options", [{}, {"delay": 3600}])
    @pytest.mark.parametrize("confirm", [False, True])
    def test_a_queue_that_somebody_deleted_is_made_anew(self, harness, confirm, options):
        """RabbitMQ drops what no queue takes, and by default Dramatiq does not ask about it."""
        queue, channel = f"{harness.queue}-deleted", harness.direct.channel
        broker = RabbitmqBroker(url=harness.server.rstrip("/"), confirm_delivery=confirm)
        broker.enqueue(dramatiq.Message(queue, "native.note", (), {}, {}))  # it is connected
        try:
            with configure(backend=DramatiqBackend(broker, queue=queue)):
                for end in ("", ".DQ"):
                    channel.queue_delete(queue + end)
                workers.echo.new(IDS, **options)
            assert sum(harness.direct.get_queue_message_counts(queue)) == 1
        finally:
            for end in ("", ".DQ", ".XQ"):
                channel.queue_delete(queue + end)
            broker.close()

    def test_a_job_is_sent_once_to_a_rabbitmq_in_an_alarm(self, harness):
        """Dramatiq sends six times where it has a limit to wait, and each arrives after the alarm."""
        queue = f"{harness.queue}-alarm"
        with in_alarm(harness, queue) as broker:
            with configure(backend=DramatiqBackend(broker, queue=queue)):
                with pytest.raises(EnqueueError, match="may have been sent") as caught:
                    workers.echo.new(IDS)
            there, _, letter = harness.direct.channel.basic_get(queue, auto_ack=True)
            assert (0, caught.value.unsure) == (
                there.message_count,
                (dramatiq.Message.decode(letter).message_id,),
            )

    def test_a_job_that_rabbitmq_could_not_confirm_may_have_been_sent(self, harness):
        """Dramatiq tries again until nothing answers, and tells only of its last try."""
        queue = f"{harness.queue}-lost"
        with unconfirmed(harness, queue) as (proxy, broker), ThreadPoolExecutor() as thread:
            with configure(backend=DramatiqBackend(broker, queue=queue)):
                sending = thread.submit(workers.echo.new, IDS)
                assert proxy.arrived.wait(harness.patience)
                proxy.cut()
                with pytest.raises(EnqueueError, match="may have been sent") as caught:
                    sending.result(harness.patience)
            _, _, letter = harness.direct.channel.basic_get(queue, auto_ack=True)
            assert caught.value.unsure == (dramatiq.Message.decode(letter).message_id,)

    def test_a_native_message_after_a_refused_job_is_sent_as_dramatiq_does(
        self, harness, monkeypatch
    ):
        """That a middleware refused the job leaves nothing of what was set for it alone."""
        monkeypatch.setattr(rabbitmq, "MAX_ENQUEUE_ATTEMPTS", 2)
        queue = f"{harness.queue}-refused"
        with in_alarm(harness, queue) as broker:
            with configure(backend=DramatiqBackend(broker, queue=queue)):
                broker.add_middleware(RefusingJobs())
                with pytest.raises(EnqueueError, match="refused"):
                    workers.echo.new(IDS)
                native = dramatiq.actor(print, actor_name="native", queue_name=queue, broker=broker)
                with pytest.raises(ConnectionClosed):
                    native.send()
            there, _, _ = harness.direct.channel.basic_get(queue, auto_ack=True)
            assert 1 == there.message_count

    def test_a_queue_s_name_that_rabbitmq_does_not_hold_is_refused(self, harness):
        """With what is added to it, for the notes of the jobs that run."""
        with pytest.raises(
            InvalidOptionError, match="has at most 246 bytes of UTF-8 here, not 247"
        ):
            workers.echo.new(IDS, queue="q" * 247)
        with pytest.raises(InvalidOptionError, match="begin with amq., which RabbitMQ keeps"):
            workers.echo.new(IDS, queue="amq.mail")

    @asks_for_a_queue
    def test_a_job_runs_whose_queue_somebody_deleted(self, harness, journal):
        """The consumer listens to the queue that is made anew."""
        for each in ("", ".DQ"):
            harness.direct.channel.queue_delete(harness.queue + each)
            self._run(harness, journal, workers.echo, IDS)
            self._run(harness, journal, workers.echo, IDS, delay=1)

    def test_a_job_that_was_due_before_its_consumer_was_killed_runs_once(self, harness, journal):
        """Dramatiq acknowledged what was due at one time when all of it was in its queue."""
        due, until = datetime.now(UTC) + timedelta(seconds=1), harness.folder / "until"
        first = workers.echo.new(IDS, run_at=due)
        args = {**IDS, "until": str(until)}
        # Dramatiq orders them by the millisecond. It seldom looks just between the two.
        kills = kills_as_it_is_due.new(args, run_at=due + timedelta(milliseconds=2))
        # That the consumer gets these shows that RabbitMQ was told of the end of the first run.
        for number in range(1, 10):
            journal.wait(harness, lambda n=number: len(journal.runs()) == n, "the one before")
            workers.echo.new(IDS)
        journal.wait(harness, until.with_name("held").exists, "the second to be due")
        until.touch()
        journal.wait(harness, lambda: not harness.alive, "the consumer to be killed")
        harness.start()
        journal.wait(harness, lambda: bool(journal.runs(kills.worker)), "the last job")
        self._run(harness, journal, workers.echo, IDS)
        assert [run["job_id"] for run in journal.runs()].count(first.id) == 1

    def test_a_producer_that_forks_sends_from_both_processes(self, harness):
        """Parent and child do not read each other's answers."""
        queue, channel = f"{harness.queue}-forks", harness.direct.channel
        program = [sys.executable, str(HERE / "prefork.py"), "dramatiq", harness.server]
        try:
            env = {**os.environ, "SIGRA_TEST_QUEUE": queue}
            subprocess.run(program, env=env, check=True, timeout=harness.patience)
            delayed = channel.queue_declare(f"{queue}.DQ", passive=True)
            assert delayed.method.message_count == 4 * prefork.EACH
        finally:
            delete(channel, queue, f"{queue}-other")


class RefusingJobs(Middleware):
    def before_enqueue(self, broker, message, delay):
        if message.actor_name == workers.echo.name:
            raise MiddlewareError("refused")


@contextmanager
def in_alarm(harness, queue):
    """Give a broker that waits one second for a RabbitMQ in an alarm; delete its queue after."""
    blocked = b"\x01\x00\x00\x00\x00\x00\x05\x00\x0a\x00\x3c\x00\xce"
    with unconfirmed(harness, queue, blocked, "?blocked_connection_timeout=1") as (_, broker):
        yield broker


@contextmanager
def unconfirmed(harness, queue, blocked=b"", options=""):
    """Give a proxy and a broker whose RabbitMQ confirms no message; delete its queue after."""
    proxy = Unconfirmed(harness.server, blocked)
    broker = RabbitmqBroker(url=f"{proxy.url.rstrip('/')}/{options}")
    try:
        yield proxy, broker
    finally:
        proxy.close()
        broker.close()
        for end in ("", ".DQ", ".XQ"):
            harness.direct.channel.queue_delete(queue + end)


class Unconfirmed(Proxy):
    """Pass all on, and hold back what confirms a message.

    ``blocked``: what to say once the broker has selected confirmations.
    """

    def __init__(self, url, blocked):
        self.blocked, self.arrived = blocked, threading.Event()
        super().__init__(url)

    def _pump(self, source, target):
        selected, ack = b"\x00\x55\x00\x0b", b"\x00\x3c\x00\x50"  # the methods' numbers
        try:
            while data := source.recv(65536):
                if ack in data:
                    self.arrived.set()
                else:
                    target.sendall(data + self.blocked * (selected in data))
        except OSError:
            pass  # one end is gone: so is the other
        source.close()
        target.close()


def send_two_delayed(broker, queue, ran):
    """Send an actor of the application's own two messages for later: it notes their numbers."""
    DramatiqBackend(broker, queue=queue)

    @dramatiq.actor(queue_name=queue, broker=broker)
    def note(number):
        ran.append(number)

    for number in range(2):
        note.send_with_options(args=(number,), delay=4000)


@pytest.mark.parametrize(
    ("meanwhile", "own"),
    [
        ("a pause", ()),
        ("a broken connection", ()),
        ("a broken connection", (CurrentMessage(),)),
        ("a stall", ()),
    ],
)
def test_a_delayed_message_that_a_consumer_holds_runs_once(redis, meanwhile, own):
    """A stall, for longer than the client waits, ended the thread that holds them.

    ``own``: middleware that the application has added before, which hid such jobs.
    """
    proxy, queue, ran = Proxy(redis), f"sigra-{uuid.uuid4().hex[:10]}", []
    patience = 1 if meanwhile == "a stall" else 60
    once = Retry(NoBackoff(), 0)
    client = redis_client.Redis.from_url(proxy.url, socket_timeout=patience, retry=once)
    broker = RedisBroker(client=client, namespace=queue)
    for middleware in own:
        broker.add_middleware(middleware)
    send_two_delayed(broker, queue, ran)
    worker = dramatiq.Worker(broker, worker_threads=1)
    worker.start()
    held = f"{queue}:__acks__.{broker.broker_id}.{queue}.DQ"
    with redis_client.Redis.from_url(redis) as direct:
        wait_until(lambda: direct.scard(held) == 2)
        match meanwhile:
            case "a pause":
                worker.pause()
                worker.resume()
            case "a broken connection":
                proxy.cut()
                time.sleep(0.5)
                proxy.restore()
            case "a stall":
                with proxy.held():
                    time.sleep(3)
        wait_until(lambda: len(ran) >= 2)
        wait_until(lambda: direct.scard(held) == 0)
    worker.stop()
    broker.client.connection_pool.disconnect()
    proxy.close()
    assert sorted(ran) == [0, 1]


def test_a_consumer_that_only_waits_for_messages_has_not_stood_still(redis):
    """Where Dramatiq waits for long between two looks, it was ended and begun anew after each."""
    queue = f"sigra-{uuid.uuid4().hex[:10]}"
    broker = RedisBroker(url=redis, namespace=queue, heartbeat_timeout=1000)
    DramatiqBackend(broker, queue=queue)
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=2000)
    worker.start()
    waits = worker.consumers[f"{queue}.DQ"]
    try:
        wait_until(lambda: waits.consumer and waits.consumer.misses > 11)
    finally:
        worker.stop()
        broker.client.connection_pool.disconnect()


def test_a_consumer_remembers_no_delayed_message_that_has_run(rabbitmq):
    """Its books would grow by one for each, for as long as it lives."""
    queue, ran = f"sigra-{uuid.uuid4().hex[:10]}", []
    broker = RabbitmqBroker(url=rabbitmq.rstrip("/"))
    send_two_delayed(broker, queue, ran)
    worker = dramatiq.Worker(broker, worker_threads=1)
    worker.start()
    try:
        wait_until(lambda: all(each.consumer for each in worker.consumers.values()))
        held = [each.consumer.known_tags for each in worker.consumers.values()]
        wait_until(lambda: len(ran) == 2)
        wait_until(lambda: not any(held))
    finally:
        worker.stop()
        delete(broker.channel, queue)
        broker.close()


def test_a_job_whose_thread_loses_its_connection_leaves_no_note_of_its_begin(rabbitmq, caplog):
    """RabbitMQ closes it in a long job, which sends nothing by it."""
    queue, ran = f"sigra-{uuid.uuid4().hex[:10]}", []
    broker = RabbitmqBroker(url=rabbitmq.rstrip("/"))

    @tenant_worker(name="tests.dramatiq.takes_long", backend=DramatiqBackend(broker, queue=queue))
    def takes_long(scope):
        broker.connection.close()
        ran.append(scope)

    takes_long.new(IDS)
    worker = dramatiq.Worker(broker, worker_threads=1)
    worker.start()
    try:
        wait_until(lambda: ran)
    finally:
        worker.stop()
        delete(broker.channel, queue)
        broker.close()
    assert "start note" not in caplog.text


def test_a_second_worker_of_a_broker_leaves_the_first_what_that_holds(redis):
    """By Redis's books both hold it: it was fetched anew, and ran twice."""
    queue, ran = f"sigra-{uuid.uuid4().hex[:10]}", []
    broker = RedisBroker(url=redis, namespace=queue)
    send_two_delayed(broker, queue, ran)
    both = [dramatiq.Worker(broker, worker_threads=1) for _ in range(2)]
    both[0].start()
    wait_until(lambda: broker.client.scard(f"{queue}:__acks__.{broker.broker_id}.{queue}.DQ") == 2)
    both[1].start()
    wait_until(lambda: len(ran) >= 2)
    broker.join(queue)
    for worker in both:
        worker.stop()
    broker.client.connection_pool.disconnect()
    assert sorted(ran) == [0, 1]


def test_a_second_worker_of_a_broker_leaves_the_first_what_that_has_only_fetched(redis):
    """It was not looked at yet, and the second one fetched it anew: it ran twice."""
    queue, ran, looked = f"sigra-{uuid.uuid4().hex[:10]}", [], threading.Event()

    class Consumer(_RedisConsumer):
        def __next__(self):
            if self.message_cache:
                looked.wait(60)
            return super().__next__()

    class Broker(RedisBroker):
        consumer_class = Consumer

    broker = Broker(url=redis, namespace=queue)
    send_two_delayed(broker, queue, ran)
    both = [dramatiq.Worker(broker, worker_threads=1) for _ in range(2)]
    both[0].start()
    fetching = both[0].consumers[f"{queue}.DQ"]
    wait_until(lambda: fetching.consumer and fetching.consumer.message_cache)
    both[1].start()
    beside = both[1].consumers[f"{queue}.DQ"]
    wait_until(lambda: beside.consumer)
    looked.set()
    wait_until(lambda: len(ran) >= 2)
    broker.join(queue)
    broker.join(f"{queue}.DQ")
    for worker in both:
        worker.stop()
    broker.client.connection_pool.disconnect()
    assert sorted(ran) == [0, 1]


def test_a_second_worker_of_a_broker_leaves_the_first_what_that_is_just_sending_on(redis):
    """It holds a delayed message no more then, and by Redis's books still does for a moment."""
    queue, ran, looks = f"sigra-{uuid.uuid4().hex[:10]}", [], []
    due, looked, done = threading.Event(), threading.Event(), threading.Event()

    class Client(redis_client.Redis):
        def smembers(self, name):
            if due.is_set():
                looks.append(name)
            if len(looks) == 2:
                looked.set()
                done.wait(60)
            return super().smembers(name)

    class Broker(RedisBroker):
        def consume(self, queue_name, *args, **options):
            if due.is_set() and queue_name.endswith(".DQ"):  # what was lost is given back
                looked.set()
            return super().consume(queue_name, *args, **options)

    class Moment(dramatiq.Middleware):
        def before_enqueue(self, broker, message, delay):
            if delay is None:
                due.set()
                looked.wait(60)

        def after_ack(self, broker, message):
            done.set()

    broker = Broker(client=Client.from_url(redis), namespace=queue)
    broker.add_middleware(Moment())
    DramatiqBackend(broker, queue=queue)

    @dramatiq.actor(queue_name=queue, broker=broker)
    def note():
        ran.append(None)

    both = [dramatiq.Worker(broker, worker_threads=1) for _ in range(2)]
    note.send_with_options(delay=1000)
    both[0].start()
    due.wait(60)
    both[1].start()
    wait_until(lambda: ran)
    broker.join(queue)
    broker.join(f"{queue}.DQ")
    for worker in both:
        worker.stop()
    broker.client.connection_pool.disconnect()
    assert len(ran) == 1


class Kept(StubBackend):
    """A result backend that tells what was stored."""

    def __init__(self, stored):
        super().__init__()
        self._stored = stored

    def store_result(self, *_):
        self._stored()


@pytest.mark.parametrize("how", ["pipeline", "group", "on_success", "store_results"])
def test_what_follows_a_job_comes_once_and_when_it_has_ended(redis, audit_log, how):
    """Not after each run: Dramatiq took a run that is to be followed by another for the last."""
    queue, runs = f"sigra-{uuid.uuid4().hex[:10]}", []
    broker = RedisBroker(url=redis, namespace=queue)
    broker.add_middleware(Results(backend=Kept(lambda: runs.append(len(audit_log)))))
    broker.add_middleware(dramatiq.middleware.GroupCallbacks(Limits()))
    with configure(backend=DramatiqBackend(broker, queue=queue), audit_schema=AuditEvent):

        @dramatiq.actor(queue_name=queue, broker=broker)
        def follows(*_):
            runs.append(len(audit_log))

        job = broker.get_actor(goes_on.name).message(**IDS)
        match how:
            case "pipeline":
                dramatiq.pipeline([job, follows.message()], broker=broker).run()
            case "group":
                group = dramatiq.group([job], broker=broker)
                group.add_completion_callback(follows.message())
                group.run()
            case "on_success":
                broker.enqueue(job.copy(options={how: "follows"}))
            case "store_results":
                broker.enqueue(job.copy(options={how: True}))
        worker = dramatiq.Worker(broker, worker_threads=2)
        worker.start()
        wait_until(lambda: runs)
        broker.join(queue)
        worker.stop()
    broker.client.connection_pool.disconnect()
    assert runs == [3]


def test_no_job_is_due_before_its_time(redis):
    """Dramatiq counts whole milliseconds, and a job of midnight could begin on the day before."""
    queue = f"sigra-{uuid.uuid4().hex[:10]}"
    broker = RedisBroker(url=redis, namespace=queue)
    now = datetime.now(UTC)
    times = [now + timedelta(hours=1, microseconds=137 * number) for number in range(20)]
    with configure(backend=DramatiqBackend(broker, queue=queue)):
        due = {workers.echo.new(IDS, run_at=at).id: at.timestamp() * 1000 for at in times}
    messages = map(dramatiq.Message.decode, broker.client.hvals(f"{queue}:{queue}.DQ.msgs"))
    late = [message.options["eta"] - due[message.message_id] for message in messages]
    broker.client.connection_pool.disconnect()
    assert (20, True) == (len(late), min(late) >= 0)


def test_retries_that_are_added_after_the_backend_repeat_no_job(redis, journal):
    """Dramatiq's own are not used, whatever the order of the middleware is."""
    queue = f"sigra-{uuid.uuid4().hex[:10]}"
    broker = RedisBroker(url=redis, namespace=queue, middleware=[])
    with configure(backend=DramatiqBackend(broker, queue=queue)):
        broker.add_middleware(dramatiq.middleware.Retries(max_retries=1, min_backoff=1))
        workers.ends.new({**IDS, "how": "raise"})
        worker = dramatiq.Worker(broker, worker_threads=1)
        worker.start()
        broker.join(queue, timeout=120_000)
        worker.stop()
    broker.client.connection_pool.disconnect()
    assert len(journal.runs()) == 1


@pytest.mark.parametrize("server", ["redis", "rabbitmq"])
def test_a_job_that_is_cut_off_after_its_body_comes_again(request, monkeypatch, tmp_path, server):
    """Here as a sink writes its events: it was a dead letter, with an attempt left."""
    monkeypatch.setenv("SIGRA_CONTRACT_RECORD", str(tmp_path / "record"))
    queue, cut, written = f"sigra-{uuid.uuid4().hex[:10]}", [], []
    broker = make_broker(request.getfixturevalue(server), queue)
    request.addfinalizer(broker.close)
    if server == "rabbitmq":
        request.addfinalizer(lambda: delete(broker.channel, queue, f"{queue}-other"))
        # One thread of an older Dramatiq's consumer may else listen before another has made the
        # queue, and then leaves its connection open, of which a later test would tell.
        broker.declare_queue(f"{queue}-other", ensure=True)
    else:
        request.addfinalizer(broker.client.connection_pool.disconnect)
    interrupt = dramatiq.middleware.raise_thread_exception

    class Sink:
        def write(self, event, record):
            written.append(event)

        def flush(self):
            if not cut:
                cut.append(threading.Timer(0.5, interrupt, (threading.get_ident(), Interrupt)))
                cut[0].start()
                for _ in range(1000):
                    time.sleep(0.02)

        def close(self):
            pass

    with configure(
        backend=DramatiqBackend(broker, queue=queue), sinks=[Sink()], audit_schema=AuditEvent
    ):
        workers.waits.new({**IDS, "seconds": 0}, max_attempts=2)
        worker = dramatiq.Worker(broker, worker_threads=1)
        worker.start()
        wait_until(lambda: len(written) >= 6)
        worker.stop()
    ids = [event.event_id for event in written]
    assert [event.attempt for event in written] == [1] * 6
    assert ids == ids[:3] * 2


def wait_until(there):
    deadline = time.monotonic() + 60
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_message_that_is_refused_as_redis_goes_away_has_the_consumer_connect_anew():
    """Another error than Dramatiq's own ended the thread that consumes the queue."""
    broker = RedisBroker(url="redis://127.0.0.1:1")
    message = dramatiq.Message("q", "queues.echo", (), None, {"redis_message_id": "1"})
    with pytest.raises(ConnectionClosed):
        next(Received(broker, "q", iter([message])))


def test_pickle_is_refused():
    """The error names the encoder to set."""
    dramatiq.set_encoder(dramatiq.PickleEncoder())
    try:
        with pytest.raises(ValueError, match=r"set_encoder\(dramatiq.JSONEncoder\(\)\)"):
            DramatiqBackend(RedisBroker())
    finally:
        dramatiq.set_encoder(dramatiq.JSONEncoder())


def test_jsonpickle_is_refused():
    """It writes JSON, and makes any object of it; a job's args it wrote and could not read."""

    class JSONPickle(dramatiq.JSONEncoder):
        def encode(self, data):
            return super().encode(as_jsonpickle(data))

    dramatiq.set_encoder(JSONPickle())
    try:
        with pytest.raises(ValueError, match=r"set_encoder\(dramatiq.JSONEncoder\(\)\)"):
            DramatiqBackend(RedisBroker())
    finally:
        dramatiq.set_encoder(dramatiq.JSONEncoder())


def test_a_middleware_that_names_actors_by_their_functions_leaves_workers_their_names():
    """All workers have one function there, and no job of theirs could be sent."""

    class ByFunction(Middleware):
        def before_declare_actor(self, broker, actor):
            actor.actor_name = f"{actor.fn.__module__}.{actor.fn.__name__}"

    broker = StubBroker(middleware=[ByFunction()])
    DramatiqBackend(broker)
    dramatiq.actor(print, broker=broker)
    assert {workers.echo.name, workers.waits.name, "builtins.print"} <= {*broker.actors}
    assert broker.actors[workers.echo.name].actor_name == workers.echo.name


def test_objects_that_an_encoder_of_the_application_s_own_makes_are_no_fault(redis):
    """Each message was a dead letter, where they were of a class that is derived from dict."""

    class Own(dramatiq.JSONEncoder):
        def decode(self, data):
            return json.loads(data, object_pairs_hook=OrderedDict)

    queue = f"sigra-{uuid.uuid4().hex[:10]}"
    dramatiq.set_encoder(Own())
    try:
        broker = RedisBroker(url=redis, namespace=queue)
        DramatiqBackend(broker)
        broker.enqueue(dramatiq.Message(queue, "native.note", (), {"text": "hello"}, {}))
        read = next(broker.consume(queue))
        broker.flush(queue)
        broker.client.connection_pool.disconnect()
    finally:
        dramatiq.set_encoder(dramatiq.JSONEncoder())
    assert read.kwargs == {"text": "hello"}


def test_workers_run_on_the_broker_that_dramatiq_has_for_tests(journal):
    """An app's tests that have it can keep it, also those of jobs that are due later."""
    broker = StubBroker()
    consumer = dramatiq.Worker(broker, worker_timeout=100)
    with configure(backend=DramatiqBackend(broker)):
        consumer.start()
        try:
            workers.echo.new(IDS)
            workers.echo.new(IDS, delay=0.1)
            broker.join("default", timeout=120_000)
        finally:
            consumer.stop()
    assert [run["worker"] for run in journal.runs()] == [workers.echo.name] * 2


def test_a_direct_call_of_a_worker_s_actor_is_refused():
    """A native actor's message was taken for a job: it failed, or was sent again with its kwargs."""
    broker, said = StubBroker(), list[str]()
    consumer = dramatiq.Worker(broker, worker_timeout=100)

    def call():
        try:
            broker.get_actor(calls_itself.name)(**IDS, calls=False)
        except TypeError as error:
            said.append(str(error).partition(":")[0])

    @tenant_worker(name="queues.calls_itself")
    def calls_itself(scope, calls=True):
        if calls:
            call()

    native = dramatiq.actor(call, broker=broker)
    with configure(backend=DramatiqBackend(broker)):
        consumer.start()
        try:
            native.send()
            calls_itself.new(IDS)
            broker.join("default", timeout=120_000)
        finally:
            consumer.stop()
    call()
    assert said == ["a direct call runs no job of queues.calls_itself"] * 3


@pytest.mark.programs
@pytest.mark.parametrize(
    ("imports", "warns"), [((), True), (("sigra.testing.contract_workers",), False)]
)
def test_a_consumer_that_starts_without_a_worker_says_so(imports, warns):
    """Somebody forgot to name their modules: nothing else tells that it takes no job."""
    program = """
    import dramatiq
    from dramatiq.brokers.stub import StubBroker
    from sigra.backends.dramatiq import DramatiqBackend
    broker = StubBroker()
    DramatiqBackend(broker)
    worker = dramatiq.Worker(broker)
    worker.start()
    worker.stop()
    """
    assert warns == told_at_start(program, *imports)


def test_an_actor_that_has_a_workers_name_is_refused():
    """A native actor is not replaced."""
    broker = RedisBroker()
    dramatiq.actor(print, actor_name=workers.echo.name, broker=broker)
    with pytest.raises(ValueError, match=r"sigra.contract.echo.* already registered"):
        DramatiqBackend(broker)


@pytest.mark.parametrize("broker", [RedisBroker(port=1), RabbitmqBroker(port=1)])
def test_a_broker_that_is_down_is_an_enqueue_error(broker):
    """It comes in bounded time, and is chained to the broker's own error."""
    with (
        not_hanging(),
        configure(backend=DramatiqBackend(broker)),
        pytest.raises(EnqueueError) as caught,
    ):
        workers.echo.new_many([IDS, IDS])
    assert caught.value.__cause__ is not None


@pytest.mark.filterwarnings("default")  # of what other tests left
def test_a_broker_that_nobody_uses_any_more_is_let_go(rabbitmq):
    """A suite that makes one for each test does not keep them all, with their connections."""
    queue = f"sigra-{uuid.uuid4().hex[:10]}"

    def make():
        broker = RabbitmqBroker(url=rabbitmq.rstrip("/"))
        with configure(backend=DramatiqBackend(broker, queue=queue)):
            workers.echo.new(IDS)
        delete(broker.channel, queue)
        broker.close()
        return broker

    assert is_let_go(make)
