"""Row 14: never raising does not hide that nothing was logged."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from sigra import AuditEvent, AuditResult, AuditScope, audit_stats, configure, log_safe

SCOPE = AuditScope.build(actor_id=7, organization_id=42)


class FullDisk:
    def write(self, event: Any, record: Any) -> None:
        raise OSError(28, "No space left on device")

    def close(self) -> None: ...


told: list[AuditResult] = []


@pytest.fixture(autouse=True)
def dead_sink() -> Iterator[None]:
    told.clear()
    with configure(sinks=[FullDisk()], audit_schema=AuditEvent, on_audit_failure=told.append):
        yield


def test_the_result_says_so() -> None:
    """The caller learns that the event was not kept, and by whom."""
    result = log_safe("invoice.close", SCOPE)
    assert ("failed", True) == (result.status, "FullDisk" in (result.reason or ""))


def test_the_counter_counts_it() -> None:
    """Monitoring sees the number go up by one."""
    before = audit_stats().failed
    log_safe("invoice.close", SCOPE)
    assert before + 1 == audit_stats().failed


def test_a_fallback_line_is_written(caplog: pytest.LogCaptureFixture) -> None:
    """The standard logger sigra.audit has a line, without any value of the metadata."""
    with caplog.at_level(logging.DEBUG, "sigra.audit"):
        log_safe("invoice.close", SCOPE, metadata={"note": "hunter2"})
    lines = [r.getMessage() for r in caplog.records if r.name == "sigra.audit"]
    assert (True, False) == (bool(lines), any("hunter2" in line for line in lines))


def test_the_callback_is_told() -> None:
    """on_audit_failure gets the result itself."""
    result = log_safe("invoice.close", SCOPE)
    assert [result] == told


def test_nothing_is_raised_even_by_a_raising_callback() -> None:
    """The callback's own failure stays in it."""

    def broken(result: AuditResult) -> None:
        raise RuntimeError

    with configure(on_audit_failure=broken):
        assert "failed" == log_safe("invoice.close", SCOPE).status
