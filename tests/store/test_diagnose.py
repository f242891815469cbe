"""Naming what happened to a row that does not follow the one before it."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from sigra.store.diagnose import Places, Row, diagnose


def hashed(sequence: int, previous: bytes, text: str) -> bytes:
    return sha256(f"{sequence} {previous.hex()} {text}".encode()).digest()


def chain_of(texts: str) -> dict[str, tuple[int, bytes, bytes]]:
    """Write a chain of one-letter entries; return sequence, previous hash and hash of each."""
    places, previous = {}, bytes(32)
    for number, text in enumerate(texts, 1):
        digest = hashed(number, previous, text)
        places[text] = (number, previous, digest)
        previous = digest
    return places


WHOLE = chain_of("abcde")


def row(text: str, sequence: int, expected: tuple[int, bytes | None], **fields: Any) -> Row:
    """Return the row of a letter as it stands at a sequence now."""
    _, previous, digest = WHOLE[text]
    good = hashed(sequence, previous, text) == digest
    whole = {"good": good, "previous": previous, "digest": digest, **fields}
    return Row(
        sequence=sequence, expected=expected, hash_at=lambda k: hashed(k, previous, text), **whole
    )


def places(**moved: int) -> Places:
    """Return the places of the letters that are there, each at the sequence given."""
    return [(number, *WHOLE[text][1:]) for text, number in moved.items()]


def follow(text: str) -> tuple[int, bytes]:
    number, _, digest = WHOLE[text]
    return number + 1, digest


def test_a_gap_is_an_entry_that_was_removed() -> None:
    """The missing one is named, not the one that is there."""
    found = diagnose(row("d", 4, follow("b")), places(a=1, b=2, d=4, e=5))
    assert found[:2] == (3, "removed")
    assert found[2].endswith("4")


def test_a_sequence_that_was_passed_is_an_entry_that_was_inserted() -> None:
    """It is from before what was pruned."""
    assert diagnose(row("a", 1, follow("c")), places(a=1, d=4, e=5))[:2] == (1, "inserted")


def test_entries_that_changed_places_are_reordered() -> None:
    """Both are there, and neither where it was."""
    found = diagnose(row("d", 2, follow("a")), places(a=1, d=2, c=3, b=4, e=5))
    assert found == (2, "reordered", "it was written with sequence 4")


@pytest.mark.parametrize(("gone", "next_one", "at"), [("b", "c", 2), ("d", "e", 4)])
def test_a_gap_that_was_closed_is_an_entry_that_was_removed(
    gone: str, next_one: str, at: int
) -> None:
    """What it was written after is gone, be it the last but one that is missing."""
    left = [text for text in "abcde" if text != gone]
    now = places(**{text: number for number, text in enumerate(left, 1)})
    found = diagnose(row(next_one, at, follow(left[at - 2])), now)
    assert found == (at, "removed", f"the entry here now was written with sequence {at + 1}")


def test_a_hash_that_fits_nowhere_is_a_change() -> None:
    """The fields are not those that were hashed."""
    found = diagnose(row("c", 3, follow("b"), digest=b"?", good=False), places(a=1, b=2, c=3))
    assert found[:2] == (3, "changed")


@pytest.mark.parametrize("error", [TypeError, ValueError, AttributeError])
def test_values_that_cannot_be_hashed_are_a_change(error: type[Exception]) -> None:
    """Whatever type an attacker wrote."""

    def refuse(_: int) -> bytes:
        raise error

    broken = row("c", 3, follow("b"), good=False)._replace(hash_at=refuse)
    assert diagnose(broken, places(a=1, b=2, c=3))[:2] == (3, "changed")


def test_two_that_follow_one_entry_are_one_too_many() -> None:
    """The one without the right predecessor was inserted."""
    other = bytes([7] * 32)
    fake = row("b", 3, follow("b"), previous=other, good=True)
    assert diagnose(fake, [*places(a=1, b=2, c=4), (3, other, b"?")])[:2] == (3, "inserted")


def test_a_made_up_one_before_what_follows_the_last_was_inserted() -> None:
    """Its hash is of nothing, and the entry that it displaced is there."""
    fake = row("c", 3, follow("b"), previous=b"?", digest=b"?", good=False)
    found = diagnose(fake, [*places(a=1, b=2, c=4, d=5), (3, b"?", b"?")])
    assert found[:2] == (3, "inserted")


def test_a_made_up_one_after_the_last_was_inserted() -> None:
    """The chain's own row ends before it."""
    fake = row("c", 3, follow("b"), digest=b"?", good=False, beyond=True)
    assert diagnose(fake, places(a=1, b=2, c=3))[:2] == (3, "inserted")


def test_an_entry_whose_successor_names_another_was_written_anew() -> None:
    """The successor is whole, so the one before it is not the one that was there."""
    anew = bytes([9] * 32)
    found = diagnose(row("c", 3, (3, anew)), [(1, *WHOLE["a"][1:]), (2, WHOLE["b"][1], anew)])
    assert found[:2] == (2, "forged")


def test_a_first_entry_that_follows_another_has_lost_it() -> None:
    """Nothing stands before it."""
    fake = row("b", 1, (1, bytes(32)), good=True)
    assert diagnose(fake, places(b=1, c=2))[:2] == (1, "removed")
