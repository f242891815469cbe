"""The pytest plugin: a backend and an audit log of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sigra import config
from sigra.testing.capture import AuditLog, RecordingBackend


@pytest.fixture
def sigra_backend() -> Iterator[RecordingBackend]:
    """Send every job of the test to a sync backend of its own, whatever was configured.

    A worker whose decorator names a backend keeps that one.
    """
    backend = RecordingBackend()
    with config.configure(backend=backend, backends={}):
        yield backend


@pytest.fixture
def audit_log() -> Iterator[AuditLog]:
    """Capture the audit events of the test beside whatever sinks are configured."""
    log = AuditLog()
    with config.configure(sinks=[*config.current.sinks, log]):
        yield log
