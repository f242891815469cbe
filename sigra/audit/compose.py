"""From the arguments of one call to its event, or to the reason why there is none."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from sigra.audit.event import AuditEvent, event_and_fields
from sigra.audit.leaf import leaf
from sigra.audit.read import ABSENT, id_of, in_utc, read_member, well_formed
from sigra.audit.redact import REDACTED, holds_secret
from sigra.audit.sanitize import sanitize
from sigra.errors import AuditRejectedError
from sigra.ids import event_id, uuid7
from sigra.scope import AuditScope, Identity

if TYPE_CHECKING:
    from sigra.context import Running

Details = tuple[Any, Any, Any, Any, Any, Any, Any, Any, Any]
"""The optional arguments, as they came: ``target_id``, ``target_type``, ``metadata``,
``actor_type``, ``ip_address``, ``user_agent``, ``occurred_at``, ``organization_id``
and ``actor_id`` (the last two ``ABSENT`` where they were not passed)."""

Composed = tuple[AuditEvent, dict[str, Any], list[str], bool]
"""An event; the same as the fields of a log line, which shares its metadata; the paths of
what was redacted; and whether the metadata nests, so that a copy must be a deep one."""

Ids = tuple[str | None, str | None, str | None]
"""What a scope says: organization, user, impersonator."""

NO_DETAILS: Details = (None, None, None, None, None, None, None, ABSENT, ABSENT)

_MAX_TEXT = 256
_MAX_PRINTABLE = 1024
_SMALL = 1 << 63
_utc = timezone.utc


def compose(
    action: str, outcome: Any, scope: Any, details: Details, running: Running | None, ordinal: int
) -> Composed:
    """Return the event of a call whose action and outcome were checked.

    Raises ``AuditRejectedError`` for an id of a wrong type, a moment without a time
    zone and a scope that cannot be read.
    """
    (
        target_id, target_type, metadata, actor_type, ip_address, user_agent,
        occurred_at, organization_id, actor_id,
    ) = details  # fmt: skip
    organization, user, impersonator = read_scope(scope, organization_id is ABSENT)
    if organization_id is not ABSENT:
        organization = checked_id("organization_id", organization_id)
    if actor_id is not ABSENT:
        actor = checked_id("actor_id", actor_id)
    else:
        actor = impersonator if impersonator is not None else user
    metadata, redacted, nested = sanitize(metadata)
    if actor_type is not None:
        actor_type = _text("actor_type", actor_type, redacted)
    else:
        actor_type = "system" if actor is None else "user"
    if running is None:
        fresh, worker, job_id, attempt = uuid7(), None, None, None
    else:
        fresh, worker, job_id, attempt = _job(running, ordinal)
    event, fields = event_and_fields(
        action, outcome, organization, actor, user, actor_type,
        target_id if target_id is None else _text("target_id", target_id, redacted),
        target_type if target_type is None else _text("target_type", target_type, redacted),
        ip_address if ip_address is None else _text("ip_address", ip_address, redacted),
        user_agent if user_agent is None else _text("user_agent", user_agent, redacted),
        metadata, datetime.now(_utc) if occurred_at is None else _moment(occurred_at),
        fresh, worker, job_id, attempt,
    )  # fmt: skip
    return event, fields, redacted, nested


def _job(running: Running, ordinal: int) -> tuple[str, str, str, int]:
    """Return the event's id, and the job's worker, id and attempt."""
    job, attempt = running.job, running.attempt
    job_id = job.id
    identity = event_id(job_id, attempt, running.snoozes, ordinal)
    return identity, job.definition.name, job_id, attempt


def read_scope(scope: Any, with_organization: bool = True) -> Ids:
    """Read the ids of a scope: an ``AuditScope``, an object or mapping of its shape, or None.

    Raises ``AuditRejectedError`` where the user cannot be read, or the organization if
    it is asked for: absent is not None.
    """
    if type(scope) is AuditScope:
        organization, user = scope.active_organization, scope.user
        impersonator = scope.impersonating_from
        return (
            None if organization is None else _own_id(organization),
            None if user is None else _own_id(user),
            None if impersonator is None else _own_id(impersonator),
        )
    if scope is None:
        return None, None, None
    return (
        read_member_id(scope, "active_organization") if with_organization else None,
        read_member_id(scope, "user"),
        read_member_id(scope, "impersonating_from"),
    )


def _own_id(identity: Identity) -> str | None:
    text = identity.id
    if type(text) is str and len(text) <= _MAX_TEXT and text.isascii():
        return text
    return checked_id("scope.id", text)


def checked_id(field: str, value: Any) -> str | None:
    """Return an id as text, or None for None; raise ``AuditRejectedError`` for what is no id."""
    if value is None:
        return None
    text = id_of(value)
    if text is None:
        raise AuditRejectedError(
            field, "an id is a str that is not blank, an int of 64 bits, a UUID or None"
        )
    return _sized(well_formed(text))


def read_member_id(scope: Any, name: str) -> str | None:
    """Return the id in one member of a scope, which may be None, an id, or have an ``id``."""
    if scope is None:
        return None
    field = f"scope.{name}"
    try:
        member = read_member(scope, name)
        if member is None or (member is ABSENT and name == "impersonating_from"):
            return None
        text = id_of(member)
        if text is None and member is not ABSENT:
            field += ".id"
            member = read_member(member, "id")
    except Exception as error:
        raise AuditRejectedError(field, "reading it raised an exception") from error
    if member is ABSENT:
        raise AuditRejectedError(field, "it is absent; set it to None where there is none")
    return checked_id(field, member)


def _moment(value: Any) -> datetime:
    moment = None
    if issubclass(type(value), datetime):
        try:
            moment = in_utc(value)
        except Exception as error:
            raise AuditRejectedError("occurred_at", "its time zone raised an exception") from error
    if moment is None:
        raise AuditRejectedError("occurred_at", "it must be an aware datetime")
    return moment


def _text(field: str, value: Any, redacted: list[str]) -> str:
    """Return a value as the text of a field: well-formed, of bounded size, without secrets."""
    kind = type(value)
    if kind is str and len(value) <= _MAX_TEXT and value.isascii() and not holds_secret(value):
        return value  # type: ignore[no-any-return]
    if kind is int and 0 <= value < _SMALL:
        return repr(value)
    text = value if type(value) is str else leaf(value)
    if type(text) is not str:
        text = "true" if text is True else "false" if text is False else repr(text)
    if holds_secret(text[:_MAX_PRINTABLE]):
        redacted.append(field)
        return REDACTED
    return _sized(well_formed(text))


def _sized(text: str) -> str:
    """Cut a text that could make a line too long, so that it still tells itself from others."""
    if len(text) <= _MAX_TEXT or (
        len(text) <= _MAX_PRINTABLE and text.isascii() and text.isprintable()
    ):
        return text
    import hashlib  # here, for it takes longer to import than the rest of the core

    digest = hashlib.sha256(text[: 1 << 20].encode()).hexdigest()
    return f"{text[: _MAX_TEXT - 80]}...sha256:{digest}"
