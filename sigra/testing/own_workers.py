"""Let the names of a failed test's own workers go, which its traceback would keep taken."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from sigra import catalog


class OwnWorkers:
    """Hooks of pytest that watch which workers are made within functions, and by whom.

    A test that failed is kept with all its variables: by Python as the last traceback, by pytest
    and by plugins. Those of the next test, or of its next run, may have the same names.
    """

    def __init__(self) -> None:
        self._others = set[str]()  # not the running test's
        self._by_fixture: dict[Any, set[str]] = {}
        self._failed = self._ever_failed = False

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Generator[None, Any, Any]:
        """Begin a run of a test."""
        self._others, self._failed = _names(), False
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
        """Leave out what a fixture makes that lives on after the test."""
        if fixturedef.scope == "function":
            return (yield)
        before = _names()
        try:
            return (yield)
        finally:
            self._by_fixture[fixturedef] = made = _names() - before
            self._others |= made

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """Let the names of such a fixture go with it, as a test that failed may hold it."""
        made = self._by_fixture.pop(fixturedef, set())
        if self._ever_failed:
            _let_go(made)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
        """Hear of failures, and of skips and expected failures, which are kept as well."""
        try:
            return (yield)
        finally:  # only now: a unittest's failure is put into the call by pytest's own hook
            self._failed = self._failed or call.excinfo is not None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None, Any, Any]:
        """End a run of a test."""
        try:
            return (yield)
        except BaseException:
            self._failed = True
            raise
        finally:
            if self._failed:
                self._ever_failed = True
                _let_go(_names() - self._others)


def _names() -> set[str]:
    """Return the names of all workers that were made within functions."""
    with catalog.lock:
        return {*catalog._bodies} - {*catalog._lasting}


def _let_go(names: set[str]) -> None:
    """Leave names to whoever makes a worker next; jobs of the workers that had them still run."""
    with catalog.lock:
        for name in names:
            catalog._local.pop(name, None)
            catalog._bodies.pop(name, None)
