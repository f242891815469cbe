"""Metadata as plain JSON: bounded in size and cost, without secrets, running no foreign code."""

from __future__ import annotations

import json
import sys
from collections import deque
from datetime import datetime, timezone
from hashlib import sha256
from typing import Any

from sigra.audit.leaf import leaf
from sigra.audit.read import mapping_of, well_formed
from sigra.audit.redact import MAX_KEY, REDACTED, holds_secret, is_secret, key_verdict, visible
from sigra.codec import HIGH, LOW
from sigra.errors import AuditRejectedError, InvalidArgsError
from sigra.json import LEVELS, freeze

MAX_BYTES = 8_192
"""What metadata may take as compact UTF-8 JSON before it is replaced by its digest."""

# A value costs one; long keys and texts cost more, in proportion to the time that they take.
_BUDGET = 5_000
_KEY_CHARACTERS = 8
_TEXT_CHARACTERS = 80
_LONGEST_TEXT = _BUDGET * _TEXT_CHARACTERS
_MAX_STEP = 64
# A result names at most so many paths of what was redacted, each cut to so many characters.
_MAX_PATHS = 1_000
_MAX_PATH = 256

# Metadata within these limits is far below the size at which it is replaced.
_SIMPLE_ITEMS = 12
_SIMPLE_KEY = 64
_SIMPLE_TEXT = 400
_SIMPLE_KEYS = 1_024
_simple_keys: set[str] = set()

_UNORDERED = (set, frozenset)
_ARRAYS: tuple[Any, ...] = (list, tuple, *_UNORDERED, deque)


def sanitize(  # noqa: C901 - one loop, though long: a call for each value takes longer
    metadata: Any,
) -> tuple[dict[str, Any], list[str]]:
    """Return metadata as plain JSON, and the paths of what was redacted.

    Anything but a mapping is put under the key ``value``. More than ``MAX_BYTES`` becomes
    ``{"truncated": True, "bytes": n, "sha256": hex}``, the size and digest of the JSON that it
    would have been. Reading stops after 5,000 values, or earlier with long keys and texts (at
    400,000 characters in all); n and the digest are then of the part that was read.
    """
    if metadata is None:
        return {}, []
    try:
        # Most is flat, short and harmless, and copied in one loop.
        if type(metadata) is dict and len(metadata) <= _SIMPLE_ITEMS:
            simple, left = metadata.copy(), _SIMPLE_TEXT
            for key, value in simple.items():
                if type(key) is not str or (key not in _simple_keys and not _is_simple(key)):
                    break
                kind = type(value)
                if kind is str:
                    left -= len(value)
                    if left < 0 or not value.isascii() or (len(value) > 5 and holds_secret(value)):
                        break
                elif kind is int:
                    if not LOW <= value <= HIGH:
                        break
                elif kind is float:
                    if value - value != 0.0:  # infinity and NaN alone
                        break
                elif value is not None and kind is not bool:
                    break
            else:
                return simple, []
        return _walked(metadata)
    except RuntimeError as error:
        # Another thread is changing it, or the stack is full: the event matters more.
        return {"unreadable": type(error).__name__}, []


def _walked(metadata: Any) -> tuple[dict[str, Any], list[str]]:
    """Do the same for what may be nested, large or secret."""
    walk, mapping = _Walk(), mapping_of(metadata)
    plain = walk.mapping({"value": metadata} if mapping is None else mapping, "$", 1)
    data = compact(plain).encode()
    if len(data) > MAX_BYTES or walk.left < 0:
        plain = {"truncated": True, "bytes": len(data), "sha256": sha256(data).hexdigest()}
    return plain, walk.redacted


def check_metadata(metadata: Any, kept: dict[str, Any], redacted: list[str]) -> None:
    """Raise ``AuditRejectedError`` if what ``sanitize`` kept differs from what was given."""
    if redacted:
        raise AuditRejectedError("metadata", f"it holds a secret at {redacted[0]}")
    held, told = mapping_of(metadata), {"truncated", "bytes", "sha256"}
    # What was too large to keep is too large to freeze: lists in it may share others many times.
    if held is not None and kept.keys() == told and dict.get(held, "sha256") is not kept["sha256"]:
        held = None
    try:
        given = freeze({} if held is None else held, sys.maxsize)
    except InvalidArgsError as error:
        raise AuditRejectedError("metadata", f"at {error.path}: {error.reason}") from None
    if kept != given:
        raise AuditRejectedError("metadata", f"it must be a dict up to {MAX_BYTES:,} bytes as JSON")


def _is_simple(key: str) -> bool:
    if len(key) > _SIMPLE_KEY or not key.isascii() or key_verdict(key) or holds_secret(key):
        return False
    if len(_simple_keys) >= _SIMPLE_KEYS:
        _simple_keys.clear()
    _simple_keys.add(key)
    return True


