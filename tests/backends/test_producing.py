"""The producer's side of queues: what they are told."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from sigra import AuditScope, EnqueueError, InvalidOptionError, tenant_worker
from sigra.backends.native_error import has_no_answer
from sigra.backends.producing import due_at, require_conn, sending, unique_key
from sigra.job import Job
from sigra.options import parse_options


@tenant_worker(name="tests.nothing")
def nothing(scope: AuditScope) -> None:
    pass


LAST = datetime.max.replace(tzinfo=timezone(timedelta(hours=-14)))
NEVER = datetime(9999, 1, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("option", "value"), [("delay", 1e12), ("delay", 1e308), ("run_at", LAST), ("run_at", NEVER)]
)
def test_a_job_that_no_date_can_be_given_is_refused_by_its_option(option: str, value: Any) -> None:
    """Whoever waits for a year beyond 9998 is told so as for any other bad option."""
    with pytest.raises(InvalidOptionError) as raised:
        due_at(parse_options({option: value}))
    assert option == raised.value.option


@pytest.mark.parametrize(
    ("module", "cure"),
    [
        ("sqlalchemy.orm.session", "session.connection().connection.driver_connection"),
        ("django.utils.connection", "django.db.connection.connection"),
        ("psycopg2.extensions", "postgresql+psycopg://"),
        ("asyncpg.connection", "postgresql+psycopg://"),
    ],
)
def test_a_conn_that_holds_the_drivers_is_refused_with_the_way_to_that(
    module: str, cure: str
) -> None:
    """Whoever passes a session, or Django's connection, is told what to pass."""
    conn = type("Conn", (), {"__module__": module})()
    job = Job(nothing.definition, {}, parse_options({"conn": conn}), "a queue")
    with pytest.raises(InvalidOptionError) as raised:
        require_conn(job, "psycopg", "pgconn")
    assert cure in str(raised.value)


def test_a_conn_that_holds_none_is_refused_without_such_a_way() -> None:
    """Whoever passes another driver's is told which one the queue takes."""
    job = Job(nothing.definition, {}, parse_options({"conn": object()}), "a queue")
    with pytest.raises(InvalidOptionError, match=r"connection of psycopg, not builtins.object$"):
        require_conn(job, "psycopg", "pgconn")


def test_the_last_day_that_a_job_can_wait_for_is_one_everywhere() -> None:
    """Its last moment is a date in each time zone."""
    last = NEVER - timedelta(microseconds=100)
    due = due_at(parse_options({"run_at": last}))
    assert due is not None
    assert 9999 == due.astimezone(timezone(timedelta(hours=14))).year


@pytest.mark.parametrize(
    "given", [{}, {"delay": 0}, {"run_at": datetime(2000, 1, 1, tzinfo=timezone.utc)}]
)
def test_a_job_that_is_due_waits_for_no_date(given: dict[str, Any]) -> None:
    """Whether it was said or not, and however long ago."""
    assert due_at(parse_options(given)) is None


@pytest.mark.parametrize(
    ("sent", "cause", "expected"),
    [
        (0, None, r": ConnectionError: nobody home\. Once that is fixed, enqueue it"),
        (0, OSError("refused"), r": OSError: refused\. Once that is fixed, enqueue it"),
        (0, asyncio.CancelledError(), r": ConnectionError: nobody home\. Once that is fixed"),
        (1, None, "were sent. Once that is fixed, enqueue the others"),
    ],
)
def test_what_a_queue_raises_is_told_with_what_to_do(sent: int, cause: Any, expected: str) -> None:
    """It says what came of the batch, and what is to be enqueued again."""
    jobs = [nothing.new({"organization_id": None, "actor_id": None}) for _ in range(2)]
    for job in jobs[:sent]:
        job.accept(native_id="1")
    with pytest.raises(EnqueueError, match=expected), sending("deaf", jobs):
        raise ConnectionError("nobody home.") from cause


def lost(error: Exception, *before: Exception) -> Exception:
    """Return an error as it comes where the ones before it were being handled."""
    if before:
        error.__context__ = lost(*before)
    return error


def due_to(error: Exception, cause: Exception) -> Exception:
    """Return an error as it comes where its cause was handled before."""
    error.__cause__ = cause
    return error


class Redis(ConnectionError):
    """An error of a client that has one kind for all."""


class Mute(Exception):
    """An error that has no text."""

    def __str__(self) -> str:
        raise TypeError("mute")


