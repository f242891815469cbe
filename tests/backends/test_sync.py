"""The sync backend: inline, once, with a clock that tests can turn."""

from __future__ import annotations

import asyncio
import contextvars
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from itertools import count
from typing import Any

import pytest
from forked import run_beside_threads
from log_handlers import exiting, handled_by

from sigra import (
    AuditScope,
    EnqueueError,
    Failure,
    Snooze,
    SyncBackend,
    ThreadBackend,
    configure,
    current_job,
    tenant_args,
    tenant_worker,
    worker,
)

TENANT = {"organization_id": "42", "actor_id": "7"}
ran: list[Any] = []


@pytest.fixture
def sync() -> Iterator[SyncBackend]:
    ran.clear()
    backend = SyncBackend()
    with configure(backend=backend, backends={}):
        yield backend


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the clock move on by half a millisecond for each look, however busy the machine is."""
    ticks = count(time.time(), 0.0005)
    monkeypatch.setattr(time, "time", lambda: next(ticks))


@worker
def note(n: Any = 0) -> Any:
    ran.append(n)
    return n


@worker
async def anote(n: Any = 0) -> Any:
    await asyncio.sleep(0)
    ran.append(n)
    return n


@worker
def snoozing(times: int = 1) -> Any:
    job = current_job()
    assert job is not None
    ran.append((job.attempt, job.snoozes))
    return Snooze(60) if job.snoozes < times else "done"


@worker(max_attempts=3, backoff=10)
def failing(times: int = 9) -> Any:
    job = current_job()
    assert job is not None
    ran.append(job.attempt)
    return Failure("why") if job.attempt <= times else "done"


def test_a_job_runs_inside_new(sync: SyncBackend) -> None:
    """When .new() returns the job has run."""
    note.new({"n": 1})
    assert [1] == ran


def test_a_job_runs_in_the_caller_s_thread(sync: SyncBackend) -> None:
    """No thread is started."""
    where = worker(name="sync.where")(lambda: threading.get_ident())
    assert threading.get_ident() == where.new({}).result()


def test_a_delayed_job_waits_for_drain(sync: SyncBackend) -> None:
    """It runs when the clock is turned past it, not before."""
    job = note.new({"n": 1}, delay=7200)
    before = (list(ran), sync.drain(3600), sync.drain(3600))
    assert ([], [], [job]) == before


def test_drain_without_until_runs_what_is_due(sync: SyncBackend) -> None:
    """A job for later stays."""
    note.new({"n": 1}, delay=60)
    assert [] == sync.drain()


def test_drain_takes_an_aware_datetime(sync: SyncBackend) -> None:
    """The clock can be turned to a moment."""
    moment = datetime.now(timezone.utc) + timedelta(hours=1)
    job = note.new({"n": 1}, run_at=moment)
    assert [job] == sync.drain(moment)


def test_a_run_at_in_the_past_runs_at_once(sync: SyncBackend) -> None:
    """What is due is not scheduled."""
    note.new({"n": 1}, run_at=datetime(2000, 1, 1, tzinfo=timezone.utc))
    assert [1] == ran


@pytest.mark.parametrize(
    "until",
    [
        *(-1, True, datetime(2030, 1, 1), timedelta(1), "9", math.inf, math.nan),
        pytest.param(10**400, id="10**400"),
    ],
)
def test_drain_refuses_what_is_no_time_ahead(sync: SyncBackend, until: Any) -> None:
    """A number that is negative or not finite, a naive datetime and any other type raise ValueError."""
    with pytest.raises(ValueError, match=r"until must be (finite seconds.*or )?an aware datetime"):
        sync.drain(until)


@pytest.mark.parametrize("limit", [-1, True, 1.5, "9", None])
def test_drain_refuses_a_limit_that_is_no_count(sync: SyncBackend, limit: Any) -> None:
    """An int that is not negative is a limit; anything else raises ValueError, and nothing runs."""
    note.new({"n": 1}, delay=1)
    for drain in (
        sync.drain,
        lambda *args, **keywords: asyncio.run(sync.adrain(*args, **keywords)),
    ):
        with pytest.raises(ValueError, match="limit"):
            drain(5, limit=limit)
    assert [] == ran == sync.drain(5, limit=0)


def test_the_clock_does_not_go_back(sync: SyncBackend) -> None:
    """A job delayed after a drain counts from the drained moment."""
    sync.drain(3600)
    note.new({"n": 1}, run_at=datetime.now(timezone.utc) + timedelta(seconds=3000))
    assert [1] == ran


def test_jobs_run_in_the_order_of_their_times(sync: SyncBackend) -> None:
    """drain() goes through time step by step."""
    for n in (3, 1, 2):
        note.new({"n": n}, delay=100 * n)
    sync.drain(500)
    assert [1, 2, 3] == ran


def test_a_larger_priority_runs_sooner(sync: SyncBackend) -> None:
    """Of jobs enqueued by one job, the larger priority goes first."""

    @worker
    def parent() -> None:
        for n in (1, 3, 2):
            note.new({"n": n}, priority=n)

    parent.new({})
    assert [3, 2, 1] == ran


def test_a_larger_priority_runs_sooner_of_what_comes_due_together(
    sync: SyncBackend, ticking: None
) -> None:
    """Jobs enqueued one after the other, to run after one delay, are due together."""
    for n in (1, 3, 2, 3):
        note.new({"n": n}, priority=n, delay=20)
    sync.drain(21)
    assert [3, 3, 2, 1] == ran


def test_an_earlier_job_runs_sooner_whatever_its_priority(sync: SyncBackend, ticking: None) -> None:
    """Priority decides among what is due together, and time before it."""
    note.new({"n": 1}, priority=9, delay=20.1)
    note.new({"n": 2}, delay=20)
    sync.drain(21)
    assert [2, 1] == ran


def test_no_job_runs_before_its_time(sync: SyncBackend) -> None:
    """Nor with one that is due a moment sooner."""
    at = datetime.now(timezone.utc) + timedelta(hours=1)
    note.new({"n": 1}, run_at=at)
    note.new({"n": 2}, run_at=at + timedelta(milliseconds=5), priority=1)
    sync.drain(at)
    assert [1] == ran


def test_a_job_that_is_delayed_for_a_moment_less_runs_sooner(
    sync: SyncBackend, ticking: None
) -> None:
    """Only those that are delayed alike are due together."""
    note.new({"n": 1}, delay=20)
    note.new({"n": 2}, delay=20.005, priority=1)
    sync.drain(21)
    assert [1, 2] == ran


def test_jobs_of_one_priority_keep_their_order(sync: SyncBackend) -> None:
    """First come, first served."""

    @worker
    def parent() -> None:
        note.new_many([{"n": n} for n in range(4)])

    parent.new({})
    assert [0, 1, 2, 3] == ran


def test_a_snooze_comes_back_without_using_an_attempt(sync: SyncBackend) -> None:
    """The attempt stays 1 while snoozes count."""
    snoozing.new({"times": 2})
    sync.drain(120)
    assert [(1, 0), (1, 1), (1, 2)] == ran


def test_a_failed_attempt_waits_for_its_retry(sync: SyncBackend) -> None:
    """A retryable job runs again after its backoff."""
    job = failing.new({"times": 1})
    states = [job.state, len(sync.drain(1)), len(sync.drain(9)), job.state]
    assert ["retryable", 0, 1, "completed"] == states


def test_the_result_of_a_job_that_waits_for_its_retry_tells_what_failed(sync: SyncBackend) -> None:
    """It names the attempt and the type of its error, which the log shows in full."""

    @worker(name="sync.cut_off", max_attempts=3, backoff=10)
    def cut_off() -> None:
        raise ConnectionError

    job = cut_off.new({})
    sync.drain(10)
    text = r"the job is retryable \(attempt 2 ended with ConnectionError\): on the sync backend"
    with pytest.raises(TimeoutError, match=text):
        job.result()


def test_the_name_of_an_error_is_read_without_code_of_its_metaclass(sync: SyncBackend) -> None:
    """That raised out of .new(), and the job had no retry."""

    class Odd(type):
        def __getattribute__(cls, name: str) -> Any:
            if name == "__qualname__":
                raise RuntimeError("asked for it")
            return super().__getattribute__(name)

    class LostError(Exception, metaclass=Odd):
        pass

    @worker(name="sync.lost", max_attempts=2, backoff=10)
    def lost() -> None:
        raise LostError

    states = []
    with suppress(RuntimeError):  # pytest itself could not show it
        states.append(lost.new({}).state)
    assert ["retryable"] == states


def test_attempts_end(sync: SyncBackend) -> None:
    """After max_attempts the job is discarded."""
    job = failing.new({})
    sync.drain(100)
    assert ([1, 2, 3], "discarded") == (ran, job.state)


def test_drain_returns_a_job_once_for_each_run(sync: SyncBackend) -> None:
    """A job that ran twice is there twice."""
    job = failing.new({})
    assert [job, job] == sync.drain(100)


def test_drain_stops_at_its_limit(sync: SyncBackend) -> None:
    """A job that snoozes for ever does not hang a test."""
    snoozing.new({"times": 10**6})
    assert 5 == len(sync.drain(10**9, limit=5))


def test_what_the_limit_left_is_still_there(sync: SyncBackend) -> None:
    """The next drain goes on."""
    for n in range(3):
        note.new({"n": n}, delay=1)
    sync.drain(1, limit=2)
    sync.drain(1)
    assert [0, 1, 2] == ran


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_a_drained_job_enqueues_counts_too(sync: SyncBackend, asynchronous: bool) -> None:
    """A job that enqueues the next one at once, for ever, does not hang a test."""

    @worker
    def endless(n: int) -> None:
        endless.new({"n": n + 1})

    def drained(**span: Any) -> list[Any]:
        jobs = asyncio.run(sync.adrain(**span)) if asynchronous else sync.drain(**span)
        return [job.args["n"] for job in jobs]

    endless.new({"n": 1}, delay=1)
    assert [[1, 2], [3, 4, 5]] == [drained(until=1, limit=2), drained(limit=3)]


@pytest.mark.parametrize("first", [SyncBackend, ThreadBackend])
def test_a_job_of_another_backend_enqueues_as_anybody_else(sync: SyncBackend, first: Any) -> None:
    """What it enqueues here ends before its call returns, and then holds no unique key."""
    found: list[Any] = []

    @worker(backend=first())
    def parent() -> None:
        for n in range(2):
            child = note.new({"n": n}, unique="once")
            found.append((child.duplicate, child.state))

    parent.new({}).result(60) if first is ThreadBackend else parent.new({})
    assert [(False, "completed")] * 2 == found
    assert [0, 1] == ran


def test_what_the_limit_cut_off_is_as_it_was_enqueued(sync: SyncBackend) -> None:
    """It is available, holds its unique key, and runs by its priority."""
    children: list[Any] = []

    @worker
    def parent() -> None:
        children.extend(note.new({"n": n}, priority=n, unique=str(n)) for n in range(3))

    parent.new({}, delay=1)
    sync.drain(1, limit=2)
    assert ["available", "available", "completed"] == [child.state for child in children]
    assert note.new({"n": 9}, unique="0").duplicate
    sync.drain()
    assert [2, 1, 0] == ran


def test_a_nested_job_runs_when_its_parent_ends(sync: SyncBackend) -> None:
    """The parent's body is finished first."""

    @worker
    def parent() -> None:
        note.new({"n": "child"})
        ran.append("parent")

    parent.new({})
    assert ["parent", "child"] == ran


