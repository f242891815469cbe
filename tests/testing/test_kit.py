"""The testing kit: what a user's own tests lean on."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import subprocess
import sys
import unittest
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest.mock import ANY
from uuid import uuid4

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import StopTest, UnsatisfiedAssumption
from log_handlers import exiting, handled_by

import sigra.testing
from sigra import (
    AuditEvent,
    AuditScope,
    Cancel,
    EnqueueError,
    Failure,
    InvalidArgsError,
    InvalidOptionError,
    JobCancelledError,
    JobFailedError,
    JobInfo,
    MissingExtraError,
    MissingTenantKeysError,
    Ok,
    Snooze,
    SyncBackend,
    config,
    configure,
    current_job,
    log_safe,
    tenant_args,
    tenant_worker,
    worker,
)
from sigra.testing import (
    AuditLog,
    RecordingBackend,
    aperform_job,
    assert_enqueued,
    hostile_values,
    json_args,
    perform_job,
    refute_enqueued,
    tenant_args_strategy,
)

TENANT = {"organization_id": "42", "actor_id": "7"}


@tenant_worker(audit_schema=AuditEvent)
def close(scope: AuditScope, args: dict[str, Any], then: Any = None) -> Any:
    log_safe("invoice.close", scope)
    match then:
        case "fail":
            return Failure("why")
        case "cancel":
            return Cancel("why")
        case "snooze":
            return Snooze(9)
        case "raise":
            raise LookupError("why")
    return then


@tenant_worker
async def later(scope: AuditScope, n: int) -> int:
    await asyncio.sleep(0)
    return n


@worker
def sweep(args: dict[str, Any]) -> Any:
    return args


def test_the_fixture_is_the_default_backend(sigra_backend: RecordingBackend) -> None:
    """Inside the test every job goes to the fixture's backend."""
    job = close.new(TENANT)
    assert [job] == sigra_backend.jobs


def test_the_fixture_overrides_queues_too(sigra_backend: RecordingBackend) -> None:
    """A queue that was configured is not served by its own backend in the test."""
    assert 0 == len(config.current.backends)


def test_the_fixture_starts_empty(sigra_backend: RecordingBackend) -> None:
    """What another test enqueued is not there."""
    assert [] == sigra_backend.jobs


def test_the_fixture_runs_jobs_once(sigra_backend: RecordingBackend) -> None:
    """Recorded jobs run inline, as on the sync backend."""
    assert "x" == close.new({**TENANT, "then": "x"}).result()


def test_async_jobs_are_recorded_too(sigra_backend: RecordingBackend) -> None:
    """.anew leaves its job in the list."""
    job = asyncio.run(later.anew({**TENANT, "n": 1}))
    assert [job] == sigra_backend.jobs


def test_a_job_that_went_elsewhere_is_not_found_and_it_says_why(
    sigra_backend: RecordingBackend,
) -> None:
    """A decorator's own backend wins over the fixture's."""
    elsewhere = worker(name="kit.elsewhere", backend="thread")(lambda: None)
    with pytest.raises(AssertionError, match="decorator sends its jobs to the backend 'thread'"):
        assert_enqueued(elsewhere)


@pytest.mark.parametrize(
    ("default", "asked"),
    [
        ({"queue": "mail"}, {}),
        ({}, {"queue": "mail"}),
        ({"queue": "mail"}, {"queue": ANY}),
        ({}, {}),
        ({"queue": "other"}, {}),
    ],
)
def test_a_job_that_its_queue_s_own_backend_took_is_told(
    default: dict[str, Any], asked: dict[str, Any]
) -> None:
    """A test case that forgets backends={} sends it there, and refute_enqueued said nothing."""
    mails = worker(name="kit.mails", **default)(lambda: None)
    told = r"\(configure\(backends=\{'mail': ...\}\) sends its jobs to the backend 'sync'\)"
    with configure(backend=RecordingBackend(), backends={"mail": SyncBackend()}):
        mails.new({}, queue="mail")
        with pytest.raises(AssertionError, match=told):
            assert_enqueued(mails, **asked)
        with pytest.raises(RuntimeError, match=told):
            refute_enqueued(mails, **asked)
        mails.new({}, queue="other")
        assert_enqueued(mails, queue="other")
        if not default:
            refute_enqueued(mails, queue=None)


def test_what_is_refused_was_not_enqueued(sigra_backend: RecordingBackend) -> None:
    """An async worker's .new() inside a loop raises, and leaves no job in the list."""

    async def main() -> None:
        with pytest.raises(EnqueueError):
            later.new({**TENANT, "n": 1})

    asyncio.run(main())
    refute_enqueued(later)


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.parametrize("how", ["by the fixture", "by hand"])
def test_a_worker_of_a_test_s_own_is_gone_with_the_test(
    how: str, turn: int, request: pytest.FixtureRequest
) -> None:
    """The next case may define it anew, though a module's worker was enqueued on the same backend."""

    def case() -> None:
        @tenant_worker(name=f"kit.own.{how}")
        def own(scope: AuditScope) -> None:
            sweep.new({})

        own.new(TENANT)
        own.new(TENANT, delay=5)

    if how == "by the fixture":
        request.getfixturevalue("sigra_backend")
        case()
    else:
        with configure(backend=RecordingBackend()):
            case()


