"""Connections of our own to PostgreSQL, for producers that do not await."""

from __future__ import annotations

import atexit
from importlib import import_module
from typing import Any


def own_pool(conninfo: Any, **options: Any) -> Any:
    """Open a psycopg ``ConnectionPool`` that connects when it has to, and closes at exit.

    Its threads belong to this process alone: make it when the first job is sent, since a
    server may fork until then. A connection that the server closed is replaced unseen.
    """
    pool_class = import_module("psycopg_pool").ConnectionPool
    check = pool_class.check_connection
    pool = pool_class(conninfo, min_size=0, check=check, open=True, **options)
    atexit.register(pool.close)  # else the interpreter waits for each of its threads
    return pool
