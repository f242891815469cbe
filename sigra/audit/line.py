"""One JSON object as one line, in which nothing can pass for the end of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from sigra.audit.sanitize import sanitize_value

_HIDDEN = "\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
_hidden = re.compile(f"[{_HIDDEN}]")
# A bare DEL is the one such character that ASCII has besides those that JSON escapes anyway.
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
    if line.isascii():
        return line.replace(_DEL, b"\\u007f") if _DEL in line else line
    return _hidden.sub(_escape, line.decode()).encode()


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _best_dump() -> Callable[[Any], bytes]:
    try:
        import orjson
    except ImportError:  # the extra is not installed
        return lambda fields: _encode(fields).encode()
    dumps = orjson.dumps
    # Left to themselves these types would be written by rules that are not ours.
    options = (
        orjson.OPT_PASSTHROUGH_DATACLASS
        | orjson.OPT_PASSTHROUGH_SUBCLASS
        | orjson.OPT_PASSTHROUGH_DATETIME
    )
    return lambda fields: dumps(fields, sanitize_value, options)


_dump = _best_dump()