def test_a_backend_of_many_tests_is_cleared_between_them() -> None:
    """Nothing of an earlier test is listed, waits, holds a key or has turned the clock."""
    backend = RecordingBackend()
    with configure(backend=backend):
        jobs = backend.jobs
        close.new(TENANT, delay=7200, unique="held")
        close.new(TENANT, delay=3_000)
        assert 1 == len(backend.drain(until=3600))
        backend.clear()
        assert [] == jobs == backend.drain(until=9000)
        backend.clear()
        again = close.new(TENANT, unique="held", delay=3_000)
        assert not again.duplicate
        assert ([], [again]) == (backend.drain(), jobs)


class Modest(SyncBackend):
    """A backend of a queue that has neither priorities nor unique keys."""

    name = "modest"
    capabilities = frozenset({"native", "queue", "delay", "run_at", "max_attempts", "backoff"})


@pytest.mark.parametrize("option", [{"priority": 5}, {"unique": "k"}, {"conn": object()}])
def test_what_the_configured_queue_refuses_is_refused_in_a_test(option: dict[str, Any]) -> None:
    """A test that passes means the same behind the queue, where the call would fail."""
    with (
        configure(backend=Modest()),
        configure(backend=RecordingBackend()),
        pytest.raises(InvalidOptionError, match="for modest.* cannot honour it"),
    ):
        close.new(TENANT, **option)


class Small(SyncBackend):
    """A backend that somebody wrote for jobs of the process, or for a queue without an API."""

    name = "small"
    capabilities = frozenset({"queue", "delay", "run_at", "max_attempts", "backoff"})


@pytest.mark.parametrize("option", [{"priority": 5}, {"unique": "k"}])
@pytest.mark.parametrize("others", [{}, {"fast": "thread"}])
def test_what_a_backend_without_a_queue_refuses_is_refused_too(
    option: dict[str, Any], others: dict[str, str]
) -> None:
    """Only conn is left to it: a test's own configuration often names an in-process backend."""
    with configure(backend=Small(), backends=others):
        backend = RecordingBackend()
    with configure(backend=backend, backends={}):
        with pytest.raises(InvalidOptionError, match="small.* cannot honour it"):
            close.new(TENANT, **option)
        assert "available" == close.new(TENANT, delay=0, conn=object()).state
        assert "completed" == close.new(TENANT, backoff=abs).state


def test_what_one_of_the_configured_queues_honours_can_be_tested() -> None:
    """One recording backend stands for all of them, and no queue says nothing of queues."""
    for others in ({"fast": "thread"}, {"tests": RecordingBackend()}):
        with (
            configure(backend=Modest(), backends=others),
            configure(backend=RecordingBackend(), backends={}),
        ):
            assert close.new(TENANT, priority=5, queue="fast").backend == "sync"


class Generous(SyncBackend):
    """A backend of a queue that has priorities too."""

    name = "generous"
    capabilities = Modest.capabilities | {"priority"}


@pytest.mark.parametrize("many", [False, True])
def test_what_the_job_s_own_queue_refuses_is_refused_in_a_test(many: bool) -> None:
    """Another queue that honours it changes nothing: the job does not go there."""
    with configure(backend=Modest(), backends={"fast": Generous()}):
        backend = RecordingBackend()
    with configure(backend=backend, backends={}):
        close.new(TENANT, priority=5, queue="fast")
        for queue in ({}, {"queue": "slow"}):
            with pytest.raises(InvalidOptionError, match="'modest' cannot honour it"):
                if many:
                    close.new_many([TENANT, TENANT], priority=5, **queue)
                else:
                    close.new(TENANT, priority=5, **queue)
        assert 1 == len(backend.jobs)


@pytest.mark.parametrize("option", [{"priority": 5}, {"backoff": abs}])
def test_a_backend_made_under_the_fixture_s_refuses_what_that_one_does(
    option: dict[str, Any],
) -> None:
    """A property makes its own though the fixture is autouse, and its jobs have the same queue."""
    with configure(backend=Modest(), backends={"fast": Generous()}):
        backend = RecordingBackend()
    with (
        configure(backend=backend, backends={}),
        configure(backend=RecordingBackend()),
        configure(backend=RecordingBackend()),
        pytest.raises(InvalidOptionError, match="cannot honour it|cannot carry"),
    ):
        close.new(TENANT, **option)


def test_a_backend_made_under_one_that_stands_for_no_queue_refuses_nothing() -> None:
    """As in a test of an application that configures no backend."""
    with configure(backend=RecordingBackend()), configure(backend=RecordingBackend()):
        assert "completed" == close.new(TENANT, priority=5, queue="mail").state


