"""huey keeps the contract in real consumers: on Redis, on SQLite, and on the default file."""

from __future__ import annotations

import pickle
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from older_release import older_pack
from queue_contract import QueueContract
from queue_harness import QueueHarness, as_jsonpickle, is_let_go
from servers import bundled_redis, need

need("huey")

import consumer_side  # noqa: E402
import huey_app  # noqa: E402
from huey import MemoryHuey, RedisHuey, SqliteHuey, chord  # noqa: E402
from huey.constants import EmptyData  # noqa: E402
from huey.exceptions import (  # noqa: E402
    CancelExecution,
    RateLimitExceeded,
    RetryTask,
    TaskLockedException,
)
from huey.registry import Message  # noqa: E402
from redis.exceptions import ResponseError  # noqa: E402

from sigra import (  # noqa: E402
    EnqueueError,
    Failure,
    InvalidOptionError,
    Signing,
    Snooze,
    configure,
    current_job,
    tenant_worker,
)
from sigra.backends.huey import HueyBackend, JSONSerializer  # noqa: E402
from sigra.backends.huey_run import task_of  # noqa: E402
from sigra.testing import contract_workers as workers  # noqa: E402
from sigra.testing.contract_case import IDS  # noqa: E402


class HueyHarness(QueueHarness):
    command = "huey_consumer huey_app.huey --graceful-signal TERM --workers 2 -m 0.2".split()
    ready = "Huey consumer started"

    def __init__(self, server: str, folder: Path) -> None:
        super().__init__(server, folder)
        self.backend = HueyBackend(huey_app.make_huey(self.url, self.queue))
        self.huey = self.backend.huey
        self.send_note = self.huey.task()(consumer_side.note)
        self.fails = self.huey.task(retries=1)(huey_app.fails)

    def send(self, name: str, payload: Mapping[str, Any]) -> str:
        task = task_of(self.backend.huey, name)(kwargs=dict(payload))
        self.huey.enqueue(task)
        return task.id

    def name_of(self, native_id: str) -> str | None:
        found = re.search(rf"Executing (\S+): {native_id}", self.consumer.output)
        return found and found[1]

    def failed(self, native_id: str) -> str | None:
        error = self.huey.storage.peek_data(native_id)
        if error is EmptyData:
            return None
        return self.huey.serializer.deserialize(error).metadata["traceback"]

    def kept(self, native_id: str) -> bool:
        waiting = {task.id for task in (*self.huey.pending(), *self.huey.scheduled())}
        return native_id in waiting or self.failed(native_id) is not None

    def remove(self) -> None:
        self.huey.flush()
        self.huey.storage.close()
        if self.proxy:  # on Redis huey leaves its connections open
            self.huey.storage.conn.connection_pool.disconnect()


class SqliteHarness(HueyHarness):
    def __init__(self, server: str, folder: Path) -> None:
        super().__init__(f"{server}/huey.db", folder)


class FileHarness(HueyHarness):
    """The backend that is made without arguments."""

    def __init__(self, server: str, folder: Path) -> None:
        self.file = f"{server}/jobs.db"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SIGRA_HUEY_FILE", self.file)
            super().__init__("", folder)

    def env(self) -> dict[str, str]:
        return {**super().env(), "SIGRA_HUEY_FILE": self.file}


