"""The cursor of a page: where it ended, as an opaque text."""

from __future__ import annotations

import base64
import json
import re
from datetime import datetime
from typing import Any
from uuid import UUID

from sigra.store.errors import InvalidQueryError
from sigra.store.reading import storable


def encode_cursor(position: tuple[Any, ...]) -> str:
    """Return the cursor of a position, which is made of texts and integers."""
    text = json.dumps(position)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(cursor: str, *kinds: type) -> tuple[Any, ...]:
    """Return the position of a cursor; raise ``InvalidQueryError`` if it has other types.

    In the cursor a ``datetime`` is its text in ISO 8601, and a ``UUID`` is its text.
    """
    try:
        if not re.fullmatch(r"[\w-]+", cursor, re.ASCII):  # else unknown characters are left out
            raise ValueError
        padded = cursor + "=" * (-len(cursor) % 4)
        position = json.loads(base64.urlsafe_b64decode(padded))
        return tuple(_part(*each) for each in zip(position, kinds, strict=True))
    except (ValueError, TypeError, RecursionError):
        raise InvalidQueryError("cursor", "it must be the cursor of an earlier page") from None


def _part(value: Any, kind: type) -> Any:
    """Return a part of a position; raise if its type is wrong, or no database takes it."""
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