def test_a_function_that_no_queue_carries_is_refused_in_a_test() -> None:
    """A backoff of the call's own is; the decorator's function is there in the consumer too."""
    patient = worker(name="kit.patient", backoff=float)(lambda: None)
    with configure(backend=Modest()), configure(backend=RecordingBackend()):
        assert "completed" == patient.new({}).state
        with pytest.raises(InvalidOptionError, match="a queue cannot carry a function"):
            patient.new({}, backoff=abs)
        refute_enqueued(patient, backoff=abs)


@pytest.mark.parametrize(("delay", "state"), [(0, "available"), (5, "scheduled")])
def test_a_job_in_a_transaction_waits_for_drain(
    sigra_backend: RecordingBackend, delay: float, state: str
) -> None:
    """The code under test may pass conn; its job never runs before the commit."""
    job = close.new(TENANT, conn=object(), delay=delay)
    assert state == job.state
    assert [job] == sigra_backend.drain(until=delay)
    assert "completed" == job.state


LATE = """
from sigra import SyncBackend, configure

def test_backend(sigra_backend, audit_log):
    configure(backend=SyncBackend())

def test_sinks(sigra_backend, audit_log):
    configure(sinks=[])

def test_both_for_a_while(sigra_backend, audit_log):
    with configure(backend=SyncBackend(), sinks=[]):
        pass
"""

LIFESPAN = """
from contextlib import contextmanager
import pytest
from sigra import AuditEvent, configure, log_safe
from sigra.audit import JSONLinesSink

@contextmanager
def application():  # as a lifespan begins and ends
    sink = JSONLinesSink("events.jsonl")
    configure(sinks=[sink], audit_schema=AuditEvent)
    yield
    configure(sinks=[])
    sink.close()

@pytest.fixture(scope="session")
def client():
    with application():
        yield

@pytest.mark.parametrize("time", ["first", "second"])
def test_its_events(audit_log, client, time):
    assert log_safe("shop.open", None).status == "emitted"
    assert len(audit_log) == 1

def test_zz_started_in_a_test(audit_log):
    with application():
        pass
"""


def what_pytest_says_of(tests: str, folder: Path) -> str:
    """Run tests in a process of their own, with the plugin of the kit alone."""
    (folder / "test_told.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-p", "sigra.testing.plugin", str(folder)]
    # Other plugins take long to load; that this one is found by itself shows in this file's tests.
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=alone).stdout


@pytest.mark.programs
@pytest.mark.parametrize("beside", [[], ["-p", "sigra"]])
def test_the_package_of_the_kit_is_a_plugin_too(tmp_path: Path, beside: list[str]) -> None:
    """pytest_plugins may name sigra.testing, whether or not pytest has found the plugin already."""
    (tmp_path / "conftest.py").write_text("pytest_plugins = ['sigra.testing']\n")
    (tmp_path / "test_it.py").write_text("def test_it(sigra_backend, audit_log):\n    pass\n")
    command = [sys.executable, "-m", "pytest", *beside, str(tmp_path)]
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    said = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=alone).stdout
    assert "1 passed" in said


WRONG = """
from sigra import worker
from sigra.testing import assert_enqueued, refute_enqueued

@worker(name="told.sweep")
def sweep():
    pass

def test_that_one_was(sigra_backend):
    assert_enqueued(sweep)

def test_that_none_was(sigra_backend):
    sweep.new({})
    refute_enqueued(sweep)
"""


@pytest.mark.programs
def test_what_fails_is_the_line_of_the_test(tmp_path: Path) -> None:
    """pytest shows no source of the assertion's own."""
    said = what_pytest_says_of(WRONG, tmp_path)
    assert ("2 failed" in said, "capture.py" in said) == (True, False)
    assert "no job of told.sweep" in said
    assert "such jobs of told.sweep were enqueued" in said


@pytest.mark.programs
def test_settings_that_take_a_fixture_s_place_fail_the_test(tmp_path: Path) -> None:
    """An application that is imported in a test does not send the test's jobs to its own queue."""
    said = what_pytest_says_of(LATE, tmp_path)
    for setting, fixture in (("backend", "sigra_backend"), ("sinks", "audit_log")):
        assert f"configure({setting}=...) was called while the test had {fixture}" in said
    assert "3 passed, 2 errors" in said


@pytest.mark.programs
def test_a_lifespan_goes_with_the_fixtures_where_its_own_is_of_the_session(tmp_path: Path) -> None:
    """One that sets the sinks within a test takes the fixture's place, and the error says so."""
    said = what_pytest_says_of(LIFESPAN, tmp_path)
    assert "3 passed, 1 error" in said
    assert "lifespan calls it, start the application in a fixture of scope" in said


