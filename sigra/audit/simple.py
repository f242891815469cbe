"""The metadata that most events have: flat and short, and copied in one pass."""

from __future__ import annotations

from typing import Any

from sigra.audit.redact import holds_secret, key_verdict

# Within these no metadata comes near the size at which it is replaced.
_MAX_ITEMS = 12
_MAX_KEY = 64
_MAX_TEXT = 400
_HALF = 1 << 63

_MAX_KNOWN = 1_024
_plain_keys: dict[str, None] = {}


def simple_copy(metadata: dict[Any, Any]) -> dict[str, Any] | None:
    """Copy metadata that is flat, short and harmless, as most is; None where it is not."""
    if len(metadata) > _MAX_ITEMS:
        return None
    simple: dict[str, Any] = {}
    text = 0
    for key, value in metadata.items():
        if type(key) is not str or (key not in _plain_keys and not _is_plain(key)):
            return None
        kind = type(value)
        if kind is str:
            text += len(value)
            if text > _MAX_TEXT or not value.isascii() or holds_secret(value):
                return None
        elif kind is int:
            if not -_HALF <= value < _HALF:
                return None
        # Infinity and NaN alone leave something when taken from themselves.
        elif not (value is None or kind is bool or (kind is float and value - value == 0.0)):
            return None
        simple[key] = value
    return simple


def _is_plain(key: str) -> bool:
    if len(key) > _MAX_KEY or not key.isascii() or key_verdict(key):
        return False
    if len(_plain_keys) >= _MAX_KNOWN:
        _plain_keys.clear()
    _plain_keys[key] = None
    return True
