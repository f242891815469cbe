"""Count calls that were disabled or failed, and report the failures: no audit event can."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from itertools import count
from time import monotonic
from typing import Any

from sigra import config
from sigra.audit.action import accepted
from sigra.audit.event import AuditResult
from sigra.audit.stats import disabled, failed

_log = logging.getLogger("sigra.audit")
_thread = threading.local()
_COUNTS = {"disabled": disabled, "failed": failed, "held": count()}  # held: it is counted later

# A sink that is down fails for every event. For one reason at most this many lines are written in
# a second; the next one says how many were left out.
_LINES, _REASONS = 50, 256
_windows: dict[str | None, tuple[float, count[int], count[int]]] = {}
"""By reason: when its window of one second began, a counter of the failures in it, and a counter
whose first taker opens the next window. Taking from a counter is atomic, so nobody waits for a
lock."""


def report(result: AuditResult, action: Any) -> AuditResult:
    """Count a call that was disabled or failed, report a failure, and return the result.

    What fails while a failure is being reported is only counted, or it would never end.
    """
    next(_COUNTS[result.status])
    if result.status == "failed" and not getattr(_thread, "reporting", False):
        _thread.reporting = True
        try:
            with suppress(Exception):  # it is counted already, and the caller gets it
                _write(result, action)
        finally:
            _thread.reporting = False
    return result


def _write(result: AuditResult, action: Any) -> None:
    """Write a failure to the standard logger and offer it to ``on_audit_failure``."""
    if (left_out := _left_out(result.reason)) is not None:
        # Names alone (of the action, of fields, of types, of keys), and no values.
        given = str.__str__(action) if issubclass(type(action), str) else None
        name = given if given in accepted else "(no valid action)"
        more = f" (and {left_out} more like it before)" if left_out else ""
        with suppress(Exception):
            keys = ", ".join(map(ascii, result.event.metadata or ())) if result.event else ""
            told = f"{result.reason}; keys of its metadata: {keys}" if keys else result.reason
            _log.error("audit event %s failed: %s%s", name, told, more)
    if (callback := config.current.on_audit_failure) is not None:
        callback(result)


def _left_out(reason: str | None) -> int | None:
    """Return how many lines of this reason were left out before, None to leave this one out."""
    now = monotonic()
    if len(_windows) >= _REASONS:
        _windows.clear()
    start, came, turns = _windows.setdefault(reason, (now, count(), count()))
    before = next(came)
    if now - start < 1 or next(turns):
        return 0 if before < _LINES else None
    _windows[reason] = now, count(1), count()
    return max(0, before - _LINES)