@pytest.mark.parametrize(
    "error",
    [
        pytest.fail.Exception("why"),  # pytest-timeout's too
        pytest.skip.Exception("why"),
        pytest.exit.Exception("why"),
        unittest.SkipTest("why"),
        UnsatisfiedAssumption("why"),
        StopTest(0),
        BaseExceptionGroup("of tasks", [ValueError(), pytest.fail.Exception("why")]),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("way", ["new", "anew", "drain"])
@pytest.mark.parametrize("backend", [RecordingBackend, SyncBackend])
def test_what_a_testing_tool_raises_in_a_body_ends_the_test(
    error: BaseException, way: str, backend: Callable[[], SyncBackend]
) -> None:
    """A fake that calls pytest.fail and a body that is timed out are no mere failed attempts."""
    jobs = list[str]()

    @worker(max_attempts=2, backoff=0)
    def ended(job: JobInfo) -> None:
        jobs.append(job.id)
        if job.attempt == 1:
            raise error

    with configure(backend=backend()) as used, pytest.raises(type(error)):
        match way:
            case "new":
                ended.new({})
            case "anew":
                asyncio.run(ended.anew({}))
            case "drain":
                ended.new({}, delay=1)
                used.backend.drain(1)
    assert [job.id for job in used.backend.drain()] == jobs[1:] == jobs[:1]  # it failed, too


def test_nothing_of_the_fixtures_is_left() -> None:
    """Outside the fixture's tests the settings are as they were."""
    assert not isinstance(config.current.backend, RecordingBackend)


def test_audit_events_are_captured(audit_log: AuditLog) -> None:
    """The fixture lists the events of the test."""
    close.new(TENANT)
    assert ["invoice.close"] == [event.action for event in audit_log.events]


def test_audit_events_are_found_by_action(audit_log: AuditLog) -> None:
    """of() gives the events of one action."""
    close.new(TENANT)
    assert (1, 0) == (len(audit_log.of("invoice.close")), len(audit_log.of("invoice.open")))


def test_a_failed_assertion_shows_what_was_audited(audit_log: AuditLog) -> None:
    """The events' own texts are long: pytest cut them off where their actions would have stood."""
    assert "<AuditLog: no event>" == repr(audit_log)
    for _ in range(3):
        log_safe("invoice.close", None, audit_schema=AuditEvent, outcome="failure")
    with pytest.raises(AssertionError) as raised:
        assert audit_log.of("invoice.open")
    assert 3 == str(raised.value).count("invoice.close (failure)")


def test_the_audit_log_is_beside_other_sinks(audit_log: AuditLog) -> None:
    """Sinks that were configured get their events too."""
    other = AuditLog()
    with configure(sinks=[*config.current.sinks, other]):
        close.new(TENANT)
    assert audit_log.events == other.events


@pytest.mark.parametrize(
    ("then", "outcome"),
    [
        (None, Ok(None)),
        ("x", Ok("x")),
        ("fail", Failure("why")),
        ("cancel", Cancel("why")),
        ("snooze", Snooze(9)),
    ],
)
def test_perform_job_returns_the_outcome(then: Any, outcome: Any) -> None:
    """Every way to end comes back as its value."""
    assert outcome == perform_job(close, {**TENANT, "then": then})


def test_perform_job_raises_what_the_function_raised() -> None:
    """A test sees the exception itself."""
    with pytest.raises(LookupError):
        perform_job(close, {**TENANT, "then": "raise"})


@pytest.mark.parametrize(
    ("args", "error"), [({}, MissingTenantKeysError), ({**TENANT, "x": {1}}, InvalidArgsError)]
)
def test_perform_job_validates_as_new_does(args: Any, error: Any) -> None:
    """Args that .new() refuses are refused here."""
    with pytest.raises(error):
        perform_job(close, args)


def test_perform_job_enqueues_nothing(sigra_backend: RecordingBackend) -> None:
    """It runs the job and leaves no trace in the backend."""
    perform_job(close, args=TENANT)
    assert [] == sigra_backend.jobs


@pytest.mark.parametrize(
    ("then", "error"), [("fail", JobFailedError), ("cancel", JobCancelledError)]
)
def test_another_job_s_end_is_what_the_function_raised(then: str, error: type[Exception]) -> None:
    """A body that asks another job for its result raises what that one ended with."""

    with configure(backend=SyncBackend()):
        other = close.new({**TENANT, "then": then})

    @tenant_worker
    def asks(scope: AuditScope) -> None:
        other.result()

    with pytest.raises(error):
        perform_job(asks, TENANT)


@tenant_worker
def parent(scope: AuditScope, then: str = "") -> None:
    order.append("begun")
    child.new(tenant_args(scope))
    order.append("ended")
    if then:
        raise {"raise": LookupError, "exit": SystemExit}[then]


@tenant_worker
async def aparent(scope: AuditScope) -> None:
    order.append("begun")
    await child.anew(tenant_args(scope))
    order.append("ended")


@tenant_worker
def child(scope: AuditScope) -> None:
    order.append("child of " + str(scope.active_organization and scope.active_organization.id))


order: list[str] = []
IN_ORDER = ["begun", "ended", "child of 42"]


@pytest.mark.parametrize("backend", [SyncBackend, RecordingBackend])
def test_what_a_performed_job_enqueues_runs_when_it_has_ended(backend: Any) -> None:
    """As in a job that .new() made: a body that waits for it fails in the test already."""
    order.clear()
    with configure(backend=backend()):
        perform_job(parent, TENANT)
    assert order == IN_ORDER


def test_what_an_async_performed_job_enqueues_runs_when_it_has_ended() -> None:
    """On a loop of its own, and on the test's."""
    for perform in (perform_job, lambda *call: asyncio.run(aperform_job(*call))):
        order.clear()
        with configure(backend=SyncBackend()):
            perform(aparent, TENANT)
        assert order == IN_ORDER


@pytest.mark.parametrize(("then", "error"), [("raise", LookupError), ("exit", SystemExit)])
def test_what_it_had_enqueued_runs_although_it_raised(then: str, error: Any) -> None:
    """A queue has the job by then."""
    order.clear()
    with configure(backend=SyncBackend()), pytest.raises(error):
        perform_job(parent, {**TENANT, "then": then})
    assert order == IN_ORDER


@pytest.mark.parametrize("perform", [perform_job, lambda *call: asyncio.run(aperform_job(*call))])
def test_what_it_had_enqueued_waits_if_its_end_cannot_be_logged(perform: Any) -> None:
    """Nothing else begins as the caller is interrupted; ``drain()`` has it."""
    order.clear()
    with configure(backend=(backend := SyncBackend())):
        with handled_by(exiting), pytest.raises(SystemExit):
            perform(parent, {**TENANT, "then": "raise"})
        assert order == IN_ORDER[:2]
        backend.drain()
    assert order == IN_ORDER


def test_perform_job_can_be_a_later_attempt() -> None:
    """The body sees the attempt and snoozes that the test asks for."""

    @tenant_worker
    def facts(scope: AuditScope) -> Any:
        job = current_job()
        return job and (job.attempt, job.snoozes, job.max_attempts)

    assert Ok((2, 3, 5)) == perform_job(facts, TENANT, attempt=2, snoozes=3, max_attempts=5)


@pytest.mark.parametrize(
    "turn", [{"attempt": 0}, {"attempt": True}, {"attempt": "2"}, {"snoozes": -1}, {"snoozes": 1.5}]
)
def test_perform_job_refuses_a_turn_that_no_queue_gives(turn: Any) -> None:
    """Attempts count from 1, snoozes from 0, and a body that saw anything else was tested for nothing."""
    with pytest.raises(
        ValueError, match=f"^{next(iter(turn))} must be an int of at least [01], not"
    ):
        perform_job(close, TENANT, **turn)


def test_perform_job_runs_an_async_worker() -> None:
    """Outside a loop a coroutine is run to its end."""
    assert Ok(4) == perform_job(later, {**TENANT, "n": 4})


def test_perform_job_inside_a_loop_names_aperform_job() -> None:
    """A coroutine cannot be run to its end inside a loop, and the error says what can."""

    async def main() -> None:
        perform_job(later, {**TENANT, "n": 4})

    with pytest.raises(RuntimeError, match="aperform_job"):
        asyncio.run(main())


def test_aperform_job_runs_inside_a_loop() -> None:
    """Inside a loop it is awaited."""
    assert Ok(4) == asyncio.run(aperform_job(later, {**TENANT, "n": 4}))


def test_aperform_job_without_a_loop_of_asyncio_s_says_so() -> None:
    """Another library's loop cannot run a worker, and the coroutine is not left unawaited."""
    with pytest.raises(RuntimeError, match="asyncio"):
        aperform_job(later, {**TENANT, "n": 4}).send(None)


def test_without_a_loop_of_asyncio_s_nothing_is_enqueued(sigra_backend: RecordingBackend) -> None:
    """On another library's loop .anew says so before it takes the job, and adrain takes none out."""
    waiting = close.new(TENANT, delay=5)
    for coroutine in (later.anew({**TENANT, "n": 4}), sigra_backend.adrain(until=5)):
        with pytest.raises(EnqueueError, match="asyncio"):
            coroutine.send(None)
    assert ([waiting], [waiting]) == (sigra_backend.jobs, sigra_backend.drain(until=5))


def test_assert_enqueued_returns_the_last_such_job(sigra_backend: RecordingBackend) -> None:
    """The job can be looked at further."""
    close.new(TENANT)
    last = close.new(TENANT)
    assert last is assert_enqueued(close)


def test_assert_enqueued_matches_some_of_the_args(sigra_backend: RecordingBackend) -> None:
    """Args that the test does not name may be anything."""
    first = close.new({**TENANT, "then": "x"})
    close.new({**TENANT, "then": "y"})
    assert first is assert_enqueued(close, args={"then": "x"})


def test_assert_enqueued_matches_the_whole_of_a_value(sigra_backend: RecordingBackend) -> None:
    """A mapping or list in the args is one value, of which no part stands for the rest."""
    close.new({**TENANT, "then": {"n": 1, "pad": "x"}})
    for wanted in ({"n": 1}, {"n": 1, "pad": "x", "more": 2}, {"n": 1, "other": "x"}, ["n", "pad"]):
        refute_enqueued(close, args={"then": wanted})
    close.new({**TENANT, "then": [1, 2]})
    for wanted in ([], [1], [1, 2, 3], [2, 1], {}, 1):
        refute_enqueued(close, args={"then": wanted})


def test_assert_enqueued_takes_any_mapping(sigra_backend: RecordingBackend) -> None:
    """The args of another job too, which are read-only, or a view of a dict."""
    job = close.new(TENANT)
    assert job is assert_enqueued(close, args=job.args)
    assert job is assert_enqueued(close, args=MappingProxyType({"actor_id": 7}))


def test_assert_enqueued_knows_an_id_by_any_type(sigra_backend: RecordingBackend) -> None:
    """An id that .new() takes is one that a test may ask for."""
    job = close.new({"organization_id": 42, "actor_id": None})
    assert job is assert_enqueued(close, args={"organization_id": 42, "actor_id": None})


def test_what_is_no_id_is_not_taken_for_none(sigra_backend: RecordingBackend) -> None:
    """A job without an actor is not one of an actor whose id a test got wrong."""
    close.new({**TENANT, "actor_id": None})
    for wanted in (1.5, object()):
        with pytest.raises(AssertionError):
            assert_enqueued(close, args={"actor_id": wanted})


def test_what_equals_anything_does(sigra_backend: RecordingBackend) -> None:
    """mock.ANY stands for any id and for any value of an option."""
    job = close.new(TENANT, delay=9)
    assert job is assert_enqueued(close, args={"organization_id": ANY}, delay=ANY, queue=ANY)
    with pytest.raises(AssertionError):
        refute_enqueued(close, args={"actor_id": ANY}, delay=9)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: ({"deep": x},)])
