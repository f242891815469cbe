"""Where the end of each call is counted, and a failure told that no event can tell of."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import Any

from sigra import config
from sigra.audit.action import action_fault
from sigra.audit.event import AuditResult
from sigra.audit.read import type_name
from sigra.audit.stats import disabled, emitted, failed

LAST_RESORT = AuditResult("failed", "the stack or the memory ran out while the event was built")
"""Made beforehand, for where nothing can be made any more."""

_log = logging.getLogger("sigra.audit")
_thread = threading.local()


def settled(result: AuditResult, action: Any) -> AuditResult:
    """Count a result by its status, tell of it where it is a failure, and return it."""
    status = result.status
    for _ in emitted if status == "emitted" else disabled if status == "disabled" else failed:
        break
    if status == "failed":
        with suppress(Exception):  # it is counted, and in the caller's hand
            _report(result, action)
    return result


def report_crash(kind: type[Exception], action: Any) -> AuditResult:
    """Tell of an exception that ended a call before its event was made; it is counted already."""
    result = AuditResult("failed", f"{type_name(kind)} while the event was built")
    _report(result, action)
    return result


def _report(result: AuditResult, action: Any) -> None:
    """Write a failure to the standard logger and offer it to ``on_audit_failure``.

    The line has names only: the action's where it is well formed, fields' and types'.
    What fails while a failure is being told is counted and not told, or it would
    never end.
    """
    if getattr(_thread, "telling", False):
        return
    _thread.telling = True
    try:
        name = action if action_fault(action) is None else "(no valid action)"
        with suppress(Exception):
            _log.error("audit event %s failed: %s", name, result.reason)
        callback = config.current.on_audit_failure
        if callback is not None:
            with suppress(Exception):
                callback(result)
    finally:
        _thread.telling = False
