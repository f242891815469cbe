"""JSON after RFC 8785, which gives equal values one text."""

from __future__ import annotations

import json
from typing import Any

import rfc8785

from sigra.audit.sanitize import sanitize_value

_EXACT = (1 << 53) - 1
"""The largest integer that every JSON reader keeps, and the largest of RFC 8785."""

# For what holds neither floats nor keys beyond ASCII its text is the standard's, in a fifth
# of the time that the library takes.
_sorted = json.JSONEncoder(
    sort_keys=True, ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode


def canonical(value: dict[str, Any]) -> str:
    """Return the canonical text of a dict of plain JSON.

    Integers beyond 53 bits become text, as does what JSON has no word for.
    """
    if _is_simple(value):
        return _sorted(value)
    return rfc8785.dumps(_narrowed(sanitize_value(value))).decode()


def _is_simple(value: object) -> bool:
    """Tell whether a value's sorted JSON is canonical anyway."""
    if type(value) is str:
        return _is_unicode(value)
    if value is None or type(value) is bool:
        return True
    if type(value) is int:
        return -_EXACT <= value <= _EXACT
    if type(value) is dict:
        for key, item in value.items():
            if type(key) is not str or not key.isascii() or not _is_simple(item):
                return False
        return True
    if type(value) is list:
        return all(map(_is_simple, value))
    return False


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _narrowed(value: Any) -> Any:
    """Write integers as text where a double would not hold them."""
    kind = type(value)
    if kind is int and not -_EXACT <= value <= _EXACT:
        return str(value)
    if kind is dict:
        return {key: _narrowed(item) for key, item in value.items()}
    if kind is list:
        return [_narrowed(item) for item in value]
    return value
