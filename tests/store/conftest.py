"""What tests of the store share: a database of each kind, empty for each test."""

from __future__ import annotations

import os
import socket
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, create_engine, make_url, text

from sigra.store import SqlAuditSink

# So that test files say ``from events import event``.
sys.path.insert(0, str(Path(__file__).parent))

STANDARD = "postgresql://postgres@127.0.0.1:5432/postgres"


def find_postgres() -> URL:
    """Return the server's URL: from SIGRA_POSTGRES, else the standard one if it answers.

    Without either the test is skipped, or fails where CI=true: CI has the server.
    """
    url = make_url(os.environ.get("SIGRA_POSTGRES") or STANDARD)
    try:
        socket.create_connection((url.host or "127.0.0.1", url.port or 5432), 2).close()
    except OSError as error:
        reason = f"no PostgreSQL at {url} ({error}); set SIGRA_POSTGRES to one"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return url.set(drivername="postgresql+psycopg")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Make a database for this run, and drop it."""
    server = create_engine(find_postgres(), isolation_level="AUTOCOMMIT")
    name = f"sigra_store_{uuid.uuid4().hex[:12]}"
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield server.url.set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


@pytest.fixture
def new_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], str]:
    """Return a function that makes an empty database of a kind and gives its URL."""

    def make(kind: str) -> str:
        if kind == "sqlite":
            folder: Path = tmp_path_factory.mktemp("store")
            return f"sqlite:///{folder / 'audit.db'}"
        url = make_url(request.getfixturevalue("postgres"))
        schema = f"s{uuid.uuid4().hex[:12]}"
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text(f"CREATE SCHEMA {schema}"))
        engine.dispose()
        placed = url.update_query_dict({"options": f"-csearch_path={schema}"})
        return placed.render_as_string(hide_password=False)

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, new_url: Callable[[str], str]) -> str:
    """Return the URL of an empty database, of each kind in turn."""
    return new_url(request.param)


@pytest.fixture
def open_sink() -> Iterator[Callable[..., SqlAuditSink]]:
    """Return what opens sinks, which are closed after the test."""
    opened: list[SqlAuditSink] = []

    def open_one(target: Any, **options: Any) -> SqlAuditSink:
        opened.append(SqlAuditSink(target, **options))
        return opened[-1]

    yield open_one
    for sink in opened:
        sink.close()


@pytest.fixture
def sink(url: str, open_sink: Callable[..., SqlAuditSink]) -> SqlAuditSink:
    """Return an immediate sink on an empty database."""
    return open_sink(url)
