"""Options: known by name, checked by type and range, never dropped silently."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from sigra import InvalidOptionError, tenant_worker, worker
from sigra.backends.sync import SyncBackend
from sigra.options import (
    PLAIN,
    JobOptions,
    check_capabilities,
    default_backoff,
    parse_options,
)

AT = datetime(2030, 1, 1, tzinfo=timezone.utc)


def refusal(**given: Any) -> InvalidOptionError:
    with pytest.raises(InvalidOptionError) as caught:
        parse_options(given, worker="a.b")
    return caught.value


def test_an_option_is_an_attribute_or_an_item() -> None:
    """What was passed by keyword is read under that word, either way."""
    options = JobOptions(queue="mail")
    assert ("mail", "mail", 1) == (options.queue, options["queue"], options["max_attempts"])
    for name in ("quque", "retry_delay"):
        with pytest.raises(KeyError, match=name):
            options[name]


def test_a_worker_without_options_has_those_that_the_hot_path_knows() -> None:
    """In-process backends tell such a job, by far the most usual one, by the identity of these."""
    assert parse_options({}) is PLAIN
    plain = tenant_worker(name="options.plain", backend=SyncBackend())(lambda scope: None)
    assert plain.new({"organization_id": "1", "actor_id": None}).options is PLAIN


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("queue", "mail", "mail"),
        ("priority", -5, -5),
        ("priority", -(2**31), -(2**31)),
        ("priority", 2**31 - 1, 2**31 - 1),
        ("delay", 5, 5.0),
        ("delay", 0, 0.0),
        ("delay", timedelta(minutes=1), 60.0),
        ("run_at", AT, AT),
        ("max_attempts", 1, 1),
        ("max_attempts", 3, 3),
        ("backoff", 2, 2.0),
        ("backoff", timedelta(seconds=2), 2.0),
        ("backoff", abs, abs),
        ("unique", "key", "key"),
        ("conn", AT, AT),
    ],
)
def test_a_right_value_is_kept(name: str, given: Any, kept: Any) -> None:
    """Each option takes what the contract says, durations as seconds."""
    assert kept == getattr(parse_options({name: given}), name)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("queue", 1),
        ("queue", " "),
        ("queue", "\ud800"),
        ("priority", "1"),
        ("priority", True),
        ("priority", 1.5),
        ("priority", 2**31),
        ("priority", 2**63),
        ("priority", -(2**31) - 1),
        ("delay", -1),
        ("delay", timedelta(seconds=-1)),
        ("delay", float("nan")),
        ("delay", float("inf")),
        ("delay", 10**400),
        ("delay", "5"),
        ("delay", True),
        ("run_at", "2030-01-01"),
        ("run_at", datetime(2030, 1, 1)),
        ("max_attempts", 0),
        ("max_attempts", True),
        ("max_attempts", 1.0),
        ("backoff", -1),
        ("backoff", "fast"),
        ("unique", ""),
        ("unique", 7),
        ("conn", None),
        ("color", "red"),
        ("Queue", "mail"),
    ],
)
def test_a_wrong_value_is_refused_by_name(name: str, given: Any) -> None:
    """A wrong type, a value out of range or an unknown option names the option."""
    assert name == refusal(**{name: given}).option


def test_an_unknown_option_lists_the_known_ones() -> None:
    """The text says which options there are."""
    text = str(refusal(crosstenant=True))
    assert "max_attempts" in text
    assert "cross_tenant" in text


def test_the_error_names_the_worker() -> None:
    """Whose option it was is a fact of the error."""
    assert "a.b" == refusal(color=1).worker


class Uncomparable:
    """A backoff, or a connection, that can be compared with nothing else."""

    def __call__(self, attempt: int) -> int:
        return attempt

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    "given",
    [{"conn": mock.ANY}, {"conn": Uncomparable()}, {"backoff": Uncomparable()}, {"priority": 5}],
)
def test_what_a_backend_does_not_honour_is_refused_whatever_it_equals(given: Any) -> None:
    """An == of its own decides nothing, and the cure is told."""
    few: Any = SimpleNamespace(name="few", capabilities=frozenset({"queue", "result"}))
    with pytest.raises(InvalidOptionError, match="use another backend; this one honours queue$"):
        check_capabilities(parse_options(given), few)
    few.capabilities |= given.keys()
    check_capabilities(parse_options(given), few)


def test_delay_and_run_at_exclude_each_other() -> None:
    """Two ways of saying when are one too many."""
    assert "run_at" == refusal(delay=1, run_at=AT).option


def test_the_call_wins_over_the_decorator() -> None:
    """An option of the call replaces the decorator's, the others stay."""
    chosen = parse_options({"priority": 9}, JobOptions(queue="mail", priority=1, delay=5.0))
    assert ("mail", 9, 5.0) == (chosen.queue, chosen.priority, chosen.delay)


