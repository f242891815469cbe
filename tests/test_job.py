"""The job: what its producer holds."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import subprocess
import sys
import time
import uuid
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis.vendor.pretty import pretty

from sigra import (
    AuditScope,
    Cancel,
    Failure,
    Job,
    JobCancelledError,
    JobFailedError,
    Ok,
    UnsupportedError,
    tenant_worker,
)
from sigra.context import Attempt
from sigra.job import FINISHED
from sigra.options import PLAIN

TENANT = {"organization_id": "42", "actor_id": "7"}


@tenant_worker(max_attempts=2)
def close(scope: AuditScope, then: Any = None) -> Any:
    match then:
        case "ok":
            return Ok(5)
        case "fail":
            return Failure("why")
        case "cancel":
            return Cancel("why")
        case "raise":
            raise KeyError("why")
    return then


def enqueue(then: Any = None, **options: Any) -> Job:
    return close.new({**TENANT, "then": then}, **options)


def test_the_id_is_a_uuid_of_version_7() -> None:
    """Ids sort by time."""
    assert 7 == uuid.UUID(enqueue().id).version


def test_the_id_stays() -> None:
    """Reading it twice gives the same."""
    job = enqueue()
    assert job.id == job.id


def test_a_job_is_itself_alone() -> None:
    """A dict may hold what an application knows of each, though two have the same args."""
    jobs = [enqueue(), enqueue()]
    assert 2 == len({job: job.id for job in jobs})


def test_ids_differ() -> None:
    """Two jobs are two."""
    assert enqueue().id != enqueue().id


def test_a_job_names_its_worker_and_backend() -> None:
    """Worker and backend are names."""
    job = enqueue()
    assert (close.name, "sync") == (job.worker, job.backend)


def test_a_job_knows_when_it_was_enqueued() -> None:
    """The time is aware UTC, between before and after."""
    before = datetime.fromtimestamp(time.time() - 1, timezone.utc)
    job = enqueue()
    assert before <= job.enqueued_at <= datetime.now(timezone.utc)


def test_a_job_without_a_queue_is_in_the_default_one() -> None:
    """The backend's own queue is called default."""
    assert ("default", "mail") == (enqueue().queue, enqueue(queue="mail").queue)


def test_options_are_what_decorator_and_call_say() -> None:
    """The job's options are the call's over the decorator's."""
    options = enqueue(priority=3).options
    assert (3, 2) == (options.priority, options.max_attempts)


@pytest.mark.parametrize(
    ("then", "state"),
    [
        (None, "completed"),
        ("ok", "completed"),
        ("cancel", "cancelled"),
        ("fail", "retryable"),
        ("raise", "retryable"),
    ],
)
def test_the_state_is_a_word_of_oban_s(then: Any, state: str) -> None:
    """After its run a job is in one of the seven states."""
    assert state == enqueue(then).state


def test_a_job_for_later_is_scheduled() -> None:
    """A delayed job has not run."""
    assert "scheduled" == enqueue(delay=60).state


def test_a_job_out_of_attempts_is_discarded() -> None:
    """The last failed attempt is the end."""
    assert "discarded" == enqueue("fail", max_attempts=1).state


def test_three_states_are_final() -> None:
    """Nothing follows completed, discarded and cancelled."""
    assert {"completed", "discarded", "cancelled"} == FINISHED


@pytest.mark.parametrize(("then", "value"), [(None, None), ("ok", 5), ("x", "x")])
def test_the_result_is_the_value(then: Any, value: Any) -> None:
    """What the function returned, out of its Ok."""
    assert value == enqueue(then).result()


@pytest.mark.parametrize(
    ("then", "error"),
    [("fail", JobFailedError), ("cancel", JobCancelledError), ("raise", KeyError)],
)
def test_the_result_raises_what_stands_for_a_failure(then: str, error: Any) -> None:
    """JobFailedError, JobCancelledError or the function's own exception."""
    with pytest.raises(error):
        enqueue(then, max_attempts=1).result()


def test_the_error_of_a_failure_names_the_job() -> None:
    """Job, worker and reason are facts of the error."""
    job = enqueue("fail", max_attempts=1)
    with pytest.raises(JobFailedError) as caught:
        job.result()
    error = caught.value
    assert (job.id, close.name, "why") == (error.job_id, error.worker, error.reason)


@pytest.mark.parametrize("options", [{"delay": 60}, {"max_attempts": 2}])
def test_the_result_of_an_unfinished_job_times_out_at_once(options: Any) -> None:
    """On the sync backend nobody else would finish it."""
    with pytest.raises(TimeoutError):
        enqueue("fail", **options).result()


def test_aresult_gives_the_same() -> None:
    """The awaited result is the result."""
    assert 5 == asyncio.run(enqueue("ok").aresult())


