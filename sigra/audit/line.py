"""One JSON object as one line, in which nothing can pass for the end of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from sigra.audit.sanitize import sanitize_value

if TYPE_CHECKING:
    from sigra.audit.event import AuditEvent

_HIDDEN = "\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
_hidden = re.compile(f"[{_HIDDEN}]")
# The one such character of ASCII that JSON does not escape anyway.
_DEL = b"\x7f"


def event_line(event: AuditEvent, level: str) -> bytes:
    """Render an event of ``log_safe`` as ``line_of`` does its log fields, in one step."""
    fields = {
        "event": event.action,
        "level": level,
        "outcome": event.outcome,
        "event_id": event.event_id,
        "organization_id": event.organization_id,
        "actor_id": event.actor_id,
        "effective_user_id": event.effective_user_id,
        "actor_type": event.actor_type,
        "target_id": event.target_id,
        "target_type": event.target_type,
        "ip_address": event.ip_address,
        "user_agent": event.user_agent,
        "metadata": event.metadata,
        "occurred_at": event.occurred_at,
        "worker": event.worker,
        "job_id": event.job_id,
        "attempt": event.attempt,
    }
    line = _dump(fields)
    return line if line.isascii() and _DEL not in line else _escaped(line)


def line_of(fields: dict[str, Any]) -> bytes:
    """Render a dict as strict JSON in UTF-8, without a line end.

    Control, bidirectional, zero-width and line-separating characters are escaped.
    What JSON has no word for is rendered as in metadata; nothing is redacted here.
    """
    try:
        line = _dump(fields)
    except (TypeError, ValueError, RecursionError):
        line = _dump(sanitize_value(fields))
    return line if line.isascii() and _DEL not in line else _escaped(line)


def _escaped(line: bytes) -> bytes:
    return _hidden.sub(_escape, line.decode()).encode()


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=sanitize_value
).encode


def _best_dump() -> Callable[[Any], bytes]:
    try:
        import orjson
    except ImportError:  # the extra is not installed
        return lambda fields: _encode(fields).encode()
    # Left to themselves these types would be written by rules that are not ours.
    options = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
    return partial(orjson.dumps, default=sanitize_value, option=options)


_dump = _best_dump()