class HueyContract(QueueContract):
    """What is huey's own, wherever it stores its tasks."""

    def test_args_by_position_are_refused(self, harness, journal):
        """A worker takes args by name: huey and the log are told why the job failed."""
        task = task_of(harness.backend.huey, "sigra.contract.echo")(("acme", "ann"))
        harness.huey.enqueue(task)
        journal.wait(harness, lambda: bool(harness.failed(task.id)), "the error")
        assert "by position, but a worker takes them by name" in harness.failed(task.id)
        assert f"job {task.id} of sigra.contract.echo was refused" in harness.consumer.output

    def test_a_cancelled_job_leaves_an_error(self, harness, journal):
        """huey has no state of that name: its stored result says it."""
        job = workers.ends.new({**IDS, "how": "cancel"}, max_attempts=3)
        journal.wait(harness, lambda: bool(harness.failed(job.id)), "the error")
        assert "was cancelled: said so" in harness.failed(job.id)

    def test_a_native_task_s_error_reaches_its_handler_and_its_retry_comes(self, harness, journal):
        """huey hands the handler the exception itself, which is no JSON: it arrives as a text."""
        harness.huey.enqueue(harness.fails.s("gone").error(harness.send_note))
        twice = "LookupError('gone')\n" * 2
        journal.wait(harness, lambda: harness.notes.read_text() == twice, "both errors")

    def test_a_chord_of_native_tasks_ends_though_one_failed_and_one_was_revoked(
        self, harness, journal
    ):
        """Its callback is told of the error, and that the other was skipped."""
        revoked = harness.send_note.s("unseen")
        harness.huey.revoke_by_id(revoked.id)
        harness.huey.enqueue(chord([harness.fails.s("gone"), revoked], harness.send_note.s()))
        journal.wait(harness, lambda: "SKIPPED" in harness.notes.read_text(), "the callback")
        assert "LookupError('gone')" in harness.notes.read_text()
        assert "unseen" not in harness.notes.read_text()

    def test_the_id_is_hueys_own(self, harness, journal):
        """What Sigra calls a job, huey's log calls it too."""
        job, _ = self._run(harness, journal, workers.echo, IDS)
        assert job.native_id == job.id
        assert f"Executing sigra.contract.echo: {job.id}" in harness.consumer.output


class TestHueyOnRedis(HueyContract):
    harness_class, server = HueyHarness, "redis"

    def test_a_server_that_stalls_loses_no_job_that_falls_due(self, harness, journal):
        """huey's client waits for what it took, and does not take again in its place."""
        # Its scheduler has a connection then, whose first words are not what is held.
        self._run(harness, journal, workers.agnostic, {}, delay=1)
        kind, long_ago = task_of(harness.backend.huey, workers.echo.name), datetime.fromtimestamp(0)
        tasks = [kind(kwargs=IDS, eta=long_ago) for _ in range(2)]
        storage = huey_app.make_huey(harness.server, harness.queue).storage  # not by the proxy
        with harness.proxy.held():
            for task in tasks:
                storage.add_to_schedule(harness.huey.serialize_task(task), long_ago)
            time.sleep(8)  # the client's own patience is 5 seconds
        storage.conn.connection_pool.disconnect()
        journal.wait(harness, lambda: len(journal.runs(kind.worker)) >= 2, "the delayed jobs")
        assert {run["job_id"] for run in journal.runs(kind.worker)} == {task.id for task in tasks}

    def test_a_redis_that_gives_no_answer_may_have_a_job(self, harness):
        """The error names it."""
        url = f"{harness.url}?socket_timeout=2"
        huey = RedisHuey("no answer", url=url, serializer=JSONSerializer())
        with configure(backend=HueyBackend(huey)):
            before = producer.new(IDS)  # from now on it is connected
            with harness.proxy.held(), pytest.raises(EnqueueError) as caught:
                producer.new_many([IDS] * 2)
        (unsure,) = caught.value.unsure
        assert f"Job {unsure} may have been sent" in str(caught.value) and unsure != before.id
        huey.flush()
        huey.storage.conn.connection_pool.disconnect()  # which huey's own close() leaves

    @pytest.mark.parametrize("kind", ["thread", "greenlet"])
    def test_async_workers_run_side_by_side(self, harness, journal, tmp_path, kind):
        """All greenlets of a process have one thread: where one waited, each other one failed unrun.

        Threads have a loop each: no loop waits for another's turn, whatever that does.
        """
        harness.stop()
        green = {"SIGRA_TEST_GREENLETS": "1"} if kind == "greenlet" else {}
        consumer = harness.another(kind, "--worker-type", kind, **green)
        consumer.start()
        try:
            own, other = str(tmp_path / "own"), str(tmp_path / "other")
            both = [{"own": own, "other": other}, {"own": other, "other": own}]
            blocks = kind == "thread"
            huey_app.meets.new_many([{**IDS, **each, "blocks": blocks} for each in both])
            journal.wait(harness, lambda: len(journal.runs(huey_app.meets.name)) == 2, "both")
            assert consumer.stop() == 0
        finally:
            consumer.kill()


class TestHueyOnSqlite(HueyContract):
    harness_class, server = SqliteHarness, "folder"