def test_aresult_raises_the_same() -> None:
    """The awaited result raises as the result does."""
    with pytest.raises(KeyError):
        asyncio.run(enqueue("raise", max_attempts=1).aresult())


@pytest.mark.parametrize("ask", [lambda job: job.state, lambda job: job.result()])
def test_a_backend_that_cannot_tell_says_so(ask: Any) -> None:
    """Where no ticket answers, UnsupportedError is raised."""
    with pytest.raises(UnsupportedError) as caught:
        ask(Job(close.definition, {}, PLAIN, "rq"))
    assert "rq" == caught.value.backend


def test_aresult_of_a_backend_that_cannot_tell_says_so_too() -> None:
    """The awaited result raises UnsupportedError as well."""
    with pytest.raises(UnsupportedError):
        asyncio.run(Job(close.definition, {}, PLAIN, "rq").aresult())


def test_the_repr_shows_no_args() -> None:
    """Args may hold secrets; a log line that shows a job shows its names alone."""
    assert "hunter2" not in repr(enqueue("hunter2"))


def test_hypothesis_shows_a_job_by_its_repr() -> None:
    """note(job) wrote all fields of the dataclass, its args and its worker's settings, in 35 lines."""
    job = enqueue("hunter2")
    assert repr(job) == pretty(job)


def test_the_repr_names_id_worker_and_queue() -> None:
    """A job in a log line can be found again."""
    plain, job = enqueue(), enqueue(queue="mail")
    assert f"<Job {plain.id} of {close.name} on sync>" == repr(plain)
    assert f"<Job {job.id} of {close.name} on sync queue=mail>" == repr(job)


def test_a_job_is_no_duplicate_until_a_backend_says_so() -> None:
    """Only a unique key that was taken makes a duplicate."""
    job = Job(close.definition, {}, PLAIN, "rq")
    made = job.duplicate
    job.accept(native_id="1")
    assert (False, False) == (made, job.duplicate)


def test_enqueued_at_is_exact_to_the_microsecond() -> None:
    """The moment keeps the fraction of its second."""
    job = Job(close.definition, {}, PLAIN, "rq", (1_500_000_000, 0))
    assert datetime(1970, 1, 1, 0, 0, 1, 500_000, timezone.utc) == job.enqueued_at


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_job_pickles(protocol: int) -> None:
    """It may go to another process, which nobody tells what becomes of it."""
    job = enqueue([{"x": 1}], queue="mail", unique="k")
    there = pickle.loads(pickle.dumps(job, protocol))
    for name in ("id", "worker", "args", "options", "backend", "native_id", "enqueued_at"):
        assert getattr(job, name) == getattr(there, name)
    with pytest.raises(UnsupportedError):
        _ = there.state


_ELSEWHERE = """
import pickle, sys
job, new = pickle.load(sys.stdin.buffer)
print(job.worker, job.id, new({"n": 4}).result())
"""


@pytest.mark.programs
def test_a_job_and_a_workers_new_pickle_into_a_process_that_has_not_imported_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a spawned child, which imports for them the module that defines the worker."""
    text = "from sigra import worker\n@worker\ndef doubled(n): return 2 * n\n"
    (tmp_path / "elsewhere.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    made = import_module("elsewhere").doubled
    job = made.new({"n": 1})
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE],
        input=pickle.dumps((job, made.new)),
        capture_output=True,
        check=True,
    )
    assert f"elsewhere.doubled {job.id} 8" == done.stdout.decode().strip()


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_a_copy_of_a_job_tells_what_the_job_does(how: Any) -> None:
    """It is the same job, of the same worker."""
    job = enqueue(5)
    assert (job.definition, 5) == (how(job).definition, how(job).result())


def test_a_body_cannot_change_what_it_knows_of_its_job() -> None:
    """The facts of an attempt are read-only."""
    info = Attempt(Job(close.definition, {}, PLAIN, "rq"), 1, 0).info
    with pytest.raises(AttributeError):
        info.attempt = 2  # type: ignore[misc]


def test_a_duplicate_is_known_as_one_once_its_ticket_is_there() -> None:
    """Who counts jobs in another thread took it for the first one, which it has the ticket of."""

    class Watched(Job):
        held = Job.ticket

        @property
        def ticket(self) -> Any:
            return Watched.held.__get__(self)

        @ticket.setter
        def ticket(self, ticket: Any) -> None:
            seen.append((ticket, self.duplicate if ticket else None))
            Watched.held.__set__(self, ticket)  # type: ignore[attr-defined]

    seen: list[Any] = []
    job: Any = Watched(close.definition, {}, PLAIN, "thread")
    job.accept(native_id="1", ticket="of the first", duplicate=True)
    assert ("of the first", True) == seen[-1]
