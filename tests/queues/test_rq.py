"""RQ keeps the contract in real workers, on Redis."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from consumer import HERE
from consumer_side import held, stands_still
from queue_contract import QueueContract
from queue_harness import QueueHarness, as_jsonpickle, keeps_what_a_failed_job_had, not_hanging
from servers import need

rq = need("rq")

import redis  # noqa: E402
import rq_app  # noqa: E402
from redis.backoff import NoBackoff  # noqa: E402
from redis.retry import Retry  # noqa: E402
from rq.command import send_stop_job_command  # noqa: E402
from rq.scheduler import RQScheduler  # noqa: E402
from rq.utils import import_attribute  # noqa: E402

from sigra import EnqueueError, configure, worker  # noqa: E402
from sigra.backends.rq import RQBackend, run  # noqa: E402
from sigra.testing import contract_workers as workers  # noqa: E402
from sigra.testing.contract_case import IDS  # noqa: E402


class RQHarness(QueueHarness):
    command = (
        "rq worker {queue} --url {url} -c rq_app --path " + str(HERE) + " --serializer json "
        "--with-scheduler --maintenance-interval 2 --job-monitoring-interval 7 --worker-ttl 17"
    ).split()  # idle, a worker does its maintenance every 2 seconds
    # It looks at a job's process every 7, and takes one that ends in that instant for one that died.
    ready = "Listening on"
    forgot = r"(?s)warm shut down requested.*cleaning registries"
    # RQ raises an Exception where the signal comes, and redis-py drops it if it is just counting.
    patience = 240.0  # RQ gives a dead worker's job, or scheduler, up after a minute
    concurrency = 1
    outlives_its_server = False

    def __init__(self, server: str, folder: Path) -> None:
        super().__init__(server, folder)
        connection = redis.Redis.from_url(self.url)
        self.native = rq.Queue(self.queue, connection=connection, serializer="json")
        self.backend = RQBackend(self.native)
        self.direct = redis.Redis.from_url(server)  # there too while the proxy is cut

    def kill(self) -> None:
        """Kill the worker; its horse has a group of its own and is killed by its pid."""
        if self.alive:
            pid = self.consumer.pid
            os.kill(pid, signal.SIGSTOP)  # so that it makes no other horse meanwhile
            while Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "TZ":
                time.sleep(0.001)
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                with suppress(ProcessLookupError):  # its job has just ended, and it with it
                    os.kill(int(child), signal.SIGKILL)
            self.give_up(pid)
        super().kill()
        self.direct.delete(RQScheduler.get_locking_key(self.queue))  # RQ waits for a minute

    def give_up(self, pid: int) -> None:
        """Have what a worker runs or takes, which is to be killed, come back: RQ waits for a minute."""
        queue = rq.Queue(self.queue, connection=self.direct, serializer="json")
        names = {worker.name for worker in rq.Worker.all(queue=queue) if worker.pid == pid}
        running, taken = queue.started_job_registry.key, queue.intermediate_queue
        for execution in self.direct.zrange(running, 0, -1):
            job = queue.fetch_job(execution.decode().partition(":")[0])
            if job and job.worker_name in names:
                self.direct.zadd(running, {execution: 1}, xx=True)
        for id in taken.get_job_ids():
            self.direct.set(taken.get_first_seen_key(id), time.time() - 61)

    def advance(self) -> None:
        """Take the lock of a worker that died in its maintenance: RQ waits for 15 minutes."""
        lock = self.native.registry_cleaning_key
        if 0 < self.direct.ttl(lock) < 899 - 10:
            self.direct.delete(lock)
        super().advance()

    def send(self, name: str, payload: Mapping[str, Any]) -> str:
        maximum = payload.get("max_attempts")  # of an envelope: by it the backend sets RQ's own
        retry = rq.Retry(max=maximum) if maximum else None
        return self.native.enqueue(run, name, dict(payload), retry=retry).id

    def send_note(self, text: str) -> None:
        self.native.enqueue("rq_app.note", text)

    def name_of(self, native_id: str) -> str | None:
        return self.native.fetch_job(native_id).description

    def failed(self, native_id: str) -> str | None:
        if native_id not in self.native.failed_job_registry.get_job_ids():
            return None
        return self.native.fetch_job(native_id).latest_result().exc_string

    def kept(self, native_id: str) -> bool:
        return self.failed(native_id) is not None

    def remove(self) -> None:
        self.native.connection.close()
        self.direct.close()


class TestRQ(QueueContract):
    harness_class, server = RQHarness, "redis"

    def test_a_job_that_returns_rqs_own_retry_is_done_and_the_log_says_so(self, harness, journal):
        """Its author meant that it is not: the line names Sigra's words."""
        job = rq_app.returns_rqs_word.new(IDS)
        told = rf"job {job.id} of .* returned rq.Retry, .* completed. Return Failure\(reason\)"
        journal.wait(harness, lambda: bool(harness.logged(told)), "the warning")

    def test_a_redis_that_gives_no_answer_may_have_the_jobs(self, harness):
        """The error names them: each was sent or none, but nobody knows."""
        connection = redis.Redis.from_url(f"{harness.url}?socket_timeout=2")
        queue = rq.Queue(harness.queue, connection=connection, serializer="json")
        with configure(backend=RQBackend(queue)):
            workers.echo.new(IDS, delay=3600)  # from now on it is connected
            with harness.proxy.held(), pytest.raises(EnqueueError) as caught:
                workers.echo.new_many([IDS] * 2, delay=3600)
        connection.close()
        assert len(caught.value.unsure) == 2
        assert "The batch's 2 jobs may have been sent" in str(caught.value)

    def test_a_cancelled_job_is_a_failed_job(self, harness, journal):
        """RQ has no state for it: its error says what it was."""
        job, _ = self._run(harness, journal, workers.ends, {**IDS, "how": "cancel"}, max_attempts=3)
        journal.wait(harness, lambda: bool(harness.failed(job.id)), "the failed job")
        assert "was cancelled: said so" in harness.failed(job.id)

    def test_a_failed_job_that_is_queued_again_by_hand_has_its_last_attempt_once_more(
        self, harness, journal
    ):
        """As often as somebody asks, with events of its own each time."""
        self._is_run_by_hand(harness, journal, lambda id: harness.native.fetch_job(id).requeue())

    def test_a_completed_job_that_is_queued_again_by_hand_has_its_last_attempt_once_more(
        self, harness, journal
    ):
        """As by the button of django-rq's page: it was refused as one whose consumer died."""
        native = harness.native

        def again(id):
            native.finished_job_registry.remove(id)
            native.enqueue_job(native.fetch_job(id))

        self._is_run_by_hand(
            harness, journal, again, lambda id: id in native.finished_job_registry.get_job_ids()
        )

    def test_a_job_that_was_stopped_by_rqs_command_runs_when_it_is_queued_again(
        self, harness, journal, tmp_path
    ):
        """Its process was killed, but it killed none: it was refused as one that does."""
        job = held.new({**IDS, "until": str(tmp_path / "now")})
        journal.wait(harness, lambda: bool(journal.runs()), "its first run")
        send_stop_job_command(harness.native.connection, job.id, harness.native.serializer)
        native = harness.native.fetch_job(job.id)
        journal.wait(harness, lambda: native.get_status() == "stopped", "its stop")
        (tmp_path / "now").touch()
        native.requeue()
        journal.wait(harness, lambda: native.get_status() in ("finished", "failed"), "its end")
        assert (native.get_status(), len(journal.runs())) == ("finished", 2)

    @pytest.mark.parametrize("built", ["by hand", "unreadable"])
    def test_a_refused_job_that_is_queued_again_is_refused_for_the_same_reason(
        self, harness, journal, built
    ):
        """It was no death of a consumer."""
        payload = {"by hand": {}, "unreadable": {"sigra": 2, "args": {}}}[built]
        reason = {"by hand": "no arg 'organization_id'", "unreadable": "unreadable job env"}[built]
        sent = harness.send(workers.echo.name, payload)
        for _ in range(2):
            journal.wait(harness, lambda: reason in (harness.failed(sent) or ""), "its end")
            harness.native.fetch_job(sent).requeue()

    @pytest.mark.parametrize("payload", ["sigra", ["acme", "ann"], None])
    def test_args_that_are_no_mapping_are_refused(self, harness, journal, payload):
        """A worker takes args by name: the job's error says so."""
        sent = harness.native.enqueue(run, workers.echo.name, payload, retry=rq.Retry(max=3)).id
        journal.wait(harness, lambda: bool(harness.failed(sent)), "the failed job")
        assert "by position, but a worker takes them by name" in harness.failed(sent)

    def test_rq_calls_any_function_that_a_job_names(self, harness, journal, tmp_path):
        """Neither JSON nor a signature keeps it from that; SECURITY.md and RQ's page say so."""
        harness.native.enqueue("os.mkdir", str(tmp_path / "made"))
        journal.wait(harness, (tmp_path / "made").exists, "the folder")

    def test_the_error_of_an_unknown_worker_names_it(self, harness, journal):
        """The job is kept among the failed ones, to be run again after a deploy."""
        sent = harness.send("sigra.tests.unknown", {})
        journal.wait(harness, lambda: bool(harness.failed(sent)), "the failed job")
        assert "no worker is named 'sigra.tests.unknown'" in harness.failed(sent)

    def taken_and_not_begun(self, harness, job):
        """Queue a job that a worker leaves on the way; one that is stopped or killed there does."""
        harness.stop()
        id, native = job(), harness.native
        native.connection.lrem(native.key, 1, id)
        native.connection.rpush(native.intermediate_queue.key, id)
        seen = native.intermediate_queue.get_first_seen_key(id)
        native.connection.set(seen, time.time() - 61)  # RQ waits for a minute
        harness.start()
        return id

    def test_a_job_that_was_taken_and_not_begun_runs_as_if_it_was_new(self, harness, journal):
        """A stop in that instant uses up no attempt."""
        self.taken_and_not_begun(harness, lambda: workers.echo.new(IDS).id)
        journal.wait(harness, lambda: bool(journal.runs(workers.echo.name)), "the job")
        assert [run["attempt"] for run in journal.runs(workers.echo.name)] == [1]

    def test_a_job_that_snoozes_may_be_taken_and_not_begun_again(self, harness, journal):
        """Each run of it leaves as many of RQ's own retries as it had at first."""
        worker = rq_app.snoozes_for_an_hour
        id = self.taken_and_not_begun(harness, lambda: worker.new(IDS).id)
        later, status = (
            harness.native.scheduled_job_registry,
            harness.native.fetch_job(id).get_status,
        )
        # RQ before 3.0 writes the job itself, its status too, a moment after its place in there.
        journal.wait(harness, lambda: status() == "scheduled", "the snooze")
        assert harness.native.fetch_job(id).retries_left == 1
        harness.direct.zadd(later.key, {id: 1}, xx=True)  # the hour is over
        journal.wait(harness, lambda: len(journal.runs(worker.name)) == 2, "both runs")
        assert [run["snoozes"] for run in journal.runs(worker.name)] == [0, 1]

    def test_a_failed_job_that_is_queued_again_may_be_taken_and_not_begun(self, harness, journal):
        """It was left among the failed ones, as if it had run once more."""
        job, native = workers.recovers.new({**IDS, "failures": 9}), harness.native
        journal.wait(harness, lambda: bool(harness.failed(job.id)), "its end")

        def again():
            native.fetch_job(job.id).requeue()
            return job.id

        self.taken_and_not_begun(harness, again)
        journal.wait(harness, lambda: len(journal.runs()) == 2, "the run by hand")

    def test_a_job_whose_worker_dies_as_it_is_put_off_comes_back(self, harness, journal, tmp_path):
        """It is marked as scheduled when it is scheduled, and not before."""
        args = {**IDS, "marker": str(tmp_path / "died")}
        job = rq_app.dies_as_it_is_put_off.new(args, max_attempts=2)
        journal.wait(harness, lambda: not harness.alive, "the worker's end")
        assert harness.native.fetch_job(job.id).get_status() == "started"
        harness.kill()  # its scheduler too
        running = harness.native.started_job_registry.key
        for execution in harness.direct.zscan_iter(running, f"{job.id}:*"):
            harness.direct.zadd(running, {execution[0]: 1}, xx=True)  # RQ waits for a minute
        harness.start()
        journal.wait(harness, lambda: len(journal.runs(job.worker)) == 3, "three runs")
        runs = [(run["attempt"], run["snoozes"]) for run in journal.runs(job.worker)]
        assert runs == [(1, 0), (1, 0), (1, 1)]

    def test_no_fraction_of_a_second_is_cut_off(self, harness):
        """RQ's times are whole seconds, and no job runs before it is due."""
        due = datetime(2100, 1, 1, 12, 0, 0, 1, timezone.utc)
        job = workers.echo.new(IDS, run_at=due)
        scheduled = harness.native.scheduled_job_registry.get_scheduled_time(job.id)
        assert scheduled == datetime(2100, 1, 1, 12, 0, 1, tzinfo=timezone.utc)

    def test_a_time_limit_of_its_queue_uses_up_an_attempt(self, harness, journal):
        """A job that is cut off comes again while it has attempts left."""
        connection, limit = harness.native.connection, {"default_timeout": 2}
        queue = rq.Queue(harness.queue, connection=connection, serializer="json", **limit)
        with configure(backend=RQBackend(queue)):
            job = held.new({**IDS, "until": "never"}, max_attempts=2, backoff=0)
        journal.wait(harness, lambda: bool(harness.failed(job.id)), "the job's end")
        assert [run["attempt"] for run in journal.runs(held.name)] == [1, 2]

    @pytest.mark.parametrize(("limit", "expected"), [({}, 180), ({"default_timeout": -1}, -1)])
    def test_a_queue_without_a_time_limit_says_so(self, harness, limit, expected):
        """RQ gives one that says nothing three minutes, and so its jobs."""
        queue = rq.Queue(
            f"{harness.queue}-none", harness.native.connection, serializer="json", **limit
        )
        with configure(backend=RQBackend(queue)):
            job = workers.echo.new(IDS)
        assert queue.fetch_job(job.id).timeout == expected

    @pytest.mark.parametrize(
        ("place", "seconds", "expected"),
        [
            ("sigra.backends.external.Consumed", 300, [(1, 0), (1, 0), (1, 1)]),
            ("sigra.backends.rq_run._settle", 12, [(1, 0), (1, 1)]),
        ],
    )
    def test_a_time_limit_that_strikes_behind_the_body_leaves_the_other_attempts(
        self, harness, journal, tmp_path, place, seconds, expected
    ):
        """The job comes again as if its process had died; what is sent after the body is sent."""
        limit = {"connection": harness.native.connection, "default_timeout": 10}
        queue = rq.Queue(harness.queue, serializer="json", **limit)
        args = {**IDS, "marker": str(tmp_path / "stood still"), "place": place, "seconds": seconds}
        with configure(backend=RQBackend(queue)):
            job = stands_still.new(args, max_attempts=2)
        status = harness.native.fetch_job(job.id).get_status
        journal.wait(harness, lambda: status() in ("finished", "failed"), "the job's end")
        runs = [(run["attempt"], run["snoozes"]) for run in journal.runs(job.worker)]
        assert runs == expected

    def test_tools_that_trace_know_a_job_by_its_worker(self, harness):
        """They go by the function that it names: one of ours would be the same for all."""
        native = harness.native.fetch_job(workers.echo.new(IDS).id)
        assert native.func_name == f"sigra.backends.rq.worker:{workers.echo.name}"

    def test_another_queue_is_named(self, harness):
        """A job is in the queue that the option names."""
        other = f"{harness.queue}-other"
        job = workers.echo.new(IDS, queue=other)
        queue = rq.Queue(other, connection=harness.native.connection, serializer="json")
        assert queue.job_ids == [job.id]


