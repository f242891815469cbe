"""What the pages read of the store, other than lists of events."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Select, func, select

from sigra.store.access import read_tables
from sigra.store.chain import time_text
from sigra.store.query import chain_of, matching, stored_events
from sigra.store.reading import storable
from sigra.store.stored import event_of, hex_shown, organization_shown, shown
from sigra.store.tables import chains, entries

if TYPE_CHECKING:
    from sigra.audit.event import AuditEvent
    from sigra.store.database import Database
    from sigra.store.reading import EventFilter


@dataclass(frozen=True, slots=True)
class Kept:
    """An event, and its place in its organization's chain."""

    event: AuditEvent
    sequence: str
    previous: str
    hash: str


@dataclass(frozen=True, slots=True)
class Chain:
    """An organization's chain: how long it is and where it ends."""

    organization_id: str | None
    sequence: str
    head: str


def find_event(database: Database, event_id: str) -> Kept | None:
    """Return the event of that id, None where there is none."""
    query = stored_events().where(entries.c.event_id == storable(event_id))
    row = read_tables(database, lambda connection: connection.execute(query).first())
    if row is None:
        return None
    previous, digest = hex_shown(row.previous), hex_shown(row.hash)
    return Kept(event_of(row), shown(row.sequence), previous, digest)


def list_chains(database: Database, after: int, limit: int) -> list[tuple[int, Chain]]:
    """Return up to ``limit`` chains whose number is above ``after``, each with its number."""
    query = select(chains).where(chains.c.id > after).order_by(chains.c.id).limit(limit)
    rows = read_tables(database, lambda connection: connection.execute(query).all())
    return [(row.id, _chain(row)) for row in rows]


def _chain(row: Any) -> Chain:
    return Chain(organization_shown(row.tag), shown(row.sequence), hex_shown(row.head))


def activity(
    database: Database, which: EventFilter, step: timedelta
) -> dict[tuple[datetime, str], int]:
    """Count the events that match by moment (a day, an hour or a minute) and outcome."""
    day = timedelta(days=1)
    digits = 10 if step >= day else 13 if step >= day / 24 else 16
    moment = func.substr(entries.c.occurred_at, 1, digits).label("moment")
    query: Any = select(moment, entries.c.outcome, func.count().label("number"))

    def read(connection: Connection) -> list[Any]:
        chain = chain_of(connection, which)
        scan = chain is None and connection.dialect.name == "sqlite"
        narrowed = _by_scan if scan and _are_many(connection, which) else matching
        found = narrowed(query, which, chain)
        return list(connection.execute(found.group_by(moment, entries.c.outcome)))

    counts: Counter[tuple[datetime, str]] = Counter()
    for row in read_tables(database, read):
        at = _moment(row.moment)
        if at is not None:
            counts[at, shown(row.outcome)] += row.number
    return counts


def _are_many(connection: Connection, which: EventFilter) -> bool:
    """Tell whether a fourth of all entries are of the time asked for; an index counts them."""
    whole = select(func.count()).select_from(entries)
    of_time = replace(which, actor_id=None, action=None, outcome=None)
    asked, there = (
        connection.execute(each).scalar_one() for each in (matching(whole, of_time, None), whole)
    )
    return bool(4 * asked > there)


def _by_scan(query: Select[Any], which: EventFilter, chain: int | None) -> Select[Any]:
    """Narrow a query as ``matching`` does, so that SQLite reads all rows in their order.

    It would find them by the index of times, one by one, which takes seven times as long.
    """
    at = entries.c.occurred_at.concat("")  # no index has that
    found = matching(query, replace(which, since=None, until=None), chain)
    if which.since is not None:
        found = found.where(at >= time_text(which.since))
    return found if which.until is None else found.where(at < time_text(which.until))


def _moment(text: str) -> datetime | None:
    """Read the beginning of a stored moment; None if it is no moment, as after tampering."""
    try:
        full = text + "0000-01-01T00:00"[len(text) :]
        return datetime.fromisoformat(full).replace(tzinfo=timezone.utc)
    except (ValueError, TypeError):
        return None
