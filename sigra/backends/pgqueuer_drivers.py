"""Drivers of PgQueuer's queries for connections that it has no driver for."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from sigra.backends.external import native
from sigra.backends.pool import OwnPool
from sigra.backends.producing import is_async

_settings = native("pgqueuer.domain.settings", "pgqueuer")
_psycopg = native("psycopg", "pgqueuer")
_pgqueuer = native("pgqueuer", "pgqueuer")
_queries = native("pgqueuer.queries", "pgqueuer")


class Driver:
    """Write by the caller's connection; PgQueuer's own driver refuses one in a transaction."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn

    def fetch(self, query: str, *args: Any) -> Any:
        """Return the rows as dicts."""
        cursor = _psycopg.RawCursor(self._conn, row_factory=_psycopg.rows.dict_row)
        return cursor.execute(query, args).fetchall()


class AsyncDriver(Driver):
    """Do the same by an async one."""

    async def fetch(self, query: str, *args: Any) -> Any:
        """Return the rows as dicts."""
        cursor = _psycopg.AsyncRawCursor(self._conn, row_factory=_psycopg.rows.dict_row)
        return await (await cursor.execute(query, args)).fetchall()


class PooledDriver:
    """Write by connections of our own, which are opened when they are needed."""

    @cached_property
    def _pool(self) -> Any:
        settings = _settings.ConnectionSettings()
        return OwnPool(
            settings.dsn or "",
            max_size=settings.pool_max_size,
            timeout=settings.connect_timeout or 10.0,
        )

    def fetch(self, query: str, *args: Any) -> Any:
        """Return the rows as dicts."""
        with self._pool.connection() as conn:
            return Driver(conn).fetch(query, *args)


def queries_on(conn: Any, like: Any) -> Any:
    """Return queries that write by the caller's connection, into the tables of others."""
    if not is_async(conn):
        return _queries.SyncQueries(Driver(conn), qbq=like.qbq)
    driver = _pgqueuer.AsyncpgDriver if hasattr(conn, "fetch") else AsyncDriver
    return _queries.Queries(driver(conn), qbq=like.qbq)
