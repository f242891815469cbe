"""Marks: records of what was pruned or erased, so that nobody takes it for tampering."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Select, insert, select

from sigra.store.canonical import canonical
from sigra.store.chain import GENESIS, time_text
from sigra.store.keys import PublicKeys, Signer, is_signed
from sigra.store.tables import marks

_PURPOSE = "mark"
_BITS = 63
"""The most bits that a sequence has in its column."""

_ALL = select(marks).order_by(marks.c.id)


@dataclass(slots=True)
class Marked:
    """What the marks of one chain say together.

    All entries up to ``sequence``, whose hash is ``head``, were pruned; the payloads of
    ``erased`` (pairs of sequence and hash) were erased. ``bad`` are the ids of marks that no
    key signed or nobody can read, each with the key that it names, ``torn`` those of marks that
    do not follow the one before.
    """

    sequence: int = 0
    head: bytes = GENESIS
    erased: set[tuple[int, str]] = field(default_factory=set)
    bad: dict[int, Any] = field(default_factory=dict)
    torn: list[int] = field(default_factory=list)
    before: str | None = None  # the digest of the mark before, None where there is none
    linked: bool = False  # whether a mark so far names the one before it; old ones do not


def check_reason(reason: Any) -> None:
    """Raise ``ValueError`` for a reason that is no ``str`` or is blank."""
    if not isinstance(reason, str) or not reason.strip():
        raise ValueError(f"reason must be a str that says why, and not be blank: {reason!r}")


def mark_pruned(
    connection: Connection, chain: int, tag: str, last: tuple[int, bytes], reason: str,
    signer: Signer | None,
) -> None:  # fmt: skip
    """Record that all entries of a chain up to ``last`` (sequence and hash) were pruned."""
    sequence, head = last
    body = {"kind": "pruned", "sequence": sequence, "hash": head.hex()}
    _add(connection, chain, tag, body, reason, signer)


def mark_erased(
    connection: Connection, chain: int, tag: str, erased: Sequence[tuple[int, bytes]], reason: str,
    signer: Signer | None,
) -> None:  # fmt: skip
    """Record that the payloads of these entries (sequences and hashes) were erased."""
    body = {"kind": "erased", "entries": [[number, digest.hex()] for number, digest in erased]}
    _add(connection, chain, tag, body, reason, signer)


def _add(
    connection: Connection, chain: int, tag: str, body: dict[str, Any], reason: str,
    signer: Signer | None,
) -> None:  # fmt: skip
    now = time_text(datetime.now(timezone.utc))
    query = select(marks.c.body).where(marks.c.chain == chain).order_by(marks.c.id.desc())
    last = connection.execute(query.limit(1)).one_or_none()
    before = None if last is None else _digest(last.body)
    text = canonical({**body, "chain": tag, "reason": reason, "at": now, "previous": before})
    signed: dict[str, Any] = {}
    if signer is not None:
        signed = {"key_id": signer.key_id, "signature": signer.sign(_PURPOSE, text)}
    connection.execute(insert(marks).values(chain=chain, body=text, **signed))


def read_marks(
    connection: Connection, tags: dict[int, str], keys: PublicKeys | None
) -> dict[int, Marked]:
    """Return what the marks of some chains say; with ``keys``, only those they signed."""
    found = {chain: Marked() for chain in tags}
    for row in connection.execute(marks_of(tags)):
        of_chain = found.get(row.chain)
        if of_chain is None:
            continue
        signed = keys is None or is_signed(keys, row.key_id, row.signature, _PURPOSE, row.body)
        if not (signed and _take_in(row.id, row.body, tags[row.chain], of_chain)):
            of_chain.bad[row.id] = row.key_id
        of_chain.before = _digest(row.body)
    return found


def marks_of(tags: dict[int, str]) -> Select[Any]:
    """Return the query of the marks of one chain, by the index, or else of all chains."""
    return _ALL if len(tags) > 1 else _ALL.where(marks.c.chain.in_(list(tags)))


def _digest(text: Any) -> str:
    """Return the SHA-256 of a mark's body, which may have been altered to any type."""
    return sha256(str(text).encode("utf-8", "surrogateescape")).hexdigest()


def _take_in(number: int, text: str, tag: str, marked: Marked) -> bool:
    """Add what a mark says to ``marked``; return False if it is no mark of this chain."""
    try:
        body = json.loads(text)
        if body["chain"] != tag:
            return False
        if body.get("previous", None if marked.linked else marked.before) != marked.before:
            marked.torn.append(number)
        marked.linked = marked.linked or "previous" in body
        if body["kind"] == "pruned":
            sequence = body["sequence"]
            if type(sequence) is not int or sequence.bit_length() > _BITS:
                return False
            if sequence > marked.sequence:
                marked.sequence, marked.head = sequence, bytes.fromhex(body["hash"])
        else:
            marked.erased.update(_pairs(body["entries"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
    return True


def _pairs(entries: Iterable[tuple[int, str]]) -> Iterable[tuple[int, str]]:
    return ((sequence, digest) for sequence, digest in entries)
