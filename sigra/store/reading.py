"""Reading audit events back, through the configured sink that can."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple, Protocol, TypedDict, Unpack, runtime_checkable

from sigra import config
from sigra.audit.compose import sized
from sigra.audit.event import Outcome
from sigra.audit.leaf import in_utc
from sigra.audit.read import ABSENT, well_formed
from sigra.audit.transaction import NoAuditStoreError
from sigra.scope import Id, id_text
from sigra.store.errors import InvalidQueryError

_MOST_DAYS = 365_000
MOST = 500
"""The largest page."""


class Tenancy(TypedDict, total=False):
    """Whose events are meant; one of the two must be given."""

    organization_id: Id | None
    all_organizations: bool


class Filters(Tenancy, total=False):
    """The filters of a read, as its caller passes them."""

    actor_id: Id | None
    action: str | None
    since: datetime | None
    until: datetime | None
    outcome: Outcome | None


class Page(NamedTuple):
    """Some events, newest first, and the cursor of the next page (None after the last)."""

    events: tuple[Any, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events to read, with ids as text and moments in UTC.

    ``organization_id`` None stands for the events without one; it is ignored if
    ``all_organizations`` is true. ``since`` is the first moment included, ``until`` the first one
    excluded. None in any other field: no restriction.
    """

    organization_id: str | None = None
    all_organizations: bool = False
    actor_id: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    outcome: Outcome | None = None


@runtime_checkable
class ReadableSink(Protocol):
    """A sink that gives back what was written to it."""

    def query(self, which: EventFilter, cursor: str | None, limit: int) -> Page:
        """Return one page, newest first."""
        ...

    def stream(self, which: EventFilter) -> Iterator[Any]:
        """Return all events, newest first, with few in memory at a time."""
        ...

    def count(self, which: EventFilter) -> int:
        """Return how many events there are."""
        ...


def query(*, cursor: str | None = None, limit: int = 50, **filters: Unpack[Filters]) -> Page:
    """Return one page of events, newest first.

    Pass either ``organization_id`` (None: events without one) or ``all_organizations=True``.
    Further filters: ``actor_id``, ``action``, ``outcome``, ``since`` and ``until`` (aware
    datetimes; ``until`` is the first moment left out). Pass ``page.cursor`` for the next page:
    events written in between neither shift nor repeat the others. ``limit`` is 1 to 500. Raises
    ``InvalidQueryError``, and ``NoAuditStoreError`` if no configured sink can read.
    """
    if type(limit) is not int or not 1 <= limit <= MOST:
        raise InvalidQueryError("limit", f"it must be an int from 1 to {MOST}")
    return store().query(event_filter(**filters), cursor, limit)


def stream(**filters: Unpack[Filters]) -> Iterator[Any]:
    """Return all events that match, newest first, in constant memory; filters as ``query``."""
    return store().stream(event_filter(**filters))


def count(**filters: Unpack[Filters]) -> int:
    """Return how many events match; filters as ``query``."""
    return store().count(event_filter(**filters))


@runtime_checkable
class PrunableSink(Protocol):
    """A sink that can remove old events."""

    def clean_up(self, before: datetime, progress: Callable[[int], object] | None) -> int:
        """Remove what is older than a moment; return how many events these were."""
        ...


def cleanup(
    retention_days: int | None = None, *, progress: Callable[[int], object] | None = None
) -> int:
    """Remove events older than ``retention_days``; return how many. None keeps all for ever.

    Works on all configured sinks that can (``SqlAuditSink``), in batches; ``progress`` is called
    after each with the number so far. If a call is stopped, the next one goes on. If one sink
    fails, the others are still cleaned, and then its error is raised. Raises
    ``InvalidQueryError`` for anything but a whole number of days above zero, and
    ``NoAuditStoreError`` if no sink can.
    """
    if retention_days is None:
        return 0
    if type(retention_days) is not int or not 1 <= retention_days <= _MOST_DAYS:
        raise InvalidQueryError(
            "retention_days", f"it must be an int from 1 to {_MOST_DAYS}, or None to keep all"
        )
    sinks = [sink for sink in config.current.sinks if isinstance(sink, PrunableSink)]
    if not sinks:
        raise NoAuditStoreError("remove audit events")
    before = datetime.now(timezone.utc) - timedelta(days=retention_days)
    removed, failed = 0, list[Exception]()
    for sink in sinks:
        try:
            removed += sink.clean_up(before, progress)
        except Exception as error:
            failed.append(error)
    for further in failed[1:]:
        failed[0].add_note(f"another store failed too: {further!r}")
    if failed:
        raise failed[0]
    return removed


def store() -> ReadableSink:
    """Return the first configured sink that can read."""
    for sink in config.current.sinks:
        if isinstance(sink, ReadableSink):
            return sink
    raise NoAuditStoreError("read audit events")


def event_filter(
    *,
    organization_id: Id | None = ABSENT,
    all_organizations: bool = False,
    actor_id: Id | None = None,
    action: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    outcome: Outcome | None = None,
) -> EventFilter:
    """Return the filters of a read, checked; raise ``InvalidQueryError`` for a wrong one.

    The organization must be given: a read that forgot it would show every tenant's events.
    """
    if (organization_id is ABSENT) is (all_organizations is not True):
        raise InvalidQueryError(
            "organization_id",
            "pass an organization's id (None for events without one), or all_organizations=True "
            "to read across all of them, and not both",
        )
    if outcome not in (None, "success", "failure", "error"):
        raise InvalidQueryError("outcome", "it must be 'success', 'failure' or 'error'")
    return EventFilter(
        id_as_logged("organization_id", None if organization_id is ABSENT else organization_id),
        all_organizations,
        id_as_logged("actor_id", actor_id),
        None if action is None else _action(action),
        None if since is None else utc("since", since),
        None if until is None else utc("until", until),
        outcome,
    )


def tenancy(**which: Unpack[Tenancy]) -> EventFilter:
    """Return the filter of whose events are meant, where no other filter applies."""
    unknown = set(which) - {"organization_id", "all_organizations"}
    if unknown:
        raise TypeError(f"it takes organization_id or all_organizations, not {sorted(unknown)}")
    return event_filter(**which)


def utc(name: str, value: datetime) -> datetime:
    """Return a moment in UTC; raise ``InvalidQueryError`` for one without a time zone."""
    try:
        moment = in_utc(value) if isinstance(value, datetime) else None
    except OverflowError:
        raise InvalidQueryError(name, "in UTC it is not in the years 1 to 9999") from None
    if moment is None:
        raise InvalidQueryError(name, "it must be an aware datetime")
    return moment


def storable(text: str) -> str:
    """Return a text that any database takes, with U+FFFD for each lone surrogate and NUL."""
    return well_formed(text).replace("\0", "\ufffd")


def _action(action: str) -> str:
    if not isinstance(action, str):
        raise InvalidQueryError("action", "it must be a str, as 'invoice.close'")
    return storable(action)


def id_as_logged(name: str, value: Id | None) -> str | None:
    """Return an id as an event has it: as text, and a long one cut as ``log`` cuts it.

    Raises ``InvalidQueryError`` for what is no id.
    """
    text = id_text(value)
    if text is None and value is not None:
        raise InvalidQueryError(name, "an id is a str that is not blank, an int or a UUID")
    return None if text is None else sized(text, apart=True)
