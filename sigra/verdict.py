"""How one attempt ended, in terms that every backend can act on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sigra.job import State


@dataclass(slots=True, eq=False)
class Verdict:
    """Where the job goes after an attempt.

    ``state``: "completed" (with ``value``); "cancelled" or "discarded" (with ``error``, for good);
    "retryable" (with ``error``, again after ``delay`` seconds, one attempt fewer); or "scheduled"
    (snoozed: again after ``delay`` seconds, no attempt used up).
    """

    state: State
    value: Any = None
    error: BaseException | None = None
    delay: float = 0.0

    def unwrap(self) -> Any:
        """Return the value, or raise what stands in its place."""
        if self.error is not None:
            raise self.error
        return self.value


DONE = Verdict("completed")
"""The verdict of a job that returned None."""