def test_a_nested_job_has_run_when_new_returns(sync: SyncBackend) -> None:
    """The outer .new() waits for all that it set off."""

    @worker
    def parent() -> None:
        note.new({"n": "child"})

    parent.new({})
    assert ["child"] == ran


def test_a_chain_of_jobs_is_no_recursion(sync: SyncBackend) -> None:
    """A job that enqueues the next, longer than the stack is deep, ends well."""

    @tenant_worker(name="sync.chain")
    def chain(scope: AuditScope, n: int) -> None:
        ran.append(n)
        if n:
            chain.new({**tenant_args(scope), "n": n - 1})

    deep = sys.getrecursionlimit() + 100
    chain.new({**TENANT, "n": deep})
    assert deep + 1 == len(ran)


def test_a_drained_job_s_children_run_with_it(sync: SyncBackend) -> None:
    """What a scheduled job enqueues is run by the same drain."""

    @worker
    def parent() -> None:
        note.new({"n": "child"})

    first = parent.new({}, delay=1)
    assert [first.worker, note.name] == [job.worker for job in sync.drain(1)]


def test_a_unique_key_holds_while_the_job_is_unfinished(sync: SyncBackend) -> None:
    """The second job is a duplicate of the first and nothing is enqueued."""
    first = note.new({"n": 1}, delay=60, unique="k")
    second = note.new({"n": 2}, unique="k")
    assert (True, first.id, "scheduled", []) == (
        second.duplicate,
        second.native_id,
        second.state,
        ran,
    )


