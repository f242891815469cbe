"""Carry an envelope through kombu's JSON without loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sigra.backends.envelope import MARK
from sigra.json import dumps, loads


def fit(payload: dict[str, Any]) -> dict[str, Any]:
    """Write as text what holds a key that kombu would take for its own, ``__type__``."""
    return {MARK: dumps(payload).decode()} if "__type__" in str(payload) else payload


def unfit(payload: dict[str, Any]) -> Mapping[str, Any]:
    """Undo ``fit``."""
    text = payload.get(MARK)
    whole = loads(text) if isinstance(text, str) and len(payload) == 1 else payload
    return whole if isinstance(whole, dict) else payload