class TestHueyOnTheDefaultFile(HueyContract):
    harness_class, server = FileHarness, "folder"

    def test_a_rolling_deploy_loses_nothing(self, harness, journal):
        """The file has one consumer at a time: what the older one cannot read waits for the newer."""
        harness.stop()
        older = harness.another("older", SIGRA_TEST_OLDER="1")
        older.start()
        jobs = workers.echo.new_many([IDS] * 10)
        sent = [{**older_pack(job), "id": f"older-{job.id}"} for job in jobs]
        for payload in sent:
            harness.send(workers.echo.name, payload)
        journal.wait(harness, lambda: len(journal.runs()) == 10, "the older jobs")
        assert {run["job_id"] for run in journal.runs()} == {payload["id"] for payload in sent}
        assert "waits: unreadable job envelope: version" in older.output
        assert older.stop() == 0
        harness.start()
        journal.wait(harness, lambda: len(journal.runs()) == 20, "all jobs")
        assert {run["job_id"] for run in journal.runs()[10:]} == {job.id for job in jobs}

    def test_a_second_consumer_waits_and_says_why(self, harness, journal):
        """It takes over the file when the first one dies."""
        second = harness.another("second")
        second.start()
        journal.wait(harness, lambda: "already has a consumer" in second.output, "the log")
        harness.kill()
        self._run(harness, journal, workers.echo, IDS)  # by the second, which took over
        assert second.stop() == 0

    def test_it_declares_that_no_job_is_lost(self, harness):
        """The suite then kills its consumers again and again, and looks for every job."""
        assert "at_most_once" not in harness.backend.capabilities
        assert "at_least_once" in harness.backend.capabilities


FORKING = """
import os, signal, threading
from sigra import configure
from sigra.backends.huey import HueyBackend
from sigra.testing.contract_workers import echo
from sigra.testing.contract_case import IDS

backend = HueyBackend()
configure(backend=backend)
writing, forking = threading.Event(), threading.Event()
os.register_at_fork(before=forking.set)

def write():
    with backend.huey.storage.transaction():
        echo.new(IDS)
        writing.set()
        forking.wait()

writer = threading.Thread(target=write)
writer.start()
writing.wait()
closed, close = os.pipe()
child = os.fork()
if not child:
    signal.alarm(60)
    os.read(closed, 1)
    echo.new(IDS)
    os._exit(0)
writer.join()
backend.huey.storage.close()
os.write(close, b"x")
assert os.waitpid(child, 0)[1] == 0
echo.new(IDS)
"""


def test_a_producer_that_forks_while_a_thread_writes_loses_no_job_of_either_process(file_backend):
    """The child's job was lost where the parent closed the file after the fork."""
    program = [sys.executable, "-W", "ignore", "-c", FORKING]
    subprocess.run(program, check=True)
    assert file_backend.huey.pending_count() == 3


@tenant_worker(name="sigra.tests.huey.producer")
def producer(scope):
    raise AssertionError("nothing consumes here")


@pytest.fixture
def another_backend(tmp_path: Path, monkeypatch: Any) -> Iterator[Callable[[], HueyBackend]]:
    """Give what makes a default backend, as one more process would; close the file of each."""
    monkeypatch.setenv("SIGRA_HUEY_FILE", str(tmp_path / "jobs.db"))
    with ExitStack() as at_the_end:

        def make() -> HueyBackend:
            backend = HueyBackend()
            at_the_end.callback(backend.huey.storage.close)
            at_the_end.callback(lambda: die(backend))
            return backend

        yield make


def die(backend: HueyBackend) -> None:
    """Let go of the file's lock, as the system does for a consumer that dies."""
    if (claimed := backend.huey.storage._claimed) is not None:
        claimed.close()


@pytest.fixture
def file_backend(another_backend: Callable[[], HueyBackend]) -> Iterator[HueyBackend]:
    """Give the default backend, on a file that nothing consumes."""
    backend = another_backend()
    with configure(backend=backend, backends={}):
        yield backend


SIGNING = Signing(keys={"a": b"k" * 32}, current="a", application="tests")


@tenant_worker(name="sigra.tests.huey.signed", max_attempts=3, backoff=0)
def signed(scope):
    attempts.append(current_job().attempt)
    raise LookupError


attempts: list[int] = []


def test_a_count_of_deliveries_breaks_no_signature(file_backend, another_backend):
    """The file counts them in the envelope, and has no key: of three attempts one died."""
    attempts.clear()
    with configure(signing=SIGNING):
        signed.new(IDS)
        file_backend.huey.dequeue()  # by a consumer that dies
        die(file_backend)
        huey = another_backend().huey
        while (task := huey.dequeue()) is not None:
            huey.execute(task)
    assert attempts == [1, 2]


