"""The thread backend: options, a bounded queue, closing, and threads that nothing ends."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import os
import queue
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from log_handlers import exiting, handled_by
from rights import no_more_threads

from sigra import (
    AuditScope,
    Cancel,
    EnqueueError,
    Failure,
    Job,
    JobCancelledError,
    JobFailedError,
    JobInfo,
    MissingArgError,
    Snooze,
    ThreadBackend,
    configure,
    tenant_args,
    tenant_worker,
    worker,
)
from sigra.backends.inprocess import alarm
from sigra.backends.inprocess.arrival import Arrival
from sigra.backends.inprocess.convoy import let_pass
from sigra.backends.inprocess.line import Turn
from sigra.backends.inprocess.pool import Pool
from sigra.backends.inprocess.ticket import LocalTicket
from sigra.registry import resolve_backend
from sigra.verdict import Verdict
from sigra.workers import for_each_organization

TENANT = {"organization_id": "42", "actor_id": "7"}
PATIENCE = 240.0
note = contextvars.ContextVar("note", default="unset")

gates: dict[str, threading.Event] = {}
ran: list[Any] = []


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    ran.clear()
    gates.clear()
    with configure():
        yield
    for gate in gates.values():
        gate.set()


@pytest.fixture
def pool() -> Iterator[ThreadBackend]:
    """A pool of one thread, which is the default backend meanwhile."""
    backend = ThreadBackend(1, queue_size=3, enqueue_timeout=0.01)
    configure(backend=backend)
    yield backend
    for gate in gates.values():
        gate.set()
    backend.close(PATIENCE)


@pytest.fixture
def patient() -> Iterator[ThreadBackend]:
    """The same, but waiting for room as long as it takes."""
    backend = ThreadBackend(1, queue_size=3, enqueue_timeout=None)
    configure(backend=backend)
    yield backend
    for gate in gates.values():
        gate.set()
    backend.close(PATIENCE)


@worker
def remember(n: Any) -> Any:
    ran.append(n)
    return n


@worker
def hold(name: str) -> str:
    """Keep a thread busy until the test opens the gate."""
    gates[f"{name} began"].set()
    assert gates[name].wait(PATIENCE)
    ran.append(name)
    return name


@worker(max_attempts=3, backoff=0)
def attempted(job: JobInfo, fails: int, log: bool = True) -> str:
    ran.append(job.attempt)
    if job.attempt <= fails:
        raise ValueError(f"attempt {job.attempt}")
    return "done"


def held(name: str = "gate") -> Job:
    """Enqueue a job that keeps its thread until its gate opens, and see it begin."""
    gates[name], gates[f"{name} began"] = threading.Event(), threading.Event()
    job = hold.new({"name": name})
    assert gates[f"{name} began"].wait(PATIENCE)
    return job


@worker
def where() -> int:
    return threading.get_ident()


def test_a_job_runs_in_a_thread_of_the_pool(pool: ThreadBackend) -> None:
    """The body runs in one of the pool's threads, never in the caller's."""
    job = where.new({})
    assert job.result(PATIENCE) not in (threading.get_ident(), None)
    assert "completed" == job.state
    assert "thread" == job.backend


@worker(name="thread.opens")
def opens(name: str) -> None:
    gates[name].set()


def test_jobs_that_come_at_once_have_a_thread_each() -> None:
    """Where two see the same idle thread, the second is not kept waiting for the first."""
    backend = ThreadBackend(2)
    with configure(backend=backend):
        where.new({}).result(PATIENCE)
        gates["gate"], gates["gate began"] = threading.Event(), threading.Event()
        pool: Any = backend._pool
        while not pool._crew.idle:
            time.sleep(0.01)
        with pool._lock:
            producers = [
                threading.Thread(target=contextvars.copy_context().run, args=(each.new, args))
                for each, args in [(hold, {"name": "gate"}), (opens, {"name": "gate"})]
            ]
            for producer in producers:
                producer.start()
            time.sleep(0.2)  # for both to look before either has enqueued
        for producer in producers:
            producer.join()
        assert gates["gate began"].wait(PATIENCE)
        assert gates["gate"].wait(60)  # well before the other gives up
    backend.close(PATIENCE)


@worker
async def doubled(n: int) -> int:
    await asyncio.sleep(0)
    return 2 * n


def test_an_async_function_runs_by_a_loop_of_its_own(pool: ThreadBackend) -> None:
    """An async worker's value is its coroutine's."""
    assert 8 == doubled.new({"n": 4}).result(PATIENCE)


def test_a_wait_that_ctrl_c_broke_holds_up_no_other_job() -> None:
    """The interpreter may leave its lock held for good; other jobs' results come all the same."""
    backend, results = ThreadBackend(2), list[Any]()
    with configure(backend=backend):
        broken, other = held("broken"), held("other")
        waiter = threading.Thread(target=lambda: results.append(other.result(60)), daemon=True)
        ticket: Any = broken.ticket
        with ticket._waiter()._condition:
            gates["broken"].set()
            while ticket.verdict is None:
                time.sleep(0.01)
            time.sleep(0.2)  # for its thread to come to the lock
            waiter.start()
            gates["other"].set()
            waiter.join(60)
            assert ["other"] == results
        assert "broken" == broken.result(PATIENCE)
    backend.close(PATIENCE)


def test_aresult_waits_on_a_loop(pool: ThreadBackend) -> None:
    """``await job.aresult()`` gives the value without blocking the loop."""

    async def main() -> Any:
        job = await doubled.anew({"n": 21})
        return await job.aresult(PATIENCE)

    assert 42 == asyncio.run(main())


def test_result_times_out_while_the_job_is_unfinished(pool: ThreadBackend) -> None:
    """``result(timeout)`` raises ``TimeoutError`` while the body runs, on a loop too."""
    job = held()
    assert "executing" == job.state
    with pytest.raises(TimeoutError, match=r"executing after 0\.001 s"):
        job.result(0.001)
    with pytest.raises(TimeoutError, match=r"executing after 0\.001 s"):
        asyncio.run(job.aresult(0.001))
    gates["gate"].set()
    assert "gate" == job.result(PATIENCE)


def test_a_wait_on_a_loop_that_ended_leaves_nothing(pool: ThreadBackend) -> None:
    """Who polls ``aresult(timeout)``, or is cancelled in it, leaves no future; others wait on."""
    job = held()

    async def wait_in_vain() -> None:
        with pytest.raises(TimeoutError):
            await job.aresult(0.001)
        cancelled = asyncio.create_task(job.aresult(PATIENCE))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled

    async def poll() -> str:
        waiting = asyncio.create_task(job.aresult(PATIENCE))
        await asyncio.sleep(0)
        await wait_in_vain()
        before = _futures()
        for _ in range(20):
            await wait_in_vain()
        assert _futures() <= before
        gates["gate"].set()
        return await waiting

    assert "gate" == asyncio.run(poll())


