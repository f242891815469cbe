"""The cursor of a page: where it ended, as a text that means nothing to who passes it on."""

from __future__ import annotations

import base64
import json
from typing import Any

from sigra.store.errors import InvalidQueryError


def encode_cursor(position: tuple[Any, ...]) -> str:
    """Write a position of texts and integers as a cursor."""
    text = json.dumps(position)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(cursor: str, *kinds: type) -> tuple[Any, ...]:
    """Read the position of a cursor; raise ``InvalidQueryError`` if it has not these types."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        position = json.loads(base64.urlsafe_b64decode(padded))
        if tuple(map(type, position)) == kinds:
            return tuple(position)
    except (ValueError, TypeError):
        pass
    raise InvalidQueryError("cursor", "it must be the cursor of an earlier page")
