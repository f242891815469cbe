"""Errors: facts as attributes, through a pickle, with the cure in the text."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import sigra
from sigra import errors
from sigra.errors import SigraError

CASES: list[tuple[SigraError, type[Exception], dict[str, Any], str]] = [
    (
        errors.DuplicateWorkerError("a.b", "f (x.py:1)", "g (x.py:9)"),
        ValueError,
        {"name": "a.b", "first": "f (x.py:1)", "second": "g (x.py:9)"},
        "name=",
    ),
    (
        errors.MissingTenantKeysError("a.b", ("organization_id", "actor_id")),
        ValueError,
        {"worker": "a.b", "missing": ("organization_id", "actor_id")},
        "tenant_args(scope)",
    ),
    (
        errors.InvalidArgsError("$.n[3]", "NaN; pass None or str", "a.b"),
        ValueError,
        {"path": "$.n[3]", "reason": "NaN; pass None or str", "worker": "a.b"},
        "pass None",
    ),
    (
        errors.InvalidOptionError("delay", "must not be negative", "a.b"),
        ValueError,
        {"option": "delay", "reason": "must not be negative", "worker": "a.b"},
        "must not be negative",
    ),
    (
        errors.CrossTenantError("a.b", "c.d", "42", "43"),
        Exception,
        {
            "worker": "a.b",
            "running_worker": "c.d",
            "running_organization_id": "42",
            "organization_id": "43",
        },
        "cross_tenant=True",
    ),
    (
        errors.EnqueueError("thread", "the queue is full"),
        Exception,
        {"backend": "thread", "reason": "the queue is full"},
        "the queue is full",
    ),
    (
        errors.JobFailedError("id", "a.b", "the ledger is not ready"),
        Exception,
        {"job_id": "id", "worker": "a.b", "reason": "the ledger is not ready"},
        "returned Failure: the ledger is not ready",
    ),
    (
        errors.JobCancelledError("id", "a.b", {"why": 1}),
        Exception,
        {"job_id": "id", "worker": "a.b", "reason": {"why": 1}},
        "was cancelled: <dict>",
    ),
    (
        errors.PoisonedJobError("id", "a.b", 3),
        Exception,
        {"job_id": "id", "worker": "a.b", "deliveries": 3},
        "enqueue it again",
    ),
    (
        errors.UnsupportedError("rq", "a job's state"),
        NotImplementedError,
        {"backend": "rq", "feature": "a job's state"},
        "use a backend",
    ),
    (
        errors.MissingArgError("actor_id", "a.b"),
        KeyError,
        {"key": "actor_id", "worker": "a.b"},
        "enqueue it again",
    ),
    (
        errors.EnvelopeError("version 9; update this consumer", 9),
        ValueError,
        {"reason": "version 9; update this consumer", "version": 9},
        "update this consumer",
    ),
    (errors.UnknownWorkerError("a.b"), LookupError, {"name": "a.b"}, "import the module"),
    (
        errors.AuditOnlyScopeError("roles"),
        Exception,
        {"attribute": "roles"},
        "Authorize before .new()",
    ),
    (
        errors.AuditRejectedError("action", "must have a dot"),
        ValueError,
        {"field": "action", "reason": "must have a dot"},
        "must have a dot",
    ),
    (
        errors.UnknownBackendError("kafka", ("sync", "thread")),
        LookupError,
        {"name": "kafka", "known": ("sync", "thread")},
        "sync, thread",
    ),
    (
        errors.MissingExtraError("celery", "celery"),
        ImportError,
        {"extra": "celery", "package": "celery"},
        "pip install 'sigra[celery]'",
    ),
]
each = pytest.mark.parametrize(
    ("error", "kind", "facts", "cure"), CASES, ids=[type(case[0]).__name__ for case in CASES]
)


def test_every_error_is_tried_here() -> None:
    """No error class escapes these tests."""
    classes = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, SigraError) and value is not SigraError
    }
    assert classes == {type(case[0]) for case in CASES}


def test_every_error_is_public() -> None:
    """Whoever is to catch an error can import it from sigra."""
    assert set() == {type(case[0]).__name__ for case in CASES} - set(sigra.__all__)


@each
def test_it_derives_from_the_root(error: Any, kind: Any, facts: Any, cure: str) -> None:
    """except SigraError catches it."""
    assert isinstance(error, SigraError)


@each
def test_it_derives_from_the_built_in(error: Any, kind: Any, facts: Any, cure: str) -> None:
    """It is also what Python itself would raise."""
    assert isinstance(error, kind)


@each
def test_its_facts_are_attributes(error: Any, kind: Any, facts: Any, cure: str) -> None:
    """Nobody has to parse the text."""
    assert facts == {name: getattr(error, name) for name in facts}


@each
def test_its_text_says_the_cure(error: Any, kind: Any, facts: Any, cure: str) -> None:
    """The text says what to do, not only what is wrong."""
    assert cure in str(error)


@each
def test_it_pickles_with_its_facts(error: Any, kind: Any, facts: Any, cure: str) -> None:
    """Type, text and facts survive the way to another process."""
    for protocol in (0, 2, pickle.HIGHEST_PROTOCOL):
        revived = pickle.loads(pickle.dumps(error, protocol))
        assert (type(error), str(error), vars(error)) == (
            type(revived),
            str(revived),
            vars(revived),
        )


@each
def test_it_copies(error: Any, kind: Any, facts: Any, cure: str) -> None:
    """copy.copy keeps type, text and facts."""
    copied = copy.copy(error)
    assert (type(error), str(error), vars(error)) == (type(copied), str(copied), vars(copied))


@each
def test_it_is_documented(error: Any, kind: Any, facts: Any, cure: str) -> None:
    """The class says when it is raised and what it carries."""
    assert all(name in (type(error).__doc__ or "") for name in facts if name != "worker")


def test_the_index_of_a_batch_pickles() -> None:
    """The position of a bad item is a fact like the others."""
    error = errors.InvalidArgsError("$.n", "no").at(3)
    assert 3 == pickle.loads(pickle.dumps(error)).index


def test_the_index_of_a_batch_is_in_the_text() -> None:
    """The text of a batch's error begins with the item."""
    assert str(errors.InvalidArgsError("$.n", "no").at(3)).startswith("item 3: ")