@tenant_worker(name="sigra.tests.huey.fails", max_attempts=3)
def fails(scope):
    attempts.append(current_job().attempt)
    raise LookupError


def run_all(huey: Any) -> None:
    """Run what is queued, and what is due soon, as a consumer does."""
    while huey.storage.unfinished():
        huey.read_schedule()
        if (task := huey.dequeue()) is not None:
            huey.execute(task)


@pytest.mark.parametrize("backoff", [0, 0.01])
def test_a_consumer_that_dies_after_it_queued_the_next_run_leaves_that_one_alone(
    file_backend, another_backend, backoff
):
    """The run before has ended: queued again, it would send its own next runs."""
    attempts.clear()
    fails.new(IDS, backoff=backoff)
    file_backend.huey.execute(file_backend.huey.dequeue())  # by a consumer that dies
    die(file_backend)
    run_all(another_backend().huey)
    assert attempts == [1, 2, 3]


@pytest.mark.parametrize(("backoff", "table"), [(0, "task"), (0.01, "schedule")])
def test_a_job_whose_next_run_cannot_be_written_comes_again(file_backend, backoff, table):
    """As one whose consumer died does; huey goes on with the next job."""
    attempts.clear()
    fails.new(IDS, backoff=backoff)
    huey = file_backend.huey
    task = huey.dequeue()
    refuse = "begin select raise(abort, 'the disk is full'); end"
    huey.storage.sql(f"create trigger full before insert on {table} {refuse}", commit=True)
    with pytest.raises(sqlite3.Error, match="full"):
        huey.execute(task)
    huey.storage.sql("drop trigger full", commit=True)
    run_all(huey)
    assert attempts == [1, 1, 2]


def test_a_job_that_sends_another_is_kept_until_it_ends(file_backend, another_backend):
    """Only its own next run takes its place."""
    producer.new(IDS)
    file_backend.huey.dequeue()
    producer.new(IDS)
    die(file_backend)
    another_backend().huey.storage.claim()
    assert file_backend.huey.pending_count() == 2


ODD = [
    b'{"task":{"id":"1","name":"x","args":[],"kwargs":{"sigra":2,"deliveries":"x"}}}',
    b'{"task":{"id":"1","name":"x","args":[],"kwargs":{"sigra":2,"deliveries":null}}}',
    b'{"task":{"id":"1","name":"x","args":[],"kwargs":null}}',
    b'{"task":7}',
    b"[]",
    b"\xff",
    b"[" * 100_000,
]


@pytest.mark.parametrize("data", ODD, ids=range(len(ODD)))
def test_what_a_dead_consumer_had_taken_keeps_no_other_from_starting(
    file_backend, another_backend, data
):
    """It is queued again as it is, for its consumer to refuse."""
    file_backend.huey.storage.enqueue(data)
    assert file_backend.huey.storage.dequeue() == data
    following = another_backend().huey.storage
    die(file_backend)
    assert following.dequeue() == data


@pytest.mark.parametrize("data", ODD, ids=range(len(ODD)))
def test_what_is_scheduled_keeps_no_other_job_from_being_due(file_backend, data):
    """Whoever can write to the file ends no other job's schedule."""
    storage, now = file_backend.huey.storage, datetime.now()
    storage.add_to_schedule(data, now)
    storage.add_to_schedule(b"{}", now)
    storage.read_schedule(now)
    assert {storage.dequeue(), storage.dequeue()} == {data, b"{}"}


def test_a_huey_that_pickles_is_refused(tmp_path):
    """The error names the serializer to give it."""
    with pytest.raises(ValueError, match=r"serializer=sigra.backends.huey.JSONSerializer"):
        HueyBackend(SqliteHuey(filename=str(tmp_path / "huey.db")))


def test_a_huey_that_writes_by_jsonpickle_is_refused(tmp_path):
    """It writes JSON, and makes any object of it."""

    class JSONPickle(JSONSerializer):
        def serialize(self, data):
            return super().serialize(as_jsonpickle(data))

    with pytest.raises(ValueError, match=r"serializer=sigra.backends.huey.JSONSerializer"):
        HueyBackend(SqliteHuey(filename=str(tmp_path / "huey.db"), serializer=JSONPickle()))