def test_a_verdict_that_comes_as_the_time_is_over_is_returned() -> None:
    """``TimeoutError`` means unfinished: a busy loop may see both at once."""
    verdict, arrival = Verdict("completed", "late"), Arrival()

    async def main() -> Verdict:
        waiting = asyncio.create_task(arrival.wait(0.001))
        await asyncio.sleep(0)
        time.sleep(0.01)
        arrival.set_result(verdict)
        return await waiting

    assert asyncio.run(main()) is verdict
    with pytest.raises(TimeoutError):
        asyncio.run(Arrival().wait(0))


def _futures() -> int:
    gc.collect()
    return sum(issubclass(type(each), asyncio.Future) for each in gc.get_objects())


def test_a_loop_that_was_closed_in_a_wait_disturbs_no_other(pool: ThreadBackend) -> None:
    """A job ends, and wakes who still waits, though the loop of another wait was closed."""
    job = held()
    loop = asyncio.new_event_loop()
    abandoned = loop.create_task(job.aresult(PATIENCE))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    async def main() -> str:
        waiting = asyncio.create_task(job.aresult(PATIENCE))
        await asyncio.sleep(0)
        gates["gate"].set()
        return await waiting

    assert "gate" == asyncio.run(main())
    abandoned._log_destroy_pending = False  # type: ignore[attr-defined]


@worker
def returning(kind: str) -> Any:
    return {"failure": Failure("no"), "cancel": Cancel("enough")}[kind]


@pytest.mark.parametrize(
    ("kind", "error", "state"),
    [("failure", JobFailedError, "discarded"), ("cancel", JobCancelledError, "cancelled")],
)
def test_an_outcome_is_what_result_raises(
    pool: ThreadBackend, kind: str, error: type[Exception], state: str
) -> None:
    """``Failure`` and ``Cancel`` end the job in their own state and error."""
    job = returning.new({"kind": kind})
    with pytest.raises(error):
        job.result(PATIENCE)
    assert state == job.state


class Odd(BaseException):
    """Nothing that anyone expects."""


RAISED: dict[str, BaseException] = {
    "SystemExit": SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "GeneratorExit": GeneratorExit(),
    "StopIteration": StopIteration(),
    "CancelledError": asyncio.CancelledError(),
    "Odd": Odd(),
}


@worker
def raising(name: str) -> None:
    raise RAISED[name]


@worker
async def araising(name: str) -> None:
    raise RAISED[name]


@pytest.mark.parametrize("name", list(RAISED))
def test_no_exception_of_a_job_ends_its_thread(pool: ThreadBackend, name: str) -> None:
    """Whatever a body raises, SystemExit included, the same thread runs the next job."""
    thread = where.new({}).result(PATIENCE)
    job = raising.new({"name": name})
    with pytest.raises(type(RAISED[name])):
        job.result(PATIENCE)
    assert "discarded" == job.state
    assert thread == where.new({}).result(PATIENCE)


def test_no_exception_of_a_log_handler_ends_a_thread(pool: ThreadBackend) -> None:
    """What a handler raises while a failure is logged ends neither the thread nor the waiting."""
    with handled_by(exiting), pytest.raises(SystemExit):
        raising.new({"name": "StopIteration"}).result(PATIENCE)
    assert isinstance(where.new({}).result(PATIENCE), int)


def test_a_job_that_is_discarded_for_a_log_handler_is_named(pool: ThreadBackend) -> None:
    """Whoever reads the log learns which job it was, and what the handler raised."""
    records = list[logging.LogRecord]()

    def exiting_once(record: logging.LogRecord) -> None:
        records.append(record)
        if len(records) == 1:
            exiting(record)

    with handled_by(exiting_once):
        job = raising.new({"name": "StopIteration"})
        with pytest.raises(SystemExit):
            job.result(PATIENCE)
    _, said = records
    assert f"job {job.id} of {raising.name} is discarded: handling its outcome raised" == (
        said.getMessage()
    )
    assert said.exc_info is not None
    assert SystemExit is said.exc_info[0]


@pytest.mark.parametrize("name", [name for name in RAISED if name != "StopIteration"])
def test_no_exception_of_a_coroutine_ends_its_thread(pool: ThreadBackend, name: str) -> None:
    """The same holds for what an async worker raises."""
    thread = where.new({}).result(PATIENCE)
    with pytest.raises(type(RAISED[name])):
        araising.new({"name": name}).result(PATIENCE)
    assert thread == where.new({}).result(PATIENCE)


scopes: list[tuple[int, str, AuditScope]] = []


@tenant_worker(max_attempts=3, backoff=0)
def scoped(scope: AuditScope, job: JobInfo) -> None:
    scopes.append((job.attempt, job.id, scope))
    if job.attempt < 3:
        raise SystemExit


def test_every_attempt_has_the_same_scope(pool: ThreadBackend) -> None:
    """A retry counts its attempt and rebuilds the same scope, impersonator included."""
    scopes.clear()
    job = scoped.new({**TENANT, "impersonating_from": "admin"})
    job.result(PATIENCE)
    scope = AuditScope.build(actor_id="7", organization_id="42", impersonating_from="admin")
    assert [(n, job.id, scope) for n in (1, 2, 3)] == scopes


def test_attempts_are_bounded(pool: ThreadBackend) -> None:
    """A job that fails each of its attempts is discarded with its last error."""
    job = attempted.new({"fails": 9})
    with pytest.raises(ValueError, match="attempt 3"):
        job.result(PATIENCE)
    assert ([1, 2, 3], "discarded") == (ran, job.state)


def test_backoff_delays_the_next_attempt(pool: ThreadBackend) -> None:
    """A failed attempt leaves the job retryable until its backoff has passed."""
    job = attempted.new({"fails": 1}, backoff=60)
    where.new({}).result(PATIENCE)
    assert ([1], "retryable") == (ran, job.state)
    assert "done" == attempted.new({"fails": 2}, backoff=lambda attempt: 0.001).result(PATIENCE)


@worker(max_attempts=1)
def snoozing(job: JobInfo, seconds: float = 1) -> Any:
    ran.append((job.attempt, job.snoozes))
    return Snooze(seconds) if job.snoozes == 0 else "awake"


def test_a_snooze_uses_up_no_attempt(pool: ThreadBackend) -> None:
    """A snoozed job with one attempt runs again, as the first attempt still."""
    job = snoozing.new({})
    assert "awake" == job.result(PATIENCE)
    assert [(1, 0), (1, 1)] == ran


