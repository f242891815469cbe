"""The pytest plugin: a backend, an audit log and workers of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sigra import config
from sigra.testing.capture import AuditLog, RecordingBackend
from sigra.testing.own_workers import OwnWorkers


def pytest_configure(config: pytest.Config) -> None:
    """Let the next test have the names of what a failed one defined."""
    config.pluginmanager.register(OwnWorkers())


@pytest.fixture
def sigra_backend() -> Iterator[RecordingBackend]:
    """Send every job of the test to a sync backend of its own, whatever was configured.

    A worker whose decorator names a backend keeps that one.
    """
    backend = RecordingBackend()
    with config.configure(backend=backend, backends={}) as mine:
        yield backend
        _check_in_force(mine)


@pytest.fixture
def audit_log() -> Iterator[AuditLog]:
    """Capture the audit events of the test beside whatever sinks are configured."""
    log = AuditLog()
    with config.configure(sinks=[*config.current.sinks, log]) as mine:
        yield log
        _check_in_force(mine)


def _check_in_force(mine: config.Config) -> None:
    """Fail a test whose jobs or events went elsewhere than to its fixtures."""
    now = config.current
    if isinstance(mine.backend, RecordingBackend) and now.backend is not mine.backend:
        _fail("sigra_backend", "backend")
    logs = {id(sink) for sink in mine.sinks if isinstance(sink, AuditLog)}
    if not logs <= {id(sink) for sink in now.sinks}:
        _fail("audit_log", "sinks")


def _fail(fixture: str, setting: str) -> None:
    pytest.fail(
        f"configure({setting}=...) was called while the test had {fixture}, and took its place. "
        "Import the module that calls it first: in conftest.py, or in a fixture that comes before. "
        "If an application's lifespan calls it, start the application in a fixture of scope "
        "'session', as by 'with TestClient(app) as client: yield client'.",
        pytrace=False,
    )
