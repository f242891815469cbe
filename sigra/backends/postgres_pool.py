"""Connections of our own to PostgreSQL, for producers that do not await."""

from __future__ import annotations

import atexit
import os
from collections.abc import Generator
from contextlib import suppress
from functools import cache
from importlib import import_module
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

_process_of = WeakKeyDictionary[Any, int]()
"""The process of each pool. A pool that nobody refers to any more ends its threads itself."""


class OwnPool:
    """A psycopg ``ConnectionPool`` that connects when it has to, and closes at exit.

    Each process has its own: two that shared a connection after a fork would read each other's
    answers. A connection that the server closed is replaced silently; one on which the server
    gave no answer for ``timeout`` seconds is given up.
    """

    def __init__(self, conninfo: Any, *, timeout: float, **options: Any) -> None:
        self._conninfo, self._options = conninfo, {**options, "timeout": timeout}
        self._pools: dict[int, Any] = {}  # the parent's too: to close it would end its connections

    def connection(self) -> Any:
        """Return a context manager that lends a connection of this process."""
        pool = self._pools.get(os.getpid())
        return (pool or self._pool_here()).connection()

    def _pool_here(self) -> Any:
        pool_class, pid = _pool_class(), os.getpid()
        made = pool_class(
            self._conninfo,
            connection_class=_giving_up_after(self._options["timeout"]),
            min_size=0,
            check=pool_class.check_connection,
            open=True,
            **self._options,
        )
        pool = self._pools.setdefault(pid, made)
        if pool is made:
            _process_of[pool] = pid
        else:
            made.close()  # another thread was faster
        return pool


@cache
def _pool_class() -> Any:
    """Return psycopg's pool, also fit to be let go by one of its own threads, which may be last."""
    kind = import_module("psycopg_pool").ConnectionPool

    def end(self: Any) -> None:
        with suppress(RuntimeError):  # it cannot wait for itself; all were told to end before
            kind.__del__(self)

    def look(connection: Any) -> None:
        try:
            kind.check_connection(connection)
        except Exception:
            # The others have broken too, as a rule, and psycopg would wait for longer and longer
            # before it looks at each of them.
            if drain := getattr(connection._pool, "drain", None):  # it came with 3.3
                drain()
            raise

    return type("ConnectionPool", (kind,), {"__del__": end, "check_connection": staticmethod(look)})


@atexit.register
def _close_all() -> None:
    """Close this process's pools: else the interpreter waits for each of their threads."""
    for made in _process_of.keyrefs():  # a copy: another thread may make a pool meanwhile
        if (pool := made()) is not None and _process_of.get(pool) == os.getpid():
            pool.close()


def _giving_up_after(seconds: float) -> Any:
    """Return psycopg's connection class, with waits for the server that end after so long."""
    psycopg = import_module("psycopg")

    def wait(self: Any, work: Any, *args: Any, **options: Any) -> Any:
        bounded = _until(monotonic() + seconds, work)
        try:
            return psycopg.Connection.wait(self, bounded, *args, **options)
        except _SilentError:
            self.pgconn.finish()  # an answer that came after all would be taken for the next one
            raise psycopg.OperationalError(
                f"the server gave no answer within {seconds:g} s"
            ) from None

    return type("Connection", (psycopg.Connection,), {"wait": wait})


def _until(deadline: float, work: Any) -> Generator[Any, Any, Any]:
    """Do psycopg's work, which yields for what it waits and is told what came: 0 for nothing."""
    came = None
    try:
        while True:
            came = yield work.send(came)
            if not came and monotonic() > deadline:
                raise _SilentError
    except StopIteration as end:
        return end.value


class _SilentError(Exception):
    """The server sent nothing for too long."""