def test_a_lock_that_stays_held_is_not_watched_for_ever() -> None:
    """Whoever lets others pass goes on after a few turns, and waits as for any lock."""
    lock = threading.Lock()
    with lock:
        watching = threading.Thread(target=let_pass, args=(lock,), daemon=True)
        watching.start()
        watching.join(PATIENCE)
        assert not watching.is_alive()


def test_larger_priority_runs_sooner() -> None:
    """Waiting jobs run by priority, those of one priority in the order of enqueueing."""
    backend = ThreadBackend(1)
    configure(backend=backend)
    held()
    for n, priority in enumerate((0, -1, 5, 0, 5, 2)):
        remember.new({"n": n}, priority=priority)
    gates["gate"].set()
    backend.close(PATIENCE)
    assert ["gate", 2, 4, 5, 0, 3, 1] == ran


def test_priorities_of_a_batch(pool: ThreadBackend) -> None:
    """A batch of an urgent priority goes before the plain jobs that wait, in its own order."""
    held()
    remember.new({"n": "plain"})
    remember.new_many([{"n": 1}, {"n": 2}], priority=7)
    gates["gate"].set()
    pool.close(PATIENCE)
    assert ["gate", 1, 2, "plain"] == ran


@pytest.mark.parametrize("how", ["delay", "run_at"])
def test_a_delayed_job_runs_when_it_is_due(pool: ThreadBackend, how: str) -> None:
    """``delay`` and ``run_at`` leave the job scheduled until then."""
    soon = timedelta(seconds=0.2)
    later = remember.new({"n": "later"}, delay=60)
    due = datetime.now(timezone.utc) + soon
    job = remember.new({"n": 1}, **{how: soon if how == "delay" else due})
    assert "scheduled" == job.state or datetime.now(timezone.utc) >= due
    assert 1 == job.result(PATIENCE)
    assert "scheduled" == later.state


def test_a_job_that_is_due_and_waits_for_a_thread_is_available(pool: ThreadBackend) -> None:
    """Its state says whether it waits for its time or for a thread."""
    held()
    later = remember.new({"n": "later"}, delay=0.001)
    assert "available" == remember.new({"n": "now"}, priority=1).state
    end = time.monotonic() + PATIENCE
    while later.state == "scheduled" and time.monotonic() < end:
        time.sleep(0.001)
    assert "available" == later.state


def test_a_time_in_the_past_is_due(pool: ThreadBackend) -> None:
    """A ``run_at`` that has passed means at once."""
    long_ago = datetime(2001, 1, 1, tzinfo=timezone.utc)
    assert 1 == remember.new({"n": 1}, run_at=long_ago).result(PATIENCE)


def test_a_job_may_wait_for_longer_than_a_lock_can(pool: ThreadBackend) -> None:
    """A delay of centuries is kept as it is."""
    job = remember.new({"n": 1}, delay=1e12)
    assert 2 == remember.new({"n": 2}, delay=0.001).result(PATIENCE)
    assert [job] == pool.close(PATIENCE)


def test_the_queue_is_kept_as_a_label(pool: ThreadBackend) -> None:
    """A queue's name changes nothing about how the job runs, and the job keeps it."""
    job = remember.new({"n": 1}, queue="mail")
    assert (1, "mail") == (job.result(PATIENCE), job.queue)


def test_unique_holds_while_the_first_is_unfinished(pool: ThreadBackend) -> None:
    """A second job with the key is not enqueued, and answers as the first does."""
    held()
    first = remember.new({"n": 1}, unique="k")
    second = remember.new({"n": 2}, unique="k")
    assert (False, True) == (first.duplicate, second.duplicate)
    assert first.id == second.native_id
    gates["gate"].set()
    assert (1, ["gate", 1]) == (second.result(PATIENCE), ran)


def test_a_unique_key_is_free_once_the_result_is_there(pool: ThreadBackend) -> None:
    """Who has seen the result may enqueue with the same key again."""
    for n in range(200):
        job = remember.new({"n": n}, unique="k")
        assert (False, n) == (job.duplicate, job.result(PATIENCE))


def test_a_unique_key_is_a_workers_own(pool: ThreadBackend) -> None:
    """Two workers may use one key at a time, and one worker two keys."""
    held()
    jobs = [remember.new({"n": 1}, unique="k"), where.new({}, unique="k")]
    jobs.append(remember.new({"n": 1}, unique="l"))
    assert [False] * 3 == [job.duplicate for job in jobs]


def test_a_retry_holds_its_unique_key(pool: ThreadBackend) -> None:
    """A job between two attempts is unfinished, so its key is taken."""
    attempted.new({"fails": 1}, unique="k", backoff=60)
    where.new({}).result(PATIENCE)
    assert attempted.new({"fails": 0}, unique="k").duplicate


def test_a_batch_may_hold_its_own_duplicates(pool: ThreadBackend) -> None:
    """Of a batch under one key only the first item is enqueued."""
    jobs = remember.new_many([{"n": 1}, {"n": 2}], unique="k")
    assert [False, True] == [job.duplicate for job in jobs]


def fill(count: int = 3) -> list[Job]:
    """Keep the only thread busy and let ``count`` jobs wait behind."""
    held()
    return [remember.new({"n": n}) for n in range(count)]


def test_a_full_queue_refuses_after_its_timeout(pool: ThreadBackend) -> None:
    """``.new()`` waits for room, then raises ``EnqueueError``, and the job never runs."""
    fill()
    with pytest.raises(EnqueueError, match="3 jobs stayed full for 0.01 s"):
        remember.new({"n": "too many"})
    gates["gate"].set()
    assert [] == pool.close(PATIENCE)
    assert ["gate", 0, 1, 2] == ran


def test_a_producer_waits_for_room() -> None:
    """``.new()`` goes on as soon as a thread has taken a job from the full queue."""
    backend = ThreadBackend(1, queue_size=1, enqueue_timeout=None)
    configure(backend=backend)
    fill(1)
    producers = [threading.Thread(target=remember.new, args=({"n": n},)) for n in (1, 2, 3)]
    for producer in producers:
        producer.start()
    gates["gate"].set()
    for producer in producers:
        producer.join(PATIENCE)
    assert [] == backend.close(PATIENCE)
    assert [0, 1, 2, 3] == sorted(ran[1:])


def in_line(backend: ThreadBackend) -> int:
    """Count the producers that wait for room."""
    return 0 if backend._pool is None else len(backend._pool._line)


@worker
def step() -> None:
    assert steps.acquire(timeout=PATIENCE)


steps = threading.Semaphore(0)


