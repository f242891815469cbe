"""Our in-process backends pass the conformance suite that we ship."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import copy_context
from dataclasses import replace
from datetime import timezone
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from sigra import AsyncioBackend, Job, SyncBackend, ThreadBackend, configure
from sigra.backend import Capability
from sigra.backends.envelope import pack
from sigra.backends.external import consume
from sigra.backends.inprocess.ticket import LocalTicket
from sigra.backends.native_error import error_text
from sigra.backends.producing import unique_key
from sigra.execute import in_event_loop
from sigra.options import JobOptions
from sigra.testing import BackendContract, ConsumerContract
from sigra.testing import contract_workers as workers
from sigra.testing.contract_case import IDS
from sigra.testing.contract_workers import record_events
from sigra.testing.harness import Journal

pytestmark = pytest.mark.waits


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path)
    with configure():
        sink = record_events()
        yield journal
        sink.close()


@pytest.fixture
def own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have time pass by what is slept alone: a machine that stands still makes no job late."""
    sleep, now = time.sleep, time.time_ns()

    def pass_by(seconds: float) -> None:
        nonlocal now
        sleep(seconds)
        now += int(seconds * 1e9)

    def look() -> int:
        nonlocal now
        now += 1_000  # no two looks see the same
        return now

    monkeypatch.setattr(time, "sleep", pass_by)
    monkeypatch.setattr(time, "time", lambda: look() / 1e9)
    monkeypatch.setattr("sigra.ids.time_ns", look)


class SyncHarness:
    patience = 5.0

    def __init__(self) -> None:
        self.backend = SyncBackend()

    def advance(self) -> None:
        self.backend.drain(2)


class ThreadHarness:
    patience = 60.0

    def __init__(self) -> None:
        self.backend = ThreadBackend(max_workers=2)

    def advance(self) -> None:
        time.sleep(0.01)


class TestSync(BackendContract):
    @pytest.fixture
    def harness(self) -> SyncHarness:
        return SyncHarness()


class PoorHarness(SyncHarness):
    def __init__(self, *capabilities: Capability) -> None:
        super().__init__()
        self.backend.capabilities = frozenset(capabilities)


class TestNothing(BackendContract):
    """A backend that declares nothing is asked for nothing that it cannot."""

    @pytest.fixture
    def harness(self) -> SyncHarness:
        return PoorHarness()


class TestLittle(BackendContract):
    """Each case asks for all that it uses: retries, say, at a moment that is said, or by a key."""

    @pytest.fixture(params=["max_attempts", "delay", "unique"])
    def harness(self, request: pytest.FixtureRequest) -> SyncHarness:
        return PoorHarness(request.param)


class TestThread(BackendContract):
    delay = 0.2

    @pytest.fixture
    def harness(self) -> Iterator[ThreadHarness]:
        harness = ThreadHarness()
        yield harness
        assert harness.backend.close(60) == []