def test_a_unique_key_is_taken_by_a_job_that_can_tell_its_state(sync: SyncBackend) -> None:
    """A duplicate from another thread has that job's ticket, however soon it comes."""
    tickets: list[Any] = []

    class Keys(dict[Any, Any]):
        def setdefault(self, key: Any, job: Any = None) -> Any:
            tickets.append(job.ticket)
            return super().setdefault(key, job)

    sync._unique = Keys()
    note.new({}, unique="k")
    note.new({}, unique="l", delay=5)
    assert [True, True] == [ticket is not None for ticket in tickets]


def test_a_child_that_waits_for_its_parent_says_so(sync: SyncBackend) -> None:
    """A body that asks its child for a result is told when that runs."""

    @worker(name="sync.asks_its_child")
    def parent() -> str:
        with pytest.raises(TimeoutError) as caught:
            note.new({}).result()
        return str(caught.value)

    assert "one that another job enqueued runs when that one ends" in parent.new({}).result()


def test_a_unique_key_is_free_after_the_job(sync: SyncBackend) -> None:
    """A finished job holds no key."""
    jobs = [note.new({"n": n}, unique="k") for n in range(2)]
    assert [False, False] == [job.duplicate for job in jobs]


def test_what_a_job_of_a_batch_enqueues_runs_before_the_next_one(sync: SyncBackend) -> None:
    """Whether the batch is awaited or not."""

    def parent(n: int) -> None:
        ran.append(f"parent {n}")
        note.new({"n": f"child {n}"})

    parents = worker(name="sync.parents")(parent)
    batch = [{"n": 1}, {"n": 2}]
    parents.new_many(batch)
    asyncio.run(parents.anew_many(batch))
    assert ["parent 1", "child 1", "parent 2", "child 2"] * 2 == ran