def test_true_is_not_1(sigra_backend: RecordingBackend, wrap: Any) -> None:
    """As in JSON, at any depth; 1 and 1.0 are one number there."""
    for wanted, sent in ((True, 1), (1, True), (0.0, False)):
        sweep.new({"x": wrap(sent)})
        refute_enqueued(sweep, {"x": wrap(wanted)})
        sigra_backend.clear()
    sweep.new({"x": wrap(1), "y": wrap(True)})
    assert_enqueued(sweep, {"x": wrap(1.0), "y": wrap(True)})
    assert_enqueued(sweep, {"x": wrap(ANY), "y": wrap(ANY)})


def test_assert_enqueued_takes_what_new_took(sigra_backend: RecordingBackend) -> None:
    """The args and options of the call are found again: a tuple as the list, a timedelta as seconds."""
    args = {**TENANT, "then": {"lines": (1, ("a", ANY))}}
    job = close.new({**args, "then": {"lines": (1, ("a", "b"))}}, delay=timedelta(minutes=1))
    assert job is assert_enqueued(close, args=args, delay=timedelta(minutes=1))
    assert job is assert_enqueued(close, args=args, delay=60, queue=None)


def test_assert_enqueued_refuses_an_option_that_there_is_not() -> None:
    """A misspelt option is named, and not one that no job has."""
    for value in (60, None, ANY):
        with (
            configure(backend=RecordingBackend()),
            pytest.raises(InvalidOptionError, match="dealy") as caught,
        ):
            refute_enqueued(close, dealy=value)
        # It may be an arg of the job, as parameters are bound by name.
        assert caught.value.__notes__[0].endswith("asked for by args={'dealy': ...}.")