@pytest.mark.parametrize("name", ["shop.close", "run", "a..b", ".", "a b/c:d", "%s", "é"])
def test_rq_finds_what_runs_a_job_whatever_its_worker_is_called(name):
    """RQ tries each part before a dot as a module first."""
    assert import_attribute(f"sigra.backends.rq.worker:{name}") is run


@pytest.mark.parametrize("serializer", [None, "pickle"])
def test_pickle_is_refused(serializer):
    """RQ's default is; the error names the serializer to give it."""
    queue = rq.Queue("q", connection=redis.Redis(), serializer=serializer)
    with pytest.raises(ValueError, match=r"Queue\(..., serializer='json'\)"):
        RQBackend(queue)


def test_jsonpickle_is_refused():
    """It writes JSON, and makes any object of it."""

    def dumps(value):
        return json.dumps(as_jsonpickle(value)).encode()

    serializer = SimpleNamespace(dumps=dumps, loads=json.loads)
    with pytest.raises(ValueError, match=r"Queue\(..., serializer='json'\)"):
        RQBackend(rq.Queue("q", connection=redis.Redis(), serializer=serializer))


@pytest.fixture
def in_test_mode(request) -> Iterator[rq.Queue]:
    """Return a queue in the mode that RQ has for tests, and close its connection.

    Garbage that has it is a cycle, of which the socket may be the first to be finalized.
    """
    with redis.Redis.from_url(request.getfixturevalue("redis")) as connection:
        yield rq.Queue("q", is_async=False, connection=connection, serializer="json")