def test_a_unique_key_is_one_for_a_batch(sync: SyncBackend) -> None:
    """The first job of it has the key: none has run before the last is enqueued."""
    batch = [{"n": n} for n in range(3)]
    assert [False, True, True] == [job.duplicate for job in note.new_many(batch, unique="k")]
    jobs = asyncio.run(note.anew_many(batch, unique="k"))
    assert [False, True, True] == [job.duplicate for job in jobs]
    assert [0, 0] == ran


def test_a_unique_key_is_kept_through_a_retry(sync: SyncBackend) -> None:
    """A job that waits for its retry is unfinished."""
    failing.new({}, unique="k")
    assert failing.new({}, unique="k").duplicate


def test_a_unique_key_is_the_worker_s_own(sync: SyncBackend) -> None:
    """Two workers may use one key."""
    note.new({}, unique="k", delay=60)
    assert not snoozing.new({}, unique="k").duplicate


def test_an_async_worker_runs_by_its_own_loop(sync: SyncBackend) -> None:
    """Without a running loop .new() runs a coroutine to its end."""
    assert 3 == anote.new({"n": 3}).result()


@pytest.mark.filterwarnings("ignore:.*event_loop_policy:DeprecationWarning")
def test_the_event_loop_that_the_caller_had_set_stays_set(sync: SyncBackend) -> None:
    """A program that runs its own loop now and then finds it after .new() of an async worker."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        anote.new({})
        assert asyncio.get_event_loop_policy().get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_new_of_an_async_worker_inside_a_loop_says_so(sync: SyncBackend) -> None:
    """The error names .anew, and nothing was run."""

    async def main() -> None:
        anote.new({"n": 3})

    with pytest.raises(EnqueueError, match=r"anew"):
        asyncio.run(main())
    assert [] == ran


def test_a_refused_batch_inside_a_loop_runs_none(sync: SyncBackend) -> None:
    """All or nothing holds for new_many too."""

    async def main() -> None:
        anote.new_many([{"n": 1}, {"n": 2}])

    with pytest.raises(EnqueueError):
        asyncio.run(main())
    assert [] == ran


def test_new_of_a_plain_worker_inside_a_loop_is_fine(sync: SyncBackend) -> None:
    """A sync function needs no loop."""

    async def main() -> Any:
        return note.new({"n": 3}).result()

    assert 3 == asyncio.run(main())


def test_anew_runs_an_async_worker_on_this_loop(sync: SyncBackend) -> None:
    """The body shares the caller's loop."""

    @worker
    async def loop() -> Any:
        return asyncio.get_running_loop()

    async def main() -> bool:
        return (await loop.anew({})).result() is asyncio.get_running_loop()

    assert asyncio.run(main())