def test_an_option_of_a_wrong_type_is_told_as_one(sigra_backend: RecordingBackend) -> None:
    """Nobody is sent from a known option to the args."""
    with pytest.raises(InvalidOptionError) as caught:
        assert_enqueued(close, delay="soon")
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("ask", [assert_enqueued, refute_enqueued])
@pytest.mark.parametrize("args", [[1], [], "ab", 3])
def test_asking_by_args_takes_a_mapping(
    ask: Callable[..., object], args: Any, sigra_backend: RecordingBackend
) -> None:
    """What no job can have as args is named as the mistake that it is."""
    with pytest.raises(TypeError, match=f"^args must be a mapping .* not {type(args).__name__}$"):
        ask(close, args=args)


@pytest.mark.parametrize("ask", [assert_enqueued, refute_enqueued])
@pytest.mark.parametrize("of", [later, sweep])
def test_asking_by_args_takes_names_as_keys(
    of: Any, ask: Callable[..., object], sigra_backend: RecordingBackend
) -> None:
    """A key that no job can have is named as the mistake that it is."""
    with pytest.raises(TypeError, match="^args must have names as keys; one key is int$"):
        ask(of, args={**TENANT, 1: 2})


def test_a_duplicate_was_not_enqueued(sigra_backend: RecordingBackend) -> None:
    """Of two jobs with one unique key there is the first."""
    first = close.new(TENANT, unique="x", delay=9)
    assert close.new(TENANT, unique="x").duplicate
    assert first is assert_enqueued(close)


