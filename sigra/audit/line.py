"""One JSON object as one line, in which nothing can pass for the end of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from sigra.audit.sanitize import sanitize_value

_HIDDEN = "\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
_hidden = re.compile(f"[{_HIDDEN}]")
# The one such character of ASCII that JSON does not escape anyway.
_DEL = b"\x7f"


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
