"""How values are shown on the page, hostile ones too."""

from __future__ import annotations

import json
import unicodedata
from datetime import datetime
from typing import Any

from sigra.audit.line import hidden


def plain(value: object) -> str:
    """Show every character; one that would be invisible, or turn the text around, by its code."""
    return "".join(
        character
        if (character.isprintable() or unicodedata.category(character) == "Zs")
        and not hidden.match(character)
        else f"\\u{{{ord(character):x}}}"
        for character in str(value)
    )


def moment(value: datetime) -> str:
    """Write a moment in UTC to the second."""
    return f"{value:%Y-%m-%d %H:%M:%S}"


def indented(value: Any) -> str:
    """Write JSON over several lines, in ASCII, so that nothing in it is invisible."""
    return json.dumps(value, indent=2, default=str)
