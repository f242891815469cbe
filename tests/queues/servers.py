"""Find the server that a queue needs, and make a place of this run's own there."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import NoReturn
from urllib.parse import urlsplit, urlunsplit

import pytest


def need(package: str, extra: str | None = None) -> ModuleType:
    """Import a queue's package, or skip the module where it is not installed.

    ``make test-queues`` names in SIGRA_QUEUES the extras that it installed, and one of
    those is never skipped.
    """
    extra = extra or package
    try:
        return __import__(package)
    except ModuleNotFoundError:
        if extra in os.environ["SIGRA_QUEUES"].split(","):
            raise
        pytest.skip(f"the extra {extra} is not installed here", allow_module_level=True)


def find_server(variable: str, standard: str) -> str:
    """Return the server's URL: from the environment, else the standard one if it answers."""
    url = os.environ.get(variable) or standard
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 0), 2).close()
    except OSError as error:
        give_up(f"no server at {url} ({error}); set {variable} to one")
    return url


def give_up(reason: str) -> NoReturn:
    """Skip the test; fail where CI=true, since CI has every server."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def own_database(server: str) -> Iterator[str]:
    """Make a PostgreSQL database, and drop it."""
    import psycopg

    name = f"sigra_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(f'CREATE DATABASE "{name}"')
        try:
            yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
        finally:
            conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def own_redis(server: str) -> Iterator[str]:
    """Claim a Redis database that is empty, and empty it afterwards."""
    import redis

    claim = "sigra-tests"
    for number in range(15, 0, -1):
        url = urlunsplit(urlsplit(server)._replace(path=f"/{number}"))
        with redis.Redis.from_url(url) as client:
            if client.set(claim, os.getpid(), nx=True, ex=7200) is None:
                continue
            if client.dbsize() > 1:
                client.delete(claim)
                continue
            try:
                yield url
            finally:
                client.flushdb()
            return
    raise RuntimeError(f"no empty database at {server}: all of 1 to 15 hold keys")