def test_assert_enqueued_matches_options(sigra_backend: RecordingBackend) -> None:
    """A queue that the test names must be the job's."""
    close.new(TENANT)
    with pytest.raises(AssertionError):
        assert_enqueued(close, queue="mail")


def test_assert_enqueued_tells_absent_from_none(sigra_backend: RecordingBackend) -> None:
    """A key that the job lacks is not None."""
    close.new(TENANT)
    with pytest.raises(AssertionError):
        assert_enqueued(close, args={"impersonating_from": None})


def test_assert_enqueued_shows_what_was(sigra_backend: RecordingBackend) -> None:
    """The failure lists the jobs that there are."""
    close.new(TENANT)
    with pytest.raises(AssertionError, match=r"test_kit\.close"):
        assert_enqueued(sweep)


def test_what_a_failed_assertion_shows_of_a_job(sigra_backend: RecordingBackend) -> None:
    """Its args, how it stands and the options that it was given, whatever was asserted."""
    close.new({**TENANT, "then": "fail"})
    close.new(TENANT, queue="mail", delay=60)
    jobs = (
        "\n  test_kit.close {'organization_id': '42', 'actor_id': '7', 'then': 'fail'}, discarded"
        "\n  test_kit.close {'organization_id': '42', 'actor_id': '7'}, scheduled, "
        "queue='mail', delay=60.0"
    ).replace("test_kit.close", close.name)
    with pytest.raises(AssertionError) as raised:
        assert_enqueued(close, args={"then": 1})
    assert str(raised.value) == (
        f"no job of {close.name} with args {{'then': 1}} and options {{}} was enqueued; "
        f"enqueued were:{jobs}"
    )
    with pytest.raises(AssertionError) as raised:
        refute_enqueued(close)
    assert str(raised.value) == f"such jobs of {close.name} were enqueued:{jobs}"


def test_assert_enqueued_shows_no_more_than_can_be_read(sigra_backend: RecordingBackend) -> None:
    """Of many jobs the last ones, and of each its beginning."""
    for number in range(100):
        close.new({**TENANT, "pad": "x" * 10_000, "n": number})
    with pytest.raises(AssertionError, match=r"\(80 before these\)") as caught:
        assert_enqueued(close, args={"n": -1})
    assert len(str(caught.value)) < 25_000


def test_assert_enqueued_needs_the_fixture() -> None:
    """Without a recording backend it says what is missing."""
    missing = "sigra_backend, .* and no other configure"
    with configure(backend=SyncBackend()), pytest.raises(RuntimeError, match=missing):
        assert_enqueued(close)


@pytest.mark.parametrize("ask", [assert_enqueued, refute_enqueued, perform_job])
def test_the_kit_refuses_what_is_no_worker(
    ask: Callable[..., object], sigra_backend: RecordingBackend
) -> None:
    """A function that was never decorated is named as the mistake that it is."""
    with pytest.raises(TypeError, match="not a plain function"):
        ask(close.__wrapped__, TENANT)


