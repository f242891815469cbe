"""What tests of the store share: a database of each kind for each test, without events."""

from __future__ import annotations

import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import own_database
from sqlalchemy import create_engine, make_url, text

from sigra.store import SqlAuditSink

# So that test files say ``from events import event``.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def postgres(postgres_server: str) -> Iterator[str]:
    """Make a database for this run, and drop it."""
    with own_database(postgres_server) as url:
        yield make_url(url).set(drivername="postgresql+psycopg").render_as_string(False)


NO_EVENTS = pytest.StashKey[Path]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Make a SQLite file with the tables alone, to be copied: for all forks of this process.

    A migration takes longer than a copy, and the first one ten times as long as the next.
    """
    names = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if "no_events" in names and not session.config.option.collectonly:
        factory: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]
        path: Path = factory.mktemp("tables") / "audit.db"
        sink = SqlAuditSink(f"sqlite:///{path}")
        sink.prepare()
        sink.close()
        session.config.stash[NO_EVENTS] = path


@pytest.fixture(scope="session")
def no_events(pytestconfig: pytest.Config) -> Path:
    """Return the SQLite file with the tables alone."""
    return pytestconfig.stash[NO_EVENTS]


@pytest.fixture
def new_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, no_events: Path
) -> Callable[[str], str]:
    """Return a function that makes a database of a kind, without events, and gives its URL."""

    def make(kind: str) -> str:
        if kind == "sqlite":
            folder: Path = tmp_path_factory.mktemp("store")
            shutil.copyfile(no_events, folder / "audit.db")
            return f"sqlite:///{folder / 'audit.db'}"
        schema = f"s{uuid.uuid4().hex[:12]}"
        # The server outlives every test, so that no commit need wait for its disk.
        options = {"options": f"-csearch_path={schema} -csynchronous_commit=off"}
        url = make_url(request.getfixturevalue("postgres")).update_query_dict(options)
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text(f"CREATE SCHEMA {schema}"))
        engine.dispose()
        return url.render_as_string(hide_password=False)

    return make


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.servers)])
def url(request: pytest.FixtureRequest, new_url: Callable[[str], str]) -> str:
    """Return the URL of a database without events, of each kind in turn."""
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
    """Return an immediate sink on a database without events."""
    return open_sink(url)
