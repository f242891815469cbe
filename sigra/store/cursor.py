"""The cursor of a page: where it ended, as a text that means nothing to who passes it on."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any
from uuid import UUID

from sigra.store.errors import InvalidQueryError
from sigra.store.reading import storable


def encode_cursor(position: tuple[Any, ...]) -> str:
    """Write a position of texts and integers as a cursor."""
    text = json.dumps(position)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(cursor: str, *kinds: type) -> tuple[Any, ...]:
    """Read the position of a cursor; raise ``InvalidQueryError`` if it has not these types.

    A ``datetime`` is there as its text in ISO 8601, a ``UUID`` as its own.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        position = json.loads(base64.urlsafe_b64decode(padded))
        return tuple(_part(*each) for each in zip(position, kinds, strict=True))
    except (ValueError, TypeError, RecursionError):
        raise InvalidQueryError("cursor", "it must be the cursor of an earlier page") from None


def _part(value: Any, kind: type) -> Any:
    """Return a part of a position; raise for another type, or what no database takes."""
    of_kind = type(value) is (str if kind in (datetime, UUID) else kind)
    if not of_kind or (kind is int and value.bit_length() > 63):
        raise ValueError
    if kind is datetime:
        return datetime.fromisoformat(value)
    if kind is UUID:
        return UUID(value)
    if kind is str and storable(value) != value:
        raise ValueError
    return value
