"""Which names an audit event may have."""

from __future__ import annotations

import re
from typing import Any

RESERVED = ("auth.", "session.", "mfa.", "oauth.", "api.", "account.", "sigra.")
"""Prefixes of the names that the library keeps for itself."""

MAX_LENGTH = 255
_LIMIT = 4096
_well_formed = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+").fullmatch

accepted: dict[str, None] = {}
"""Names that were found good before; at most ``_LIMIT``, because a caller may make names up."""


def check_action(action: Any) -> str:
    """Return a name as plain ``str``; raise ``ValueError`` if it is not ``noun.verb``, or reserved.

    A good one has two or more words of lower-case letters, digits and ``_``, joined by dots,
    and at most 255 characters.
    """
    action = str.__str__(action) if isinstance(action, str) else action
    if (reason := action_fault(action)) is not None:
        shown = f" {action!r}" if type(action) is str and len(action) <= MAX_LENGTH else ""
        raise ValueError(f"the audit action{shown} {reason}; a good one is 'invoice.close'")
    return action  # type: ignore[no-any-return]


def action_fault(action: Any) -> str | None:
    """Say what is wrong with a name, without repeating it, or return None."""
    if type(action) is not str:
        return "is not a str"
    if len(action) > MAX_LENGTH:
        return f"is longer than {MAX_LENGTH} characters"
    if _well_formed(action) is None:
        return "is not two or more lower-case words joined by dots"
    if action.startswith(RESERVED):
        return f"has a reserved prefix ({' '.join(RESERVED)})"
    if len(accepted) >= _LIMIT:
        accepted.clear()
    accepted[action] = None
    return None
