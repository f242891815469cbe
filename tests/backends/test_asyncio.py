"""The asyncio backend: the same promises as the pool's, on the running loop."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from log_handlers import exiting, handled_by

from sigra import (
    AsyncioBackend,
    AuditScope,
    Cancel,
    EnqueueError,
    Failure,
    Job,
    JobCancelledError,
    JobFailedError,
    JobInfo,
    Snooze,
    configure,
    tenant_args,
    tenant_worker,
    worker,
)
from sigra.backends.inprocess import desk
from sigra.backends.inprocess.desk import Desk
from sigra.registry import resolve_backend

TENANT = {"organization_id": "42", "actor_id": "7"}
PATIENCE = 240.0
note = contextvars.ContextVar("note", default="unset")

ran: list[Any] = []


@pytest.fixture(autouse=True)
def backend() -> Iterator[AsyncioBackend]:
    """One job at a time, and the default backend meanwhile."""
    ran.clear()
    made = AsyncioBackend(concurrency=1)
    with configure(backend=made):
        yield made


def on_loop(test: Callable[[AsyncioBackend], Awaitable[None]]) -> Callable[[AsyncioBackend], None]:
    """Run a test's coroutine on a loop of its own, and leave no job behind."""

    def run(backend: AsyncioBackend) -> None:
        async def main() -> None:
            await test(backend)
            await backend.aclose(0)

        asyncio.run(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@worker
async def remember(n: Any) -> Any:
    await asyncio.sleep(0)
    ran.append(n)
    return n


@worker
def in_thread() -> int:
    return threading.get_ident()


asleep = threading.Event()


@worker
async def sleeping(swallow: bool = False) -> str:
    asleep.set()
    try:
        await asyncio.sleep(PATIENCE)
    except asyncio.CancelledError:
        ran.append("cancelled")
        if not swallow:
            raise
    return "awake"


async def begin_to_sleep(max_attempts: int = 1, unique: str | None = None, **args: Any) -> Job:
    """Return a job whose body has begun, however busy the machine."""
    asleep.clear()
    keyed = {} if unique is None else {"unique": unique}
    job = sleeping.new(args, max_attempts=max_attempts, **keyed)
    while not asleep.is_set():
        await asyncio.sleep(0)
    return job


@worker(max_attempts=3, backoff=0)
async def attempted(job: JobInfo, fails: int) -> str:
    ran.append(job.attempt)
    if job.attempt <= fails:
        raise ValueError(f"attempt {job.attempt}")
    return "done"


@on_loop
async def test_an_async_function_runs_on_this_loop(backend: AsyncioBackend) -> None:
    """``.new`` and ``.anew`` return at once, and the job runs as a task of the same loop."""
    jobs = [remember.new({"n": 1}), await remember.anew({"n": 2})]
    assert ([], "available") == (ran, jobs[0].state)
    assert [1, 2] == [await job.aresult(PATIENCE) for job in jobs]
    assert ["completed", "asyncio"] == [jobs[0].state, jobs[0].backend]


@on_loop
async def test_a_sync_function_runs_in_a_thread(backend: AsyncioBackend) -> None:
    """A sync body does not block the loop."""
    assert threading.get_ident() != await in_thread.new({}).aresult(PATIENCE)


def test_without_a_running_loop_new_says_what_to_do() -> None:
    """With no loop in this thread ``.new()`` raises ``EnqueueError`` naming the cure."""
    with pytest.raises(EnqueueError, match=r"await \.anew\(\)"):
        remember.new({"n": 1})


@on_loop
async def test_result_never_blocks_the_loop(backend: AsyncioBackend) -> None:
    """``result()`` of an unfinished job on the loop's thread raises, and names ``aresult``."""
    job = remember.new({"n": 1})
    with pytest.raises(TimeoutError, match=r"await job\.aresult\(\)"):
        job.result()
    assert 1 == await job.aresult(PATIENCE)
    assert 1 == job.result()


@on_loop
async def test_another_thread_may_wait_for_a_result(backend: AsyncioBackend) -> None:
    """``result()`` blocks a thread without a loop until the job is finished."""
    assert 1 == await asyncio.to_thread(remember.new({"n": 1}).result, PATIENCE)


@on_loop
async def test_aresult_times_out(backend: AsyncioBackend) -> None:
    """``aresult(timeout)`` raises ``TimeoutError`` and leaves the job running."""
    job = await begin_to_sleep()
    with pytest.raises(TimeoutError):
        await job.aresult(0.001)
    assert "executing" == job.state


@worker
async def returning(kind: str) -> Any:
    return {"failure": Failure("no"), "cancel": Cancel("enough")}[kind]


@pytest.mark.parametrize(
    ("kind", "error", "state"),
    [("failure", JobFailedError, "discarded"), ("cancel", JobCancelledError, "cancelled")],
)
def test_an_outcome_is_what_aresult_raises(kind: str, error: type[Exception], state: str) -> None:
    """``Failure`` and ``Cancel`` end the job in their own state and error."""

    async def main() -> Job:
        job = returning.new({"kind": kind})
        with pytest.raises(error):
            await job.aresult(PATIENCE)
        return job

    assert state == asyncio.run(main()).state


class Odd(BaseException):
    """Nothing that anyone expects."""


RAISED: dict[str, BaseException] = {
    "SystemExit": SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "GeneratorExit": GeneratorExit(),
    "CancelledError": asyncio.CancelledError(),
    "Odd": Odd(),
}


@worker
async def araising(name: str) -> None:
    raise RAISED[name]


@worker
def raising(name: str) -> None:
    raise RAISED[name]


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("name", list(RAISED))
def test_no_exception_of_a_job_stops_the_loop(name: str, kind: str) -> None:
    """Whatever a body raises, SystemExit included, the loop and the next job go on."""

    def outcome(job: Job) -> None:
        try:
            job.result(PATIENCE)
        except BaseException as error:
            raised.append(error)

    raised: list[BaseException] = []

    async def main() -> Any:
        # Through a thread: an await that raises SystemExit would stop the loop by itself.
        job = (araising if kind == "async" else raising).new({"name": name})
        await asyncio.to_thread(outcome, job)
        assert [RAISED[name]] == raised
        assert "discarded" == job.state
        return await remember.new({"n": "next"}).aresult(PATIENCE)

    assert "next" == asyncio.run(main())


@worker
async def cancelling_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


@on_loop
async def test_a_job_that_cancels_itself_harms_no_other(backend: AsyncioBackend) -> None:
    """A body that cancels its own task ends its job alone."""
    job = cancelling_itself.new({})
    assert 1 == await remember.new({"n": 1}).aresult(PATIENCE)
    assert "discarded" == job.state


scopes: list[tuple[int, str, AuditScope]] = []


@tenant_worker(max_attempts=3, backoff=0)
async def scoped(scope: AuditScope, job: JobInfo) -> None:
    scopes.append((job.attempt, job.id, scope))
    if job.attempt < 3:
        raise SystemExit


@on_loop
async def test_every_attempt_has_the_same_scope(backend: AsyncioBackend) -> None:
    """A retry counts its attempt and rebuilds the same scope, impersonator included."""
    scopes.clear()
    job = scoped.new({**TENANT, "impersonating_from": "admin"})
    await job.aresult(PATIENCE)
    scope = AuditScope.build(actor_id="7", organization_id="42", impersonating_from="admin")
    assert [(n, job.id, scope) for n in (1, 2, 3)] == scopes


@on_loop
async def test_attempts_are_bounded(backend: AsyncioBackend) -> None:
    """A job that fails each of its attempts is discarded with its last error."""
    job = attempted.new({"fails": 9})
    with pytest.raises(ValueError, match="attempt 3"):
        await job.aresult(PATIENCE)
    assert ([1, 2, 3], "discarded") == (ran, job.state)


@on_loop
async def test_backoff_delays_the_next_attempt(backend: AsyncioBackend) -> None:
    """A failed attempt leaves the job retryable until its backoff has passed."""
    job = attempted.new({"fails": 1}, backoff=60)
    assert "done" == await attempted.new({"fails": 2}, backoff=0.001).aresult(PATIENCE)
    assert "retryable" == job.state


@on_loop
async def test_a_retry_due_as_its_runner_ends_is_not_forgotten(backend: AsyncioBackend) -> None:
    """What comes due between a runner's last look and its end gets a runner of its own."""
    assert "done" == await attempted.new({"fails": 2}, backoff=1e-9).aresult(PATIENCE)


@worker
async def snoozing(job: JobInfo, seconds: float = 1) -> Any:
    ran.append((job.attempt, job.snoozes))
    return Snooze(seconds) if job.snoozes == 0 else "awake"


@on_loop
async def test_a_snooze_uses_up_no_attempt(backend: AsyncioBackend) -> None:
    """A snoozed job with one attempt runs again, as the first attempt still."""
    assert "awake" == await snoozing.new({}).aresult(PATIENCE)
    assert [(1, 0), (1, 1)] == ran


@on_loop
async def test_larger_priority_runs_sooner(backend: AsyncioBackend) -> None:
    """What is enqueued before the loop goes on runs by priority, then by age."""
    for n, priority in enumerate((0, -1, 5, 0, 5, 2)):
        remember.new({"n": n}, priority=priority)
    await backend.aclose(PATIENCE)
    assert [2, 4, 5, 0, 3, 1] == ran


def test_at_most_so_many_run_at_a_time() -> None:
    """``concurrency`` bounds how many bodies have begun and not ended."""
    now, most = 0, 0

    @worker(name="test.counted")
    async def counted() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1

    async def main() -> None:
        made = AsyncioBackend(concurrency=3)
        with configure(backend=made):
            counted.new_many([{}] * 20)
            assert [] == await made.aclose()

    asyncio.run(main())
    assert (0, 3) == (now, most)


@pytest.mark.parametrize("how", ["delay", "run_at"])
def test_a_delayed_job_runs_when_it_is_due(backend: AsyncioBackend, how: str) -> None:
    """``delay`` and ``run_at`` leave the job scheduled until then."""

    async def main() -> None:
        soon = timedelta(seconds=0.2)
        later = remember.new({"n": "later"}, delay=1e12)
        due = datetime.now(timezone.utc) + soon
        job = remember.new({"n": 1}, **{how: soon if how == "delay" else due})
        assert "scheduled" == job.state or datetime.now(timezone.utc) >= due
        assert 1 == await job.aresult(PATIENCE)
        assert [later] == await backend.aclose()

    asyncio.run(main())


@on_loop
async def test_unique_holds_while_the_first_is_unfinished(backend: AsyncioBackend) -> None:
    """A second job with the key is not enqueued, and answers as the first; then it is free."""
    first, second = (remember.new({"n": n}, unique="k") for n in (1, 2))
    assert (False, True, first.id) == (first.duplicate, second.duplicate, second.native_id)
    assert 1 == await second.aresult(PATIENCE)
    assert not remember.new({"n": 3}, unique="k").duplicate


@on_loop
async def test_a_batch_keeps_its_order(backend: AsyncioBackend) -> None:
    """``new_many`` and ``anew_many`` run their items in order, one at a time here."""
    jobs = remember.new_many([{"n": n} for n in range(5)])
    jobs += await remember.anew_many([{"n": n} for n in range(5, 10)])
    assert list(range(10)) == [await job.aresult(PATIENCE) for job in jobs] == ran


@on_loop
async def test_a_job_inherits_no_context(backend: AsyncioBackend) -> None:
    """A body sees neither its producer's context variables nor an earlier job's."""
    note.set("the producer's")
    for body in (see_note, asee_note, see_note, asee_note):
        assert "unset" == await body.new({}).aresult(PATIENCE)
    assert "the producer's" == note.get()


@on_loop
async def test_a_job_that_aclose_begins_inherits_no_context(backend: AsyncioBackend) -> None:
    """What begins only when the backend closes does not see the closer's variables either."""
    note.set("the closer's")
    jobs = [asee_note.new({}), see_note.new({})]
    assert [] == await backend.aclose()
    assert ["unset"] * 2 == [job.result() for job in jobs]


@worker
def see_note() -> str:
    seen = note.get()
    note.set("left by a job")
    return seen


@worker
async def asee_note() -> str:
    seen = note.get()
    note.set("left by a job")
    return seen


@tenant_worker
async def child(scope: AuditScope) -> AuditScope:
    return scope


@tenant_worker
def nested(scope: AuditScope) -> Job:
    return child.new(tenant_args(scope), unique="child")


@tenant_worker
async def anested(scope: AuditScope) -> Job:
    return await child.anew(tenant_args(scope))


@pytest.mark.parametrize("body", [nested, anested])
def test_a_job_enqueues_its_children(body: Any) -> None:
    """Async and sync bodies alike, the latter from their thread, enqueue on the same loop."""

    async def main() -> Any:
        inner = await body.new(TENANT).aresult(PATIENCE)
        return await inner.aresult(PATIENCE)

    assert AuditScope.build(actor_id="7", organization_id="42") == asyncio.run(main())


@worker
def waiting_for_a_child() -> int:
    return remember.new({"n": 1}).result(PATIENCE / 4)


@worker
def enqueueing_on_another() -> str:
    with configure(backend=AsyncioBackend()), pytest.raises(EnqueueError) as caught:
        remember.new({"n": 1})
    return str(caught.value)


def test_a_sync_body_may_wait_for_the_job_that_it_enqueues() -> None:
    """The loop begins it at once, and not when the next runner has nothing to do."""

    async def main() -> int:
        with configure(backend=AsyncioBackend(concurrency=2)):
            return await waiting_for_a_child.new({}).aresult(PATIENCE)

    assert 1 == asyncio.run(main())


@on_loop
async def test_a_sync_body_enqueues_on_its_own_backend_alone(backend: AsyncioBackend) -> None:
    """In its thread another one has no loop, and its jobs are not this one's."""
    assert "no event loop runs" in await enqueueing_on_another.new({}).aresult(PATIENCE)
    assert [] == ran


@on_loop
async def test_aclose_finishes_what_is_due(backend: AsyncioBackend) -> None:
    """``aclose`` runs what waits, due retries and children; then ``.new()`` raises."""
    attempted.new({"fails": 2})
    remember.new({"n": "a"})
    parent = anested.new(TENANT)
    assert [] == await backend.aclose()
    assert [1, "a", 2, 3] == ran
    assert "completed" == parent.result().state
    with pytest.raises(EnqueueError, match="closed"):
        remember.new({"n": "b"})
    assert [] == await backend.aclose()


@on_loop
async def test_aclose_returns_what_is_for_later(backend: AsyncioBackend) -> None:
    """``aclose`` returns the jobs that are scheduled, snoozed, or to be retried later."""
    later = [
        remember.new({"n": 1}, delay=3600),
        attempted.new({"fails": 1}, backoff=3600),
        snoozing.new({"seconds": 3600}),
    ]
    left = await backend.aclose()
    assert set(later) == set(left)
    for job in left:
        with pytest.raises(TimeoutError, match="was closed"):
            await job.aresult()
        with pytest.raises(TimeoutError, match="was closed"):
            job.result()


@on_loop
async def test_aclose_cancels_what_its_timeout_leaves(backend: AsyncioBackend) -> None:
    """After its timeout ``aclose`` cancels the job that runs, and returns it and what waits."""
    running, waiting = await begin_to_sleep(), remember.new({"n": 1})
    assert [running, waiting] == await backend.aclose(0.01)
    assert [] == await backend.aclose()  # each is returned once
    assert ["cancelled"] == ran
    with pytest.raises(TimeoutError):
        await running.aresult()


@on_loop
async def test_a_timeout_that_is_no_number_closes_nothing(backend: AsyncioBackend) -> None:
    """It would never be over."""
    with pytest.raises(ValueError, match="timeout must be seconds, or None"):
        await backend.aclose(float("nan"))
    assert 1 == await remember.new({"n": 1}).aresult()


def test_what_aclose_cuts_off_is_not_said_to_come_again(
    backend: AsyncioBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing runs the job again, whatever attempts it has left, and its log line says so."""

    async def main() -> None:
        job = await begin_to_sleep(max_attempts=3)
        assert [job] == await backend.aclose(0.01)

    asyncio.run(main())
    (line,) = caplog.messages
    assert line.endswith("raised CancelledError; it was cut off, and does not run again")


def test_what_aclose_waits_for_is_not_said_to_come_again(
    backend: AsyncioBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """A retry that is due only after the close is returned, and its log line promises none."""

    async def main() -> None:
        job = attempted.new({"fails": 1}, backoff=3600)
        assert [job] == await backend.aclose()

    asyncio.run(main())
    (line,) = caplog.messages
    assert line.endswith("raised ValueError; its backend is closing, and it may not run again")


@on_loop
async def test_a_job_that_swallows_its_cancellation_counts(backend: AsyncioBackend) -> None:
    """A body that ends by itself when cancelled is finished, and no other begins."""
    running, waiting = await begin_to_sleep(swallow=True), remember.new({"n": 1})
    assert [waiting] == await backend.aclose(0.01)
    assert "awake" == running.result()


@on_loop
async def test_aclose_without_time_begins_nothing(backend: AsyncioBackend) -> None:
    """``aclose(0)`` returns every job that has not begun."""
    jobs = [remember.new({"n": n}) for n in range(3)]
    assert jobs == await backend.aclose(0)
    assert [] == ran


@on_loop
async def test_aclose_does_not_wait_for_a_stuck_thread(backend: AsyncioBackend) -> None:
    """A sync body cannot be cancelled: it is left to its thread, and returned."""
    opened.clear()
    job = stuck.new({})
    assert [job] == await backend.aclose(0.01)
    opened.set()


opened, begun = threading.Event(), threading.Event()


@worker
def stuck() -> None:
    opened.wait(PATIENCE)


@worker
def enqueueing_late() -> None:
    begun.set()
    opened.wait(PATIENCE)
    try:
        remember.new({"n": "late"})
    except EnqueueError as error:
        ran.append(str(error))
    finally:
        begun.clear()


@on_loop
async def test_a_body_that_goes_on_after_aclose_enqueues_nothing(backend: AsyncioBackend) -> None:
    """It is told so: what nothing would run is not taken."""
    opened.clear()
    job = enqueueing_late.new({})
    while not begun.is_set():
        await asyncio.sleep(0)
    assert [job] == await backend.aclose(0)
    opened.set()
    while begun.is_set():
        await asyncio.sleep(0)
    (told,) = ran
    assert "it was closed" in told


@worker
async def stubborn() -> None:
    asleep.set()
    end = asyncio.get_running_loop().time() + PATIENCE
    while not opened.is_set() and asyncio.get_running_loop().time() < end:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.001)


def test_aclose_waits_a_moment_only_for_a_body_that_goes_on_when_cancelled(
    backend: AsyncioBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is returned as what was not finished."""
    monkeypatch.setattr(desk, "_GRACE", 0.01)

    async def main() -> None:
        opened.clear()
        asleep.clear()
        job = stubborn.new({})
        while not asleep.is_set():
            await asyncio.sleep(0)
        assert [job] == await backend.aclose(0)
        opened.set()

    asyncio.run(main())


def test_an_aclose_that_is_cancelled_names_what_it_leaves(
    backend: AsyncioBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is given the jobs, so the log has them; the next ones run, for it is not closed."""

    async def main() -> None:
        job = await begin_to_sleep()
        closing = asyncio.create_task(backend.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert [(job.id, "WARNING", None)] == unfinished(caplog.records)
        assert await remember.new({"n": 1}).aresult(PATIENCE) == 1

    asyncio.run(main())


@worker
def here() -> None:
    ran.append(threading.current_thread())


@on_loop
async def test_aclose_ends_the_threads_of_sync_bodies(backend: AsyncioBackend) -> None:
    """None is left of a backend that was closed."""
    here.new({})
    assert [] == await backend.aclose()
    (thread,) = ran
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_no_exception_of_a_log_handler_stops_the_loop(backend: AsyncioBackend) -> None:
    """What a handler raises while a failure is logged discards the job; the next one runs."""

    async def main() -> Job:
        job = araising.new({"name": "Odd"})
        assert "next" == await remember.new({"n": "next"}).aresult(PATIENCE)
        return job

    with handled_by(exiting):
        job = asyncio.run(main())
    with pytest.raises(SystemExit):
        job.result()
    assert "discarded" == job.state


@worker
async def closing() -> str:
    try:
        await current[0].aclose()
    except RuntimeError as error:
        return str(error)
    return ""


current: list[AsyncioBackend] = []


@on_loop
async def test_a_job_cannot_close_its_own_backend(backend: AsyncioBackend) -> None:
    """``aclose`` inside a job raises ``RuntimeError`` in place of waiting for itself."""
    current[:] = [backend]
    assert "wait for itself" in await closing.new({}).aresult(PATIENCE)


def test_one_instance_serves_loop_after_loop(backend: AsyncioBackend) -> None:
    """Closing concerns the running loop: the instance works on the next one."""

    async def main(n: int) -> Any:
        value = await remember.new({"n": n}).aresult(PATIENCE)
        assert [] == await backend.aclose()
        return value

    assert [0, 1, 2] == [asyncio.run(main(n)) for n in range(3)]


def test_loops_in_several_threads_have_jobs_of_their_own(backend: AsyncioBackend) -> None:
    """Each thread's loop runs the jobs that were enqueued on it."""
    seen: list[bool] = []

    def run() -> None:
        async def main() -> None:
            seen.append(threading.get_ident() == await on_thread.new({}).aresult(PATIENCE))

        asyncio.run(main())

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert [True] * 4 == seen


def test_the_jobs_of_a_loop_that_runs_go_on_when_another_begins(backend: AsyncioBackend) -> None:
    """Only those of loops that were closed are given up then."""

    async def main() -> Any:
        job = remember.new({"n": 1}, delay=0.1)
        await asyncio.to_thread(asyncio.run, begin_another())
        return await job.aresult(PATIENCE)

    async def begin_another() -> None:
        await remember.new({"n": 2}).aresult(PATIENCE)

    assert 1 == asyncio.run(main())


@worker
async def on_thread() -> int:
    return threading.get_ident()


def test_the_shared_instance_opens_again() -> None:
    """The instance that the name stands for takes jobs again on a loop where it was closed."""
    shared = resolve_backend("asyncio")
    assert isinstance(shared, AsyncioBackend)

    async def main() -> list[Any]:
        values = []
        with configure(backend="asyncio"):
            for n in range(2):
                values.append(await remember.new({"n": n}).aresult(PATIENCE))
                assert [] == await shared.aclose()
        return values

    assert [0, 1] == asyncio.run(main())


def unfinished(records: list[logging.LogRecord]) -> list[tuple[Any, ...]]:
    return [
        (record.job_id, record.levelname, record.organization_id)  # type: ignore[attr-defined]
        for record in records
        if record.name == "sigra.job" and "was not finished" in record.getMessage()
    ]


@tenant_worker
async def endless(scope: AuditScope) -> None:
    await asyncio.Event().wait()


@worker(max_attempts=2, backoff=0)
async def retried() -> None:
    await asyncio.Event().wait()


def test_a_loop_that_ends_names_its_unfinished_jobs(caplog: pytest.LogCaptureFixture) -> None:
    """``asyncio.run`` that ends without ``aclose`` logs each job that it leaves, with its ids."""
    left: list[Job] = []

    async def main() -> None:
        left.append(endless.new(TENANT))
        left.append(endless.new(TENANT))
        left.append(endless.new(TENANT, delay=60))
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert {(job.id, "WARNING", "42") for job in left} == set(unfinished(caplog.records))
    for job in left:
        with pytest.raises(TimeoutError):
            job.result()


def left_on_a_closed_loop() -> tuple[asyncio.AbstractEventLoop, Job]:
    """Return a loop that was closed, and a job that is due in a minute on it."""

    async def later() -> Job:
        return remember.new({"n": 1}, delay=60)

    loop = asyncio.new_event_loop()
    job = loop.run_until_complete(later())
    loop.close()
    return loop, job


def test_a_loop_that_is_just_closed_is_reported_by_the_next(
    backend: AsyncioBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """A loop closed without notice has its jobs reported when the instance is used again."""
    loop, job = left_on_a_closed_loop()
    assert [] == unfinished(caplog.records)
    asyncio.run(backend.aclose())
    assert [(job.id, "WARNING", None)] == unfinished(caplog.records)


def test_two_threads_that_come_upon_a_closed_loop_at_once_report_it_once(
    backend: AsyncioBackend, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second failed where the first had just forgotten it."""
    loop, job = left_on_a_closed_loop()
    lose, other = Desk.lose, threading.Thread(target=backend._forget_closed_loops)

    def amid(self: Desk, why: str) -> None:
        if self.loop is loop and other.ident is None:
            other.start()
            other.join()
        lose(self, why)

    monkeypatch.setattr(Desk, "lose", amid)
    asyncio.run(backend.aclose())
    assert [(job.id, "WARNING", None)] == unfinished(caplog.records)


@pytest.mark.parametrize("body", [lambda: retried, lambda: stuck], ids=["async", "sync"])
def test_a_job_that_runs_on_a_loop_that_is_just_closed_is_unfinished(
    body: Callable[[], Any], backend: AsyncioBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """What its coroutine goes through when it is thrown away later is no end of the job."""

    async def begin() -> list[Job]:
        jobs = [body().new({}), remember.new({"n": "waiting"})]
        while jobs[0].state != "executing":
            await asyncio.sleep(0)
        return jobs

    opened.clear()
    loop = asyncio.new_event_loop()
    jobs = loop.run_until_complete(begin())
    loop.close()
    asyncio.run(backend.aclose())
    opened.set()
    for each in threading.enumerate():
        if each.name.startswith("sigra-asyncio"):
            each.join(PATIENCE)
    gc.collect()
    assert [(job.id, "WARNING", None) for job in jobs] == unfinished(caplog.records)
    for job in jobs:
        with pytest.raises(TimeoutError, match="its event loop was closed"):
            job.result()
    assert [] == ran


def test_a_sync_body_whose_loop_is_just_closed_enqueues_nothing(backend: AsyncioBackend) -> None:
    """It is told so: what nothing would run is not taken."""

    async def begin() -> None:
        enqueueing_late.new({})
        while not begun.is_set():
            await asyncio.sleep(0)

    opened.clear()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    opened.set()
    deadline = time.monotonic() + PATIENCE
    while begun.is_set() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ["backend 'asyncio' did not take the job: the job's event loop is closed"] == ran


@pytest.mark.programs
@pytest.mark.parametrize("then", ["", "os.fork() and os.wait()"], ids=["alone", "forked"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_the_interpreters_exit_reports_what_no_loop_did(then: str) -> None:
    """Jobs of a loop that was only stopped are named when the interpreter exits.

    And not by a child that was forked meanwhile, whose jobs they are not.
    """
    program = """
        import asyncio, os
        from sigra import AsyncioBackend, configure, worker
        import logging
        logging.basicConfig(format="%(name)s:%(levelname)s:%(message)s")
        @worker
        async def work():
            pass
        async def main():
            print(work.new({}, delay=60).id, flush=True)
        configure(backend=AsyncioBackend())
        asyncio.new_event_loop().run_until_complete(main())
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program) + then],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    named = f"sigra.job:WARNING:job {done.stdout.strip()} of __main__.work"
    assert 1 == done.stderr.count(named)


def test_a_task_cancelled_from_outside_gives_up_its_job_only(backend: AsyncioBackend) -> None:
    """Where all tasks are cancelled and the loop goes on, the next ``.new()`` starts anew."""

    async def main() -> None:
        interrupted = endless.new(TENANT)
        waiting = remember.new({"n": "waiting"})
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError, match="cancelled"):
            await interrupted.aresult()
        assert 1 == await remember.new({"n": 1}).aresult(PATIENCE)
        assert "waiting" == waiting.result()
        assert [interrupted] == await backend.aclose()

    asyncio.run(main())


def test_a_task_cancelled_from_outside_gives_up_its_jobs_unique_key(
    backend: AsyncioBackend,
) -> None:
    """Else no job could have that key until the loop ends."""

    async def main() -> None:
        interrupted = await begin_to_sleep(unique="once")
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        with pytest.raises(TimeoutError, match="cancelled"):
            await interrupted.aresult()
        again = sleeping.new({}, unique="once", delay=60)
        assert not again.duplicate
        assert [interrupted, again] == await backend.aclose()

    asyncio.run(main())


def test_aclose_goes_on_with_what_waits_when_a_task_is_cancelled_from_outside() -> None:
    """What waited behind the cancelled one does not wait for the other jobs that run."""
    opened.clear()
    asleep.clear()

    async def main() -> None:
        backend = AsyncioBackend(concurrency=2)
        with configure(backend=backend):
            stubborn.new({})
            while not asleep.is_set():
                await asyncio.sleep(0)
            others = asyncio.all_tasks()
            interrupted = endless.new(TENANT)
            waiting = remember.new({"n": "waiting"})
            while len(asyncio.all_tasks()) == len(others):
                await asyncio.sleep(0)
            (task,) = asyncio.all_tasks() - others
            closing = asyncio.create_task(backend.aclose())
            while interrupted.state != "executing" or desk_of(backend).phase != "draining":
                await asyncio.sleep(0)
            task.cancel()
            assert "waiting" == await waiting.aresult(PATIENCE / 2)
            opened.set()
            assert [interrupted] == await closing

    asyncio.run(main())


def desk_of(backend: AsyncioBackend) -> Desk:
    return backend._desks[asyncio.get_running_loop()]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.11 has no eager tasks")
@pytest.mark.parametrize("body", ["async", "sync"])
def test_tasks_that_begin_at_once_run_jobs_too(body: str) -> None:
    """On a loop with eager tasks jobs run, are retried, enqueue others and inherit nothing."""

    @worker(name=f"eager.{body}", max_attempts=2, backoff=0)
    def either(job: JobInfo, n: int, kids: int = 0) -> Any:
        ran.append((n, job.attempt, note.get()))
        note.set("a job's")
        remember.new_many({"n": n * 10 + kid} for kid in range(kids))
        if job.attempt == 1:
            raise ValueError(n)
        return n

    @worker(name=f"eager.{body}.later", max_attempts=2, backoff=0)
    async def later(job: JobInfo, n: int, kids: int = 0) -> Any:
        return either(job, n, kids)

    async def main() -> None:
        note.set("the producer's")
        backend, made = AsyncioBackend(concurrency=2), later if body == "async" else either
        with configure(backend=backend):
            jobs = [await made.anew({"n": n, "kids": 2}) for n in (1, 2, 3)]
            assert [1, 2, 3] == [await job.aresult(PATIENCE) for job in jobs]
            assert [] == await backend.aclose(PATIENCE)
        assert "the producer's" == note.get()

    with asyncio.Runner() as runner:
        runner.get_loop().set_task_factory(asyncio.eager_task_factory)
        runner.run(main())
    attempts = [(n, attempt, "unset") for n in (1, 2, 3) for attempt in (1, 2)]
    children = sorted([10, 11, 20, 21, 30, 31] * 2)
    assert attempts == sorted(each for each in ran if isinstance(each, tuple))
    assert children == sorted(each for each in ran if not isinstance(each, tuple))


@on_loop
async def test_nothing_is_kept_of_a_finished_job(backend: AsyncioBackend) -> None:
    """Jobs that are done and that nobody holds are gone, so memory stays flat."""
    before = jobs_in_memory()
    for _ in range(10):
        await remember.new_many([{"n": None}] * 100)[-1].aresult(PATIENCE)
    assert jobs_in_memory() - before < 20


def jobs_in_memory() -> int:
    gc.collect()
    return sum(type(thing) is Job for thing in gc.get_objects())


@pytest.mark.parametrize("concurrency", [0, -1, True, 1.5, None])
def test_senseless_settings_are_refused(concurrency: Any) -> None:
    """A concurrency that no loop could have raises ``ValueError``."""
    with pytest.raises(ValueError, match="concurrency"):
        AsyncioBackend(concurrency=concurrency)