@pytest.mark.parametrize(
    ("error", "unsure"),
    [
        (TimeoutError("no answer within 10 s"), True),
        (ConnectionResetError(104, "reset by peer"), True),
        (asyncio.IncompleteReadError(b"", 1), True),
        (OSError("Server unexpectedly closed connection"), True),
        (Redis("Connection closed by server."), True),
        (Redis("Error 32 while writing to socket. Broken pipe."), True),
        (lost(RuntimeError("it was not sent"), TimeoutError()), True),
        (due_to(RuntimeError("it was not sent"), TimeoutError()), True),
        (ConnectionRefusedError(111, "refused"), False),
        (lost(Redis("Error 111 connecting to h:1. refused."), ConnectionRefusedError()), False),
        (lost(Redis("Timeout connecting to server"), TimeoutError()), False),
        (TimeoutError("Timeout connecting to server"), False),
        (
            lost(Redis("Error 111 connecting to h:1."), ConnectionRefusedError(), EOFError()),
            True,
        ),
        (ValueError("no JSON"), False),
        (Mute(), False),
    ],
)
def test_a_job_whose_answer_is_missing_may_have_been_sent(error: Exception, unsure: bool) -> None:
    """Its id is told, and that of no job whose sending the queue refused, or that was not tried."""
    jobs = [nothing.new({"organization_id": None, "actor_id": None}) for _ in range(3)]
    jobs[0].accept(native_id="1")
    for whole, expected in ((False, (jobs[1].id,)), (True, (jobs[1].id, jobs[2].id))):
        with pytest.raises(EnqueueError) as caught, sending("deaf", jobs, whole=whole):
            raise error
        assert (expected if unsure else ()) == caught.value.unsure
        assert unsure == (
            "did not confirm the job" in str(caught.value)
            and "may have been sent all the same: see whether " in str(caught.value)
        )
        assert (jobs[1].id in str(caught.value)) == (unsure and not whole)
    assert "enqueue the others again" in str(caught.value)


class OperationalError(Exception):
    """An error of PostgreSQL's driver: its code, None where the driver itself saw the end."""

    def __init__(self, sqlstate: str | None, text: str = "server closed the connection") -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


class InternalError(Exception):
    """psycopg's for two errors at once, of which PgBouncer wrote the second."""

    sqlstate = None


class OfPsycopg2(OperationalError):
    """The same of psycopg2's, which has the code under another name."""

    def __init__(self, pgcode: str | None) -> None:
        super().__init__(pgcode)
        self.pgcode = pgcode
        del self.sqlstate


@pytest.mark.parametrize(
    ("error", "where", "unsure"),
    [
        (OfPsycopg2(None), "commit", True),
        (OfPsycopg2("57P01"), "commit", True),
        (OfPsycopg2(None), "execute", False),
        (OperationalError(None), "commit", True),
        (OperationalError("57P01"), "commit", True),
        (OperationalError("08P01", "database removed"), "commit", True),
        (InternalError("received 2 results from command 'COMMIT'"), "commit", True),
        (InternalError("received 2 results from command 'INSERT'"), "execute", False),
        (OperationalError("40001", "could not serialize"), "commit", False),
        (OperationalError(None), "execute", False),
        (OperationalError(None, "the connection is closed"), "commit", False),
    ],
)
def test_a_transaction_that_broke_before_its_commit_is_undone(
    error: Exception, where: str, unsure: bool
) -> None:
    """Of one whose commit broke, or of a statement that commits itself, nobody knows."""

    def execute() -> None:
        raise error

    def commit() -> None:
        execute()

    with pytest.raises((OperationalError, InternalError)) as caught:
        {"commit": commit, "execute": execute}[where]()
    assert unsure == has_no_answer(caught.value)
    certain = {"the connection is closed", "could not"}
    assert has_no_answer(caught.value, commits=True) != any(map(str(error).startswith, certain))


def test_an_error_that_the_caller_was_handling_is_no_missing_answer() -> None:
    """Who enqueues because something else gave no answer is not told that the job was sent."""
    jobs = [nothing.new({"organization_id": None, "actor_id": None})]
    try:
        raise TimeoutError("the bank")
    except TimeoutError:
        with pytest.raises(EnqueueError, match="did not take") as caught, sending("deaf", jobs):
            raise ConnectionRefusedError(111, "refused")
    assert () == caught.value.unsure


def test_an_error_with_a_cause_of_its_own_is_read_to_its_end() -> None:
    """The one that the caller was handling is not behind it, and need not be."""
    try:
        raise TimeoutError("the bank")
    except TimeoutError:
        with pytest.raises(EnqueueError, match="did not take"), sending("deaf", []):
            raise OSError("no queue") from LookupError("no such name")


def test_errors_that_refer_to_each_other_are_read_once() -> None:
    """As where a driver raises its first error from the one that came while it cleaned up."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__context__ = second, first
    assert not has_no_answer(first)


def key_of(worker: str, unique: str) -> str | None:
    """Return the key of a job of a worker of that name."""
    definition = replace(nothing.definition, name=worker)
    return unique_key(Job(definition, {}, parse_options({"unique": unique}), "a queue"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("shop", "close:9"), ("shop:close", "9")),
        (("shop", ":9"), ("shop:", "9")),
        (("shop:close", "9"), ("shop%3Aclose", "9")),
        (("shop%", "9"), ("shop%25", "9")),
    ],
)
def test_no_two_workers_have_one_key(one: tuple[str, str], other: tuple[str, str]) -> None:
    """Even if their names hold what the key is put together with."""
    assert key_of(*one) != key_of(*other)


def test_a_key_begins_with_the_worker_s_name() -> None:
    """Whoever looks into the queue, or sends to it by the release before, has the same one."""
    assert "shop.jobs.close:9:a%b" == key_of("shop.jobs.close", "9:a%b")
