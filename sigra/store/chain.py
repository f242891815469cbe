"""What an entry of a chain is, and what its hash covers.

An entry's text holds, each after its length (``-`` for None): the format's version, the chain's
tag, the sequence, the previous hash, the event's id, time, action, worker and outcome, and the
commitment to its payload. The entry's hash is the sequence in 8 bytes, then the SHA-256 of the
text: so hashes sort in the order in which they were made, and the index that keeps previous
hashes unique grows at its end. In version 1 a hash was the 32 bytes of SHA-256 alone. Who acted
stands in the payload. The hash covers it through the commitment, the SHA-256 of a salt and the
payload's canonical JSON: so it cannot be changed, and yet be erased.
"""

from __future__ import annotations

import os
from datetime import datetime, timezone
from hashlib import sha256
from json.encoder import encode_basestring
from typing import Any

from sigra.audit.event import AuditEvent
from sigra.store.canonical import canonical

VERSION = "2"
GENESIS = bytes(32)
"""The previous hash of a chain's first entry."""

SALT_BYTES = 32
_SEQUENCE_BYTES = 8

Row = tuple[Any, ...]
"""A row of a table, in the order of its columns."""

NO_ORGANIZATION = "none"
_ORGANIZATION = "org:"
_WITH_NUL = "nul:"


def chain_tag(organization_id: str | None) -> str:
    """Return the tag of an organization's chain; events without one have a chain too.

    No two chains have one tag. It has no NUL, which PostgreSQL's text cannot hold.
    """
    if organization_id is None:
        return NO_ORGANIZATION
    if "\0" in organization_id:
        return _WITH_NUL + organization_id.replace("%", "%25").replace("\0", "%00")
    return _ORGANIZATION + organization_id


def organization_of(tag: str) -> str | None:
    """Return the organization of a chain's tag; return what is no tag unchanged."""
    if tag == NO_ORGANIZATION:
        return None
    name = tag[len(_ORGANIZATION) :]
    if tag.startswith(_ORGANIZATION):
        return name
    name = name.replace("%00", "\0").replace("%25", "%")
    return name if chain_tag(name) == tag else tag


def is_tag(tag: str) -> bool:
    """Tell whether a text is the tag of a chain."""
    return chain_tag(organization_of(tag)) == tag


def without_nul(text: str | None) -> str | None:
    """Return a text as a column holds it: with U+FFFD for each NUL."""
    return text if text is None or "\0" not in text else text.replace("\0", "\ufffd")


def time_text(moment: datetime) -> str:
    """Return an aware moment as text in UTC, always of one length: such texts sort by time."""
    if moment.tzinfo is not timezone.utc:
        moment = moment.astimezone(timezone.utc)
    # What isoformat("T", "microseconds") returns, in two thirds of the time.
    return "%04d-%02d-%02dT%02d:%02d:%02d.%06d+00:00" % (  # noqa: UP031
        moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second,
        moment.microsecond,
    )  # fmt: skip


def payload_of(event: AuditEvent) -> str:
    """Return the canonical JSON of those fields of an event that can be erased.

    It is written by hand, for its keys are always these; ``actor_id`` is the first.
    """
    attempt = event.attempt
    return (
        f'{{"actor_id":{quoted(event.actor_id)},"actor_type":{quoted(event.actor_type)},'
        f'"attempt":{"null" if attempt is None else int(attempt)},'
        f'"effective_user_id":{quoted(event.effective_user_id)},'
        f'"ip_address":{quoted(event.ip_address)},"job_id":{quoted(event.job_id)},'
        f'"metadata":{canonical(event.metadata)},"target_id":{quoted(event.target_id)},'
        f'"target_type":{quoted(event.target_type)},"user_agent":{quoted(event.user_agent)}}}'
    )


def actor_begins(actor_id: str | None) -> str:
    """Return the beginning of every payload with this actor."""
    return f'{{"actor_id":{quoted(actor_id)},'


def quoted(text: str | None) -> str:
    """Write a text or None as JSON."""
    return "null" if text is None else encode_basestring(text)


def commit(salt: bytes, payload: str) -> bytes:
    """Return the commitment to a payload, which reveals nothing of it once the salt is gone."""
    return sha256(salt + payload.encode()).digest()


def is_committed(commitment: bytes, salt: bytes, payload: str) -> bool:
    """Tell whether a commitment was made to this salt and payload."""
    # Only the salt's length tells where it ends and the payload begins.
    return len(salt) == SALT_BYTES and commit(salt, payload) == commitment


def entry_hash(
    tag: str, sequence: int, previous: bytes, event_id: str, occurred_at: str, action: str,
    worker: str | None, outcome: str, commitment: bytes, version: str = VERSION,
) -> bytes:  # fmt: skip
    """Return the hash of an entry's fields; their lengths keep one from running into the next."""
    number, before, payload = str(sequence), previous.hex(), commitment.hex()
    by = "-:" if worker is None else f"{len(worker)}:{worker}"
    text = (
        f"1:{version}{len(tag)}:{tag}{len(number)}:{number}{len(before)}:{before}"
        f"{len(event_id)}:{event_id}{len(occurred_at)}:{occurred_at}{len(action)}:{action}"
        f"{by}{len(outcome)}:{outcome}{len(payload)}:{payload}"
    )
    digest = sha256(text.encode()).digest()
    return digest if version == "1" else sequence.to_bytes(_SEQUENCE_BYTES, signed=True) + digest


def version_of(digest: bytes) -> str:
    """Return the version of the format in which an entry's hash was made."""
    return "1" if len(digest) == sha256().digest_size else VERSION


def is_hash(
    digest: bytes, tag: str, sequence: int, previous: bytes, event_id: str, occurred_at: str,
    action: str, worker: str | None, outcome: str, commitment: bytes,
) -> bool:  # fmt: skip
    """Tell whether a hash is that of an entry's fields, which may have been altered to any type."""
    try:
        return digest == entry_hash(
            tag, sequence, previous, event_id, occurred_at, action, worker, outcome, commitment,
            version_of(digest),
        )  # fmt: skip
    except (TypeError, ValueError, AttributeError):
        return False  # a value of a type, or with characters, that is never written


def is_sound(entry: Any, tag: str) -> bool:
    """Tell whether a row of ``entries`` has the hash of its fields in the chain with this tag."""
    return is_hash(
        entry.hash, tag, entry.sequence, entry.previous, entry.event_id, entry.occurred_at,
        entry.action, entry.worker, entry.outcome, entry.commitment,
    )  # fmt: skip


def link(
    chain: int, tag: str, sequence: int, previous: bytes, event: AuditEvent
) -> tuple[bytes, Row]:
    """Return the hash of an event's entry, and its row of ``entries``."""
    payload = payload_of(event)
    salt = os.urandom(SALT_BYTES)
    commitment = commit(salt, payload)
    event_id, action, outcome, worker = event.event_id, event.action, event.outcome, event.worker
    time = time_text(event.occurred_at)
    digest = entry_hash(
        tag, sequence, previous, event_id, time, action, worker, outcome, commitment
    )
    entry = (
        chain, sequence, previous, digest, event_id, time, action, outcome, worker,
        without_nul(event.actor_id), commitment, salt, payload,
    )  # fmt: skip
    return digest, entry