def test_a_pickle_is_not_read():
    """Whoever can write to the storage can run no code by it."""
    with pytest.raises(ValueError):
        JSONSerializer().deserialize(pickle.dumps({"value": 1}))


def test_what_is_no_json_is_refused_at_the_call():
    """A native task's args fail where they are enqueued, not in the consumer."""
    with pytest.raises(ValueError):
        JSONSerializer().serialize(float("nan"))
    with pytest.raises(TypeError):
        JSONSerializer().serialize({1, 2})


@pytest.mark.parametrize("expires", [60, timedelta(seconds=60), datetime(2030, 1, 2, 3, 4, 5, 6)])
def test_a_native_message_comes_back_as_it_was(expires):
    """All that huey puts into a message is kept, pipelines and chords too."""
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
    """Results and the marks of a revoked task are kept too."""
    assert JSONSerializer().deserialize(JSONSerializer().serialize(data)) == data


@pytest.mark.parametrize("pair", [("Ann", True), (None, 5)])
def test_a_pair_that_a_native_task_returns_is_no_mark_of_a_revoked_one(pair):
    """It comes back as JSON has it, a list."""
    assert JSONSerializer().deserialize(JSONSerializer().serialize(pair)) == [*pair]


@tenant_worker(name="plain")
def plain(scope):
    raise AssertionError("nothing consumes here")


def test_a_name_without_a_dot_is_read_again(file_backend):
    """huey tells module and name apart by the dot, which a worker's name need not have."""
    plain.new(IDS)
    assert [task.worker for task in file_backend.huey.pending()] == ["plain"]


def test_a_workers_name_that_a_native_task_has_is_refused(file_backend):
    """A native task is not replaced."""
    native = tenant_worker(name="native.taken")
    file_backend.huey.task(name="taken")(type("f", (), {"__module__": "native"}))
    with pytest.raises(ValueError, match=r"native\.taken"):
        native(lambda scope: None)


@tenant_worker(name="sigra.tests.huey.raises", max_attempts=1)
def raises(scope, n):
    words = RetryTask, CancelExecution, SystemExit, KeyboardInterrupt, TaskLockedException
    raise [*(word("said so") for word in words), RateLimitExceeded("said so", delay=1)][n]


@pytest.mark.parametrize("n", range(6))
def test_what_a_body_raises_is_never_an_order_to_huey(file_backend, n):
    """huey's own exceptions for retries, cancellations and limits fail a job as any other."""
    job, huey = raises.new({**IDS, "n": n}), file_backend.huey
    huey.execute(huey.dequeue())
    assert (huey.pending(), huey.scheduled()) == ([], [])
    stored = huey.serializer.deserialize(huey.storage.peek_data(job.id))
    assert "said so" in stored.metadata["error"]


@pytest.mark.parametrize(
    ("stop", "raised"), [(ValueError, EnqueueError), (KeyboardInterrupt, KeyboardInterrupt)]
)
def test_a_batch_that_is_cut_off_leaves_nothing_in_the_file(
    file_backend, monkeypatch, stop, raised
):
    """And the next job goes in."""
    native, taken = file_backend.huey.serialize_task, iter(range(2))

    def serialize(task):
        if next(taken, None) is None:
            raise stop
        return native(task)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(file_backend.huey, "serialize_task", serialize)
        with pytest.raises(raised):
            producer.new_many([IDS] * 3)
    producer.new(IDS)
    assert file_backend.huey.pending_count() == 1


@pytest.mark.parametrize("pressed", ["begin exclusive", "commit"])
def test_ctrl_c_amid_a_statement_leaves_the_file_to_others(file_backend, pressed):
    """Pressed once a transaction is begun, and as it is about to end."""
    storage = file_backend.huey.storage

    class Cursor(sqlite3.Cursor):
        def execute(self, statement, *args):
            super().execute(statement, *args)
            if statement == pressed:
                raise KeyboardInterrupt

    def commit():
        raise KeyboardInterrupt

    conn = storage.conn
    storage._conn = SimpleNamespace(
        cursor=lambda: Cursor(conn), commit=commit, rollback=conn.rollback, close=conn.close
    )
    with pytest.raises(KeyboardInterrupt):
        producer.new(IDS)
    with closing(sqlite3.connect(storage.filename, timeout=0, isolation_level=None)) as another:
        another.execute("BEGIN IMMEDIATE")


