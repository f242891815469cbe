"""Checking one chain, row by row."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from sigra.store.chain import (
    actor_begins,
    entry_hash,
    is_committed,
    is_hash,
    organization_of,
    version_of,
    without_nul,
)
from sigra.store.diagnose import Places, Row, diagnose
from sigra.store.marks import Marked
from sigra.store.report import Finding, Kind

_SEARCHES = 3
"""For so many rows of a chain it is searched where they stood; for more, the kind is a guess."""

FINDINGS = 100
"""So many findings are kept of each chain, so that those of one hide none of another."""

_ODD = "it has a value of a kind that is never written"


class Anchored(NamedTuple):
    """The hashes (hexadecimal) that a chain must have at some sequences, and the last of these."""

    hashes: dict[int, str]
    last: int


class ChainCheck:
    """The check of one chain: what the next row must be, and counts of the rows so far."""

    def __init__(
        self,
        head: Any,
        marked: Marked,
        anchored: Anchored,
        places: Callable[[], Places],
        add: Callable[[Finding], None],
    ) -> None:
        self.tag: str = head.tag
        self._head, self._marked, self._anchored = head, marked, anchored
        self._places, self._add = places, add
        self._organization = organization_of(head.tag)
        self._sequence = marked.sequence
        self._previous: bytes | None = marked.head  # None after a row whose own hash is wrong
        self._searches = _SEARCHES
        self._event_id: str | None = None
        self.rows = self.erased = self.unanchored = self.found = 0
        self.pruned = marked.sequence
        for number, key in marked.bad.items():
            named = "no key" if key is None else f"the key {str(key)[:16]}"
            reason = f"mark {number} is not one that a key of yours signed for this chain; it names"
            self.find(0, None, "forged", f"{reason} {named}")
        for number in marked.torn:
            reason = f"mark {number} does not follow the mark before it: one is gone or was added"
            self.find(0, None, "removed", reason)
        if anchored.hashes.get(marked.sequence, marked.head.hex()) != marked.head.hex():
            self.find(marked.sequence, None, "forged", "a mark and a checkpoint contradict")

    def find(self, sequence: int, event_id: str | None, kind: Kind, reason: str) -> None:
        """Add a finding, if there are not too many of this chain."""
        self.found += 1
        if self.found <= FINDINGS:
            self._add(Finding(self._organization, sequence, event_id, kind, reason))

    def row(
        self, _: int, sequence: int, previous: bytes, digest: bytes, event_id: str,
        occurred_at: str, action: str, outcome: str, worker: str | None, actor_id: str | None,
        commitment: bytes, salt: bytes | None, payload: str | None,
    ) -> None:  # fmt: skip
        """Check the next row of the chain."""
        self.rows += 1
        if not (type(sequence) is int and type(previous) is type(digest) is bytes):
            self.find(self._sequence + 1, None, "changed", _ODD)
            self._previous = None
            return
        if sequence > self._anchored.last:
            self.unanchored += 1
        good = is_hash(
            digest, self.tag, sequence, previous, event_id, occurred_at, action, worker, outcome,
            commitment,
        )  # fmt: skip
        follows = previous == self._previous or self._previous is None
        if not (good and follows and sequence == self._sequence + 1):
            self._diagnose(
                good, sequence, previous, digest, event_id,
                lambda k: entry_hash(
                    self.tag, k, previous, event_id, occurred_at, action, worker, outcome,
                    commitment, version_of(digest),
                ),
            )  # fmt: skip
        if good:  # also where it does not follow: a gap that is known hides no change beside it
            self._check_payload(sequence, digest, event_id, actor_id, commitment, salt, payload)
        known = self._anchored.hashes.get(sequence)
        if known is not None and known != digest.hex():
            reason = "a checkpoint has another hash here: the chain was written anew"
            self.find(sequence, event_id, "forged", reason)
        if sequence > self._sequence:  # else it is older than the mark, and changes nothing
            self._sequence, self._event_id = sequence, event_id
            self._previous = digest if good else None

    def _check_payload(
        self, sequence: int, digest: bytes, event_id: str, actor_id: str | None,
        commitment: bytes, salt: bytes | None, payload: str | None,
    ) -> None:  # fmt: skip
        try:
            if payload is None and salt is None:
                self._check_erased(sequence, digest, event_id, actor_id)
            elif self._is_erased(sequence, digest):
                reason = "it was erased, and has a payload or a salt"
                self.find(sequence, event_id, "changed", reason)
            elif payload is None or salt is None:
                reason = f"its {'payload' if payload is None else 'salt'} alone is gone"
                self.find(sequence, event_id, "changed", reason)
            elif not is_committed(commitment, salt, payload):
                self.find(sequence, event_id, "changed", "its payload is not what was committed to")
            elif not (payload.startswith(actor_begins(actor_id)) or _is_copy(actor_id, payload)):
                reason = "its actor_id is not that of its payload"
                self.find(sequence, event_id, "changed", reason)
        except (TypeError, ValueError, AttributeError, KeyError, RecursionError):
            self.find(sequence, event_id, "changed", _ODD)

    def _check_erased(
        self, sequence: int, digest: bytes, event_id: str, actor_id: str | None
    ) -> None:
        if not self._is_erased(sequence, digest):
            reason = "its payload is gone, and no mark says that it was erased"
            self.find(sequence, event_id, "removed", reason)
        elif actor_id is not None:
            self.find(sequence, event_id, "changed", "it was erased, and has an actor_id")
        self.erased += 1

    def _is_erased(self, sequence: int, digest: bytes) -> bool:
        erased = self._marked.erased
        return bool(erased) and (sequence, digest.hex()) in erased

    def _diagnose(
        self, good: bool, sequence: int, previous: bytes, digest: bytes, event_id: str,
        hash_at: Callable[[int], bytes],
    ) -> None:  # fmt: skip
        expected = (self._sequence + 1, self._previous)
        beyond = self._previous == self._head.head
        row = Row(good, sequence, previous, digest, expected, hash_at, beyond)
        self._searches -= 1
        at, kind, reason = diagnose(row, self._places() if self._searches >= 0 else ())
        self.find(at, event_id if at == sequence else None, kind, reason)

    def end(self) -> None:
        """Check that the chain ends where its own row and the checkpoints say."""
        last, head = self._sequence, self._head
        if last < max(head.sequence, self._anchored.last):
            self.find(last + 1, None, "truncated", "what followed is gone")
        elif last > head.sequence:
            reason = f"the chain ends at {head.sequence}, and there is more"
            self.find(head.sequence + 1, None, "inserted", reason)
        elif self._previous not in (None, head.head):
            self.find(last, self._event_id, "forged", "the chain's own row has another hash here")


def _is_copy(actor_id: str | None, payload: str) -> bool:
    """Tell whether an actor's id is the payload's, with U+FFFD for each NUL."""
    return without_nul(json.loads(payload)["actor_id"]) == actor_id
