"""From the arguments of one call to its event."""

from __future__ import annotations

from datetime import datetime, timezone
from hashlib import blake2b, sha256
from typing import Any

from sigra.audit.event import Outcome
from sigra.audit.leaf import in_utc, leaf
from sigra.audit.read import ABSENT, is_described, read_member, type_name, well_formed
from sigra.audit.redact import REDACTED, holds_secret
from sigra.audit.sanitize import sanitize
from sigra.context import Attempt
from sigra.errors import AuditRejectedError
from sigra.ids import time_of, uuid7
from sigra.scope import AuditScope, id_text

Details = tuple[Any, Any, Any, Any, Any, Any, Any, Any, Any]
"""The optional arguments, as they came: ``target_id``, ``target_type``, ``metadata``,
``actor_type``, ``ip_address``, ``user_agent``, ``occurred_at``, ``organization_id``
and ``actor_id`` (the last two ``ABSENT`` where they were not passed)."""

NO_DETAILS: Details = (None, None, None, None, None, None, None, ABSENT, ABSENT)

LENIENT, REGULAR, EXACT = range(3)
"""What raises ``AuditRejectedError``. LENIENT: nothing; what cannot be read becomes None. REGULAR:
an id of a wrong type, a time without a zone, a scope that cannot be read. EXACT: these, and every
value that the event cannot hold as it was passed."""

_MAX_TEXT, _MAX_PRINTABLE = 256, 1_024
_UNFIT = (
    f"it must be a well-formed str without a secret, of at most {_MAX_TEXT} characters "
    f"({_MAX_PRINTABLE:,} if printable ASCII), or as target_id an int up to 1,024 bits or a UUID"
)

_NONE = "{} has none, or loads it lazily: pass an id or None, and any mapping as dict(...)"


def compose(action: str, outcome: Outcome, scope: Any, details: Details, attempt: Attempt | None,
            ordinal: int, strict: int) -> tuple[dict[str, Any], list[str]]:  # fmt: skip
    """Return an event as a log line, in the order of its fields, and the paths redacted.

    ``attempt``: the one that runs, None outside a job. ``ordinal``: which event of the attempt
    this is. ``strict``: ``LENIENT``, ``REGULAR`` or ``EXACT``.
    """
    target_id, kind, metadata, actor_type, ip, agent, at, organization, actor = details
    metadata, redacted = sanitize(metadata)
    organization, user, impersonator = _ids_of(scope, organization, strict)
    actor = impersonator or user if actor is ABSENT else _checked_id("actor_id", actor, strict)
    target_id = None if target_id is None else _text("target_id", target_id, strict, redacted)
    kind = None if kind is None else _text("target_type", kind, strict, redacted)
    if attempt is None:
        event, worker, job_id, number = uuid7(), None, None, None
    else:
        worker, job_id, number = attempt.job.definition.name, attempt.job.id, attempt.number
        event = event_id(job_id, number, attempt.snoozes, ordinal,
                         organization, actor, action, outcome, kind, target_id)  # fmt: skip
    acting = "user" if actor else "system"
    actor_type = acting if actor_type is None else _text("actor_type", actor_type, strict, redacted)
    line: dict[str, Any] = {
        "event_id": event, "event": action, "outcome": outcome,
        "organization_id": organization, "actor_id": actor, "effective_user_id": user,
        "actor_type": actor_type, "target_id": target_id, "target_type": kind,
        "ip_address": None if ip is None else _text("ip_address", ip, strict, redacted),
        "user_agent": None if agent is None else _text("user_agent", agent, strict, redacted),
        "metadata": metadata,
        "occurred_at": datetime.now(timezone.utc) if at is None else _moment(at, strict),
        "worker": worker, "job_id": job_id,
    }  # fmt: skip
    line["attempt"] = number  # apart: Python builds a dict of more than 15 keys one by one
    return line, redacted