def test_anew_runs_a_sync_worker_beside_this_loop(sync: SyncBackend) -> None:
    """A sync body does not block the loop."""
    where = worker(name="sync.beside")(lambda: threading.get_ident())

    async def main() -> Any:
        return (await where.anew({})).result()

    assert threading.get_ident() != asyncio.run(main())


def test_a_sync_body_beside_a_loop_sees_the_caller_s_context(sync: SyncBackend) -> None:
    """A copy of the caller's context goes along to the thread."""
    variable = contextvars.ContextVar("variable", default="unset")
    read = worker(name="sync.context")(lambda: variable.get())

    async def main() -> Any:
        variable.set("caller")
        return (await read.anew({})).result()

    assert "caller" == asyncio.run(main())


def test_a_nested_anew_runs_when_its_parent_ends(sync: SyncBackend) -> None:
    """The async parent's body is finished first."""

    @worker
    async def parent() -> None:
        await anote.anew({"n": "child"})
        ran.append("parent")

    asyncio.run(parent.anew({}))
    assert ["parent", "child"] == ran


def test_a_sync_new_inside_an_async_worker_is_queued(sync: SyncBackend) -> None:
    """A plain child of an async parent runs when the parent ends."""

    @worker
    async def parent() -> None:
        note.new({"n": "child"})
        ran.append("parent")

    asyncio.run(parent.anew({}))
    assert ["parent", "child"] == ran


def test_adrain_turns_the_clock_inside_a_loop(sync: SyncBackend) -> None:
    """Scheduled async jobs run on the loop."""

    async def main() -> int:
        await anote.anew({"n": 1}, delay=60)
        return len(await sync.adrain(60))

    assert (1, [1]) == (asyncio.run(main()), ran)


def test_one_backend_s_jobs_are_not_another_s(sync: SyncBackend) -> None:
    """Each backend has a schedule of its own."""
    note.new({"n": 1}, delay=1)
    assert [] == SyncBackend().drain(10)


def test_a_drain_inside_a_loop_loses_no_async_job(sync: SyncBackend) -> None:
    """drain() refuses what only adrain() can run, and leaves it scheduled."""
    job = anote.new({"n": 1}, delay=1)

    async def main() -> list[Any]:
        with pytest.raises(EnqueueError, match=r"await \.anew\(\) or \.adrain\(\)"):
            sync.drain(1)
        return await sync.adrain(1)

    assert [job] == asyncio.run(main())


def test_a_job_drained_in_virtual_time_schedules_in_it(sync: SyncBackend) -> None:
    """A child for sixty seconds later is due sixty seconds after its parent, no less, no more."""

    @worker
    def parent() -> None:
        note.new({"n": "child"}, delay=60)

    job = parent.new({}, delay=60)
    assert [job.worker, note.name] == [done.worker for done in sync.drain(120)]


def test_an_option_holds_for_each_job_of_a_batch(sync: SyncBackend) -> None:
    """A delay of the call delays them all."""
    jobs = note.new_many([{"n": 1}, {"n": 2}], delay=5)
    assert (["scheduled"] * 2, jobs) == ([job.state for job in jobs], sync.drain(5))


def test_a_task_that_outlives_its_job_loses_nothing(sync: SyncBackend) -> None:
    """What a background task of a body enqueues after the body's end runs all the same."""
    tasks = []

    async def background(ended: asyncio.Event) -> Any:
        await ended.wait()
        return await anote.anew({"n": "late"})

    async def main() -> str:
        ended = asyncio.Event()

        @worker
        async def parent() -> None:
            tasks.append(asyncio.create_task(background(ended)))

        await parent.anew({})
        ended.set()
        return (await tasks[0]).state

    assert ("completed", ["late"]) == (asyncio.run(main()), ran)


def test_a_thread_that_outlives_its_job_loses_nothing(sync: SyncBackend) -> None:
    """What a thread in the body's context enqueues after the body's end runs all the same."""
    ended = threading.Event()
    threads: list[threading.Thread] = []

    def background() -> None:
        ended.wait(10)
        note.new({"n": "late"})

    @worker
    def parent() -> None:
        context = contextvars.copy_context()
        threads.append(threading.Thread(target=context.run, args=(background,)))
        threads[0].start()

    parent.new({})
    ended.set()
    threads[0].join()
    assert ["late"] == ran


