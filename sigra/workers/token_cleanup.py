"""Delete the host's tokens that are no longer good."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from sigra.backends.external import native
from sigra.decorators import worker
from sigra.workers.settings import LIFETIMES, TokenTable, token_table

BATCH = 1_000
"""How many tokens one transaction deletes."""


@worker(name="sigra.workers.TokenCleanup")
def TokenCleanup() -> dict[str, int]:  # noqa: N802 - it is used as an object
    """Delete the tokens that have outlived their lifetime; return how many, by context.

    A token that is still alive, or whose context has no lifetime, is never deleted.
    Raises ``NotConfiguredError`` before ``set_up(tokens=...)``, and what the database raises;
    the batches before that stay deleted, and the next run goes on from there.
    """
    sql, place = native("sqlalchemy", "sql"), token_table()
    engine, table = place.engine, _table(sql, place)
    context, inserted_at = table.c[place.context], table.c[place.inserted_at]
    keys = list(table.primary_key)
    key = keys[0] if len(keys) == 1 else sql.tuple_(*keys)
    now = datetime.now(timezone.utc)
    deleted = {}
    eldest = now - datetime.min.replace(tzinfo=timezone.utc)
    for name, lifetime in {**LIFETIMES, **place.lifetimes}.items():
        deleted[name] = 0
        if isinstance(context.type, sql.Enum) and name not in context.type.enums:
            continue  # no token can have it, and PostgreSQL refuses to compare with it
        # No token is older than the calendar, so that timedelta.max means for ever.
        dead = context == name, *_before(sql, engine.name, inserted_at, now - min(lifetime, eldest))
        while True:
            with engine.begin() as conn:
                found = conn.execute(sql.select(*keys).where(*dead).limit(BATCH)).all()
                chosen = [row[0] for row in found] if len(keys) == 1 else [tuple(r) for r in found]
                gone = conn.execute(sql.delete(table).where(key.in_(chosen), *dead)).rowcount
            deleted[name] += gone
            if len(found) < BATCH or not gone:  # a trigger or a policy may keep some
                break
    return deleted


def _before(sql: Any, dialect: str, column: Any, limit: datetime) -> list[Any]:
    """Return the conditions for the moment in a column to be before another one."""
    naive = limit.replace(tzinfo=None)
    if dialect == "sqlite":
        # SQLite compares moments as texts, whatever time zone they name, and datetime() would take
        # a number for a day.
        moment = sql.func.datetime(column)
        return [moment < naive.isoformat(" ", "seconds"), sql.func.typeof(column) == "text"]
    return [column < (limit if column.type.timezone else naive)]


def _table(sql: Any, place: TokenTable) -> Any:
    """Read the host's table; raise if it does not tell which of its rows are to be deleted."""
    meta, engine = sql.MetaData(), place.engine
    try:
        table = sql.Table(place.name, meta, schema=place.schema, autoload_with=engine)
    except sql.exc.NoSuchTableError as error:
        raise LookupError(
            f"there is no table {error}: name its own by TokenTable(name=..., schema=...)"
        ) from None
    _column(table, "context", place.context)
    inserted_at = _column(table, "inserted_at", place.inserted_at)
    if not table.primary_key:
        raise TypeError(f"table {table.fullname} has no primary key to delete its rows by")
    if not isinstance(inserted_at.type, sql.DateTime):
        # A comparison with another type might delete a token that is still alive.
        raise TypeError(
            f"column {inserted_at} must be a DATETIME or TIMESTAMP, not {inserted_at.type}"
        )
    return table


def _column(table: Any, setting: str, name: str) -> Any:
    if name not in table.c:
        raise LookupError(
            f"table {table.fullname} has no column {name!r}: name its own by "
            f"TokenTable({setting}=...)"
        )
    return table.c[name]