def event_id(
    job_id: str, attempt: int, snoozes: int, ordinal: int, organization: str | None,
    actor: str | None, action: str, outcome: str, kind: str | None, target: str | None,
) -> str:  # fmt: skip
    """Return the id of an event in a job: the same for a redelivery of the same attempt.

    A UUID, version 8. It begins with the time of the job's id, if that is a UUIDv7, so that a
    job's events lie together in an index; the rest is a hash of all arguments. The ordinal alone
    would not do: a body that runs again after a crash may go on with what is left.
    """
    # The numbers, action and outcome hold no colon, the others are quoted and the job's id comes
    # last, so that no two inputs read the same.
    source = (
        f"{attempt}:{snoozes}:{ordinal}:{organization!a}:{actor!a}:{action}:{outcome}:"
        f"{kind!a}:{target!a}:{job_id}"
    )
    text = blake2b(source.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    time = time_of(job_id) or f"{text[:8]}-{text[8:12]}"
    return f"{time}-8{text[13:16]}-{_VARIANTS[text[16]]}{text[17:20]}-{text[20:]}"


_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def _ids_of(scope: Any, organization: Any, strict: int) -> tuple[Any, Any, Any]:
    """Return the ids of organization (the one passed, if any), user and impersonator."""
    if organization is not ABSENT:
        organization = _checked_id("organization_id", organization, strict)
    if type(scope) is not AuditScope:
        if organization is ABSENT:
            organization = _id_in(scope, "active_organization", strict)
        user = _id_in(scope, "user", strict)
        return organization, user, _id_in(scope, "impersonating_from", strict)
    # Of a job's scope each is an Identity or None.
    home, who, by = scope.active_organization, scope.user, scope.impersonating_from
    if organization is ABSENT:
        organization = home and _checked_id("scope.active_organization.id", home.id, strict)
    user = who and _checked_id("scope.user.id", who.id, strict)
    return organization, user, by and _checked_id("scope.impersonating_from.id", by.id, strict)


def _id_in(scope: Any, name: str, strict: int) -> Any:
    """Read the id in a member of a scope, which may be None, an id, or have an ``id``."""
    field = f"scope.{name}"
    try:
        member = None if scope is None else read_member(scope, name)
        # The one member that a scope may lack, if no code of its class could give it.
        if member is ABSENT and name == "impersonating_from" and not is_described(scope, name):
            return None
        if member is not None and member is not ABSENT and id_text(member) is None:
            field += ".id"
            scope, member = member, read_member(member, "id")
    except Exception as error:
        return _fault(strict, field, "reading it raised an exception", error)
    if member is not ABSENT:
        return _checked_id(field, member, strict)
    return _fault(strict, field, _NONE.format(type_name(type(scope))))


def _checked_id(field: str, value: Any, strict: int) -> str | None:
    """Return an id as text, and None for None."""
    if type(value) is str and len(value) <= _MAX_TEXT and value.isascii() and value.strip():
        return value
    if (text := id_text(value)) is not None:
        return _as_given(field, text, sized(text, apart=True), strict)
    reason = "it must be a str that is not blank, an int of at most 1,024 bits, a UUID or None"
    return None if value is None else _fault(strict, field, reason)


def _moment(value: Any, strict: int) -> datetime | None:
    reason = "it must be a datetime with a time zone that can be read"
    try:
        moment = in_utc(value) if issubclass(type(value), datetime) else None
    except Exception as error:
        return _fault(strict, "occurred_at", reason, error)  # type: ignore[no-any-return]
    return moment or _fault(strict, "occurred_at", reason)


def _fault(strict: int, field: str, reason: str, cause: Exception | None = None) -> Any:
    """Raise for a value that no event can have; a lenient caller gets None in its place."""
    if strict != LENIENT:
        raise AuditRejectedError(field, reason) from cause
    return None


def _text(field: str, value: Any, strict: int, redacted: list[str]) -> str:
    """Return a value as the text of a field: well-formed, of bounded size, without secrets."""
    is_short = type(value) is str and len(value) <= _MAX_TEXT
    if is_short and value.isascii() and not holds_secret(value):
        return value  # type: ignore[no-any-return]
    text = id_text(value) or leaf(value)
    if type(text) is not str:
        text = "true" if text is True else "false" if text is False else repr(text)
    if holds_secret(text[:_MAX_PRINTABLE]):
        redacted.append(field)
        text = REDACTED
    return _as_given(field, value, sized(text, apart=field == "target_id"), strict)


def _as_given(field: str, value: Any, kept: str, strict: int) -> str:
    """Return ``kept``, the event's form of a value; raise if it differs and that is not allowed."""
    if strict == EXACT:
        given = id_text(value) if field == "target_id" else None
        if kept != (str.__str__(value) if issubclass(type(value), str) else given):
            raise AuditRejectedError(field, _UNFIT)
    return kept


def sized(given: str, *, apart: bool) -> str:
    """Return a well-formed text; one that could make a line too long is cut and given its digest.

    ``apart``: one that was not well-formed gets the digest too, so that two ids never become one.
    """
    given = given[: 1 << 20]
    text = well_formed(given)
    longest = _MAX_PRINTABLE if text.isascii() and text.isprintable() else _MAX_TEXT
    if len(text) <= longest and (text == given or not apart):
        return text
    digest = sha256(given.encode(errors="surrogatepass")).hexdigest()
    return f"{text[: _MAX_TEXT - 80]}...sha256:{digest}"