def test_a_place_that_gets_free_is_looked_at_by_one_producer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others in line sleep on: each looks as it comes, when called, and when it is next."""
    looks, clear = list[Turn](), Turn.clear

    def look(turn: Turn) -> None:
        looks.append(turn)
        clear(turn)

    monkeypatch.setattr(Turn, "clear", look)
    backend = ThreadBackend(1, queue_size=1, enqueue_timeout=None)
    configure(backend=backend)
    producers = [threading.Thread(target=step.new, args=({},)) for _ in range(22)]
    for producer in producers:
        producer.start()
    while in_line(backend) < 20:
        time.sleep(0.001)
    for _ in producers:
        time.sleep(0.01)  # for those who look in vain
        steps.release()
    for producer in producers:
        producer.join(PATIENCE)
    assert [] == backend.close(PATIENCE)
    assert len(looks) <= 80


def test_a_batch_goes_in_whole_or_not_at_all(pool: ThreadBackend) -> None:
    """A batch that finds too little room raises, and none of it runs."""
    fill(2)
    with pytest.raises(EnqueueError):
        remember.new_many([{"n": "a"}, {"n": "b"}])
    gates["gate"].set()
    pool.close(PATIENCE)
    assert ["gate", 0, 1] == ran


def test_a_batch_larger_than_the_queue_goes_in_when_nothing_waits(pool: ThreadBackend) -> None:
    """A batch beyond ``queue_size`` is taken whole by an empty queue only."""
    batch = [{"n": n} for n in range(50)]
    assert list(range(50)) == [job.result(PATIENCE) for job in remember.new_many(batch)]
    fill(1)
    with pytest.raises(EnqueueError):
        remember.new_many(batch)


def test_jobs_for_later_take_no_room(pool: ThreadBackend) -> None:
    """A full queue still takes what is scheduled, and duplicates, which need no place."""
    fill(2)
    first = remember.new({"n": 2}, unique="k")
    assert "scheduled" == remember.new({"n": 3}, delay=60).state
    second = remember.new({"n": 4}, unique="k")
    assert (True, first.id) == (second.duplicate, second.native_id)


@pytest.mark.parametrize("options", [{"priority": 1}, {"unique": "its own"}])
def test_a_job_that_is_due_takes_room(pool: ThreadBackend, options: dict[str, Any]) -> None:
    """With whatever options: a full queue takes none that would wait in it."""
    fill()
    with pytest.raises(EnqueueError, match="stayed full"):
        remember.new({"n": "too many"}, **options)


def test_a_round_that_is_repeated_needs_room_for_what_is_new(pool: ThreadBackend) -> None:
    """In a batch too, jobs that are there already take no place in the queue."""
    fill(1)
    for_each_organization(of_organization, ["1"], tick="now")
    first, second = for_each_organization(of_organization, ["1", "2"], tick="now")
    assert (True, False) == (first.duplicate, second.duplicate)


@tenant_worker
def of_organization(scope: AuditScope) -> None:
    """Do nothing for an organization."""


@worker
def parent(children: int, depth: int = 0) -> list[Job]:
    if depth:
        return parent.new_many([{"children": children, "depth": depth - 1}] * children)
    return [remember.new({"n": n}) for n in range(children)]


def test_a_job_enqueues_past_a_full_queue(pool: ThreadBackend) -> None:
    """The children of a job are taken beyond the bound: the pool cannot wait for itself."""
    jobs = parent.new({"children": 20}).result(PATIENCE)
    assert list(range(20)) == [job.result(PATIENCE) for job in jobs]


def test_anew_lets_the_loop_go_on_while_it_waits(patient: ThreadBackend) -> None:
    """With a full queue, other tasks of the loop run while ``anew`` waits for room."""
    fill()

    async def main() -> Any:
        waiting = asyncio.create_task(remember.anew({"n": "late"}))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        gates["gate"].set()
        return await (await waiting).aresult(PATIENCE)

    assert "late" == asyncio.run(main())


def test_anew_that_is_cancelled_enqueues_nothing(patient: ThreadBackend) -> None:
    """Who stops waiting for room has not enqueued."""
    fill()

    async def main() -> None:
        waiting = asyncio.create_task(remember.anew({"n": "cancelled"}))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    gates["gate"].set()
    patient.close(PATIENCE)
    assert ["gate", 0, 1, 2] == ran


def test_who_leaves_the_line_makes_room_for_the_next(patient: ThreadBackend) -> None:
    """A batch that waits for two places and gives up no longer keeps others from one."""
    fill(2)

    async def main() -> None:
        batch = asyncio.create_task(remember.anew_many([{"n": "a"}, {"n": "b"}]))
        while not in_line(patient):
            await asyncio.sleep(0)
        following = asyncio.create_task(remember.anew({"n": 2}))
        await asyncio.sleep(0.01)
        assert not following.done()
        batch.cancel()
        await following

    asyncio.run(main())
    gates["gate"].set()
    patient.close(PATIENCE)
    assert ["gate", 0, 1, 2] == ran


def test_anew_refuses_as_new_does(pool: ThreadBackend) -> None:
    """``anew`` raises ``EnqueueError`` when the queue stays full."""
    fill()
    with pytest.raises(EnqueueError, match="stayed full"):
        asyncio.run(remember.anew({"n": "too many"}))


def test_close_finishes_what_is_due(pool: ThreadBackend) -> None:
    """``close`` waits for what runs and then runs what waits; nothing is left."""
    fill()
    left: list[list[Job]] = []
    closer = threading.Thread(target=lambda: left.append(pool.close()))
    closer.start()
    gates["gate"].set()
    closer.join(PATIENCE)
    assert [[]] == left
    assert ["gate", 0, 1, 2] == ran


def test_close_finishes_due_retries(pool: ThreadBackend) -> None:
    """A retry without backoff is due, so ``close`` finishes its job."""
    held()
    job = attempted.new({"fails": 2})
    gates["gate"].set()
    assert [] == pool.close(PATIENCE)
    assert "completed" == job.state


def test_close_finishes_the_children_of_what_is_due(pool: ThreadBackend) -> None:
    """What a job enqueues while the pool closes is taken, and finished."""
    held()
    parent.new({"children": 3, "depth": 2})
    gates["gate"].set()
    assert [] == pool.close(PATIENCE)
    assert 27 == len(ran) - 1


def test_close_returns_what_is_for_later(pool: ThreadBackend) -> None:
    """``close`` returns the jobs that are scheduled, snoozed, or to be retried later."""
    later = [
        remember.new({"n": 1}, delay=3600),
        attempted.new({"fails": 1}, backoff=3600),
        snoozing.new({"seconds": 3600}),
    ]
    done = where.new({})
    left = pool.close(PATIENCE)
    assert set(later) == set(left)
    assert ["scheduled", "retryable", "scheduled"] == [job.state for job in later]
    assert "completed" == done.state
    for job in left:
        with pytest.raises(TimeoutError, match="was closed"):
            job.result()


def test_close_returns_what_a_timeout_left(pool: ThreadBackend) -> None:
    """After its timeout ``close`` returns what runs and what waits; the latter never begins."""
    waiting = fill()
    left = pool.close(0.01)
    assert ["executing", *["available"] * 3] == [job.state for job in left]
    assert waiting == left[1:]
    gates["gate"].set()
    assert "gate" == left[0].result(PATIENCE)
    assert ["gate"] == ran


def test_a_timeout_that_is_no_number_closes_nothing(pool: ThreadBackend) -> None:
    """It would never be over."""
    with pytest.raises(ValueError, match="timeout must be seconds, or None"):
        pool.close(float("nan"))
    assert 1 == remember.new({"n": 1}).result(PATIENCE)


@worker
def ends_at_the_gate(how: str) -> Any:
    gates["began"].set()
    assert gates["gate"].wait(PATIENCE)
    if how == "snooze":
        return Snooze(3600)
    raise {"fail": ValueError, "lack": MissingArgError}[how]("why")


SAID = {
    "snooze": "snoozed (1 so far)",
    "fail": "raised ValueError",
    "lack": "raised MissingArgError",
}


@pytest.mark.parametrize(
    ("when", "how", "most", "said"),
    [
        ("open", "fail", 2, "; again in 3600 s"),
        ("open", "snooze", 1, "; again in 3600 s"),
        ("draining", "fail", 2, "; its backend is closing, and it may not run again"),
        ("draining", "snooze", 1, "; its backend is closing, and it may not run again"),
        ("draining", "fail", 1, ""),
        ("draining", "lack", 2, ""),
        ("closed", "fail", 2, "; its backend was closed, and it does not run again"),
        ("closed", "snooze", 1, "; its backend was closed, and it does not run again"),
        ("closed", "fail", 1, ""),
    ],
)
def test_a_job_that_close_returns_is_not_said_to_come_again(
    pool: ThreadBackend,
    caplog: pytest.LogCaptureFixture,
    when: str,
    how: str,
    most: int,
    said: str,
) -> None:
    """The log line of its attempt says so, where it would run again if the backend stayed open."""
    caplog.set_level(logging.INFO, "sigra.job")
    gates["gate"], gates["began"] = threading.Event(), threading.Event()
    job = ends_at_the_gate.new({"how": how}, max_attempts=most, backoff=3600)
    assert gates["began"].wait(PATIENCE)
    if when == "closed":
        assert [job] == pool.close(0)
    closing = threading.Thread(target=pool.close)
    if when == "draining":
        closing.start()
        assert pool._pool is not None
        while pool._pool.phase == "open":
            time.sleep(0.001)
    gates["gate"].set()
    while not caplog.messages:
        time.sleep(0.001)
    assert caplog.messages[0].endswith(f"{SAID[how]}{said}")
    if when == "draining":
        closing.join(PATIENCE)


@worker
def enqueueing_late() -> None:
    gates["began"].set()
    assert gates["gate"].wait(PATIENCE)
    try:
        remember.new({"n": "late"})
    except EnqueueError as error:
        ran.append(str(error))


def test_a_body_that_goes_on_after_close_enqueues_nothing(pool: ThreadBackend) -> None:
    """It is told so: what nothing would run is not taken."""
    gates["gate"], gates["began"] = threading.Event(), threading.Event()
    job = enqueueing_late.new({})
    assert gates["began"].wait(PATIENCE)
    assert [job] == pool.close(0)
    gates["gate"].set()
    end = time.monotonic() + PATIENCE
    while job.state != "completed" and time.monotonic() < end:
        time.sleep(0.001)
    (told,) = ran
    assert "it was closed" in told


def test_a_close_that_gives_up_ends_another_that_waits(pool: ThreadBackend) -> None:
    """Who closes without patience speaks for all."""
    held()
    left = list[list[Job]]()
    waiting = threading.Thread(target=lambda: left.append(pool.close()), daemon=True)
    waiting.start()
    while pool._pool is not None and pool._pool.phase == "open":
        time.sleep(0.001)
    assert 1 == len(pool.close(0))
    waiting.join(PATIENCE)
    assert [[]] == left


def test_close_releases_who_waits_for_a_result(pool: ThreadBackend) -> None:
    """A thread or a task that waits for a job that cannot finish any more is told."""
    job = remember.new({"n": 1}, delay=60)
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            job.result()
        except TimeoutError as error:
            raised.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    pool.close()
    waiting.join(PATIENCE)
    assert 1 == len(raised)


def test_close_returns_nothing_that_has_finished(
    pool: ThreadBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the thread that ran it has not let go of it yet."""
    following = Pool._next

    def stalled(self: Pool, me: int) -> Any:
        if self._running:
            assert gates["gate"].wait(PATIENCE)
        return following(self, me)

    gates["gate"] = threading.Event()
    monkeypatch.setattr(Pool, "_next", stalled)
    job = remember.new({"n": 1})
    assert 1 == job.result(PATIENCE)
    assert [] == pool.close(0)