def test_run_at_in_the_call_replaces_the_decorator_s_delay() -> None:
    """When is said once: the call's way replaces the decorator's."""
    assert None is parse_options({"run_at": AT}, JobOptions(delay=5.0)).delay


def test_delay_in_the_call_replaces_the_decorator_s_run_at() -> None:
    """The same the other way round."""
    assert None is parse_options({"delay": 1}, JobOptions(run_at=AT)).run_at


def test_a_job_is_not_retried_unless_asked() -> None:
    """The default is one attempt, with a priority of 0."""
    assert (1, 0) == (JobOptions().max_attempts, JobOptions().priority)


def test_the_decorator_s_options_are_checked_there() -> None:
    """A wrong default raises at decoration, not at the first job."""
    with pytest.raises(InvalidOptionError):
        tenant_worker(max_attempts=0)(lambda scope: None)


def test_cross_tenant_is_no_default() -> None:
    """Crossing is said at each call, where it is meant."""
    with pytest.raises(InvalidOptionError, match="cannot be a default"):
        tenant_worker(cross_tenant=True)(lambda scope: None)


def test_cross_tenant_must_be_a_bool() -> None:
    """A truthy value does not open the border."""
    with pytest.raises(InvalidOptionError) as caught:
        worker(name="options.bool")(lambda: None).new({}, cross_tenant="yes")
    assert ("cross_tenant", "options.bool") == (caught.value.option, caught.value.worker)


def test_an_option_beyond_the_backend_is_refused() -> None:
    """The sync backend has no transaction to join, and says so."""
    with pytest.raises(InvalidOptionError) as caught:
        check_capabilities(JobOptions(conn=object()), SyncBackend())
    assert "conn" == caught.value.option
    with pytest.raises(InvalidOptionError) as caught:
        worker(name="options.beyond")(lambda: None).new({}, conn=object())
    assert ("conn", "options.beyond") == (caught.value.option, caught.value.worker)


def test_a_decorator_s_option_beyond_its_backend_is_refused_there() -> None:
    """Where the decorator names the backend, its options are checked against it at once."""
    with pytest.raises(InvalidOptionError):
        worker(backend="sync", conn=object())(lambda: None)


def test_backoff_doubles_to_an_hour() -> None:
    """By default 15 s, doubling with each attempt, at most an hour."""
    ceilings = [15, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    for attempt, ceiling in enumerate(ceilings, 1):
        assert ceiling * 0.9 <= JobOptions().retry_delay(attempt) <= ceiling


def test_backoff_differs_from_job_to_job() -> None:
    """Jobs that failed together come again spread over a tenth of the delay."""
    delays = [default_backoff(99) for _ in range(200)]
    assert min(delays) < 3400 < 3500 < max(delays)


def test_backoff_never_overflows() -> None:
    """A very late attempt waits an hour like the ones before."""
    assert default_backoff(100_000) <= 3600


def test_a_backoff_function_is_given_the_failed_attempt() -> None:
    """A function of the attempt decides the delay."""
    assert 20.0 == JobOptions(backoff=lambda attempt: attempt * 10).retry_delay(2)


def test_run_at_in_the_past_is_due() -> None:
    """No wait is ever negative."""
    assert 0.0 == JobOptions(run_at=AT).wait(AT.timestamp() + 5)
