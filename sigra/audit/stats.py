"""How many events were emitted, disabled and failed since the process began."""

from __future__ import annotations

from itertools import count
from typing import NamedTuple


class AuditStats(NamedTuple):
    """Counts of calls by how they ended, as ``stats.failed`` or ``stats["failed"]``."""

    emitted: int
    disabled: int
    failed: int

    def keys(self) -> tuple[str, ...]:
        """Return the names, so that ``dict(stats)`` is what it looks like."""
        return self._fields

    def __getitem__(self, key: object) -> int:  # type: ignore[override]
        if type(key) is str and key in self._fields:
            return getattr(self, key)  # type: ignore[no-any-return]
        return tuple.__getitem__(self, key)  # type: ignore[call-overload, no-any-return]


# A step of such an iterator is atomic, and `for _ in emitted: break` takes one without a call, so
# that it counts even where the stack has no room left for a call.
emitted, disabled, failed = count(), count(), count()


def audit_stats() -> AuditStats:
    """Return how many calls were emitted, disabled and failed in this process, in all threads."""
    # Only its repr, "count(7)", shows a counter's next number without taking it.
    return AuditStats(*(int(repr(counter)[6:-1]) for counter in (emitted, disabled, failed)))