def test_close_returns_a_job_that_waits_again_once(
    pool: ThreadBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the thread that ran it has not let go of it yet."""
    following, stalled = Pool._next, threading.Event()

    def stall(self: Pool, me: int) -> Any:
        if ran:
            stalled.set()
            assert gates["gate"].wait(PATIENCE)
        return following(self, me)

    gates["gate"] = threading.Event()
    monkeypatch.setattr(Pool, "_next", stall)
    job = attempted.new({"fails": 1}, backoff=60)
    assert stalled.wait(PATIENCE)
    assert [job] == pool.close(0)
    gates["gate"].set()


def test_a_job_whose_result_is_there_has_finished() -> None:
    """Whoever looks, at whatever moment of its end."""

    class Watched(LocalTicket):
        __slots__ = ()
        held = LocalTicket.verdict

        @property
        def verdict(self) -> Verdict | None:
            return Watched.held.__get__(self)

        @verdict.setter
        def verdict(self, verdict: Verdict | None) -> None:
            Watched.held.__set__(self, verdict)  # type: ignore[attr-defined]
            if verdict is not None:
                seen.append((self.result(0), self.state()))

    seen: list[Any] = []
    Watched("executing").settle(Verdict("completed", 1))
    assert [(1, "completed")] == seen


def test_a_closing_pool_does_not_complain_that_it_can_start_no_thread(
    pool: ThreadBackend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Python 3.12 starts none as it exits, and the close itself looks for what is due."""
    may_fail = threading.Event()

    def start(*_: object) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    @tenant_worker(max_attempts=3, backoff=lambda attempt: 60 * (attempt - 1))
    def fails(scope: AuditScope) -> None:
        assert may_fail.wait(PATIENCE)
        raise LookupError

    job = fails.new(TENANT)
    monkeypatch.setattr(alarm, "start_thread", start)
    left = list[Job]()
    closing = threading.Thread(target=lambda: left.extend(pool.close(PATIENCE)))
    closing.start()
    end = time.monotonic() + PATIENCE
    while pool._pool is not None and pool._pool.phase == "open" and time.monotonic() < end:
        time.sleep(0.001)
    may_fail.set()
    closing.join(PATIENCE)
    assert left == [job]
    assert "attempt 2 of 3" in caplog.text
    assert "could not start" not in caplog.text


@pytest.mark.parametrize("later", [0.0, 0.1], ids=["at once", "soon"])
def test_what_is_scheduled_runs_where_the_thread_that_waits_for_it_cannot_be_started(
    later: float, caplog: pytest.LogCaptureFixture
) -> None:
    """It never ran, nor did any job that was scheduled later, once threads could be started again."""
    backend = ThreadBackend(2)
    with configure(backend=backend):
        where.new({}).result(60)
        with no_more_threads():
            first = [where.new({}, delay=0.05) for _ in range(2)]
            assert all(job.result(60) for job in first)
        assert "could not start the thread that waits for scheduled jobs" in caplog.text
        assert where.new({}, delay=later).result(60)
        assert not backend.close(60)


class WokenLate(queue.SimpleQueue[object]):
    """Tokens of a pool, one of which comes just as the time is over for which a thread waits."""

    wake: Callable[[], None] | None = None

    def get(self, block: bool = True, timeout: float | None = None) -> object:
        try:
            return super().get(block, timeout)
        except queue.Empty:
            if wake := self.wake:
                self.wake = None
                wake()
            raise


def test_a_thread_that_is_woken_as_its_wait_is_over_counts_as_awake_once() -> None:
    """It counted twice, and the next job waited for its end instead of for a thread of its own."""
    backend = ThreadBackend(2)
    pool = backend._pool = Pool(backend, 2, 1000)
    pool._crew._tokens = tokens = WokenLate()

    def wake() -> None:
        with pool._lock:
            pool._crew.wake(1)

    with configure(backend=backend):
        where.new({}).result(60)
        gates["late"], gates["late began"] = threading.Event(), threading.Event()
        with no_more_threads():  # the one of the pool waits itself
            tokens.wake = wake
            first = hold.new({"name": "late"}, delay=0.05)
            assert gates["late began"].wait(60)
        assert where.new({}).result(30)
        gates["late"].set()
        first.result(60)
        assert not backend.close(60)


def test_close_ends_the_threads() -> None:
    """No thread of a closed pool is left, neither a worker's nor the timer's."""
    before = set(threading.enumerate())
    backend = ThreadBackend(3)
    with configure(backend=backend):
        where.new_many([{}] * 9)
        where.new({}, delay=60)
        started = set(threading.enumerate()) - before
        assert 4 == len(started)
        backend.close(PATIENCE)
    for thread in started:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in started)