def test_without_a_server_nothing_is_enqueued():
    """The error is an ``EnqueueError``, as on every backend."""
    huey = RedisHuey("x", url="redis://127.0.0.1:1/0", serializer=JSONSerializer())
    with configure(backend=HueyBackend(huey)), pytest.raises(EnqueueError, match="Connection"):
        producer.new(IDS)


@pytest.mark.parametrize("refuses", ["maxmemory 1", "replicaof 127.0.0.1 1"])
@pytest.mark.parametrize("how", ["fails", "fails at a stop", "snoozes", "falls due"])
def test_a_job_goes_on_though_redis_takes_no_writes_for_a_moment(refuses, how, monkeypatch):
    """Its memory is full, or it fails over: huey, which has taken the job out, dropped it.

    A consumer that is told to stop has a few seconds for that; another one has as long as it takes.
    """
    if how != "fails at a stop":
        monkeypatch.setattr("sigra.backends.huey_again._LATEST", 0.0)
    name, *value = refuses.split()
    off = {"maxmemory": ["0"], "replicaof": ["NO", "ONE"]}[name]
    words = ["CONFIG", "SET", name] if name == "maxmemory" else [name]
    with bundled_redis() as url:
        huey = RedisHuey("refuses", url=url, serializer=JSONSerializer())
        backend, client = HueyBackend(huey), huey.storage.conn
        HueyBackend(huey)

        def refuse():
            client.execute_command(*words, *value)
            threading.Timer(1.5, client.execute_command, [*words, *off]).start()

        @tenant_worker(name="tests.refused", backend=backend, max_attempts=2, backoff=0)
        def goes_on(scope, how):
            refuse()
            return Snooze(60) if how == "snoozes" else Failure("said so")

        job = goes_on.new({**IDS, "how": how})
        task = huey.dequeue()
        if how == "fails at a stop":
            huey.create_consumer().stop_flag.set()
        if how == "falls due":
            refuse()
            huey.enqueue(task)  # as huey's scheduler does
        else:
            huey.execute(task)
        assert [job.id] == [each.id for each in (*huey.pending(), *huey.scheduled())]


def test_a_job_goes_on_though_its_sqlite_file_is_locked_for_a_moment(tmp_path):
    """Somebody else writes for longer than huey waits: it dropped the job, which it had taken."""
    file = tmp_path / "huey.db"
    huey = SqliteHuey("locked", filename=str(file), timeout=0.1, serializer=JSONSerializer())
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)

    @tenant_worker(name="tests.locked", backend=HueyBackend(huey), max_attempts=2, backoff=0)
    def goes_on(scope):
        other.execute("begin immediate")
        threading.Timer(1.5, other.rollback).start()
        return Failure("said so")

    job = goes_on.new(IDS)
    huey.execute(huey.dequeue())
    assert [job.id] == [each.id for each in huey.pending()]
    other.close()
    huey.storage.close()


def test_the_last_try_writes_a_job_s_next_run_too(tmp_path, monkeypatch):
    """Without it the job would be lost, and nothing would say so."""
    monkeypatch.setattr("sigra.backends.huey_again.WAITS", ())
    huey = SqliteHuey(filename=str(tmp_path / "huey.db"), serializer=JSONSerializer())

    @tenant_worker(name="tests.last", backend=HueyBackend(huey), max_attempts=2, backoff=0)
    def fails(scope):
        return Failure("said so")

    job = fails.new(IDS)
    huey.execute(huey.dequeue())
    assert [job.id] == [each.id for each in huey.pending()]
    huey.storage.close()


def test_what_redis_will_never_take_is_tried_once():
    """No consumer stands still for it, which would take 15 seconds for each job."""
    with bundled_redis() as url:
        huey = RedisHuey("wrong", url=url, serializer=JSONSerializer())
        with configure(backend=HueyBackend(huey)):
            producer.new(IDS)
        task, client = huey.dequeue(), huey.storage.conn
        client.set(huey.storage.queue_key, "a text, and no list")
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            huey.enqueue(task)
        assert client.info("commandstats")["cmdstat_lpush"]["failed_calls"] == 1