def test_workers_run_in_the_mode_that_rq_has_for_tests(in_test_mode, journal):
    """An app's tests that have it can keep it."""
    with configure(backend=RQBackend(in_test_mode)):
        workers.echo.new(IDS)
    assert [run["worker"] for run in journal.runs()] == [workers.echo.name]


@pytest.mark.parametrize(("how", "status"), [("value", "finished"), ("cancel", "failed")])
def test_in_that_mode_a_job_has_its_end_state(in_test_mode, journal, how, status):
    """The write that sent it came last: it was shown as queued, and stayed in Redis for good."""
    with configure(backend=RQBackend(in_test_mode)):
        jobs = workers.ends.new_many([{**IDS, "how": how}] * 2)
    natives = [in_test_mode.fetch_job(job.native_id) for job in jobs]
    assert [native.get_status() for native in natives] == [status, status]
    assert all(in_test_mode.connection.ttl(native.key) > 0 for native in natives)


@pytest.mark.parametrize("given", [{"progress": 1}, {}])
def test_a_body_may_replace_its_job_s_meta(in_test_mode, given):
    """The next run then did not know where its worker is, and was the job's last."""

    @worker(name="replaces_meta")
    def replaces() -> None:
        native = rq.get_current_job()
        native.meta = given
        native.save_meta()

    with configure(backend=RQBackend(in_test_mode)):
        job = replaces.new({})
    kept = in_test_mode.fetch_job(job.native_id).meta
    assert kept == {**given, "sigra_module": __name__}