@pytest.mark.parametrize("left", ["nothing", "due", "later", "to be retried"])
def test_threads_end_once_nobody_has_the_backend_and_no_job_is_left(left: str) -> None:
    """A suite that makes one for each test does not keep their threads; no job is lost by it."""
    before = set(threading.enumerate())
    backend = ThreadBackend(2)
    with configure(backend=backend):
        where.new({}).result(PATIENCE)
        running = [held(f"{left} {n}") for n in range(2)] if left == "due" else []
        match left:
            case "due":
                jobs = remember.new_many([{"n": n} for n in range(5)])
            case "later":
                jobs = [remember.new({"n": n}, delay=0.05 * n) for n in range(5)]
            case "to be retried":
                jobs = [attempted.new({"fails": 2}, backoff=0.05) for _ in range(2)]
            case _:
                jobs = []
        started = set(threading.enumerate()) - before
    del backend
    gc.collect()
    for gate in gates.values():
        gate.set()
    for job in [*running, *jobs]:
        job.result(PATIENCE)
    for thread in started:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in started)


@worker(max_attempts=2, backoff=0)
def hold_and_fail(name: str, job: JobInfo) -> int:
    gates[f"{name} began"].set()
    assert gates[name].wait(PATIENCE)
    if job.attempt == 1:
        raise ValueError(name)
    return job.attempt


def test_a_job_that_runs_when_nobody_has_the_backend_any_more_is_retried() -> None:
    """Though another thread of its pool finds nothing more to do meanwhile."""
    backend = ThreadBackend(2)
    with configure(backend=backend):
        idle = held("idle")
        gates["last"], gates["last began"] = threading.Event(), threading.Event()
        last = hold_and_fail.new({"name": "last"})
    assert gates["last began"].wait(PATIENCE)
    gates["idle"].set()
    idle.result(PATIENCE)
    del backend
    gc.collect()
    time.sleep(0.05)  # so that the other thread looks
    gates["last"].set()
    assert 2 == last.result(PATIENCE)


def test_a_closed_pool_takes_no_job(pool: ThreadBackend) -> None:
    """After ``close``, ``.new()`` raises ``EnqueueError``, and a second ``close`` returns none."""
    pool.close()
    with pytest.raises(EnqueueError, match="closed"):
        remember.new({"n": 1})
    assert [] == pool.close()


def test_a_pool_that_is_closing_takes_jobs_of_its_own_alone(pool: ThreadBackend) -> None:
    """From the call of ``close`` on, ``.new()`` raises for anybody else: else it may never end."""
    held()
    closer = threading.Thread(target=pool.close, args=(PATIENCE,))
    closer.start()
    while pool._pool is None or pool._pool.phase == "open":
        time.sleep(0.01)
    with pytest.raises(EnqueueError, match="closed"):
        remember.new({"n": 1})
    gates["gate"].set()
    closer.join(PATIENCE)
    assert ["gate"] == ran


def test_a_job_of_another_pool_is_as_anybody_else(pool: ThreadBackend) -> None:
    """It finds no room in a full queue, and may close the pool."""
    other = ThreadBackend(1)

    @worker(backend=other)
    def elsewhere() -> bool:
        with pytest.raises(EnqueueError, match="stayed full"):
            remember.new({"n": 4})
        gates["gate"].set()
        return pool.close(PATIENCE) == []

    fill(3)
    assert elsewhere.new({}).result(PATIENCE)
    other.close(PATIENCE)
    assert 4 == len(ran)


