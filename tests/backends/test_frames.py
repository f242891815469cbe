"""Tests that what a failed job had in hand is let go as it ends, not when garbage is collected."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sigra import AsyncioBackend, Cancel, Failure, Snooze, ThreadBackend, configure, worker
from sigra.backends.external import aconsume, consume

PATIENCE = 240.0


class Data:
    """What a body has in hand: it can be large."""


in_hand: list[weakref.ref[Data]] = []
let_go = threading.Event()


def end(how: str) -> Any:
    data = Data()
    in_hand.append(weakref.ref(data, lambda _: let_go.set()))
    match how:
        case "failure":
            return Failure(how)
        case "cancel":
            return Cancel(how)
        case "snooze":
            return Snooze(3600)
        case "raise":
            raise ValueError(how)
    raise SystemExit(how)


@worker(name="frames.plain")
def plain(how: str) -> Any:
    return end(how)


@worker(name="frames.awaits")
async def awaits(how: str) -> Any:
    await asyncio.sleep(0)
    return end(how)


@worker(name="frames.none")
def none() -> None:
    """Let the threads and the loop go on to another job."""


@pytest.fixture(autouse=True)
def _uncollected() -> Iterator[None]:
    in_hand.clear()
    let_go.clear()
    gc.collect()
    gc.disable()
    logging.disable()  # pytest keeps the records, and these the errors
    yield
    logging.disable(logging.NOTSET)
    gc.enable()


def by_threads(kind: Any, how: str) -> None:
    pool = ThreadBackend(1)
    with configure(backend=pool):
        kind.new({"how": how})
        none.new({}).result(PATIENCE)
    pool.close(PATIENCE)


def by_asyncio(kind: Any, how: str) -> None:
    async def produce() -> None:
        backend = AsyncioBackend()
        with configure(backend=backend):
            await kind.anew({"how": how})
        await backend.aclose(PATIENCE)

    asyncio.run(produce())


def by_a_consumer(kind: Any, how: str) -> None:
    consume({"how": how}, kind.name, "tests")


def by_a_consumer_on_a_loop(kind: Any, how: str) -> None:
    async def run() -> None:
        await aconsume({"how": how}, kind.name, "tests")

    asyncio.run(run())


@pytest.mark.parametrize("how", ["raise", "exit", "failure", "cancel", "snooze"])
@pytest.mark.parametrize("kind", [plain, awaits], ids=["plain", "awaits"])
@pytest.mark.parametrize(
    "run",
    [by_threads, by_asyncio, by_a_consumer, by_a_consumer_on_a_loop],
    ids=lambda run: run.__name__,
)
def test_what_a_job_had_in_hand_is_let_go_as_it_ends(
    run: Callable[[Any, str], None], kind: Any, how: str
) -> None:
    """However it ends: the frames that ran it hold it and its error, and that holds them."""
    run(kind, how)
    assert let_go.wait(PATIENCE)


def test_what_an_adapter_raises_holds_nothing_of_its_job() -> None:
    """It takes the error out of the verdict first, which its own frames hold."""

    def settle() -> None:
        consumed = consume({"how": "raise"}, plain.name, "tests")
        error = consumed.take_error()
        raise error.pop()

    with pytest.raises(ValueError, match="raise") as caught:
        settle()
    del caught
    assert let_go.is_set()


def test_the_error_of_a_job_that_somebody_has_still_shows_what_its_body_had_in_hand() -> None:
    """Whoever looks for the cause finds the values there."""
    pool = ThreadBackend(1)
    with configure(backend=pool):
        job = plain.new({"how": "raise"})
        with pytest.raises(ValueError, match="raise") as caught:
            job.result(PATIENCE)
    pool.close(PATIENCE)
    assert isinstance(caught.traceback[-1].frame.f_locals["data"], Data)


shared = ValueError("one and the same")


@worker(name="frames.shared")
async def raises_shared() -> None:
    await asyncio.sleep(0)
    raise shared


def test_an_error_that_job_after_job_raises_ends_nothing_that_waits() -> None:
    """Its traceback leads to the frames of all of them, and these to what ran them."""

    async def produce() -> int:
        backend = AsyncioBackend(concurrency=3)
        with configure(backend=backend):
            jobs = await raises_shared.anew_many([{}] * 30)
            for job in jobs:
                with pytest.raises(ValueError, match="one and the same"):
                    await job.aresult(PATIENCE)
        return len(await backend.aclose(PATIENCE))

    assert asyncio.run(produce()) == 0
