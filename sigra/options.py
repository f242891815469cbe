"""The options of an enqueue: what they are, and which values make sense."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypedDict

from sigra.errors import InvalidOptionError
from sigra.json import is_unicode

if TYPE_CHECKING:
    from sigra.backend import Backend

    class DefaultOptions(TypedDict, total=False):
        """What a decorator takes: the default options of a worker's jobs."""

        queue: str
        priority: int
        delay: float | timedelta
        run_at: datetime
        max_attempts: int
        backoff: float | timedelta | Callable[[int], float | timedelta]
        unique: str
        conn: Any

    class Options(DefaultOptions, total=False):
        """What ``.new()`` takes besides the args."""

        cross_tenant: bool


@dataclass(frozen=True, slots=True)
class JobOptions:
    """How a job is to be queued, as ``options.queue`` or ``options["queue"]``.

    An option that was not given is None, or has its default.
    ``priority``: larger runs sooner. ``delay``: seconds. ``run_at``: aware datetime.
    ``max_attempts``: from 1. ``backoff``: seconds before the next attempt, or a function of
    the failed attempt (from 1). ``unique``: a key that one unfinished job at a time may hold.
    ``conn``: the caller's open transaction.
    """

    queue: str | None = None
    priority: int = 0
    delay: float | None = None
    run_at: datetime | None = None
    max_attempts: int = 1
    backoff: float | Callable[[int], float] | None = None
    unique: str | None = None
    conn: Any = None

    def __getitem__(self, name: str) -> Any:
        return {option: getattr(self, option) for option in OPTION_NAMES}[name]

    def retry_delay(self, attempt: int) -> float:
        """Return the seconds to wait after the failed ``attempt`` (from 1)."""
        if self.backoff is None:
            return default_backoff(attempt)
        return _seconds(self.backoff(attempt)) if callable(self.backoff) else self.backoff

    def due(self, now: float) -> float:
        """Return when the job is due, in epoch seconds; ``now`` if that is past or not given."""
        if self.delay is not None:
            return now + self.delay
        return max(now, self.run_at.timestamp()) if self.run_at is not None else now

    def wait(self, now: float) -> float:
        """Return the seconds from ``now`` (epoch seconds) until the job is due, 0 if it is."""
        return self.due(now) - now


PLAIN = JobOptions()
"""No option at all; the hot path recognises it by identity."""

OPTION_NAMES = tuple(option.name for option in fields(JobOptions))

LONGEST_DELAY = 10**10
"""Seconds, some three centuries: the dates of every queue reach that far."""


def default_backoff(attempt: int) -> float:
    """Return 15 s doubled with each failed attempt up to an hour, less up to a tenth at random."""
    return min(15.0 * 2.0 ** min(attempt - 1, 8), 3600.0) * (1.0 - random.random() / 10.0)


def parse_options(
    given: Mapping[str, Any], defaults: JobOptions = PLAIN, worker: str | None = None
) -> JobOptions:
    """Check the options that were given and lay them over ``defaults``.

    Raises ``InvalidOptionError`` for an unknown name, a value of the wrong type or
    range, or ``delay`` together with ``run_at``.
    """
    if not given:
        return defaults
    checked: dict[str, Any] = {}
    for name, value in given.items():
        if (check := _CHECKS.get(name)) is None:
            known = f"{', '.join(OPTION_NAMES)} and, for one call, cross_tenant"
            raise InvalidOptionError(name, f"no such option; the options are {known}", worker)
        try:
            checked[name] = check(value)
        except ValueError as error:
            raise InvalidOptionError(name, str(error), worker) from None
    if "delay" in checked and "run_at" in checked:
        raise InvalidOptionError("run_at", "give either delay or run_at, not both", worker)
    # The call wins: either way of saying when replaces the decorator's.
    if "delay" in checked or "run_at" in checked:
        checked = {"delay": None, "run_at": None, **checked}
    return replace(defaults, **checked)


def check_capabilities(options: JobOptions, backend: Backend, worker: str | None = None) -> None:
    """Raise ``InvalidOptionError`` for the first option that ``backend`` does not honour."""
    for name in OPTION_NAMES:
        # By identity: what is given for conn or backoff may have an == of its own.
        if getattr(options, name) is not getattr(PLAIN, name) and name not in backend.capabilities:
            honoured = ", ".join(sorted(backend.capabilities & set(OPTION_NAMES))) or "no option"
            cure = f"leave it out or use another backend; this one honours {honoured}"
            reason = f"backend {backend.name!r} cannot honour it: {cure}"
            raise InvalidOptionError(name, reason, worker)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a str, not {type(value).__qualname__}")
    if not value.strip() or not is_unicode(value):
        raise ValueError("must not be blank or hold a lone surrogate, which no queue can carry")
    return str.__str__(value)  # str() gives another text for a member of an enumeration


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be an int, not {type(value).__qualname__}")
    if not -(2**31) <= value < 2**31:
        raise ValueError("must fit 32 bits")
    return int(value)


def _positive(value: Any) -> int:
    if (number := _whole(value)) < 1:
        raise ValueError(f"must be at least 1, not {number}")
    return number


def _seconds(value: Any) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"must be seconds or a timedelta, not {type(value).__qualname__}")
    if not 0 <= value <= sys.float_info.max:  # no NaN either, and no int that is no float
        raise ValueError("must be finite and not negative")
    return float(value)


def _aware(value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise ValueError(f"must be a datetime, not {type(value).__qualname__}")
    if value.utcoffset() is None:
        raise ValueError("must have a time zone, as datetime.now(timezone.utc) has")
    return value


def _conn(value: Any) -> Any:
    if value is None:
        raise ValueError("is None; pass the open connection, or leave the option out")
    return value


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "queue": _text,
    "priority": _whole,
    "delay": _seconds,
    "run_at": _aware,
    "max_attempts": _positive,
    "backoff": lambda value: value if callable(value) else _seconds(value),
    "unique": _text,
    "conn": _conn,
}
"""Each checks an option's value and returns what is kept; ``ValueError`` says what is wrong."""