def test_a_body_may_refresh_its_job(in_test_mode):
    """As one that looks whether it is to stop; RQ could not write the job, and ran it again."""

    @worker(name="refreshes")
    def refreshes() -> None:
        rq.get_current_job().refresh()

    with configure(backend=RQBackend(in_test_mode)):
        job = refreshes.new({})
    assert in_test_mode.fetch_job(job.native_id).get_status() == "finished"


def calls_directly(name: str) -> str:
    """Do in a native job, or in a body, what RQ does with a worker's job."""
    native = rq.get_current_job()
    args = native and (native.id, [*native.args])
    try:
        run(name, IDS)
    except TypeError as error:
        assert args == (native and (native.id, [*native.args]))
        return str(error)
    raise AssertionError("it ran")


def test_a_direct_call_of_what_runs_a_worker_s_job_is_refused(in_test_mode):
    """It took the native job of its caller for its own: that had other args in its next run."""
    said = []

    @worker(name="calls_itself")
    def calls_itself() -> None:
        said.append(calls_directly("calls_itself"))

    with configure(backend=RQBackend(in_test_mode)):
        calls_itself.new({})
        said.append(in_test_mode.enqueue(calls_directly, "calls_itself").return_value())
        said.append(calls_directly("calls_itself"))
    assert [text.partition(":")[0] for text in said] == [
        "a direct call runs no job of calls_itself"
    ] * 3


