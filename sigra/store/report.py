"""What a verification found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, NamedTuple, NoReturn

Kind = Literal["changed", "removed", "inserted", "reordered", "truncated", "forged"]
Level = Literal["chained", "signed", "anchored"]
Verdict = Literal["intact", "broken", "empty"]

WHEN_BROKEN = (
    "What to do: stop cleanup and erase, copy the database and the checkpoints, and follow "
    '"When verify says broken" in docs/security.md.'
)
"""What whoever reads of a broken chain is told, in the terminal and on the page."""


class Finding(NamedTuple):
    """One thing that is wrong: where, what kind of thing, and how it shows.

    ``sequence`` counts from 1 in the organization's chain; ``event_id`` is None where the
    event is gone.
    """

    organization_id: str | None
    sequence: int
    event_id: str | None
    kind: Kind
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was verified, how far that goes, and what is wrong.

    ``level`` says whose tampering shows: "chained", that of anybody who changes rows without
    computing hashes; "signed", the same, and marks are signed; "anchored", that of anybody who can
    write the whole database, as far as the checkpoints go. ``unanchored`` counts the rows after
    the last checkpoint, whose level is only "signed". ``findings`` holds the first hundred of each
    organization; ``found`` counts them all.
    """

    verdict: Verdict
    level: Level
    chains: int
    rows: int
    pruned: int
    erased: int
    unanchored: int
    checkpoint_age: timedelta | None
    findings: tuple[Finding, ...]
    found: int

    @property
    def first(self) -> Finding | None:
        """Return the first finding, None where nothing is wrong."""
        return self.findings[0] if self.findings else None

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "a report is neither true nor false: read .verdict, and .level for how much it proves"
        )


def age_text(age: timedelta) -> str:
    """Write how old a checkpoint is, to the second; of one to come, that a clock was wrong."""
    second = timedelta(seconds=1)
    if age < timedelta():
        return f"{-age // second * second} ahead: a clock is wrong"
    return f"{age // second * second} ago"