def test_a_pool_that_never_ran_can_be_closed() -> None:
    """``close`` before the first job closes too."""
    backend = ThreadBackend()
    assert [] == backend.close()
    with configure(backend=backend), pytest.raises(EnqueueError, match="closed"):
        remember.new({"n": 1})


def test_who_waits_for_room_learns_of_the_close() -> None:
    """All producers in line get ``EnqueueError`` as soon as the pool closes."""
    backend = ThreadBackend(1, queue_size=1, enqueue_timeout=None)
    configure(backend=backend)
    fill(1)
    raised: list[BaseException] = []

    def produce() -> None:
        try:
            remember.new({"n": "late"})
        except EnqueueError as error:
            raised.append(error)

    producers = [threading.Thread(target=produce) for _ in range(3)]
    for producer in producers:
        producer.start()
    backend.close(0.01)
    for producer in producers:
        producer.join(PATIENCE)
    assert 3 == len(raised)


def test_the_shared_instance_opens_again() -> None:
    """The instance that the name stands for takes jobs again after it was closed."""
    shared = resolve_backend("thread")
    assert isinstance(shared, ThreadBackend)
    configure(backend="thread")
    for n in range(2):
        assert n == remember.new({"n": n}).result(PATIENCE)
        assert [] == shared.close(PATIENCE)


@worker
def closing() -> str:
    try:
        current[0].close()
    except RuntimeError as error:
        return str(error)
    return ""


current: list[ThreadBackend] = []


def test_a_job_cannot_close_its_own_pool(pool: ThreadBackend) -> None:
    """``close`` inside a job raises ``RuntimeError`` in place of waiting for itself."""
    current[:] = [pool]
    assert "wait for itself" in closing.new({}).result(PATIENCE)


@worker
def see_note() -> str:
    seen = note.get()
    note.set("left by a job")
    return seen


def test_a_job_inherits_no_context(pool: ThreadBackend) -> None:
    """A body sees neither its producer's context variables nor an earlier job's."""
    note.set("the producer's")
    assert ["unset"] * 2 == [see_note.new({}).result(PATIENCE) for _ in range(2)]
    assert "the producer's" == note.get()


@tenant_worker
def child(scope: AuditScope) -> AuditScope:
    return scope


@tenant_worker
def nested(scope: AuditScope) -> Job:
    return child.new(tenant_args(scope))


def test_a_child_job_runs_for_the_same_scope(pool: ThreadBackend) -> None:
    """A job enqueued with ``tenant_args(scope)`` has its parent's scope."""
    scope = nested.new({**TENANT, "impersonating_from": "1"}).result(PATIENCE).result(PATIENCE)
    assert AuditScope.build(actor_id="7", organization_id="42", impersonating_from="1") == scope


def test_nothing_is_kept_of_a_finished_job(pool: ThreadBackend) -> None:
    """Jobs that are done and that nobody holds are gone, so memory stays flat."""
    before = jobs_in_memory()
    for _ in range(20):
        remember.new_many([{"n": None}] * 100)[-1].result(PATIENCE)
    where.new({}).result(PATIENCE)
    assert jobs_in_memory() - before < 20


def jobs_in_memory() -> int:
    gc.collect()
    return sum(type(thing) is Job for thing in gc.get_objects())


@pytest.mark.parametrize(
    "options",
    [
        {"max_workers": 0},
        {"max_workers": True},
        {"max_workers": 1.5},
        {"queue_size": 0},
        {"enqueue_timeout": -1},
        {"enqueue_timeout": float("nan")},
        {"enqueue_timeout": "10"},
        {"enqueue_timeout": True},
    ],
)
def test_senseless_settings_are_refused(options: dict[str, Any]) -> None:
    """A setting that no pool could have raises ``ValueError``, which names it."""
    with pytest.raises(ValueError, match=next(iter(options))):
        ThreadBackend(**options)


def test_a_timeout_may_be_a_float_of_another_type() -> None:
    """As NumPy's float64 is, which is also a float."""
    seconds = type("float64", (float,), {})(0.01)
    pool = ThreadBackend(1, 1, enqueue_timeout=seconds)
    configure(backend=pool)
    fill(1)
    with pytest.raises(EnqueueError, match="stayed full for 0.01 s"):
        remember.new({"n": 2})
    gates["gate"].set()
    assert [] == pool.close(PATIENCE)