class LoopBackend(AsyncioBackend):
    """The asyncio backend, fed from the test's thread; all else is its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(concurrency=2)
        self.loop = loop

    def enqueue(self, jobs: Sequence[Job]) -> None:
        if in_event_loop():
            super().enqueue(jobs)
        else:
            asyncio.run_coroutine_threadsafe(self.aenqueue(jobs), self.loop).result()

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        if asyncio.get_running_loop() is self.loop:
            await super().aenqueue(jobs)
        else:
            sending = asyncio.run_coroutine_threadsafe(super().aenqueue(jobs), self.loop)
            await asyncio.wrap_future(sending)


class AsyncioHarness(ThreadHarness):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.backend = LoopBackend(loop)


class TestAsyncio(BackendContract):
    delay = 0.2

    @pytest.fixture
    def harness(self) -> Iterator[AsyncioHarness]:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        harness = AsyncioHarness(loop)
        yield harness
        closing = asyncio.run_coroutine_threadsafe(harness.backend.aclose(60), loop)
        assert closing.result() == []
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Hasty(LocalTicket):
    """A ticket that takes "not yet" for an answer."""

    def result(self, timeout: float | None) -> Any:
        return super().result(timeout) if self.verdict else None


class Falsy(LocalTicket):
    """A ticket that takes what is false for nothing."""

    def result(self, timeout: float | None) -> Any:
        return super().result(timeout) or None


class Queue:
    """A backend of somebody else's, which is its own harness.

    ``hasty``: it runs at once what is for later, ``early``: after half of the time. ``deaf``: it
    forgets what ``.anew()`` sends, and ``hurried`` the options of that. ``eager``: it runs each job
    twice. ``lossy``: it leaves out what is null, ``rounding``: digits, ``undated``: when a job was
    made, ``nameless``: the id of one that was sent by its own API. ``leaky``: jobs leave things in
    its context. ``local``: it takes a moment for its own time zone's. ``late``: it drops what is
    past. ``confused``: with a snooze it forgets the failures. Of unique keys it forgets whose they
    are (``mixing``), that each job of a batch has its own (``sharing``), that retries hold them
    (``loose``), that a snooze does (``restless``), that the dead do not (``jealous``), or that a
    batch may have one twice (``rash``). ``silent``: it says nothing of how jobs ended, ``vague``:
    not by which error. ``brittle``: a body's KeyboardInterrupt stops it. ``stuck``: the next run
    has the payload of the first. ``mute``: no job gets a native id. ``alone``: it leaves the
    caller's transaction out. It forgets a job's queue as it is enqueued (``astray``), beside a
    delay (``adrift``), or for its next run (``homing``). ``lax``: it lets dead jobs go. ``open``:
    its consumers serve every queue. ``shared``: each of them runs each job. ``racing``: threads
    look for a key before one of them has it. ``blunt``: it takes upper case for lower in keys.
    ``rushed``: a transaction's jobs do not wait. ``merged``: a batch has one native id.
    ``forgetful``: a consumer that stops takes along what waits. ``impatient``: a job that has not
    ended gives None, ``falsy``: so does one that gave 0. ``locked``: a second thread waits for
    ever. ``freeing``: a consumer that comes takes what others run. ``level``: what is for later has
    no priority. ``split``: a transaction has the first job of a batch alone. ``misnamed``: a
    duplicate has an id of its own.
    """

    tickets_of: ClassVar[Mapping[str, type[LocalTicket]]] = {"impatient": Hasty, "falsy": Falsy}

    name = "queue"
    capabilities = frozenset[Capability](
        "queue priority delay run_at max_attempts backoff unique conn result native".split()
    )
    patience, concurrency = 60.0, 1
    other_queue = "other"

    def __init__(self, fault: str = "") -> None:
        self.fault, self.backend, self.sent = fault, self, 0
        self.served: tuple[str | None, ...] = (None,)
        self.jobs: list[Any] = []
        self.errors: dict[str, str] = {}
        self.keys: dict[str, int] = {}
        self.tickets: dict[int, LocalTicket] = {}
        self.lock = threading.Lock()
        self.thread = threading.current_thread()
        self.taken: list[Any] = []

    def enqueue(self, jobs: Sequence[Job]) -> None:
        if self.fault == "locked" and threading.current_thread() is not self.thread:
            threading.Event().wait()
        held = set(self.keys)
        if self.fault == "racing":
            time.sleep(0.1)
        with self.lock:
            self.take(jobs, held if self.fault in ("rash", "racing") else self.keys)
        if self.fault == "merged":
            for job in jobs:
                job.native_id = jobs[-1].native_id

    def take(self, jobs: Sequence[Job], held: Collection[str]) -> None:
        for job in jobs:
            key = unique_key(jobs[0] if self.fault == "sharing" else job)
            key = job.options.unique if self.fault == "mixing" else key
            key = key.lower() if key is not None and self.fault == "blunt" else key
            if key in held:
                misnamed = self.fault == "misnamed"
                job.accept(duplicate=True, native_id="-1" if misnamed else str(self.keys.get(key)))
                continue
            self.sent += 1
            native_id, options = self.sent, job.options
            adrift = self.fault == "adrift" and options.delay is not None
            queue = None if adrift or self.fault == "astray" else options.queue
            delivery = native_id, queue, job.worker, self.spoilt(pack(job))
            alone = options.conn is None or self.fault == "alone"
            alone |= self.fault == "split" and job is not jobs[0]
            if self.fault == "level" and options.delay is not None:
                delivery[3]["priority"] = 0
            self.put(self.wait(options), delivery, self.jobs if alone else options.conn)
            ticket = self.tickets_of.get(self.fault, LocalTicket)
            self.tickets[native_id] = ticket("available")
            if key is not None:
                self.keys[key] = native_id
            shown = None if self.fault == "mute" else str(native_id)
            job.accept(native_id=shown, ticket=self.tickets[native_id])

    def wait(self, options: JobOptions) -> float:
        if self.fault == "rushed" and options.conn is not None:
            return 0.0
        if options.run_at is None or self.fault not in ("local", "late"):
            return options.wait(time.time())
        if self.fault == "local":
            options = replace(options, run_at=options.run_at.replace(tzinfo=timezone.utc))
        elif options.run_at.timestamp() < time.time():
            return math.inf
        return options.wait(time.time())

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        if self.fault == "hurried":
            for job in jobs:
                job.options = JobOptions()
        if self.fault != "deaf":
            self.enqueue(jobs)

    def spoilt(self, payload: dict[str, Any]) -> dict[str, Any]:
        args = payload["args"].items()
        match self.fault:
            case "lossy":
                args = [(name, value) for name, value in args if value is not None]
            case "rounding":
                text = json.dumps(dict(args))
                args = json.loads(text, parse_float=lambda it: float(f"{float(it):g}")).items()
            case "undated":
                payload["enqueued_at"] = 0
        return payload | {"args": dict(args)}

    def put(self, delay: float, delivery: tuple[Any, ...], into: list[Any]) -> None:
        due = time.time() + (delay / 2 if self.fault == "early" else delay)
        due = 0.0 if self.fault == "hasty" else due
        into.append((due, *delivery))

    def send(self, name: str, payload: Mapping[str, Any]) -> str:
        self.sent += 1
        self.put(0.0, (self.sent, None, name, dict(payload)), self.jobs)
        return str(self.sent)

    def transact(self, worker: Any, args: Any, *, commit: bool, awaited: bool) -> Job:
        conn: list[Any] = []
        job = worker.new(args, conn=conn)
        self.jobs += conn if commit else []
        return job

    def start(self) -> None:
        self.served = (None,)

    def stop(self) -> None:
        self.served = ()
        if self.fault == "forgetful":
            self.jobs = [job for job in self.jobs if job[0] <= time.time()]

    kill = stop

    @contextmanager
    def serving(self, queue: str) -> Iterator[None]:
        self.jobs += self.taken if self.fault == "freeing" else []
        self.served += (queue, None) if self.fault == "open" else (queue,)
        yield

    def kept(self, native_id: str) -> bool:
        return any(str(job[1]) == native_id for job in self.jobs)

    def failed(self, native_id: str) -> str | None:
        return self.errors.get(native_id)

    def advance(self) -> None:
        time.sleep(0.01)
        due_now = [job for job in self.jobs if job[0] <= time.time() and job[2] in self.served]
        for due in sorted(due_now, key=lambda job: -job[4].get("priority", 0)):
            self.jobs.remove(due)
            self.taken.append(due)
            shared = self.fault in ("shared", "counted")
            for earlier in range(self.served.count(due[2]) if shared else 1):
                self.settle(*due[1:], earlier if self.fault == "counted" else 0)

    def settle(
        self, native_id: int, queue: str | None, worker: str, payload: dict[str, Any], earlier: int
    ) -> None:
        name = None if self.fault == "nameless" else str(native_id)
        for _ in range(2 if self.fault == "eager" else 1):
            consumed = consume(payload, worker, self.name, native_id=name, deliveries=earlier)
        if self.fault == "brittle" and isinstance(consumed.verdict.error, KeyboardInterrupt):
            raise consumed.verdict.error
        if self.fault == "leaky":
            workers.mark.set("left")
        goes_on = consumed.verdict.state in ("retryable", "scheduled")
        if native_id in self.tickets and self.fault != "silent":
            self.tickets[native_id].settle(consumed.verdict)
        if goes_on:
            following = consumed.following()
            if self.fault == "confused" and consumed.verdict.state == "scheduled":
                following["failures"] = 0
            if self.fault == "stuck":
                following = payload
            queue = None if self.fault == "homing" else queue
            self.put(consumed.verdict.delay, (native_id, queue, worker, following), self.jobs)
        dead = consumed.verdict.state != "completed"
        if dead and not goes_on and self.fault != "lax":
            error = error_text(consumed.verdict.error)
            self.errors[str(native_id)] = "failed" if self.fault == "vague" else error
        restless = self.fault == "restless" and consumed.verdict.state == "scheduled"
        if self.fault == "loose" or restless or not (goes_on or (self.fault == "jealous" and dead)):
            self.keys = {key: held for key, held in self.keys.items() if held != native_id}


def test_what_came_while_the_machine_stood_still_is_not_missed(journal: Journal) -> None:
    """Once its patience is over the suite looks again before it says that nothing came."""
    came: list[bool] = []
    stalled = SimpleNamespace(patience=0.0, advance=lambda: came.append(True))
    journal.wait(stalled, lambda: bool(came), "the job")
    with pytest.raises(AssertionError, match=r"for another; 0 runs$"):
        journal.wait(stalled, lambda: False, "another")


def test_a_job_of_an_earlier_test_that_runs_only_now_is_left_out(journal: Journal) -> None:
    """A test that failed, and left a delayed job behind, makes no other one fail."""
    with configure(backend=(backend := SyncBackend())):
        workers.echo.new(IDS, delay=1)
        journal.clear()
        job = workers.echo.new(IDS, delay=1)
        backend.drain(2)
    assert [run["job_id"] for run in journal.runs()] == [job.id]
    assert journal.audited("contract.echo") == {job.id}


def test_what_never_came_is_told_with_what_ran_and_that_the_consumer_has_ended(
    journal: Journal,
) -> None:
    """The reason is there, and no args, which may be long."""
    with configure(backend=SyncBackend()):
        job = workers.echo.new({**IDS, "long": "x" * 1_000}, max_attempts=3)
    dead = SimpleNamespace(patience=0.0, advance=lambda: None, alive=False)
    with pytest.raises(AssertionError) as raised:
        journal.wait(dead, lambda: False, "another")
    assert str(raised.value) == (
        "waited 0.0 s for another; 1 runs, the last: sigra.contract.echo "
        f"(job {job.id}, attempt 1 of 3, 0 snoozes); the consumer's process has ended"
    )


def test_what_else_ran_meanwhile_is_told_and_how_the_consumer_s_output_ends(
    journal: Journal,
) -> None:
    """A job of an earlier test that comes again and again may be why nothing else runs."""
    with configure(backend=(backend := SyncBackend())):
        job = workers.recovers.new({**IDS, "failures": 9}, max_attempts=3, backoff=1)
        journal.clear()
        backend.drain(1)
    stalled = SimpleNamespace(patience=0.0, advance=lambda: None, output="x" * 9_000 + "Traceback")
    with pytest.raises(AssertionError) as raised:
        journal.wait(stalled, lambda: False, "another")
    text = str(raised.value)
    assert f"0 runs; meanwhile jobs of earlier tests had 1 runs, the last: {job.worker}" in text
    assert text.endswith("xTraceback")
    assert len(text) < 4_000


class InConsumers(ConsumerContract):
    """The whole suite, of which the cases below run here."""

    delay = 0.2


def test_a_consumer_that_records_no_events_is_told_so(tmp_path: Path) -> None:
    """Jobs run, and each test that looks for an event would wait in vain."""
    journal = Journal(tmp_path)
    stalled = SimpleNamespace(patience=0.0, advance=lambda: None)
    with pytest.raises(AssertionError, match="an event; 0 runs$"):
        journal.wait(stalled, lambda: False, "an event")
    with configure(backend=SyncBackend()):
        workers.ends.new({**IDS, "how": "value"})
    with pytest.raises(AssertionError, match=r"has to call record_events\(\)$"):
        journal.wait(stalled, lambda: False, "an event")


def test_a_frozen_clock_holds_nothing_up(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that froze the clock goes on, and its jobs are seen."""
    looks = iter([time.time_ns()] * 10_000)
    monkeypatch.setattr("sigra.ids.time_ns", lambda: next(looks))
    journal.clear()
    with configure(backend=SyncBackend()):
        workers.ends.new({**IDS, "how": "value"})
    assert 1 == len(journal.runs())


