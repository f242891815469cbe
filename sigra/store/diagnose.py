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
    """A row that is wrong: where it stands, where it should, and its hash at another place.

    ``good`` says that its hash is that of its fields; ``expected`` is the sequence and the
    previous hash that it should have (None: any); ``beyond`` that the chain's own row has the
    entry before it as the last.
    """

    good: bool
    sequence: int
    previous: bytes
    digest: bytes
    expected: tuple[int, bytes | None]
    hash_at: Callable[[int], bytes]
    beyond: bool = False


def diagnose(row: Row, places: Places) -> Diagnosis:
    """Tell what is wrong by what else there is in the chain."""
    number, before = row.expected
    if row.sequence > number:
        return number, "removed", f"the next entry there is has sequence {row.sequence}"
    if row.sequence < number:
        return row.sequence, "inserted", "it is from before what a mark says was pruned"
    if not row.good:
        return _moved(row, places)
    if any(previous == before for _, previous, _ in places):
        return number, "inserted", _TWICE
    if number == 1:
        return 1, "removed", "it follows an entry that is gone"
    return number - 1, "forged", "the entry after it names another hash"


def _moved(row: Row, places: Places) -> Diagnosis:
    """Tell a row that stood elsewhere in the chain, or is new in it, from one that was changed."""
    # It may have stood after the last that is left, which is not among the places.
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
