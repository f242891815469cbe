"""What happened to a row that does not follow the one before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from sigra.store.report import Kind

Places = Sequence[tuple[int, bytes, bytes]]
"""Sequence, previous hash and hash of each entry of the chain."""

Diagnosis = tuple[int, Kind, str]
"""Where in the chain something is wrong, what kind of thing, and how it shows."""

_TWICE = "another entry follows the one before it"


class Row(NamedTuple):
    """A row that is wrong: its place, the place that was expected, and its hash at any other.

    ``good``: its hash is that of its fields. ``expected``: the sequence and the previous hash
    that it should have (None: any). ``hash_at`` returns its hash with another sequence.
    ``beyond``: the chain's own row says that the entry before it is the last.
    """

    good: bool
    sequence: int
    previous: bytes
    digest: bytes
    expected: tuple[int, bytes | None]
    hash_at: Callable[[int], bytes]
    beyond: bool = False


def diagnose(row: Row, places: Places) -> Diagnosis:
    """Tell what is wrong with a row by the other entries of its chain."""
    number, before = row.expected
    if row.sequence > number:
        return number, "removed", f"the next entry there is has sequence {row.sequence}"
    if row.sequence < number:
        return row.sequence, "inserted", "it is from before what a mark says was pruned"
    if not row.good:
        return _diagnose_hash(row, places)
    if any(previous == before for _, previous, _ in places):
        return number, "inserted", _TWICE
    if number == 1:
        return 1, "removed", "it follows an entry that is gone"
    return number - 1, "forged", "the entry after it names another hash"


def _diagnose_hash(row: Row, places: Places) -> Diagnosis:
    """Tell whether a row whose hash is wrong was moved, added or changed."""
    # It may have stood after the last entry that is left, a place that none has now.
    numbers = (*(number for number, _, _ in places), len(places) + 1)
    try:
        true = next((number for number in numbers if row.hash_at(number) == row.digest), None)
    except (TypeError, ValueError, AttributeError):
        true = None
    if true is None:
        before = row.expected[1]
        if row.beyond:
            return row.sequence, "inserted", "the chain ends with the entry before it"
        if any(k != row.sequence and after == before for k, after, _ in places):
            return row.sequence, "inserted", _TWICE
        return row.sequence, "changed", "its hash is not that of its fields"
    if any(digest == row.previous for _, _, digest in places):
        return row.sequence, "reordered", f"it was written with sequence {true}"
    return row.sequence, "removed", f"the entry here now was written with sequence {true}"