def test_a_job_whose_callback_raises_does_not_run_again(request, journal):
    """Its body has completed, and no attempt is left; RQ had a retry of ours for it."""

    class Queue(rq.Queue):
        def create_job(self, *args: Any, **options: Any) -> Any:
            callback = rq.Callback("json.loads")  # which does not take what RQ gives it
            return super().create_job(*args, **{**options, "on_success": callback})

    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    with redis.Redis.from_url(request.getfixturevalue("redis")) as connection:
        queue = Queue(uuid.uuid4().hex, connection=connection, serializer="json")
        try:
            with configure(backend=RQBackend(queue)), not_hanging():
                job = workers.echo.new(IDS)
                rq.SimpleWorker([queue], connection=connection, serializer="json").work(burst=True)
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
        assert queue.fetch_job(job.native_id).get_status() == "failed"
        queue.delete()
    assert len(journal.runs()) == 1


@pytest.mark.parametrize("options", [{}, {"queue": "other"}])
def test_a_job_s_queue_is_of_the_kind_that_the_application_has_made(in_test_mode, journal, options):
    """One that a job names too: in the mode for tests its jobs were left in Redis."""
    made = list[str]()

    class Own(rq.job.Job):
        def perform(self):
            made.append(self.origin)
            return super().perform()

    connection = in_test_mode.connection
    kind = {"is_async": False, "job_class": Own, "serializer": "json"}
    with configure(backend=RQBackend(rq.Queue("q", connection=connection, **kind))):
        workers.echo.new(IDS, **options)
    assert [run["worker"] for run in journal.runs()] == [workers.echo.name]
    assert made == [options.get("queue", "q")]


