"""Tests that a queue's own object hears of workers, and is not kept for it."""

from __future__ import annotations

import gc
import weakref

import pytest

from sigra import catalog, worker
from sigra.backends.registering import register_with
from sigra.definition import Definition


class Native:
    """A queue's own object, such as an app, with tasks."""

    def __init__(self) -> None:
        self.tasks: list[str] = []


class Backend:
    """What registers a task of its own for each worker."""

    def __init__(self, native: Native) -> None:
        self._native = native
        register_with(native, self._register)

    def _register(self, definition: Definition) -> None:
        self._native.tasks.append(definition.name)


early = worker(name="registering.early")(lambda: None)


def test_it_hears_of_earlier_and_later_workers_though_nobody_keeps_the_backend() -> None:
    """A consumer's module need not give the backend a name."""
    Backend(native := Native())
    gc.collect()
    late = worker(name="registering.late")(lambda: None)
    assert early.name in native.tasks
    assert native.tasks[-1] == late.name


def test_it_hears_once_of_a_worker_that_is_defined_while_the_backend_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another thread may make it, between the worker's entry and the call of its subscribers."""
    native = Native()
    first = [lambda _: Backend(native), *catalog._subscribers]
    monkeypatch.setattr(catalog, "_subscribers", first)
    late = worker(name="registering.meanwhile")(lambda: None)
    assert 1 == native.tasks.count(late.name)


def test_it_is_let_go_with_its_backend() -> None:
    """A test suite that makes one for each test does not keep them all."""
    native = Native()
    gone = weakref.ref(native), weakref.ref(Backend(native))
    del native
    gc.collect()
    assert [each() for each in gone] == [None, None]