def test_a_consumer_that_cannot_write_ends_soon_when_it_is_stopped(journal, tmp_path):
    """Also its scheduler, for which huey waits: it tries for a while all jobs together, not each."""
    with bundled_redis() as url:
        harness = HueyHarness(url, tmp_path)
        client, schedule = harness.huey.storage.conn, harness.huey.storage.schedule_key
        with configure(backend=harness.backend):
            workers.echo.new_many([IDS] * 30, delay=1)
        while harness.huey.storage.queue_size():
            harness.huey.add_schedule(harness.huey.dequeue())
        client.config_set("maxmemory", "1")
        harness.start()
        try:
            journal.wait(harness, lambda: not client.zcard(schedule), "the jobs to fall due")
            harness.stop()
            assert "Error enqueueing sigra.contract.echo" in harness.consumer.output
        finally:
            harness.kill()
            harness.remove()


def test_workers_run_in_the_mode_that_huey_has_for_tests(journal):
    """An app's tests that have it can keep it."""
    huey = MemoryHuey(immediate=True, serializer=JSONSerializer())
    with configure(backend=HueyBackend(huey)):
        workers.echo.new(IDS)
    assert [run["worker"] for run in journal.runs()] == [workers.echo.name]


def test_a_hook_that_sets_a_time_limit_knows_a_job_by_its_worker_s_name(journal):
    """The next run has the limit too, and a native task none."""
    huey = MemoryHuey(serializer=JSONSerializer())

    @huey.pre_execute("limit")
    def limit(task):
        if getattr(task, "worker", None) == workers.snoozes.name:
            task.timeout = 60

    note = huey.task()(lambda: None)
    with configure(backend=HueyBackend(huey)):
        workers.snoozes.new({**IDS, "times": 1})
        note()
        limits = [huey.execute(task) or task.timeout for task in (huey.dequeue(), huey.dequeue())]
    assert limits == [60, None] and [task.timeout for task in huey.scheduled()] == [60]


def test_priority_is_refused_where_the_storage_has_none():
    """huey itself would drop it silently."""
    backend = HueyBackend(RedisHuey("x", serializer=JSONSerializer()))
    with configure(backend=backend), pytest.raises(InvalidOptionError, match="priority"):
        producer.new(IDS, priority=1)


@pytest.mark.parametrize("zone", [timezone.utc, None])
def test_no_fraction_of_a_second_is_cut_off(zone):
    """By UTC or by local time, huey runs no job before it is due."""
    due = datetime(2100, 1, 1, 12, 0, 0, 900_000, timezone.utc)
    huey = MemoryHuey(utc=zone is not None, serializer=JSONSerializer())
    with configure(backend=HueyBackend(huey)):
        producer.new(IDS, run_at=due)
    (task,) = huey.pending()
    assert task.eta.replace(tzinfo=zone).timestamp() == due.timestamp()


def test_what_was_scheduled_is_due_when_it_was_in_another_time_zone_too(file_backend, monkeypatch):
    """A consumer that moved from Los Angeles to a container in UTC ran it eight hours late."""
    huey, due = file_backend.huey, datetime(2026, 12, 1, 12)
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/Los_Angeles")
        time.tzset()
        huey.storage.add_to_schedule(b"{}", due)
        for zone in ("UTC", "Asia/Tokyo"):
            patch.setenv("TZ", zone)
            time.tzset()
            huey.read_schedule(due - timedelta(seconds=1))
            assert huey.storage.queue_size() == 0
    time.tzset()
    huey.read_schedule(due)
    assert huey.storage.queue_size() == 1


def test_a_larger_priority_is_taken_sooner_by_what_was_scheduled_too(file_backend):
    """A delayed job that is due takes its place by priority."""
    huey = file_backend.huey
    late = producer.new(IDS, priority=5, delay=0.01)
    huey.add_schedule(huey.dequeue())  # as a consumer does with what is not due
    plain, urgent = producer.new(IDS), producer.new(IDS, priority=9)
    time.sleep(0.02)
    assert huey.read_schedule() == []
    assert [task.id for task in huey.pending()] == [urgent.id, late.id, plain.id]


@pytest.mark.filterwarnings("default")  # of what other tests left
def test_a_huey_that_nobody_uses_any_more_is_let_go():
    """A suite that makes one for each test does not keep them all, with their connections."""

    def make():
        huey = MemoryHuey(serializer=JSONSerializer())
        with configure(backend=HueyBackend(huey)):
            producer.new(IDS)
        return huey

    assert is_let_go(make)