def test_a_scheduler_that_looks_as_a_job_is_sent_leaves_it_in_the_schedule(request):
    """RQ before 3.0 put it there before the job itself was, and dropped it as one that is gone."""
    url = request.getfixturevalue("redis")

    class Client(redis.Redis):
        def pipeline(self, *args: Any, **options: Any) -> Any:
            pipeline = super().pipeline(*args, **options)
            execute = pipeline.execute

            def execute_late(*args: Any, **options: Any) -> Any:
                time.sleep(2)
                scheduler.enqueue_scheduled_jobs()
                return execute(*args, **options)

            pipeline.execute = execute_late
            return pipeline

    with redis.Redis.from_url(url) as direct, Client.from_url(url) as connection:
        scheduler = RQScheduler(["later"], connection=direct, serializer="json")
        scheduler.acquire_locks()
        queue = rq.Queue("later", connection=connection, serializer="json")
        with configure(backend=RQBackend(queue)):
            job = workers.echo.new(IDS, delay=0.1)
        scheduler.enqueue_scheduled_jobs()
        assert queue.job_ids == [job.id]
        scheduler.connection.connection_pool.disconnect()


def test_in_that_mode_the_time_limit_of_a_test_goes_on(in_test_mode, journal):
    """A job ends RQ's own, which is an alarm too."""
    before = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.alarm(3_600)
    try:
        with configure(backend=RQBackend(in_test_mode)):
            workers.echo.new(IDS)
        assert signal.alarm(0) > 0
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_what_a_failed_job_had_in_hand_is_let_go_as_it_ends(in_test_mode):
    """As RQ does with what its own jobs have; it may be large."""
    assert not keeps_what_a_failed_job_had(RQBackend(in_test_mode))


TRIES = {"retry": Retry(NoBackoff(), 3), "retry_on_error": [redis.ConnectionError]}
"""As many clients are made, which then send again by themselves."""


@contextmanager
def configured_over(kind, url, **tries):
    """Send jobs over connections of a class; yield their queue, by a connection of its own."""
    pool = redis.ConnectionPool.from_url(url, connection_class=kind, **tries)
    with redis.Redis(connection_pool=pool) as over, redis.Redis.from_url(url) as direct:
        ours, seen = (
            rq.Queue(kind.__name__, connection=each, serializer="json") for each in (over, direct)
        )
        with configure(backend=RQBackend(ours)):
            yield seen
        seen.delete()
        pool.disconnect()


class Losing(redis.Connection):
    """A connection that breaks once a transaction is done, and loses the answer."""

    has_lost = False

    def send_packed_command(self, command: Any, *args: Any, **options: Any) -> None:
        super().send_packed_command(command, *args, **options)
        if b"EXEC" in b"".join([command] if isinstance(command, bytes) else command):
            self.has_lost = True
            self._sock.shutdown(socket.SHUT_WR)
            while self._sock.recv(65536):
                pass


