"""Reading events of the store: a page, all of them, or how many there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Select, func, select, tuple_

from sigra.audit.event import AuditEvent
from sigra.store.access import read_tables
from sigra.store.chain import actor_begins, chain_tag, time_text, without_nul
from sigra.store.cursor import decode_cursor, encode_cursor
from sigra.store.database import Database
from sigra.store.errors import AuditTablesError
from sigra.store.reading import MOST, EventFilter, Page
from sigra.store.stored import event_of, is_text
from sigra.store.tables import chains, entries

_AT_ONCE = 2_000
_LOWEST = -(1 << 63)
"""The lowest number that a column holds; the store's own begin with 1."""

Position = tuple[str, int, int]
"""Where a page ends: the time, chain and sequence of its last event."""


def read_page(database: Database, which: EventFilter, cursor: str | None, limit: int) -> Page:
    """Return one page, newest first; raise ``InvalidQueryError`` for what is no cursor.

    A cursor only says where to go on: it fits any filter, and gives access to no event.
    """
    after: Any = None if cursor is None else decode_cursor(cursor, str, int, int)
    rows = read_tables(database, lambda connection: _rows(connection, which, after, limit + 1))
    if len(rows) <= limit:
        return Page(tuple(map(event_of, rows)), None)
    rows = _trimmed(rows[:limit])
    return Page(tuple(map(event_of, rows)), encode_cursor(_end(rows)))


def read_all(database: Database, which: EventFilter) -> Iterator[AuditEvent]:
    """Yield all events, newest first, a page in memory at a time.

    Each page has a transaction of its own, so that a slow reader holds no transaction open.
    """
    after: Position | None = None
    while True:
        start = after
        rows = read_tables(database, lambda c: _rows(c, which, start, MOST))  # noqa: B023
        more = len(rows) == MOST
        rows = _trimmed(rows) if more else rows
        yield from map(event_of, rows)
        if not more:
            return
        after = _end(rows)


def read_chain(
    database: Database, chain: int, which: EventFilter, after: int | None = None
) -> Iterator[list[Any]]:
    """Yield the rows of a chain that match, in its order, some at a time, never an empty list."""
    while True:
        query = matching(stored_events().where(later(after)), which, chain)
        query = query.order_by(entries.c.sequence).limit(_AT_ONCE)
        rows = read_tables(database, lambda c: list(c.execute(query)))  # noqa: B023
        more = len(rows) == _AT_ONCE
        rows = _trimmed(rows) if more else rows
        if rows:
            yield rows
            after = rows[-1].sequence
        if not more:
            return


def later(after: Any) -> Any:
    """Return the condition for entries after a sequence; None: all, those too that are below 1."""
    return entries.c.sequence >= _LOWEST if after is None else entries.c.sequence > after


def of_tenancy(query: Any, which: EventFilter) -> Any:
    """Narrow a query of ``chains`` to one organization's, unless all are asked for."""
    if which.all_organizations:
        return query
    return query.where(chains.c.tag == chain_tag(which.organization_id))


def count_events(database: Database, which: EventFilter) -> int:
    """Return how many events match."""

    def counted(connection: Connection) -> int:
        chain = chain_of(connection, which)
        query = matching(select(func.count()).select_from(entries), which, chain)
        return int(connection.execute(query).scalar_one())

    return read_tables(database, counted)


def stored_events() -> Select[Any]:
    """Return the query of all rows that ``event_of`` takes: entry, and chain's tag.

    It is None where the chain's row is gone: such an entry too is counted and shown.
    """
    of_chain = chains.c.id == entries.c.chain
    return select(entries, chains.c.tag).join(chains, of_chain, isouter=True)


def page_query(chain: int | None, after: Position | None) -> Select[Any]:
    """Return the query of a page; ``chain`` is that of the organization asked for."""
    query = stored_events()
    # One organization's page is read by the index that begins with the chain.
    key = [entries.c.occurred_at, entries.c.chain, entries.c.sequence]
    if chain is not None:
        key.pop(1)
        after = None if after is None else (after[0], after[2])  # type: ignore[assignment]
    if after is not None:
        query = query.where(tuple_(*key) < tuple_(*after))
    return query.order_by(*(column.desc() for column in key))


def _rows(
    connection: Connection, which: EventFilter, after: Position | None, limit: int
) -> list[Any]:
    chain = chain_of(connection, which)
    query = matching(page_query(chain, after), which, chain)
    return list(connection.execute(query.limit(limit)))


def chain_of(connection: Connection, which: EventFilter) -> int | None:
    """Return the chain of the organization asked for; None for all, 0 where it has none."""
    if which.all_organizations:
        return None
    found = connection.execute(of_tenancy(select(chains.c.id), which)).scalar()
    return found if type(found) is int else 0


def matching(query: Select[Any], which: EventFilter, chain: int | None) -> Select[Any]:
    """Narrow a query of entries to what a filter asks for; ``chain`` as in ``page_query``."""
    actor = without_nul(which.actor_id)
    exact = {"chain": chain, "actor_id": actor, "action": which.action, "outcome": which.outcome}
    for name, value in exact.items():
        if value is not None:
            query = query.where(entries.c[name] == value)
    if actor is not None and "\ufffd" in actor:  # it may stand for a NUL
        begins = actor_begins(which.actor_id)
        query = query.where(func.substr(entries.c.payload, 1, len(begins)) == begins)
    if which.since is not None:
        query = query.where(entries.c.occurred_at >= time_text(which.since))
    if which.until is not None:
        query = query.where(entries.c.occurred_at < time_text(which.until))
    return query


def _trimmed(rows: list[Any]) -> list[Any]:
    """Take away the last rows, for the next page, until one has a place to go on from."""
    while rows and not is_place(rows[-1]):
        rows.pop()
    if not rows:
        raise AuditTablesError(
            "hold too many entries in a row with an invalid time or number: call verify, which "
            "names them"
        )
    return rows


def is_place(row: Any) -> bool:
    """Tell whether a row has a time, chain and sequence of the kinds that are written."""
    moment = row.occurred_at
    return is_text(moment) and "\0" not in moment and type(row.chain) is type(row.sequence) is int


def _end(rows: list[Any]) -> Position:
    last = rows[-1]
    return last.occurred_at, last.chain, last.sequence
