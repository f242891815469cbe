"""Say what becomes of a job whose body procrastinate cancelled."""

from __future__ import annotations

import asyncio
import sys
from typing import Any


def cut_off(context: Any) -> str:
    """Return words for the log if the body is just ending by its cancellation; else ""."""
    reason = context.abort_reason()
    if reason is None or not isinstance(sys.exc_info()[1], asyncio.CancelledError):
        return ""
    if reason.value == "shutdown":
        return "; cut off by the worker's stop, it runs again"
    return "; aborted by procrastinate, it does not run again"