def test_a_function_that_gives_a_coroutine_inside_a_loop_says_so(sync: SyncBackend) -> None:
    """The attempt fails by name, and no coroutine is left unawaited."""

    async def later() -> None: ...

    giving = worker(name="sync.giving")(lambda: later())

    async def main() -> Any:
        return giving.new({}).result()

    with pytest.raises(RuntimeError, match="anew"):
        asyncio.run(main())


def test_a_cancelled_anew_lets_go_of_its_unique_key(sync: SyncBackend) -> None:
    """Cancelling whoever awaits ends the job, and the next one with its key is no duplicate."""

    begun: list[asyncio.Event] = []

    @worker(name="sync.endless")
    async def endless(wait: bool) -> None:
        if wait:
            begun[0].set()
            await asyncio.Event().wait()

    async def main() -> Any:
        begun.append(asyncio.Event())
        task = asyncio.ensure_future(endless.anew({"wait": True}, unique="k"))
        await begun[0].wait()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        return await endless.anew({"wait": False}, unique="k")

    assert "completed" == asyncio.run(main()).state


def test_what_a_cancelled_job_enqueued_waits_for_drain(sync: SyncBackend) -> None:
    """It was not begun, and is not lost with the job around it, nor is its unique key held for ever."""
    ran: list[int] = []
    begun: list[asyncio.Event] = []

    @worker(name="sync.child")
    def child(number: int) -> None:
        ran.append(number)

    @worker(name="sync.around")
    async def around() -> None:
        for number in range(2):
            await child.anew({"number": number}, unique=f"k{number}")
        begun[0].set()
        await asyncio.Event().wait()

    async def main() -> None:
        begun.append(asyncio.Event())
        task = asyncio.ensure_future(around.anew({}))
        await begun[0].wait()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert [] == ran
        assert ["sync.child"] * 2 == [job.worker for job in await sync.adrain()]

    asyncio.run(main())
    assert [0, 1] == ran
    assert not child.new({"number": 2}, unique="k0").duplicate


FORKS = """
from sigra import SyncBackend, configure, worker

@worker
def work():
    pass

def use():
    work.new({}, unique="k")
    work.new({}, delay=1)
    backend.drain()

configure(backend=(backend := SyncBackend()))
"""


@pytest.mark.programs
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_does_not_wait_for_its_parents_threads() -> None:
    """A child that is forked while other threads enqueue goes on enqueuing and draining."""
    run_beside_threads(FORKS, 100)


IN_A_BODY = """
import os, signal
from sigra import worker

@worker
def work():
    os.write(1, b"ran in the child") if os.getpid() != parent else None

@worker
def fork():
    if not (child := os.fork()):
        signal.alarm(60)
        work.new({})
        os._exit(0)
    os.waitpid(child, 0)

parent = os.getpid()
fork.new({})
"""


@pytest.mark.programs
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_job_of_a_process_that_a_body_forks_runs_in_that_process() -> None:
    """It does not wait for the end of the body, which the forked process never comes to."""
    code = [sys.executable, "-W", "ignore", "-c", IN_A_BODY]
    done = subprocess.run(code, capture_output=True, text=True, timeout=120)
    assert (0, "ran in the child") == (done.returncode, done.stdout)


WITHOUT_ASGIREF = """
import asyncio, sys
sys.modules["asgiref"] = sys.modules["asgiref.sync"] = None
from sigra import worker

@worker
def plain():
    print("plain")

@worker
async def awaits():
    print("async")

awaits.new({})
asyncio.run(plain.anew({}))
"""


@pytest.mark.programs
def test_without_django_nothing_asks_for_what_django_brings_along() -> None:
    """asgiref, by which a body's queries get the caller's connection, need not be installed."""
    code = [sys.executable, "-c", WITHOUT_ASGIREF]
    done = subprocess.run(code, capture_output=True, text=True, timeout=120)
    assert ["async", "plain"] == done.stdout.split(), done.stderr


@worker
def noting_later() -> None:
    note.new({"n": "later"})
    raise ValueError("its end is logged")


def test_what_a_job_enqueued_is_left_to_drain_where_logging_its_end_raises(
    sync: SyncBackend,
) -> None:
    """What the handler raises comes out of ``.new()``, and no job is lost by it."""
    with handled_by(exiting), pytest.raises(SystemExit):
        noting_later.new({})
    assert ["later"] == [job.result() for job in sync.drain()]