def test_a_clock_of_windows_tells_a_test_s_jobs_from_earlier_ones(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may stand still for 16 ms, in which ids have no order."""
    tick = 16_000_000
    monkeypatch.setattr("sigra.ids.time_ns", lambda: time.time_ns() // tick * tick)
    backend = SyncBackend()
    with configure(backend=backend):
        for _ in range(20):
            workers.ends.new({**IDS, "how": "value"}, delay=0.001)
            journal.clear()
            job = workers.ends.new({**IDS, "how": "value"})
            backend.drain(1)
            assert [job.id] == [run["job_id"] for run in journal.runs()]


SOON = r"ran [0-9.]+ s before it was due"
SEEN = "^(?!waited)"
"""Told by what came, and not by what did not."""


@pytest.mark.parametrize(
    ("fault", "case", "says"),
    [
        ("hasty", "test_a_delayed_job_runs_later", SOON),
        ("hasty", "test_a_snoozed_job_runs_later", SOON),
        ("hasty", "test_a_failed_job_runs_again_later", SOON),
        ("early", "test_a_delayed_job_runs_later", SOON),
        ("early", "test_a_snoozed_job_runs_later", SOON),
        ("early", "test_a_failed_job_runs_again_later", SOON),
        ("deaf", "test_an_asynchronous_batch_arrives_whole", "waited 0.2 s for 3 jobs; 0 runs"),
        ("hurried", "test_a_delayed_job_runs_later", SOON),
        ("eager", "test_a_batch_arrives_whole", SEEN),
        ("lossy", "test_args_arrive_as_a_json_round_trip_gives_them", SEEN),
        ("rounding", "test_args_arrive_as_a_json_round_trip_gives_them", SEEN),
        ("undated", "test_scope_args_and_job_are_injected", SEEN),
        ("brittle", "test_an_outcome_ends_the_job", "KeyboardInterrupt came to its producer"),
        ("nameless", "test_a_hand_built_job_with_its_keys_runs", "as native_id="),
        ("stuck", "test_a_failed_attempt_is_retried_with_the_same_scope", r"following\(\)"),
        ("stuck", "test_a_snooze_uses_no_attempt", r"following\(\)"),
        ("mute", "test_a_transaction_that_rolls_back_leaves_no_job", r"accept\(native_id="),
        ("alone", "test_a_transaction_that_rolls_back_leaves_no_job", "by job.options.conn"),
        ("lax", "test_a_cancelled_job_is_not_shown_as_done", "waited .* must not let go"),
        ("vague", "test_a_job_without_attempts_left_is_shown_as_failed", "error_text"),
        ("astray", "test_each_run_of_a_job_is_in_its_queue", "waited .* 'other', which alone is"),
        ("homing", "test_each_run_of_a_job_is_in_its_queue", "waited .* 'other', which alone is"),
        ("adrift", "test_each_run_of_a_job_is_in_its_queue", "waited .* 'other', which alone is"),
        ("shared", "test_of_two_consumers_one_runs_a_job", "so that no other can"),
        ("counted", "test_of_two_consumers_one_runs_a_job", "so that no other can"),
        ("open", "test_each_run_of_a_job_is_in_its_queue", "serve that queue alone"),
        ("leaky", "test_nothing_that_a_job_sets_outlives_it", SEEN),
        ("mixing", "test_a_unique_key_is_one_worker_s", r"keep unique_key\(job\)"),
        ("loose", "test_a_unique_key_holds_while_a_retry_waits", "enqueue nothing"),
        ("restless", "test_a_unique_key_holds_while_a_snooze_lasts", "enqueue nothing"),
        ("jealous", "test_a_job_that_failed_for_good_gives_its_unique_key_up", "waited .* the key"),
        ("sharing", "test_of_a_batch_each_job_has_its_own_unique_key", "enqueue nothing"),
        ("rash", "test_of_a_batch_under_one_unique_key_one_job_is_enqueued", SEEN),
        ("local", "test_a_delayed_job_runs_later", SOON),
        ("late", "test_a_job_whose_moment_is_past_runs", "waited 0.2 s for run 1 of"),
        ("confused", "test_snoozes_and_failures_are_counted_apart", SEEN),
        ("racing", "test_of_several_threads_one_enqueues_a_job_under_a_key", "in one step"),
        ("blunt", "test_unique_keys_that_look_alike_are_different", r"\['mail'\]"),
        ("rushed", "test_a_job_of_a_transaction_has_its_options", "beside a conn"),
        ("merged", "test_a_job_without_attempts_left_is_shown_as_failed", "waited .* of a batch"),
        ("hurried", "test_a_larger_priority_runs_sooner", "awaited or not"),
        ("level", "test_a_larger_priority_runs_sooner", "beside a delay"),
        ("split", "test_a_transaction_that_rolls_back_leaves_no_job", "by job.options.conn"),
        ("freeing", "test_of_two_consumers_one_runs_a_job", "so that no other can"),
        ("misnamed", "test_a_unique_key_holds_while_the_job_is_unfinished", "native id"),
        ("falsy", "test_a_result_that_is_false_is_no_none", SEEN),
        ("locked", "test_jobs_of_several_threads_arrive", "waited .* 40 of 40 calls"),
        ("locked", "test_of_several_threads_one_enqueues_a_job_under_a_key", "waited .* 8 of 8"),
        (
            "forgetful",
            "test_what_is_due_later_outlives_its_consumer",
            "waited .* at the consumer's",
        ),
        ("impatient", "test_a_job_that_is_to_be_retried_has_no_result", "TimeoutError"),
        (
            "silent",
            "test_a_job_that_is_to_be_retried_has_no_result",
            "waited .* its second attempt",
        ),
    ],
)
def test_a_backend_that_breaks_a_promise_fails_the_suite(
    own_time: None, journal: Journal, fault: str, case: str, says: str
) -> None:
    """It is told by the case of that promise, which one that keeps it passes."""
    run = getattr(InConsumers(), case)
    given = {"how": "interrupt" if fault == "brittle" else "failure", "outcome": "error"}
    given |= {"failures": 1, "mute": False, "awaited": False, "end": "stop"}
    run = partial(run, **{n: given[n] for n in inspect.signature(run).parameters if n in given})
    with configure(backend=(queue := Queue())):
        run(queue, journal)
    journal.clear()
    queue = Queue(fault)
    queue.patience = 0.2 if says.startswith("waited") else 10.0
    # In a context of its own: what a leaky one leaves there ends with it.
    with configure(backend=queue), pytest.raises(AssertionError, match=says):
        copy_context().run(run, queue, journal)


@pytest.mark.parametrize("repeats", [True, False])
def test_what_becomes_due_during_a_stop_may_come_again_where_a_queue_repeats_it(
    journal: Journal, repeats: bool
) -> None:
    """A stop may take as long as the jobs wait: a queue that says so failed on a busy machine."""

    class Suite(InConsumers):
        repeats_at_stop = repeats

    queue = Queue("eager")
    told = nullcontext() if repeats else pytest.raises(AssertionError, match=SEEN)
    with configure(backend=queue), told:
        Suite().test_what_is_due_later_outlives_its_consumer(queue, journal, "stop")
