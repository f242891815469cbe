"""Canonical JSON (RFC 8785), in which equal values have one text."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import rfc8785

from sigra.audit.sanitize import sanitize_value
from sigra.codec import load_orjson
from sigra.json import is_unicode

_EXACT = (1 << 53) - 1
"""The largest integer that every JSON reader reads exactly, and the largest of RFC 8785."""

_json = json.JSONEncoder(
    sort_keys=True, ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
)


def _best_sorted() -> Callable[[Any], str]:
    try:
        orjson = load_orjson()
    except ImportError:  # the extra is not installed
        return _json.encode
    dumps, options = orjson.dumps, orjson.OPT_SORT_KEYS
    return lambda value: dumps(value, None, options).decode()


# Without floats, and with keys in ASCII, sorted JSON is already canonical. It takes a fifth of
# the time of the library rfc8785, or less.
_sorted_json = _best_sorted()


def canonical(value: dict[str, Any]) -> str:
    """Return the canonical text of a dict of plain JSON.

    Integers beyond 53 bits become text, and so does what JSON cannot express.
    """
    if not value:
        return "{}"
    if _is_simple(value):
        return _sorted_json(value)
    return rfc8785.dumps(_narrowed(sanitize_value(value))).decode()


def _is_simple(value: Any) -> bool:
    """Tell whether the sorted JSON of a dict or list is already canonical."""
    if isinstance(value, dict):
        for key, item in dict.items(value):
            if type(key) is not str or not key.isascii() or not _is_simple_item(item):
                return False
        return True
    return isinstance(value, list) and all(map(_is_simple_item, list.__iter__(value)))


def _is_simple_item(value: Any) -> bool:
    kind = type(value)
    if kind is str:
        return bool(value.isascii()) or is_unicode(value)
    if kind is int:
        return bool(-_EXACT <= value <= _EXACT)
    return value is None or kind is bool or _is_simple(value)


def _narrowed(value: Any) -> Any:
    """Return a value with text in place of integers that a double does not hold."""
    kind = type(value)
    if kind is int and not -_EXACT <= value <= _EXACT:
        return str(value)
    if kind is dict:
        return {key: _narrowed(item) for key, item in value.items()}
    if kind is list:
        return [_narrowed(item) for item in value]
    return value
