"""From a URL or an engine to the database behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from sigra.store.database import Database, check_dialect, check_kind
from sigra.store.private import make_database
from sigra.store.synchronous import ServerDatabase, SqliteDatabase

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


_WANTED = (
    "an audit store is given as a URL, as sqlite:///audit.db or postgresql+psycopg://host/database,"
    " or as a SQLAlchemy engine"
)


def open_database(target: str | URL | Engine | AsyncEngine) -> Database:
    """Return the database behind a URL or an engine. It connects to nothing yet."""
    if isinstance(target, Engine):
        return _synchronous(target, owned=False)
    if isinstance(target, (str, URL)):
        url = _checked(target)
        if not url.get_dialect().is_async:
            return _synchronous(_make_private(create_engine(url)), owned=True)
        from sqlalchemy.ext.asyncio import create_async_engine

        target = create_async_engine(url)
        _make_private(target.sync_engine)
    elif not hasattr(target, "sync_engine"):
        raise TypeError(f"{_WANTED}, not as a {type(target).__qualname__}")
    from sigra.store.asynchronous import AsyncDatabase  # needs greenlet, which may not be installed

    return AsyncDatabase(target)


def _make_private(engine: Engine) -> Engine:
    """Have an engine of ours make SQLite's file for its owner alone; return the engine."""
    if engine.name == "sqlite":
        event.listen(engine, "do_connect", make_database)
    return engine


def _checked(target: str | URL) -> URL:
    """Return the URL; raise ``ValueError`` where it names no database of ours, or no driver."""
    # No error here shows what was given, which may hold a password.
    try:
        url = make_url(target)
    except (ArgumentError, ValueError):
        raise ValueError(f"{_WANTED}; this is neither") from None
    if _is_cut(target, url):
        raise ValueError("in the URL of an audit store, %40 stands for an @ in a name or password")
    check_kind(url.get_backend_name())
    try:
        url.get_dialect()
    except NoSuchModuleError:
        raise ValueError(f"{_WANTED}; there is no driver {url.get_driver_name()}") from None
    return url


def _is_cut(target: str | URL, url: URL) -> bool:
    """Tell whether an @ that was not escaped ended a password, whose end is in the other parts."""
    if not isinstance(target, str) or url.get_backend_name() == "sqlite":  # a path may have one
        return "@" in (url.host or "")
    bare = make_url(target.replace("%40", ""))
    return "@" in f"{bare.host}{bare.database}"


def _synchronous(engine: Engine, *, owned: bool) -> Database:
    check_dialect(engine)
    return SqliteDatabase(engine) if engine.name == "sqlite" else ServerDatabase(engine, owned)