def sanitize_value(value: Any) -> Any:
    """Return any value as plain JSON, within the bounds of metadata and with nothing redacted."""
    if type(value) is datetime and value.tzinfo is timezone.utc:  # an event's own, at little stack
        return value.isoformat()
    return _Walk(redacting=False).value(value, "$", 0)


compact = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=sanitize_value
).encode
"""Write a value as one line of JSON, by the standard library."""


class _Walk:
    """One pass over a value: what it may still cost, and what was redacted on the way.

    ``left`` is below zero once something was left out; ``characters`` counts what was
    kept of keys and texts.
    """

    __slots__ = ("characters", "left", "open", "redacted", "redacting")

    def __init__(self, redacting: bool = True) -> None:
        self.left = _BUDGET
        self.characters = 0
        self.redacting = redacting
        self.redacted: list[str] = []
        self.open: set[int] = set()

    def value(self, value: Any, path: str, depth: int, key: str | int = "") -> Any:
        """Return any value as plain JSON; ``path`` and ``key`` say where it stands."""
        mapping = mapping_of(value)
        if mapping is None and not issubclass(type(value), _ARRAYS):
            plain = leaf(value)
            return self._text(plain, path, key) if type(plain) is str else plain
        if depth >= LEVELS:
            return f"<deeper than {LEVELS} levels>"
        held: Any = value if mapping is None else mapping
        if id(held) in self.open:
            return "<cycle>"
        self.open.add(id(held))
        walk = self._array if mapping is None else self.mapping
        plain = walk(held, _below(path, key), depth + 1)
        self.open.discard(id(held))
        return plain

    def mapping(self, mapping: dict[Any, Any], path: str, depth: int) -> dict[str, Any]:
        """Return a dict, or one of a subclass, with plain keys and values."""
        plain: dict[str, Any] = {}
        for name, value in dict.items(mapping):
            key = name if type(name) is str and name.isascii() else self._key(name)
            self.left -= 1 + len(key) // _KEY_CHARACTERS
            if self.left < 0:
                break
            secret = self.redacting and value is not None and is_secret(key, type(value))
            if self.redacting and holds_secret(key):
                key = self._redact(path, REDACTED)
            if key in plain:
                key = self._apart(key, plain)
            self.characters += len(key)
            plain[key] = self._redact(path, key) if secret else self.value(value, path, depth, key)
        return plain

    def _key(self, key: Any) -> str:
        """Write a key as JSON would; one that is not ASCII costs by its length as it is judged."""
        text = leaf(key)
        text = well_formed(text[:_LONGEST_TEXT]) if type(text) is str else json.dumps(text)
        if not text.isascii():
            self.left -= len(visible(text[:MAX_KEY])) // _KEY_CHARACTERS
        return text

    def _apart(self, key: str, plain: dict[str, Any]) -> str:
        """Add a number to a key that is the same as an earlier one; each number tried costs too."""
        number = len(plain)
        while f"{key}#{number}" in plain:
            number += 1
            self.left -= 1
        return f"{key}#{number}"

    def _redact(self, path: str, key: str | int) -> str:
        """Note where something is redacted, and return what is put in its place."""
        if len(self.redacted) < _MAX_PATHS:
            self.redacted.append(_below(path, key))
        return REDACTED

    def _array(self, value: Any, path: str, depth: int) -> list[Any]:
        # The base type's own iterator: a subclass may have another.
        base = next(base for base in _ARRAYS if issubclass(type(value), base))
        plain: list[Any] = []
        for item in base.__iter__(value):
            self.left -= 1
            if self.left < 0:
                break
            plain.append(self.value(item, path, depth, len(plain)))
        if base in _UNORDERED and all(type(item) is str for item in plain):
            plain.sort()
        return plain

    def _text(self, text: str, path: str, key: str | int) -> str:
        """Return a str without lone surrogates, or redacted if it holds a secret."""
        self.left -= len(text) // _TEXT_CHARACTERS
        text = well_formed(text[:_LONGEST_TEXT])
        kept = self.characters + len(text)
        # Beyond the limit only a digest leaves the process, so the rest need not be searched.
        if self.redacting and kept <= MAX_BYTES and holds_secret(text):
            return self._redact(path, key)
        self.characters = kept
        return text


def _below(path: str, key: str | int) -> str:
    """Add a step to a path, in a form that no key can break out of; a long path stays as it is."""
    if len(path) >= _MAX_PATH:
        return path
    if type(key) is str and len(key) <= _MAX_STEP and key.isprintable():
        return f"{path}.{key}"
    return f"{path}[{json.dumps(key[:_MAX_STEP] if isinstance(key, str) else key)}]"
