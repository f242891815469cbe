"""The log of jobs that went wrong, which counts lines by kinds."""

from __future__ import annotations

import pytest

from sigra import Failure, SyncBackend, context, worker
from sigra.backends.external import consume
from sigra.backends.inprocess.agenda import report_unfinished
from sigra.backends.redelivery import report_again
from sigra.cli.failures import FailureLog

backend = SyncBackend()


@worker(name="failures.declines", backend=backend)
def declines(n: int) -> Failure:
    return Failure(f"no {n}, attempt 1 of 1, was not")


@worker(name="failures.again", backend=backend)
def again(n: int) -> None:
    attempt = context.running.get()
    assert attempt is not None
    report_again(attempt, n)


@pytest.fixture
def log():
    with FailureLog(lambda text: None).attached() as attached:
        yield attached


def test_a_failure_is_counted_as_such(log):
    """Whatever the reason says, it is one kind for the worker."""
    declines.new_many([{"n": 1}, {"n": 2}])
    assert {"failures.declines returned Failure": 2} == log.kinds


def test_a_second_delivery_is_no_failure(log):
    """The warning that a job was delivered again is counted as what it is."""
    again.new_many([{"n": 1}, {"n": 2}])
    assert {"failures.again was delivered again": 2} == log.kinds


def test_a_job_that_was_not_finished_is_no_failure(log):
    """What a backend leaves behind is counted as what it is."""
    report_unfinished([again.new({"n": 1}, delay=60)], "the loop has ended")
    assert {"failures.again was not finished": 1} == log.kinds


def test_a_refused_job_is_counted_as_what_it_is(log):
    """Its native id and the reason differ from one job to the next, and are no part of the kind."""
    for native_id in ("n1", "n2"):
        consume({"sigra": 0, "args": {}}, again.definition, "huey", native_id=native_id)
    assert {"failures.again was refused and ends here": 2} == log.kinds
