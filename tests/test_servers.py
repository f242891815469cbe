"""Where no server is at hand the tests bring their own, and leave none behind."""

from __future__ import annotations

import socket
import uuid
from urllib.parse import urlsplit, urlunsplit

import pytest
from servers import bundled_postgres, own_database, server

NOBODY = "postgresql://postgres@127.0.0.1:1/postgres"


def answers(url: str) -> bool:
    try:
        socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), 2).close()
    except OSError:
        return False
    return True


@pytest.mark.servers
def test_a_bundled_postgres_serves_and_is_gone_afterwards() -> None:
    """It stands in for a standard port where nobody answers."""
    import psycopg

    with server("SIGRA_NO_SUCH_VARIABLE", NOBODY, bundled_postgres) as url:
        with own_database(url) as own, psycopg.connect(own) as conn:
            assert conn.execute("SELECT current_user").fetchone() == ("postgres",)
    assert not answers(url)


@pytest.mark.servers
def test_the_database_of_a_run_that_was_killed_is_dropped(postgres_server: str) -> None:
    """By the next that makes one."""
    import psycopg

    left = f"sigra_tests_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_server, autocommit=True) as conn:
        conn.execute(f'CREATE DATABASE "{left}"')
        try:
            with own_database(postgres_server):
                found = conn.execute("SELECT datname FROM pg_database").fetchall()
        finally:
            conn.execute(f'DROP DATABASE IF EXISTS "{left}"')
    assert (left,) not in found


@pytest.mark.servers
def test_a_database_to_which_somebody_is_connected_is_kept(postgres_server: str) -> None:
    """Its run may be alive, and only have lost the connection that has its name."""
    import psycopg

    name = f"sigra_tests_{uuid.uuid4().hex[:12]}"
    url = urlunsplit(urlsplit(postgres_server)._replace(path=f"/{name}"))
    with psycopg.connect(postgres_server, autocommit=True, application_name=name) as claim:
        claim.execute(f'CREATE DATABASE "{name}"')
        try:
            with psycopg.connect(url) as conn:
                claim.execute("SET application_name = 'another'")
                with own_database(postgres_server):
                    assert conn.execute("SELECT 1").fetchone() == (1,)
        finally:
            claim.execute(f'DROP DATABASE IF EXISTS "{name}"')


@pytest.mark.servers
def test_the_database_of_a_run_beside_is_kept(postgres_server: str) -> None:
    """Also while nobody is connected to it."""
    import psycopg

    with own_database(postgres_server) as first, own_database(postgres_server):
        with psycopg.connect(first) as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)


def test_without_a_bundle_the_test_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason names the variable that would help."""
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="set SIGRA_NO_SUCH_VARIABLE to one"):
        with server("SIGRA_NO_SUCH_VARIABLE", NOBODY):
            pass


def test_on_the_ci_machine_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """CI has every server: nothing is skipped there."""
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no server answers"):
        with server("SIGRA_NO_SUCH_VARIABLE", NOBODY):
            pass


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A named server is used, whether it answers or not: its failure is to be seen."""
    monkeypatch.setenv("SIGRA_SOME_SERVER", NOBODY)
    with server("SIGRA_SOME_SERVER", "postgresql://127.0.0.1:2") as url:
        assert url == NOBODY
