"""The begin of a plain function on a loop: noted once a thread has it, if it had to wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sigra import AuditScope, tenant_worker
from sigra.backends import begin
from sigra.backends.external import aconsume

TENANT = {"organization_id": "acme", "actor_id": "ann"}

said: list[str] = []


@tenant_worker(name="tests.begin.plain")
def plain(scope: AuditScope) -> None:
    said.append("body")


@tenant_worker(name="tests.begin.later")
async def later(scope: AuditScope) -> None:
    said.append("body")


def says(word: str, until: asyncio.Event | None = None) -> Callable[[], Coroutine[Any, Any, None]]:
    async def say() -> None:
        said.append(word)
        if until is not None:
            await until.wait()
            said.append(f"{word}, written")

    return say


async def until_said(word: str) -> None:
    while word not in said:
        await asyncio.sleep(0.01)


async def one_thread() -> threading.Event:
    """Have one thread in this loop, and return what makes it free."""
    free, taken = threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    loop.run_in_executor(None, lambda: taken.set() or free.wait())
    while not taken.is_set():
        await asyncio.sleep(0.01)
    return free


@pytest.fixture(autouse=True)
def silent() -> None:
    said.clear()


@pytest.mark.parametrize("worker", [plain, later])
def test_what_need_not_wait_is_not_noted(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its queue has taken it for begun: that is written already."""
    monkeypatch.setattr(begin, "_MOMENT", 3600)  # a thread is free, and may be slow to start
    monkeypatch.setattr(begin, "is_busy", lambda: False)  # else a loop is busy to begin with
    notes = {"note": says("begins"), "waits": says("waits")}
    asyncio.run(aconsume(TENANT, worker.definition, "test", **notes))
    assert said == ["body"]


@pytest.mark.parametrize("worker", [plain, later])
def test_without_waits_each_begin_is_noted(worker: Any) -> None:
    """Where its queue counts nothing by itself."""
    asyncio.run(aconsume(TENANT, worker.definition, "test", note=says("begins")))
    assert said == ["begins", "body"]


@tenant_worker(name="tests.begin.long")
def long(scope: AuditScope) -> None:
    has_begun.set()
    go_on.wait(60)
    said.append("body")


has_begun, go_on = threading.Event(), threading.Event()


@pytest.mark.parametrize(("notes", "then"), [("note waits", ["body"]), ("note", ["note", "body"])])
def test_what_has_begun_is_not_said_to_wait(
    notes: str, then: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its consumer may die with it, and that has used up an attempt."""
    monkeypatch.setattr(begin, "is_busy", lambda: False)
    monkeypatch.setattr(begin, "_MOMENT", 3600)

    async def consume() -> None:
        loop: Any = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: said.append(repr(context)))
        says_so = {word: says(word) for word in notes.split()}
        work = asyncio.ensure_future(aconsume(TENANT, long.definition, "test", **says_so))
        while not (has_begun.is_set() or work.done()):
            await asyncio.sleep(0.01)
        for timer in loop._scheduled:
            if timer.when() > loop.time() + 1800:
                loop.call_soon(timer._run)  # as when the moment is over
        loop.call_soon(loop.call_soon, go_on.set)
        await work

    has_begun.clear()
    go_on.clear()
    asyncio.run(consume())
    assert said == then


def test_what_is_cut_off_at_once_is_not_said_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue has it again by then."""
    monkeypatch.setattr(begin, "_MOMENT", 0.01)
    monkeypatch.setattr(begin, "is_busy", lambda: False)

    async def consume() -> None:
        free = await one_thread()
        notes = {"note": says("begins"), "waits": says("waits")}
        work = asyncio.ensure_future(aconsume(TENANT, plain.definition, "test", **notes))
        asyncio.get_running_loop().call_soon(work.cancel)
        await asyncio.wait({work})
        said.append("over")
        await asyncio.sleep(0.1)
        free.set()

    asyncio.run(consume())
    assert said == ["over"]


def test_without_waits_a_wait_for_a_thread_is_not_noted() -> None:
    """Nor is anything logged of it: there is nothing to be written."""

    async def consume() -> None:
        loop, free = asyncio.get_running_loop(), await one_thread()
        loop.set_exception_handler(lambda _, context: said.append(repr(context)))
        work = asyncio.ensure_future(
            aconsume(TENANT, plain.definition, "test", note=says("begins"))
        )
        await asyncio.sleep(0.1)
        free.set()
        await work

    asyncio.run(consume())
    assert said == ["begins", "body"]


def test_what_waits_for_a_thread_is_noted_twice() -> None:
    """That it waits, and once that is written that it begins, before its body."""

    async def consume() -> None:
        free, written = await one_thread(), asyncio.Event()
        notes = {"note": says("begins"), "waits": says("waits", written)}
        work = asyncio.ensure_future(aconsume(TENANT, plain.definition, "test", **notes))
        await until_said("waits")
        free.set()
        asyncio.get_running_loop().call_later(0.1, written.set)
        await work

    asyncio.run(consume())
    assert said == ["waits", "waits, written", "begins", "body"]


def test_what_follows_one_that_waited_is_noted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no longer once one has had a thread: it would be taken for begun in the meantime."""

    async def consume() -> list[str]:
        said.clear()
        notes = {"note": says("begins"), "waits": says("waits")}
        await aconsume(TENANT, plain.definition, "test", **notes)
        return said.copy()

    async def consume_where_all_wait() -> list[str]:
        free = await one_thread()
        work = asyncio.ensure_future(consume())
        await asyncio.sleep(0.2)
        free.set()
        return await work

    async def consume_four() -> tuple[list[str], ...]:
        first = await consume_where_all_wait()
        monkeypatch.setattr(begin, "_MOMENT", 3600)  # what is noted now is so at once
        second, _ = await consume_where_all_wait(), await consume()
        return first, second, await consume_where_all_wait()

    assert asyncio.run(consume_four()) == (["waits", "begins", "body"],) * 2 + (["body"],)


@pytest.mark.parametrize(
    ("at", "then"),
    [("waits", ["waits, written"]), ("begins", ["begins", "begins, written", "waits"])],
)
def test_what_is_cut_off_before_its_body_has_none(at: str, then: list[str]) -> None:
    """Its queue hears of it again only once nothing more is written, and that it has not begun."""

    async def consume() -> None:
        free, written = await one_thread(), asyncio.Event()
        notes = {word: says(word, written if word == at else None) for word in ("waits", "begins")}
        notes["note"] = notes.pop("begins")
        work = asyncio.ensure_future(aconsume(TENANT, plain.definition, "test", **notes))
        await until_said("waits")
        if at == "begins":
            free.set()
            await until_said("begins")
        work.cancel()
        asyncio.get_running_loop().call_later(0.1, written.set)
        await asyncio.wait({work})
        said.append("over")
        free.set()
        await asyncio.get_running_loop().shutdown_default_executor()

    asyncio.run(consume())
    assert said == ["waits", *then, "over"]
