"""How many cases a test tries: many, few in ``make test-fast``, or what takes hours."""

import os
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")

LONG = "SIGRA_LONG" in os.environ
MANY = LONG or "SIGRA_FEW" not in os.environ


def some_of(cases: Iterable[T], one_of: int) -> list[T]:
    """Return all cases, or one of so many where few are tried."""
    return list(cases)[:: 1 if MANY else one_of]
