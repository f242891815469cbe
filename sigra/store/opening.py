"""From a URL or an engine to the database behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Engine, create_engine, make_url

from sigra.store.database import Database, check_dialect
from sigra.store.synchronous import ServerDatabase, SqliteDatabase

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


def open_database(target: str | Engine | AsyncEngine) -> Database:
    """Return the database behind a URL or an engine. Nothing is connected yet."""
    if isinstance(target, str) and not make_url(target).get_dialect().is_async:
        return _synchronous(create_engine(target), owned=True)
    if isinstance(target, Engine):
        return _synchronous(target, owned=False)
    from sigra.store.asynchronous import AsyncDatabase  # it needs greenlet, which not all have

    return AsyncDatabase(target)


def _synchronous(engine: Engine, *, owned: bool) -> Database:
    check_dialect(engine)
    return SqliteDatabase(engine) if engine.name == "sqlite" else ServerDatabase(engine, owned)