def test_a_worker_of_a_reloaded_module_is_the_same(
    sigra_backend: RecordingBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test that holds the one from before is not told that no job of it was enqueued."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "jobs_to_reload.py").write_text("import sigra\n@sigra.worker\ndef job(): ...\n")
    module = importlib.import_module("jobs_to_reload")
    before = module.job
    sent = importlib.reload(module).job.new({})
    assert sent is assert_enqueued(before)
    with pytest.raises(AssertionError, match="such jobs"):
        refute_enqueued(before)


def test_refute_enqueued_accepts_none(sigra_backend: RecordingBackend) -> None:
    """No such job is what it asserts."""
    close.new(TENANT)
    assert None is refute_enqueued(sweep)  # type: ignore[func-returns-value]


@pytest.mark.parametrize("arg", ["m", "scope"])
def test_refute_enqueued_refuses_an_arg_that_no_job_has(
    arg: str, sigra_backend: RecordingBackend
) -> None:
    """A misspelt or renamed parameter is named: the test would pass whatever was enqueued."""
    later.new({**TENANT, "n": 1})
    with pytest.raises(InvalidArgsError) as caught:
        refute_enqueued(later, args={arg: 1})
    assert f"$.{arg}" == caught.value.path


@pytest.mark.parametrize(
    "value",
    [uuid4(), date(2026, 12, 1), Decimal("9.99"), b"x", {1}, 2**63, object(), ValueError(), int],
)
@pytest.mark.parametrize(
    ("wrap", "path"), [(lambda x: x, "$.n"), (lambda x: [{"deep": x}], "$.n[0].deep")]
)
def test_refute_enqueued_refuses_a_value_that_no_job_has(
    wrap: Any, path: str, value: object, sigra_backend: RecordingBackend
) -> None:
    """A row's UUID travels as text: the test would pass whatever was enqueued."""
    later.new({**TENANT, "n": [{"deep": str(value)}]})
    with pytest.raises(InvalidArgsError) as caught:
        refute_enqueued(later, args={"n": wrap(value)})
    assert path == caught.value.path


def test_refute_enqueued_takes_what_only_looks_at_a_value(sigra_backend: RecordingBackend) -> None:
    """A matcher, such as mock.ANY or pytest.approx, is no value; a UUID may be an id."""
    later.new({**TENANT, "n": 1})
    refute_enqueued(later, args={"n": [ANY]})
    refute_enqueued(later, args={"n": pytest.approx(2.0), "organization_id": uuid4()})


def test_refute_enqueued_fails_for_one(sigra_backend: RecordingBackend) -> None:
    """One such job is one too many."""
    close.new(TENANT)
    with pytest.raises(AssertionError):
        refute_enqueued(close)


@given(tenant_args_strategy(json_args()))
def test_generated_tenant_args_are_accepted(args: dict[str, Any]) -> None:
    """What the strategy makes, .new() takes."""
    perform_job(close, {**args, "then": None})


@given(tenant_args_strategy(json_args()))
def test_generated_tenant_args_have_both_keys(args: dict[str, Any]) -> None:
    """The required keys are always present."""
    assert {"organization_id", "actor_id"} <= args.keys()


@pytest.mark.parametrize("part", [" ", "\n", "\0"])
def test_generated_ids_are_of_all_that_new_takes(part: str) -> None:
    """A body that strips or splits an id, or stores it where a zero byte cannot be, is found out."""

    def has_it(args: dict[str, Any]) -> bool:
        return part in (args["actor_id"] or "")

    every = settings(max_examples=10_000, database=None, derandomize=True)
    assert has_it(
        find(tenant_args_strategy(st.just({"organization_id": None})), has_it, settings=every)
    )


@given(tenant_args_strategy(st.just({"organization_id": "acme", "impersonating_from": None})))
def test_further_args_may_be_the_ids(args: dict[str, Any]) -> None:
    """A property of one organization asks for it; the other ids are generated."""
    assert ("acme", None) == (args["organization_id"], args["impersonating_from"])
    assert "actor_id" in args


@pytest.mark.parametrize("extra", [{"n": st.integers()}, json_args, [json_args()]])
def test_further_args_that_are_no_strategy_are_named(extra: Any) -> None:
    """The error tells what to give; Hypothesis' own told of a dict that has no 'validate'."""

    @settings(database=None)
    @given(tenant_args_strategy(extra))
    def never(args: dict[str, Any]) -> None:
        raise AssertionError(args)

    kind = type(extra).__name__
    with pytest.raises(TypeError, match=rf"fixed_dictionaries\(\{{...\}}\), not a {kind}"):
        never()


@given(json_args())
def test_generated_json_args_are_json(args: dict[str, Any]) -> None:
    """A JSON round trip gives the same."""
    assert args == json.loads(json.dumps(args, allow_nan=False))


@pytest.mark.parametrize("kind", ["_Hostile", "int", "float", "list", "type"])
def test_a_property_that_a_hostile_value_breaks_says_how(kind: str) -> None:
    """Hypothesis shows the value and the property's own error, though the value's repr raises."""

    @settings(database=None, derandomize=True, max_examples=500)
    @given(hostile_values())
    def found(value: Any) -> None:
        if type(value).__name__ == kind:
            raise LookupError(kind)

    with pytest.raises(LookupError) as caught:
        found()
    assert "value=" in "".join(getattr(caught.value, "__notes__", ()))


def test_the_strategy_of_hostile_values_can_be_shown() -> None:
    """Hypothesis does so where drawing a value fails."""
    assert "one_of" in repr(hostile_values())


@given(hostile_values())
def test_hostile_values_are_refused_as_args(value: Any) -> None:
    """Nothing that the strategy makes passes for JSON, and nothing else is raised."""
    with pytest.raises(InvalidArgsError):
        sweep.new({"value": value})


@given(st.data())
def test_the_fixture_s_backend_can_be_made_by_hand(data: st.DataObject) -> None:
    """A property that needs a fresh backend for each example makes its own."""
    with configure(backend=RecordingBackend()) as settings_in_force:
        sweep.new(data.draw(json_args()))
        backend = settings_in_force.backend
    assert 1 == len(getattr(backend, "jobs", []))


@pytest.mark.parametrize("name", sigra.testing.__all__)
def test_every_name_of_the_kit_is_documented(name: str) -> None:
    """help() of each says what it does."""
    assert getattr(sigra.testing, name).__doc__


def test_an_unknown_name_of_the_kit_is_an_attribute_error() -> None:
    """The lazy package says what it lacks."""
    with pytest.raises(AttributeError, match="no_such"):
        _ = sigra.testing.no_such


def test_without_hypothesis_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A strategy that cannot be made says what to install."""
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    monkeypatch.delitem(sys.modules, "sigra.testing.strategies")
    monkeypatch.delitem(vars(sigra.testing), "json_args")
    with pytest.raises(MissingExtraError, match=r"sigra\[testing\]"):
        _ = sigra.testing.json_args