@pytest.mark.parametrize("tries", [TRIES, {}], ids=["tries_again", "tries_once"])
def test_jobs_whose_answer_is_lost_are_queued_once(request, tries):
    """A client that tries again queued them anew, and they ran twice, with other event ids."""
    with configured_over(Losing, request.getfixturevalue("redis"), **tries) as queue:
        jobs = workers.echo.new_many([IDS, IDS])
        assert [job.id for job in jobs] == queue.job_ids


class Gone(Losing):
    """A connection that loses the answer, and another cannot be made."""

    def connect(self) -> None:
        if self.has_lost:
            raise redis.ConnectionError("no way to connect")
        super().connect()


def test_a_job_whose_answer_is_lost_is_unsure_where_the_server_cannot_be_asked(request):
    """It may be queued, and it is not sent again."""
    with configured_over(Gone, request.getfixturevalue("redis"), **TRIES) as queue:
        with pytest.raises(EnqueueError) as caught:
            workers.echo.new(IDS)
        assert [*caught.value.unsure] == queue.job_ids != []


class Unreachable(redis.Connection):
    """A connection to a server that is not there."""

    tried = 0

    def connect(self) -> None:
        Unreachable.tried += 1
        raise redis.ConnectionError("no way to connect")


def test_where_no_connection_was_had_none_is_tried_to_ask_for_the_job():
    """Some clients try for half a minute; and nothing was sent."""
    Unreachable.tried = 0
    pool = redis.ConnectionPool(connection_class=Unreachable)
    queue = rq.Queue("q", connection=redis.Redis(connection_pool=pool), serializer="json")
    queue.redis_server_version = (8, 0, 2)  # or RQ asks for it before it first sends
    with configure(backend=RQBackend(queue)), pytest.raises(EnqueueError) as caught:
        workers.echo.new(IDS)
    assert (1, ()) == (Unreachable.tried, caught.value.unsure)


class Forgotten(redis.Connection):
    """A connection that something on the way forgets as it lies idle: what is sent next fails."""

    idle = False

    def send_packed_command(self, command: Any, *args: Any, **options: Any) -> None:
        if Forgotten.idle and self._sock:
            Forgotten.idle = False
            self._sock.shutdown(socket.SHUT_RDWR)
        super().send_packed_command(command, *args, **options)


@pytest.mark.parametrize("tries", [TRIES, {}], ids=["tries_again", "tries_once"])
def test_a_job_that_a_broken_connection_did_not_carry_is_sent_by_another(request, tries):
    """Redis does not have it, so it is not queued twice."""
    with configured_over(Forgotten, request.getfixturevalue("redis"), **tries) as queue:
        first = workers.echo.new(IDS)
        Forgotten.idle = True
        second = workers.echo.new(IDS)
        assert ([first.id, second.id], False) == (queue.job_ids, Forgotten.idle)


def test_what_traces_transactions_sees_where_they_go(request, monkeypatch):
    """As OpenTelemetry's instrumentation does, it asks the pool as one is sent."""
    seen, execute = list[int](), redis.client.Pipeline.execute

    def traced(pipeline: Any) -> Any:
        seen.append(pipeline.connection_pool.connection_kwargs["db"])
        return execute(pipeline)

    monkeypatch.setattr(redis.client.Pipeline, "execute", traced)
    with redis.Redis.from_url(request.getfixturevalue("redis")) as connection:
        queue = rq.Queue("traced", connection=connection, serializer="json")
        with configure(backend=RQBackend(queue)):
            workers.echo.new(IDS)
        assert seen == [connection.connection_pool.connection_kwargs["db"]]


def test_a_redis_that_is_down_is_an_enqueue_error():
    """It comes in bounded time, and is chained to the client's own error."""
    queue = rq.Queue("q", connection=redis.Redis(port=1), serializer="json")
    with not_hanging(), configure(backend=RQBackend(queue)), pytest.raises(EnqueueError) as caught:
        workers.echo.new_many([IDS, IDS])
    assert isinstance(caught.value.__cause__, redis.ConnectionError)


def test_by_name_it_is_rqs_own_default_queue(monkeypatch):
    """On the server that RQ's own variable names."""
    monkeypatch.setenv("RQ_REDIS_URL", "redis://localhost:6399/5")
    queue = RQBackend().queue
    assert queue.name == "default"
    assert queue.connection.connection_pool.connection_kwargs["port"] == 6399
