"""From the arguments of one call to its event."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from sigra.audit.event import Outcome
from sigra.audit.leaf import in_utc, leaf
from sigra.audit.read import ABSENT, read_member, well_formed
from sigra.audit.redact import REDACTED, holds_secret
from sigra.audit.sanitize import sanitize
from sigra.context import Running
from sigra.errors import AuditRejectedError
from sigra.ids import event_id, uuid7
from sigra.scope import AuditScope, id_text

Faults = list[AuditRejectedError]
"""What is wrong with a call: an id of no such type, a moment without a zone, a scope
that cannot be read. None takes the place of what it spoils."""

Notes = tuple[list[str], Faults | None]
"""The paths of what was redacted, and the faults. None: the first is raised, and that the event
would have another value than was passed is one."""

Details = tuple[Any, Any, Any, Any, Any, Any, Any, Any, Any]
"""The optional arguments, as they came: ``target_id``, ``target_type``, ``metadata``,
``actor_type``, ``ip_address``, ``user_agent``, ``occurred_at``, ``organization_id``
and ``actor_id`` (the last two ``ABSENT`` where they were not passed)."""

_utc = timezone.utc
_MAX_TEXT = 256
_MAX_PRINTABLE = 1024
_UNFIT = (
    f"it must be a str (a target's id: or an int of 1,024 bits, or a UUID) of at most {_MAX_TEXT} "
    f"characters ({_MAX_PRINTABLE:,} of printable ASCII), well-formed and without a secret"
)


def compose(action: str, outcome: Outcome, scope: Any, details: Details, job: Running | None,
            ordinal: int, faults: Faults | None) -> tuple[dict[str, Any], list[str]]:  # fmt: skip
    """Make an event as a log line, in the order of its fields; name the paths redacted."""
    target_id, target_type, metadata, actor_type, ip, agent, at, organization_id, actor_id = details
    metadata, redacted = sanitize(metadata)
    notes: Notes = (redacted, faults)
    if organization_id is ABSENT:
        organization = _id_in(scope, "active_organization", notes)
    else:
        organization = _checked_id("organization_id", organization_id, notes)
    user = _id_in(scope, "user", notes)
    actor = _id_in(scope, "impersonating_from", notes) or user
    if actor_id is not ABSENT:
        actor = _checked_id("actor_id", actor_id, notes)
    acting = "user" if actor else "system"
    line: dict[str, Any] = {
        "event_id": None if job else uuid7(),
        "event": action,
        "outcome": outcome,
        "organization_id": organization,
        "actor_id": actor,
        "effective_user_id": user,
        "actor_type": acting if actor_type is None else _text("actor_type", actor_type, notes),
        "target_id": None if target_id is None else _text("target_id", target_id, notes),
        "target_type": None if target_type is None else _text("target_type", target_type, notes),
        "ip_address": None if ip is None else _text("ip_address", ip, notes),
        "user_agent": None if agent is None else _text("user_agent", agent, notes),
        "metadata": metadata,
        "occurred_at": datetime.now(_utc) if at is None else _moment(at, notes),
        "worker": job and job.job.definition.name,
        "job_id": job and job.job.id,
        "attempt": job and job.attempt,
    }
    if job is not None:
        # Not its place alone: a body that is run again after a crash goes on with what is left.
        told = organization, actor, action, outcome, line["target_type"], line["target_id"]
        line["event_id"] = event_id(job.job.id, job.attempt, job.snoozes, ordinal, told)
    return line, redacted


def _id_in(scope: Any, name: str, notes: Notes) -> str | None:
    """Read the id in a member of a scope, which may be None, an id, or have an ``id``."""
    if type(scope) is AuditScope:
        identity = getattr(scope, name)
        if identity is None:
            return None
        text = identity.id
        if type(text) is str and len(text) <= _MAX_TEXT and text.isascii() and text.strip():
            return text
        return _checked_id(f"scope.{name}.id", text, notes)
    if scope is None:
        return None
    field = f"scope.{name}"
    try:
        member = read_member(scope, name)
        if member is ABSENT and name == "impersonating_from":
            return None
        if member is not None and member is not ABSENT and id_text(member) is None:
            field += ".id"
            member = read_member(member, "id")
    except Exception as error:
        _fault(notes, field, "reading it raised an exception", error)
        return None
    if member is not ABSENT:
        return _checked_id(field, member, notes)
    _fault(notes, field, "it is absent; set it to None where there is none")
    return None


def _checked_id(field: str, value: Any, notes: Notes) -> str | None:
    """Return an id as text, None for None, and None with a fault for what is no id."""
    text = id_text(value)
    if text is not None:
        return _as_given(field, text, sized(text, apart=True), notes)
    if value is not None:
        reason = "an id is a str that is not blank, an int of 1,024 bits, a UUID or None"
        _fault(notes, field, reason)
    return None


def _moment(value: Any, notes: Notes) -> datetime | None:
    moment = cause = None
    try:
        moment = in_utc(value) if issubclass(type(value), datetime) else None
    except Exception as error:
        cause = error
    if moment is None:
        _fault(notes, "occurred_at", "it must be an aware datetime, whose zone can be read", cause)
    return moment


def _fault(notes: Notes, field: str, reason: str, cause: Exception | None = None) -> None:
    fault = AuditRejectedError(field, reason)
    fault.__cause__ = cause
    if notes[1] is None:
        raise fault
    notes[1].append(fault)


def _text(field: str, value: Any, notes: Notes) -> str:
    """Return a value as the text of a field: well-formed, of bounded size, without secrets."""
    is_short = type(value) is str and len(value) <= _MAX_TEXT
    if is_short and value.isascii() and not holds_secret(value):
        return value  # type: ignore[no-any-return]
    text = id_text(value) or leaf(value)
    if type(text) is not str:
        text = "true" if text is True else "false" if text is False else repr(text)
    if holds_secret(text[:_MAX_PRINTABLE]):
        notes[0].append(field)
        text = REDACTED
    return _as_given(field, value, sized(text), notes)


def _as_given(field: str, value: Any, kept: str, notes: Notes) -> str:
    """Return what an event has of a value; raise where to a strict caller that is another."""
    if notes[1] is None:
        given = id_text(value) if field == "target_id" else None
        if kept != (str.__str__(value) if issubclass(type(value), str) else given):
            raise AuditRejectedError(field, _UNFIT)
    return kept


def sized(given: str, *, apart: bool = False) -> str:
    """Make a text well-formed, and cut one that could make a line too long, telling it apart.

    With ``apart`` one that was not well-formed is told apart too, as an id must be.
    """
    text = well_formed(given[: 1 << 20])
    longest = _MAX_PRINTABLE if text.isascii() and text.isprintable() else _MAX_TEXT
    if len(text) <= longest and (text == given or not apart):
        return text
    import hashlib  # here, for it takes longer to import than the rest of the core

    digest = hashlib.sha256(given[: 1 << 20].encode(errors="surrogatepass")).hexdigest()
    return f"{text[: _MAX_TEXT - 80]}...sha256:{digest}"
