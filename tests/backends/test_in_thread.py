"""Plain functions on an event loop, where the system lets the process start no thread."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from rights import no_more_threads

from sigra import AsyncioBackend, AuditScope, configure, tenant_worker
from sigra.backends import in_thread
from sigra.backends.external import aconsume

TENANT = {"organization_id": "acme", "actor_id": "ann"}

ran: list[int] = []
free = threading.Event()


@tenant_worker(name="tests.in_thread.job")
def job(scope: AuditScope, n: int) -> int:
    ran.append(n)
    free.wait(60)
    return n


meeting = threading.Barrier(4)


@tenant_worker(name="tests.in_thread.meet")
def meet(scope: AuditScope, n: int) -> bool:
    meeting.wait(30)
    return True


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    ran.clear()
    free.clear()
    monkeypatch.setattr(in_thread, "_AGAIN", 0.05)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


def waits(caplog: pytest.LogCaptureFixture) -> bool:
    return "no thread can be started for it" in caplog.text


async def on_asyncio(n: int) -> Any:
    return await (await job.anew({**TENANT, "n": n})).aresult(60)


async def in_a_consumer(n: int) -> Any:
    return (await aconsume({**TENANT, "n": n}, job.definition, "test")).verdict.value


async def in_one_that_notes(n: int) -> Any:
    async def note() -> None:
        pass

    consumed = await aconsume({**TENANT, "n": n}, job.definition, "test", note=note)
    return consumed.verdict.value


async def on_sync(n: int) -> Any:
    with configure(backend="sync"):
        return (await job.anew({**TENANT, "n": n})).result()


Way = Callable[[int], Coroutine[Any, Any, Any]]


@pytest.mark.parametrize("how", ["a thread becomes free", "one can be started again"])
@pytest.mark.parametrize("way", [on_asyncio, in_a_consumer, in_one_that_notes, on_sync])
def test_a_job_waits_for_a_thread_and_runs_once(
    way: Way, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It was discarded, or left its queue with an error, and the next free thread ran it anyway."""
    caplog.set_level(logging.WARNING, "sigra.job")

    async def enqueue() -> list[Any]:
        backend = AsyncioBackend(concurrency=2)
        with configure(backend=backend):
            first = asyncio.create_task(way(1))
            await until(lambda: ran)
            with no_more_threads():
                second = asyncio.create_task(way(2))
                await until(lambda: waits(caplog))
                if how == "a thread becomes free":
                    free.set()
                    await second
            await until(lambda: len(ran) == 2)
            free.set()
            return [await first, await second]

    assert asyncio.run(enqueue()) == [1, 2]
    assert ran == [1, 2]
    assert caplog.text.count("no thread can be started") == 1


def test_jobs_run_at_once_again_when_threads_can_be_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On Python 3.11 a job that had waited for long left the backend with one thread for good."""
    monkeypatch.setattr(in_thread, "_AGAIN", 0.01)

    async def enqueue() -> list[Any]:
        with configure(backend=AsyncioBackend(concurrency=8)):
            first = asyncio.create_task(on_asyncio(1))
            await until(lambda: ran)
            with no_more_threads():
                second = asyncio.create_task(on_asyncio(2))
                await until(lambda: waits(caplog))
                await asyncio.sleep(0.5)
            free.set()
            await asyncio.gather(first, second)
            together = [await meet.anew({**TENANT, "n": n}) for n in range(8)]
            return [await job.aresult(60) for job in together]

    assert asyncio.run(enqueue()) == [True] * 8


def test_a_job_that_a_thread_took_all_the_same_runs_once() -> None:
    """One had become free between the two steps of the executor."""

    class Late(ThreadPoolExecutor):
        """Has a free thread take what it is given, before it raises."""

        def submit(self, *work: Any, **more: Any) -> Any:
            super().submit(*work, **more).result(60)
            raise RuntimeError("can't start new thread")

    async def consume() -> Any:
        free.set()
        asyncio.get_running_loop().set_default_executor(Late(1))
        return await in_a_consumer(1)

    assert asyncio.run(consume()) == 1
    assert ran == [1]


def test_a_job_that_is_cut_off_while_it_waits_for_a_thread_never_runs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its queue gives it to another consumer."""

    async def consume() -> None:
        first = asyncio.create_task(in_a_consumer(1))
        await until(lambda: ran)
        with no_more_threads():
            second = asyncio.create_task(in_a_consumer(2))
            await until(lambda: waits(caplog))
            second.cancel()
            await asyncio.wait({second})
        free.set()
        await first

    asyncio.run(consume())
    assert ran == [1]


def test_an_executor_that_was_shut_down_says_so() -> None:
    """It takes no job ever again."""

    async def consume() -> None:
        executor = ThreadPoolExecutor(1)
        executor.shutdown()
        asyncio.get_running_loop().set_default_executor(executor)
        with pytest.raises(RuntimeError, match="after shutdown"):
            await in_a_consumer(1)

    asyncio.run(consume())
    assert ran == []


def test_an_error_of_what_runs_keeps_nothing() -> None:
    """What it held was there until the next collection of cycles."""

    class Held(Exception):
        pass

    def fail(_: list[Any]) -> None:
        raise held.pop()

    async def run() -> None:
        with pytest.raises(Held):
            await in_thread.in_thread(attempt, fail)

    attempt: Any = object()
    held = [Held()]
    kept = weakref.ref(held[0])
    gc.disable()
    try:
        asyncio.run(run())
        assert kept() is None
    finally:
        gc.enable()
