"""Metadata as plain JSON: bounded in size and cost, without secrets, running no foreign code."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any

from sigra.audit.leaf import leaf
from sigra.audit.read import mapping_of, well_formed
from sigra.audit.redact import MAX_KEY, REDACTED, SECRET, holds_secret, key_verdict
from sigra.audit.simple import simple_copy

MAX_BYTES = 8_192
"""What metadata may take as compact UTF-8 JSON before it is replaced by its digest."""

_MAX_NODES = 5_000
_MAX_TEXT = 400_000
_MAX_KEYS = 24_000
_MAX_DEPTH = 64
_MAX_STEP = 64
_HALF = 1 << 63
_UNORDERED = (set, frozenset)
_ARRAYS: tuple[Any, ...] = (list, tuple, *_UNORDERED, deque)


def sanitize(metadata: Any) -> tuple[dict[str, Any], list[str], bool]:
    """Return metadata as plain JSON, the paths of what was redacted, and whether it nests.

    What is no mapping is put under the key ``value``. Over ``MAX_BYTES`` the answer is
    ``{"truncated": True, "bytes": n, "sha256": hex}`` of the JSON that it would have
    been. Reading stops after 5,000 nodes, 400,000 characters or 24,000 of keys; then n
    and the digest are of the part that was read.
    """
    if metadata is None:
        return {}, [], False
    try:
        if type(metadata) is dict:
            simple = simple_copy(metadata)
            if simple is not None:
                return simple, [], False
        return _walked(metadata)
    except RuntimeError as error:
        # Another thread is changing it, or the stack is at its end: the event is worth more.
        return {"unreadable": type(error).__name__}, [], False


def _walked(metadata: Any) -> tuple[dict[str, Any], list[str], bool]:
    walk = Walk()
    mapping = metadata if type(metadata) is dict else mapping_of(metadata)
    if mapping is None:
        mapping = {"value": metadata}
    plain = walk.mapping(mapping, "$", 1)
    # Each character takes at most six bytes, each node some thirty besides.
    if walk.full or 6 * (walk.text + walk.keys) + 32 * walk.nodes > MAX_BYTES:
        plain, walk.nested = _bounded(plain, walk)
    return plain, walk.redacted, walk.nested


def sanitize_value(value: Any) -> Any:
    """Return any value as plain JSON, read as far as metadata is, with nothing redacted."""
    walk = Walk(redacting=False)
    return walk.value(value, "$", 0)


def _bounded(plain: dict[str, Any], walk: Walk) -> tuple[dict[str, Any], bool]:
    data = json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()
    if len(data) <= MAX_BYTES and not walk.full:
        return plain, walk.nested
    import hashlib  # here, for it takes longer to import than the rest of the core

    digest = hashlib.sha256(data).hexdigest()
    return {"truncated": True, "bytes": len(data), "sha256": digest}, False


class Walk:
    """One pass over a value: what it has cost so far, and what was redacted on the way.

    ``nodes``, ``text`` and ``keys`` (both in characters) count what was read; ``full``
    says that something was left out because one of them reached its limit.
    """

    __slots__ = ("full", "keys", "nested", "nodes", "open", "redacted", "redacting", "text")

    def __init__(self, redacting: bool = True) -> None:
        self.nodes = 0
        self.text = 0
        self.keys = 0
        self.full = False
        self.nested = False
        self.redacting = redacting
        self.redacted: list[str] = []
        self.open: set[int] = set()

    def mapping(self, mapping: dict[Any, Any], path: str, depth: int) -> dict[str, Any]:
        """Return a dict, or one of a subclass, with plain keys and values."""
        plain: dict[str, Any] = {}
        redacting = self.redacting
        for name, value in self._taken(dict.items(mapping), dict.__len__(mapping)):
            exact = type(name) is str and name.isascii()
            key = name if exact else self._key(name, plain)
            self.keys += len(key)
            if self.keys > _MAX_KEYS:
                self.full = True
                plain[key[:_MAX_KEYS]] = None
                break
            kind = type(value)
            if value is None:
                plain[key] = None
                continue
            if redacting:
                verdict = key_verdict(key) if len(key) <= MAX_KEY else SECRET
                if verdict and (verdict == SECRET or (kind is not int and kind is not float)):
                    plain[key] = REDACTED
                    self.redacted.append(path + _step(key))
                    continue
            if kind is str:
                plain[key] = self.string(value, path, key)
            elif kind is bool or (kind is int and -_HALF <= value < _HALF):
                plain[key] = value
            else:
                plain[key] = self.value(value, path, depth, key)
        return plain

    def value(self, value: Any, path: str, depth: int, key: str | int | None = None) -> Any:
        """Return any value as plain JSON; ``path`` and ``key`` say where it stands."""
        kind = type(value)
        mapping = mapping_of(value)
        if mapping is not None or issubclass(kind, _ARRAYS):
            return self._container(value, mapping, path + _step(key), depth)
        plain = leaf(value)
        return self.string(plain, path, key) if type(plain) is str else plain

    def _container(self, value: Any, mapping: dict[Any, Any] | None, path: str, depth: int) -> Any:
        self.nested = True
        if depth >= _MAX_DEPTH:
            return self._note(f"<deeper than {_MAX_DEPTH} levels>")
        held = id(value if mapping is None else mapping)
        if held in self.open:
            return self._note("<cycle>")
        self.open.add(held)
        try:
            if mapping is not None:
                return self.mapping(mapping, path, depth + 1)
            return self._array(value, path, depth + 1)
        finally:
            self.open.discard(held)

    def _array(self, value: Any, path: str, depth: int) -> list[Any]:
        # The base type's own iterator: a subclass may have another.
        base = next(base for base in _ARRAYS if issubclass(type(value), base))
        items = self._taken(base.__iter__(value), base.__len__(value))
        plain = [self.value(item, path, depth, index) for index, item in enumerate(items)]
        if base in _UNORDERED and all(type(item) is str for item in plain):
            plain.sort()
        return plain

    def _taken(self, items: Iterable[Any], size: int) -> Iterable[Any]:
        """Take as many items as the pass has nodes left for."""
        left = _MAX_NODES - self.nodes
        if size <= left:
            self.nodes += size
            return items
        self.full = True
        self.nodes = _MAX_NODES
        return islice(items, left)

    def _note(self, text: str) -> str:
        self.text += len(text)
        return text

    def _key(self, key: Any, plain: dict[str, Any]) -> str:
        """Write a key as JSON would, and apart from any that reads the same."""
        text = leaf(key)
        if type(text) is str:
            text = well_formed(text)
        else:
            text = json.dumps(text)
        return text if text not in plain else f"{text}#{len(plain)}"

    def string(self, text: str, path: str, key: str | int | None) -> str:
        """Return an exact str without lone surrogates, or redacted if it holds a secret."""
        size = len(text)
        if self.text + size > _MAX_TEXT:
            self.full = True
            text = text[: _MAX_TEXT - self.text]
            size = len(text)
        self.text += size
        if not text.isascii():
            text = well_formed(text)
        # Beyond the limit no string leaves the process, so none need be searched.
        if (
            size > 6
            and self.text + self.keys <= MAX_BYTES
            and self.redacting
            and holds_secret(text)
        ):
            self.redacted.append(path + _step(key))
            return REDACTED
        return text


def _step(key: str | int | None) -> str:
    """Write one step of a path, in a form that no key can break out of."""
    if key is None:
        return ""
    if type(key) is int:
        return f"[{key}]"
    name = str(key)
    if len(name) <= _MAX_STEP and name.isprintable():
        return f".{name}"
    return f"[{json.dumps(name[:_MAX_STEP])}]"
