"""What a worker may return to say how its attempt ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Ok:
    """Say that the job is done; ``value`` is what ``job.result()`` gives."""

    value: Any = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Say that this attempt failed, for ``reason``; it is retried while attempts are left."""

    reason: Any = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Say that the job is over for good, for ``reason``, whatever attempts are left."""

    reason: Any = None


@dataclass(frozen=True, slots=True)
class Snooze:
    """Ask to be run again after ``seconds``, without using up an attempt.

    Raises ``ValueError`` unless ``seconds`` is a positive int (bool and float are not).
    """

    seconds: int

    def __post_init__(self) -> None:
        if isinstance(self.seconds, bool) or not isinstance(self.seconds, int) or self.seconds < 1:
            raise ValueError(f"Snooze takes a positive int of seconds, not {self.seconds!r}")


Outcome = Ok | Failure | Cancel | Snooze
