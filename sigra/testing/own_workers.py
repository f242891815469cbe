"""Let the names of a test's own workers go, which whatever keeps them would keep taken."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

import pytest

from sigra import catalog


class OwnWorkers:
    """Hooks of pytest that watch which workers are made by which test or fixture.

    Such a worker often outlives its test: in the traceback of an exception that a parameter or a
    module keeps, in a job that was put aside, or in the variables of a test that failed. A later
    test, or another run of this one, may give its workers the same names.
    """

    def __init__(self) -> None:
        self._others = set[str]()  # not the running test's
        self._modules = set[str]()  # imported before it
        self._by_fixture: dict[Any, set[str]] = {}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Generator[None, Any, Any]:
        """Begin a run of a test."""
        self._others, self._modules = _names(), {*sys.modules}
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Take each example of Hypothesis for a run of the test."""
        __tracebackhide__ = True
        test = getattr(getattr(item, "obj", None), "hypothesis", None)
        body = getattr(test, "inner_test", None)
        if test is None or body is None:
            return (yield)
        test.inner_test = _example(body)  # the way that Hypothesis has for plugins
        try:
            return (yield)
        finally:
            test.inner_test = body

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
        """Leave out what a fixture makes that lives on after the test."""
        if fixturedef.scope == "function":
            return (yield)
        before, modules = _names(), {*sys.modules}
        try:
            return (yield)
        finally:
            made = _made_since(before, modules).difference(*self._by_fixture.values())
            self._by_fixture[fixturedef] = made  # without those of one that it asked for
            self._others |= made

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """Let the names of such a fixture go with it."""
        _let_go(self._by_fixture.pop(fixturedef, set()))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None, Any, Any]:
        """End a run of a test."""
        try:
            return (yield)
        finally:
            _let_go(_made_since(self._others, self._modules))


def _example(body: Callable[..., Any]) -> Callable[..., Any]:
    """Let the names that a function's workers take go when it ends."""

    @wraps(body)
    def example(*args: Any, **given: Any) -> Any:
        __tracebackhide__ = True
        with _run():
            return body(*args, **given)

    @wraps(body)
    async def awaited(*args: Any, **given: Any) -> Any:
        __tracebackhide__ = True
        with _run():
            return await body(*args, **given)

    # The plugins for async tests wrap it in turn, and tell by this that they have to.
    return awaited if iscoroutinefunction(body) else example


@contextmanager
def _run() -> Generator[None]:
    before, modules = _names(), {*sys.modules}
    try:
        yield
    finally:
        _let_go(_made_since(before, modules))


def _names() -> set[str]:
    """Return the names that are taken."""
    with catalog.lock:
        return {*catalog._bodies}


def _made_since(before: set[str], modules: set[str]) -> set[str]:
    """Return the names taken since, without those of modules imported since.

    Such a module is not executed again for the next test.
    """
    with catalog.lock:
        return {
            name
            for name, body in catalog._bodies.items()
            if name not in before and (name in catalog._local or body.__module__ in modules)
        }


def _let_go(names: set[str]) -> None:
    """Leave names to whoever makes a worker next; until then they are found as before."""
    with catalog.lock:
        for name in names:
            catalog._bodies.pop(name, None)
