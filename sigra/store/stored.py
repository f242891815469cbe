"""Making an event of a stored row, which somebody else may have altered."""

from __future__ import annotations

import json
import math
from datetime import datetime, timezone
from operator import itemgetter
from typing import Any

from sigra.audit.event import AuditEvent
from sigra.audit.read import well_formed
from sigra.json import is_unicode
from sigra.store.chain import organization_of

_ERASED = {"erased": True}
_UNREADABLE = {"unreadable": True}
_NOBODY = "(unknown: the row of chain {} is gone)"
_NEVER = datetime.min.replace(tzinfo=timezone.utc)
_TEXTS = (
    "actor_id", "actor_type", "effective_user_id", "ip_address", "job_id", "target_id",
    "target_type", "user_agent",
)  # fmt: skip
_texts_of = itemgetter(*_TEXTS)
_KINDS = frozenset((str, type(None)))
_BITS = 64
_DEEPEST = 256
"""Levels of metadata that are read; to write more as indented JSON would exhaust the stack."""


def event_of(row: Any) -> AuditEvent:
    """Return the event of a row; if it was erased or cannot be read, its metadata says so."""
    payload, moment = _payload(row.payload), _moment(row.occurred_at)
    event_id, action, worker = row.event_id, row.action, row.worker
    tag = _NOBODY.format(shown(row.chain)) if row.tag is None else row.tag
    outcome: Any = row.outcome
    by = "" if worker is None else worker
    if moment is not None and _are_texts(event_id, action, outcome, tag, by):
        organization = organization_of(tag)
    else:
        payload["metadata"], moment = _UNREADABLE.copy(), moment or _NEVER
        event_id, action, outcome = shown(event_id), shown(action), shown(outcome)
        worker = None if worker is None else shown(worker)
        organization = organization_shown(tag)
    return AuditEvent(
        event_id=event_id,
        action=action,
        outcome=outcome,
        organization_id=organization,
        occurred_at=moment,
        worker=worker,
        **payload,
    )


def who(event: AuditEvent) -> str:
    """Say who acted: "ann", "ann as bob" where ann impersonated bob, or "system"."""
    if event.actor_id is None:
        for state in (_ERASED, _UNREADABLE):
            if event.metadata == state:
                return next(iter(state))
        return "system"
    if event.effective_user_id in (None, event.actor_id):
        return event.actor_id
    return f"{event.actor_id} as {event.effective_user_id}"


def organization_shown(tag: Any) -> str | None:
    """Return the organization of a chain's tag, or the tag where it cannot be one."""
    return organization_of(tag) if is_text(tag) else shown(tag)


def shown(value: Any) -> str:
    """Return a value as a text that any reader takes."""
    return value if is_text(value) else well_formed(str(value))


def hex_shown(value: Any) -> str:
    """Return bytes in hexadecimal, and "unreadable" for anything else."""
    return value.hex() if type(value) is bytes else next(iter(_UNREADABLE))


def is_text(value: Any) -> bool:
    """Tell whether a value is text that UTF-8 can carry."""
    return type(value) is str and (value.isascii() or is_unicode(value))


def _are_texts(*values: Any) -> bool:
    try:
        return is_text("".join(values))
    except TypeError:
        return False


def _moment(text: Any) -> datetime | None:
    """Return the moment in a text that the store may have written, None for anything else."""
    try:
        found = datetime.fromisoformat(text)
    except (ValueError, TypeError):
        return None
    return found if found.tzinfo is timezone.utc else None


def _payload(text: Any) -> dict[str, Any]:
    """Return the fields in a payload, or metadata that says why there are none."""
    if text is None:
        return {"metadata": _ERASED.copy()}
    try:
        return _checked(_decode(text), text)
    except (ValueError, TypeError, KeyError, RecursionError):
        return {"metadata": _UNREADABLE.copy()}


def _checked(found: Any, text: str) -> dict[str, Any]:
    """Return a payload's fields; raise for what none ever has, or what readers do not take."""
    texts, attempt, metadata = _texts_of(found), found["attempt"], found["metadata"]
    if not (
        _KINDS.issuperset(map(type, texts))
        and (attempt is None or (type(attempt) is int and attempt.bit_length() < _BITS))
        and type(metadata) is dict
        and is_text(text)
        and not (text.count("{") + text.count("[") > _DEEPEST and _is_deep(metadata, _DEEPEST))
    ):
        raise ValueError
    if "\\u" in text:  # it may be half of a surrogate pair
        json.dumps(found, ensure_ascii=False).encode()
    return {**dict(zip(_TEXTS, texts, strict=True)), "attempt": attempt, "metadata": metadata}


def _is_deep(value: Any, levels: int) -> bool:
    if type(value) not in (dict, list):
        return False
    inner = value.values() if type(value) is dict else value
    return levels == 0 or any(_is_deep(each, levels - 1) for each in inner)


def _finite(number: str) -> float:
    """Return a number; raise ``ValueError`` for one that strict JSON cannot hold."""
    found = float(number)
    if not math.isfinite(found):
        raise ValueError
    return found


_decode = json.JSONDecoder(parse_float=_finite, parse_constant=_finite).decode
