"""An event as one line of JSON, in which nothing can be taken for the end of the line."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii
from typing import Any

from sigra.audit.sanitize import compact, sanitize_value
from sigra.codec import load_orjson
from sigra.json import check_depth

hidden = re.compile(
    "[\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
"""Characters that are invisible, end a line or reverse it, and that JSON does not escape."""


def line_of(fields: dict[str, Any]) -> bytes:
    """Render a dict as strict JSON in UTF-8, without a line end.

    Control, bidirectional, zero-width and line-separating characters are escaped.
    What JSON cannot say is rendered as in metadata; nothing is redacted here.
    """
    try:
        line = _dump(fields, sanitize_value, _options)
    except (TypeError, ValueError, RecursionError):
        line = _dump(sanitize_value(fields), sanitize_value, _options)
    if line.isascii() and 0x7F not in line:  # the only one of ``hidden`` in ASCII
        return line
    return hidden.sub(lambda match: encode_basestring_ascii(match[0])[1:-1], line.decode()).encode()


def _best_dump() -> tuple[Callable[..., bytes], int]:
    """Return a function that writes JSON, given a value, a default and options; and the options."""
    try:
        orjson = load_orjson()
    except ImportError:  # the extra is not installed
        return lambda value, *_: compact(value).encode(), 0
    # Otherwise orjson would write dataclasses and subclasses by rules of its own.
    return orjson.dumps, orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS


_dump, _options = _best_dump()


@dataclass(slots=True, kw_only=True, eq=False)
class JSONRenderer:
    """Render an event to one line of strict JSON, in one step.

    For structlog's ``processors``, as the last or the only one. The line has ``event``,
    ``level`` (if no other processor has set it) and the rest as it came. With ``text=False``,
    the default, it returns bytes, for ``BytesLogger``; with ``text=True`` a str, for
    ``PrintLogger``, ``WriteLogger`` and the standard library. It renders any event, not only
    those of ``log_safe``.
    """

    text: bool = False

    def __call__(self, _: Any, name: str, event_dict: Any) -> str | bytes:
        """Render one event, as structlog calls a processor."""
        event_dict.setdefault("level", name)
        try:
            check_depth(event_dict, 1 << 22)  # it may not be an event of log_safe
        except ValueError:
            event_dict = sanitize_value(event_dict)
        line = line_of(event_dict)
        return line.decode() if self.text else line
