"""Finding a person's events by what their payloads say."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

from sqlalchemy import func, or_, select

from sigra.scope import Id, id_text
from sigra.store.access import read_tables
from sigra.store.beginning import placed
from sigra.store.database import Database
from sigra.store.errors import InvalidQueryError
from sigra.store.query import later
from sigra.store.reading import id_as_logged
from sigra.store.stored import is_text
from sigra.store.tables import chains, entries

_AT_ONCE = 1_000
_ACTORS = ("actor_id", "effective_user_id")


def names_of(person_id: Id) -> set[str]:
    """Return the ids by which a person is named in events."""
    person = id_as_logged("person_id", person_id)
    if person is None:
        raise InvalidQueryError(
            "person_id", "None names nobody: pass the id of the person to erase"
        )
    # log() cuts a long id; whoever called the sink's write() may have left it as it was.
    given = str(id_text(person_id))
    return {person, given} if is_text(given) else {person}


def events_of(
    database: Database, tag: str, names: Collection[str], target_type: str | None
) -> Iterator[list[Any]]:
    """Yield a person's events of one chain, some at a time, with nothing locked.

    Where ``target_type`` is given, a target is the person only if it has that type.
    """
    after: Any = None
    while True:
        query = _mentions(database.dialect, tag, after, names)
        rows = read_tables(database, lambda connection: connection.execute(query).all())  # noqa: B023
        theirs = [placed(tag, row) for row in rows if _is_of(row.payload, names, target_type)]
        if theirs:
            yield theirs
        if len(rows) < _AT_ONCE:
            return
        after = rows[-1].sequence


def mentioned(dialect: str, names: Collection[str]) -> Any:
    """Return the condition for payloads that may name a person, as not each of them does."""
    # Not LIKE: SQLite takes patterns of 50,000 bytes at most, and an id may be longer.
    place = func.instr if dialect == "sqlite" else func.strpos
    said = [json.dumps(name, ensure_ascii=False) for name in names]
    keys = (*_ACTORS, "target_id")
    return or_(*(place(entries.c.payload, f'"{key}":{name}') > 0 for key in keys for name in said))


def _mentions(dialect: str, tag: str, after: Any, names: Collection[str]) -> Any:
    return (
        select(entries)
        .join(chains, chains.c.id == entries.c.chain)
        .where(chains.c.tag == tag, later(after), mentioned(dialect, names))
        .order_by(entries.c.sequence)
        .limit(_AT_ONCE)
    )


def _is_of(payload: str, names: Collection[str], target_type: str | None) -> bool:
    try:
        fields = json.loads(payload)
        if any(fields.get(key) in names for key in _ACTORS):
            return True
        alike = target_type is None or fields.get("target_type") == target_type
        return alike and fields.get("target_id") in names
    except (ValueError, TypeError, AttributeError, RecursionError):
        return True  # it is damaged, and the person is mentioned in it