def test_an_error_without_organization_says_so() -> None:
    """A crossing to no organization is described as that."""
    assert "no organization" in str(errors.CrossTenantError("a", "b", "42", None))


def test_a_bare_error_shows_its_name() -> None:
    """An error without a text is not an empty line."""
    assert "SigraError" == str(SigraError())


FORGED = "x\nCRITICAL root a second line\x1b[31m\u202e"


@pytest.mark.parametrize(
    "error",
    [
        errors.JobFailedError(FORGED, "a.b", "why"),
        errors.JobCancelledError(FORGED, "a.b", "why"),
        errors.PoisonedJobError(FORGED, "a.b", 2),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_job_s_id_breaks_no_line(error: SigraError) -> None:
    """Whoever chose it, a log line stays one; the attribute has it as it is."""
    assert str(error).isprintable()
    assert FORGED == error.__dict__["job_id"]


def test_a_job_s_id_fills_no_line() -> None:
    """An id of any length is cut where it is shown."""
    assert len(str(errors.JobFailedError("x" * 5_000_000, "a.b", "why"))) < 400
    assert len(str(errors.CrossTenantError("a", "b", "x" * 5_000_000, "y" * 5_000_000))) < 700


@pytest.mark.parametrize(
    "error",
    [
        lambda worker: errors.InvalidArgsError("$.n", "why", worker),
        lambda worker: errors.InvalidOptionError("delay", "why", worker),
        lambda worker: errors.MissingArgError("n", worker),
    ],
)
def test_an_error_names_the_worker_where_one_is_known(error: Any) -> None:
    """Its text says whose args or options they are, and says nothing of None."""
    assert (True, False) == ("worker 'a.b'" in str(error("a.b")), "worker" in str(error(None)))