def test_concurrent_producers_lose_nothing() -> None:
    """Jobs from many threads through a short queue all run, each once."""
    backend = ThreadBackend(4, queue_size=5, enqueue_timeout=PATIENCE)
    configure(backend=backend)
    producers = [
        threading.Thread(target=lambda k=k: [remember.new({"n": (k, n)}) for n in range(100)])
        for k in range(8)
    ]
    for producer in producers:
        producer.start()
    for producer in producers:
        producer.join(PATIENCE)
    assert [] == backend.close(PATIENCE)
    assert [[k, n] for k in range(8) for n in range(100)] == sorted(ran)


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter of its own, to its end."""
    head = """
        import asyncio, os, sys, threading, time
        from sigra import ThreadBackend, configure, worker
        import logging
        logging.basicConfig(format="%(name)s:%(levelname)s:%(message)s")
        def say(text): os.write(1, (text + "\\n").encode())
    """
    program = textwrap.dedent(head) + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


@pytest.mark.programs
def test_a_backend_can_begin_without_a_free_file_descriptor() -> None:
    """No module has to be loaded as the first job comes, or as its result is asked for."""
    ended = python("""
        import resource
        @worker(name="begun")
        def begun(): return "done"
        configure(backend=ThreadBackend())
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        taken = []
        try:
            while True:
                taken.append(os.open("/", os.O_RDONLY))
        except OSError:
            pass
        try:
            answer = begun.new({}).result(60)
        finally:
            for each in taken:
                os.close(each)
        say(answer)
    """)
    assert ("done\n", "") == (ended.stdout, ended.stderr)


@pytest.mark.programs
def test_the_interpreters_exit_finishes_what_is_due() -> None:
    """At exit due jobs run to their end, retries and children too, and the rest is named."""
    done = python("""
        @worker(max_attempts=2, backoff=0)
        def work(n, job):
            time.sleep(0.005)
            if n == 2 and job.attempt == 1:
                raise SystemExit
            if n == 3:
                work.new({"n": "child"})
            say(f"ran {n}")
        @worker
        async def coroutine():
            await asyncio.to_thread(say, "ran in a thread")
        configure(backend=ThreadBackend(1))
        for n in range(4):
            work.new({"n": n})
        coroutine.new({})
        say("later " + work.new({"n": 9}, delay=60).id)
    """)
    lines = done.stdout.split("\n")
    later = next(line.removeprefix("later ") for line in lines if line.startswith("later"))
    finished = {line for line in lines if line.startswith("ran")}
    expected = {*(f"ran {n}" for n in (0, 1, 2, 3, "child")), "ran in a thread"}
    if (3, 12) <= sys.version_info < (3, 12, 2):
        expected.remove("ran in a thread")  # these start no thread more once they exit
    assert expected == finished
    warnings = [line for line in done.stderr.split("\n") if ":WARNING:" in line]
    assert 1 == len(warnings)
    assert f"job {later} of __main__.work" in warnings[0]
    assert "sigra.job:" in warnings[0]
    assert "not finished, scheduled" in warnings[0]
    assert 0 == done.returncode


@pytest.mark.programs
def test_jobs_run_beside_a_django_that_nobody_configured() -> None:
    """As where another library imports its ORM: there are no connections to close."""
    done = python("""
        import django.db
        @worker
        def work():
            return "ran"
        with configure(backend=ThreadBackend()):
            say(work.new({}).result(100))
        """)
    assert done.stdout == "ran\n"


@pytest.mark.programs
@pytest.mark.parametrize("first", ["work.new({})", "pass"])
@pytest.mark.parametrize("backend", ['"thread"', "ThreadBackend()"])
def test_nothing_is_taken_after_the_exit(backend: str, first: str) -> None:
    """An ``atexit`` function that enqueues gets ``EnqueueError``, also by the shared name.

    And also where it is the first that does.
    """
    done = python(
        """
        import atexit
        from sigra import EnqueueError
        configure(backend=BACKEND)
        @worker
        def work():
            say("ran")
        @atexit.register
        def late():
            try:
                work.new({})
            except EnqueueError as error:
                say(str(error))
        FIRST
    """.replace("BACKEND", backend).replace("FIRST", first)
    )
    refused = "backend 'thread' did not take the job: the interpreter is shutting down\n"
    assert done.stdout == ("ran\n" if first != "pass" else "") + refused


@pytest.mark.programs
def test_ctrl_c_ends_the_wait_of_the_interpreters_exit() -> None:
    """What was not finished is named, whether it runs or waits."""
    done = python("""
        import signal
        @worker
        def work():
            while backend._pool.phase == "open":
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(100)
        backend = ThreadBackend(1)
        configure(backend=backend)
        for _ in range(2):
            say(work.new({}).id)
    """)
    running, waiting = done.stdout.split()
    assert re.search(f"job {running} .* was not finished, executing", done.stderr)
    assert re.search(f"job {waiting} .* was not finished, available", done.stderr)


@pytest.mark.programs
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_neither_hangs_nor_runs_its_parents_jobs() -> None:
    """A child starts with an empty pool that works; the parent's jobs run in the parent."""
    done = python("""
        @worker
        def work(name):
            if name == "held":
                opened.wait(100)
            say(f"{name} in {'child' if os.getpid() != parent else 'parent'}")
        parent, opened = os.getpid(), threading.Event()
        configure(backend=ThreadBackend(1))
        held, waiting = work.new({"name": "held"}), work.new({"name": "waiting"})
        pid = os.fork()
        if pid == 0:
            for job in (held, waiting):
                try:
                    job.result()
                except TimeoutError:
                    say("not ours")
            work.new({"name": "fresh"}).result(60)
            sys.exit()
        assert os.waitpid(pid, 0)[1] == 0
        opened.set()
    """)
    expected = ["not ours", "not ours", "fresh in child", "held in parent", "waiting in parent"]
    assert (expected, 0) == (done.stdout.split(chr(10))[:-1], done.returncode), done.stderr


@pytest.mark.programs
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_forked_amid_a_wait_for_a_result_does_not_hang() -> None:
    """A thread of the parent's holds the lock of what it waits for, and is not in the child."""
    done = python("""
        import signal
        @worker
        def work():
            opened.wait(100)
        opened, locked = threading.Event(), threading.Event()
        configure(backend=ThreadBackend(1))
        jobs = work.new({}), work.new({})
        def wait_for_all():
            for job in jobs:
                job.ticket._waiter()._condition.acquire()
            locked.set()
            opened.wait(100)
        threading.Thread(target=wait_for_all, daemon=True).start()
        locked.wait(100)
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            for job in jobs:
                try:
                    job.result()
                except TimeoutError:
                    say("not ours")
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        os._exit(0)
    """)
    assert ("not ours\n" * 2, 0) == (done.stdout, done.returncode), done.stderr


@pytest.mark.programs
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_forked_as_a_thread_opens_a_pool_does_not_hang() -> None:
    """The thread is not in the child, and would hold there for ever what opens one."""
    done = python("""
        import signal
        from sigra.backends import thread
        @worker
        def work():
            say("ran in the child")
        class Slow(thread.Pool):
            def __init__(self, *given):
                opening.set()
                forked.wait(100)
                super().__init__(*given)
        opening, forked, pool = threading.Event(), threading.Event(), thread.Pool
        thread.Pool = Slow
        opens = threading.Thread(target=ThreadBackend(1).close)
        opens.start()
        opening.wait(100)
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            thread.Pool = pool
            with configure(backend=ThreadBackend(1)):
                work.new({}).result()
            os._exit(0)
        forked.set()
        sys.exit(os.waitpid(pid, 0)[1])
    """)
    assert ("ran in the child\n", 0) == (done.stdout, done.returncode), done.stderr


@pytest.mark.programs
def test_a_pool_that_opens_as_the_interpreter_exits_loses_no_job() -> None:
    """It is closed with the others, or takes none: its threads would end amid the job."""
    done = python("""
        from sigra import EnqueueError
        from sigra.backends import thread
        @worker
        def work():
            time.sleep(0.3)
            say("ran")
        first = ThreadBackend(1)
        with configure(backend=first):
            work.new({}).result()
        class Late(thread.Pool):
            def __init__(self, *given):
                opening.set()
                ended = time.monotonic() + 1
                while thread._exit_state != "exiting" and time.monotonic() < ended:
                    time.sleep(0.01)
                time.sleep(0.1)  # the exit has looked for pools by then, if it did not wait
                super().__init__(*given)
        def enqueue():
            try:
                work.new({})
            except EnqueueError:
                say("ran not")
        opening, thread.Pool = threading.Event(), Late
        configure(backend=ThreadBackend(1))
        threading.Thread(target=enqueue).start()
        opening.wait(100)
    """)
    assert done.stdout in ("ran\nran\n", "ran\nran not\n"), done.stderr
