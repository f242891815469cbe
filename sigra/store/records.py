"""Events in a mapped class of the application's own.

SQLAlchemy's ORM takes as long to load as the rest of the store, so it is loaded when needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Uuid, false, func, inspect, select, tuple_

from sigra.store.cursor import decode_cursor, encode_cursor
from sigra.store.database import Database
from sigra.store.errors import InvalidQueryError
from sigra.store.reading import MOST, EventFilter, Page

_STATE = "_sa_instance_state"
"""Where SQLAlchemy keeps what it knows of a record."""

Position = tuple[datetime, Any]
"""Where a page ends: the time and the id of its last event."""


def is_mapped(kind: Any) -> bool:
    """Tell whether a type is a mapped class."""
    return bool(getattr(inspect(kind, raiseerr=False), "is_mapper", False))


def add_records(connection: Connection, records: Sequence[Any]) -> None:
    """Add records; leave out those whose ``event_id``, if their class has one, is there already.

    If it is not unique in the database, two processes may both add one at once. The connection's
    transaction, or its innermost savepoint, stays open for whoever began it to end.
    """
    from sqlalchemy.orm import Session

    # By default a session inside a savepoint begins its own, and rolls that back in the end.
    with Session(connection, join_transaction_mode="rollback_only") as session:
        for record in records:
            kind, fresh = type(record), _copy(record)
            # None where the class did not take it: the database may make one, or nobody does.
            if hasattr(kind, "event_id") and fresh.event_id is not None:
                if _id_type(kind) is UUID:
                    fresh.event_id = UUID(str(fresh.event_id))
                same = select(func.count()).where(kind.event_id == fresh.event_id)
                if session.scalar(same):
                    continue
            session.add(fresh)
        session.flush()


def _copy(record: Any) -> Any:
    """Return a new record of the same values, which a session may own and give keys and defaults.

    The record itself stays as it is: other stores get it too, and adding it may be tried again.
    """
    state: Any = inspect(record)
    if not vars(record).keys().isdisjoint(state.mapper.relationships.keys()):
        return deepcopy(record)  # related records refer to it, and are copied too
    fresh: Any = state.manager.new_instance()
    values = {name: value for name, value in vars(record).items() if name != _STATE}
    vars(fresh).update(values)
    return fresh


def record_page(
    database: Database, kind: Any, which: EventFilter, cursor: str | None, limit: int
) -> Page:
    """Return one page of a class's records, newest first, detached."""
    after: Any = None if cursor is None else decode_cursor(cursor, datetime, _id_type(kind))
    found = database.read(lambda connection: _rows(connection, kind, which, after, limit + 1))
    records = tuple(found[:limit])
    if len(found) <= limit:
        return Page(records, None)
    moment, event_id = _end(records)
    return Page(records, encode_cursor((moment.isoformat(), str(event_id))))


def all_records(database: Database, kind: Any, which: EventFilter) -> Iterator[Any]:
    """Yield a class's records, newest first, a page in memory at a time."""
    after: Position | None = None
    while True:
        start = after
        records = database.read(lambda c: _rows(c, kind, which, start, MOST))  # noqa: B023
        yield from records
        if len(records) < MOST:
            return
        after = _end(records)


def count_records(database: Database, kind: Any, which: EventFilter) -> int:
    """Return how many records of a class match."""
    query = select(func.count()).select_from(kind)
    query = _matching(query, kind, which, database.dialect)
    return database.read(lambda connection: int(connection.execute(query).scalar_one()))


def _rows(
    connection: Connection, kind: Any, which: EventFilter, after: Position | None, limit: int
) -> list[Any]:
    from sqlalchemy.orm import Session

    query = _matching(select(kind), kind, which, connection.dialect.name)
    key = (_field(kind, "occurred_at"), _field(kind, "event_id"))
    if after is not None:
        query = query.where(tuple_(*key) < tuple_(*after, types=[column.type for column in key]))
    query = query.order_by(*(column.desc() for column in key)).limit(limit)
    with Session(connection) as session:
        return list(session.scalars(query))


def _end(records: Sequence[Any]) -> Position:
    return records[-1].occurred_at, records[-1].event_id


def _id_type(kind: Any) -> type:
    """Return the type of ``event_id`` in a class's records: ``UUID`` or ``str``."""
    column = getattr(_field(kind, "event_id"), "type", None)  # a Python property has none
    return UUID if isinstance(column, Uuid) and column.as_uuid else str


def _matching(query: Any, kind: Any, which: EventFilter, dialect: str) -> Any:
    if not which.all_organizations:
        query = query.where(_is(kind, "organization_id", which.organization_id, dialect))
    for name in ("actor_id", "action", "outcome"):
        value = getattr(which, name)
        if value is not None:
            query = query.where(_is(kind, name, value, dialect))
    if which.since is not None:
        query = query.where(_field(kind, "occurred_at") >= which.since)
    if which.until is not None:
        query = query.where(_field(kind, "occurred_at") < which.until)
    return query


def _is(kind: Any, name: str, value: str | None, dialect: str) -> Any:
    # PostgreSQL's text has no NUL, and its drivers do not let one look for it.
    field = _field(kind, name)
    return false() if value and "\0" in value and dialect == "postgresql" else field == value


def _field(kind: Any, name: str) -> Any:
    column = getattr(kind, name, None)
    if column is None:
        raise InvalidQueryError(name, f"{kind.__qualname__} has no {name}")
    return column
