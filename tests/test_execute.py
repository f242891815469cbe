"""One attempt: scope, context, outcome, and what is logged of it."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import itertools
import logging
import sys
import threading
import traceback
from collections import UserDict
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import wrapt

from sigra import (
    AuditEvent,
    AuditScope,
    Cancel,
    Failure,
    Job,
    JobCancelledError,
    JobFailedError,
    MissingArgError,
    Ok,
    Snooze,
    configure,
    current_job,
    fetch_arg,
    log_safe,
    tenant_worker,
    worker,
)
from sigra.backends.external import consume
from sigra.context import Attempt
from sigra.execute import aexecute, execute
from sigra.json import freeze
from sigra.options import JobOptions
from sigra.testing import AuditLog
from sigra.verdict import Verdict

TENANT = {"organization_id": "42", "actor_id": "7", "impersonating_from": "1"}
numbers = itertools.count()
note = contextvars.ContextVar("note", default="unset")


def attempt_of(
    function: Any, args: dict[str, Any] = TENANT, attempt: int = 1, **options: Any
) -> Attempt:
    made = tenant_worker(name=f"execute.{next(numbers)}")(function)
    job = Job(made.definition, freeze(dict(args), 10**6), JobOptions(**options), "sync")
    return Attempt(job, attempt, 0)


def run(function: Any, args: dict[str, Any] = TENANT, **options: Any) -> Verdict:
    """Run one attempt of a function, on a loop if it is a coroutine function."""
    return execute(attempt_of(function, args, **options))


def arun(function: Any, **options: Any) -> Verdict:
    async def main() -> Verdict:
        return await aexecute(attempt_of(function, **options))

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("returned", "state", "value"),
    [
        (None, "completed", None),
        (5, "completed", 5),
        (False, "completed", False),
        (int, "completed", int),
        (Ok(), "completed", None),
        (Ok(5), "completed", 5),
        (Snooze(9), "scheduled", None),
        (Failure("why"), "discarded", None),
        (Cancel("why"), "cancelled", None),
    ],
)
def test_what_a_function_returns_decides_the_state(returned: Any, state: str, value: Any) -> None:
    """A value, Ok, Snooze, Failure and Cancel each have one meaning."""
    verdict = run(lambda scope, **rest: returned)
    assert (state, value) == (verdict.state, verdict.value)


@pytest.mark.parametrize("kind", [Ok, Failure, Snooze, Cancel])
def test_an_outcome_s_class_is_no_outcome(kind: Any) -> None:
    """Whoever forgot the parentheses learns of it: the attempt has failed, and not succeeded."""
    verdict = run(lambda scope, **rest: kind)
    assert ("discarded", TypeError) == (verdict.state, type(verdict.error))
    assert f"return {kind.__name__}(...)" in str(verdict.error)


def steps() -> Iterator[int]:
    yield 1


async def more_steps() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("make", [steps, more_steps, lambda: (n for n in (1, 2))])
def test_a_generator_that_nothing_has_run_is_no_success(make: Callable[[], Any]) -> None:
    """A decorator may hide that a function is a generator: its job has failed, and says why."""
    for verdict in (run(lambda scope, **rest: make()), arun(lambda scope, **rest: make())):
        assert ("discarded", TypeError) == (verdict.state, type(verdict.error))
        assert "generator that was never run" in str(verdict.error)


def test_a_coroutine_that_a_coroutine_returned_is_no_success() -> None:
    """The inner one was never awaited: its work is not done."""

    async def inner() -> int:
        return 1

    async def outer(scope: AuditScope, **rest: Any) -> Any:
        return held

    held = inner()
    verdict = arun(outer)
    held.close()
    assert ("discarded", TypeError) == (verdict.state, type(verdict.error))


def test_a_snooze_comes_back_after_its_seconds() -> None:
    """The delay of a snooze is what was asked for."""
    assert 9.0 == run(lambda scope, **rest: Snooze(9)).delay


@pytest.mark.parametrize("seconds", [0, -1, True, 1.5, "5", None])
def test_a_snooze_takes_a_positive_int(seconds: Any) -> None:
    """Zero, bool and float are refused where the Snooze is made."""
    with pytest.raises(ValueError, match="positive int of seconds"):
        Snooze(seconds)


def test_a_failure_with_attempts_left_is_retried() -> None:
    """Failure uses up an attempt and asks for the next."""
    verdict = run(lambda scope, **rest: Failure("why"), max_attempts=2, backoff=3.0)
    assert ("retryable", 3.0) == (verdict.state, verdict.delay)


def test_a_cancel_with_attempts_left_is_final() -> None:
    """Cancel ends the job whatever attempts are left."""
    assert "cancelled" == run(lambda scope, **rest: Cancel(), max_attempts=9).state


def test_a_failure_s_reason_is_kept() -> None:
    """The result raises JobFailedError with the very reason."""
    reason = object()
    with pytest.raises(JobFailedError) as caught:
        run(lambda scope, **rest: Failure(reason)).unwrap()
    assert reason is caught.value.reason


def test_a_cancel_s_reason_is_kept() -> None:
    """The result raises JobCancelledError with the very reason."""
    reason = object()
    with pytest.raises(JobCancelledError) as caught:
        run(lambda scope, **rest: Cancel(reason)).unwrap()
    assert reason is caught.value.reason


ERRORS = [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError]


def raising(kind: type[BaseException]) -> Any:
    def body(scope: AuditScope, **rest: Any) -> None:
        raise kind("why")

    return body


def raising_later(kind: type[BaseException]) -> Any:
    async def body(scope: AuditScope, **rest: Any) -> None:
        raise kind("why")

    return body


@pytest.mark.parametrize("kind", ERRORS)
def test_whatever_a_function_raises_is_a_failed_attempt(kind: type[BaseException]) -> None:
    """No exception of a body, SystemExit included, gets out of the attempt."""
    verdict = run(raising(kind))
    assert ("discarded", kind) == (verdict.state, type(verdict.error))


@pytest.mark.parametrize("kind", ERRORS)
def test_whatever_a_coroutine_raises_is_a_failed_attempt(kind: type[BaseException]) -> None:
    """The same holds for an async function by its own loop."""
    verdict = run(raising_later(kind))
    assert ("discarded", kind) == (verdict.state, type(verdict.error))


@pytest.mark.parametrize("kind", ERRORS)
def test_what_a_coroutine_raises_does_not_stop_the_loop(kind: type[BaseException]) -> None:
    """On a running loop the attempt fails and the loop goes on."""
    verdict = arun(raising_later(kind))
    assert ("discarded", kind) == (verdict.state, type(verdict.error))


def test_cancelling_the_consumer_s_task_is_passed_on() -> None:
    """A cancellation from outside reaches the body and is raised again."""
    seen = []

    async def body(scope: AuditScope, **rest: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("body")
            raise

    async def main() -> None:
        task = asyncio.ensure_future(aexecute(attempt_of(body)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert ["body"] == seen


def test_an_exception_with_attempts_left_is_retried() -> None:
    """An exception asks for the next attempt as Failure does."""
    assert "retryable" == run(raising(ValueError), max_attempts=2).state


@pytest.mark.parametrize(
    ("attempt", "lost", "allowed", "state"),
    [
        (1, 1, 2, "discarded"), (1, 1, 3, "retryable"), (1, 2, 3, "discarded"),
        (2, 1, 3, "discarded"), (2, 1, 4, "retryable"),
    ],
)  # fmt: skip
def test_a_run_that_was_lost_uses_up_an_attempt(
    attempt: int, lost: int, allowed: int, state: str
) -> None:
    """Runs that failed and runs that died with their consumers count together."""
    turn = attempt_of(raising(ValueError), attempt=attempt, max_attempts=allowed)
    turn.lost = lost
    assert state == execute(turn).state


def test_the_last_attempt_is_final() -> None:
    """With no attempt left the job is discarded."""
    assert "discarded" == run(raising(ValueError), attempt=2, max_attempts=2).state


@pytest.mark.parametrize(
    "backoff",
    [lambda attempt: 1 / 0, lambda: 5, lambda attempt: -1, lambda attempt: "soon", sys.exit],
)
def test_a_backoff_that_raises_costs_no_attempt(backoff: Any, caplog: Any) -> None:
    """A broken backoff function is logged, and the job retried after the default time."""
    verdict = run(raising(ValueError), attempt=2, max_attempts=3, backoff=backoff)
    assert ("retryable", ValueError) == (verdict.state, type(verdict.error))
    assert 27 <= verdict.delay <= 30
    assert "has a backoff that raised" in caplog.text


def test_the_longest_retry_is_three_centuries() -> None:
    """The dates of no queue reach further than a backoff function may."""
    assert 1e10 == run(raising(ValueError), max_attempts=2, backoff=lambda attempt: 1e12).delay


def test_a_snooze_is_logged_with_its_job(caplog: pytest.LogCaptureFixture) -> None:
    """It uses no attempt up: a job that snoozes for ever is seen in the log alone."""
    with caplog.at_level(logging.INFO, "sigra.job"):
        attempt = attempt_of(lambda scope, **rest: Snooze(90))
        attempt.snoozes = 5
        execute(attempt)
    (line,) = caplog.messages
    assert line.startswith(f"job {attempt.job.id} of {attempt.job.worker} (organization 42, ")
    assert line.endswith("attempt 1 of 1, snoozed (6 so far); again in 90 s")


def test_another_job_s_absent_key_is_an_error_as_any() -> None:
    """A body that raises what a child ended with may be retried."""

    def body(scope: AuditScope, **rest: Any) -> None:
        raise MissingArgError("n", "another.worker")

    assert "retryable" == run(body, max_attempts=2).state


@pytest.mark.parametrize("key", ["organization_id", "actor_id"])
def test_an_absent_key_fails_for_good(key: str) -> None:
    """A hand-built job without a tenant key never runs its body and is not retried."""
    ran: list[int] = []
    args = {name: value for name, value in TENANT.items() if name != key}
    verdict = run(lambda scope, **rest: ran.append(1), args, max_attempts=5)
    assert ("discarded", MissingArgError, []) == (verdict.state, type(verdict.error), ran)


def test_an_absent_key_is_named() -> None:
    """The error of such a job carries the key, and the worker."""
    attempt = attempt_of(lambda scope, **rest: None, {"organization_id": "42"})
    error: Any = execute(attempt).error
    assert ("actor_id", attempt.job.worker) == (error.key, error.worker)


def test_fetch_arg_gives_a_present_none() -> None:
    """None is a value."""
    assert None is fetch_arg({"actor_id": None}, "actor_id")


def test_fetch_arg_names_the_absent_key() -> None:
    """An absent key raises MissingArgError, which is a KeyError."""
    with pytest.raises(KeyError, match="'actor_id'"):
        fetch_arg({}, "actor_id")


@pytest.mark.parametrize("says", [True, False])
def test_fetch_arg_goes_by_the_keys_that_a_mapping_has(says: bool) -> None:
    """What its own ``in`` says decides nothing, as at ``.new()``."""

    class Odd(UserDict[str, Any]):
        def __contains__(self, key: object) -> bool:
            return says

    assert 1 == fetch_arg(Odd(n=1), "n")
    with pytest.raises(MissingArgError):
        fetch_arg(Odd(n=1), "m")


def test_fetch_arg_in_a_body_fails_the_job_for_good() -> None:
    """A required key that the body itself fetches is not retried either."""
    verdict = run(lambda scope, args: fetch_arg(args, "n"), max_attempts=5)
    assert "discarded" == verdict.state


def test_a_missing_arg_of_a_type_of_ones_own_fails_the_job_for_good() -> None:
    """An error that is derived from it says the same: no retry could supply the arg."""

    class NoInvoiceError(MissingArgError):
        pass

    verdict = run(raising(NoInvoiceError), max_attempts=5)
    assert "discarded" == verdict.state


def test_fetch_arg_in_a_body_says_nothing_that_is_not_so() -> None:
    """The job may have come through .new(), and its body was run."""
    text = str(run(lambda scope, args: fetch_arg(args, "n")).error)
    assert "has no arg 'n'" in text
    assert ".new()" in text
    assert "was not run" not in text
    assert "did not come" not in text


def test_the_scope_is_built_from_the_ids() -> None:
    """The body gets actor, organization and impersonator as they were enqueued."""
    expected = AuditScope.build(actor_id=7, organization_id=42, impersonating_from=1)
    assert expected == run(lambda scope, **rest: scope).value


def test_a_job_sees_the_caller_s_context() -> None:
    """On the sync backend the job's context is a copy of the caller's."""
    token = note.set("caller")
    try:
        assert "caller" == run(lambda scope, **rest: note.get()).value
    finally:
        note.reset(token)


@pytest.mark.parametrize("kind", [None, *ERRORS])
def test_nothing_that_a_job_sets_outlives_it(kind: Any) -> None:
    """A context variable set by a body is as before after it, however the body ends."""

    def body(scope: AuditScope, **rest: Any) -> None:
        note.set("job")
        if kind is not None:
            raise kind

    run(body)
    assert ("unset", None) == (note.get(), current_job())


def test_nothing_that_a_coroutine_sets_outlives_it() -> None:
    """The same holds for an async body on a running loop."""

    async def body(scope: AuditScope, **rest: Any) -> None:
        note.set("job")

    async def main() -> str:
        await aexecute(attempt_of(body))
        return note.get()

    assert "unset" == asyncio.run(main())


def test_interleaved_jobs_never_see_each_other() -> None:
    """Two jobs that take turns on one loop keep their own context and identity."""

    async def body(scope: AuditScope, n: int, **rest: Any) -> Any:
        note.set(str(n))
        for _ in range(3):
            await asyncio.sleep(0)
        job = current_job()
        return note.get(), job.id if job else None

    async def main() -> Any:
        attempts = [attempt_of(body, {**TENANT, "n": n}) for n in range(5)]
        verdicts = await asyncio.gather(*map(aexecute, attempts))
        return [(a.job.id, v.value) for a, v in zip(attempts, verdicts, strict=True)]

    for n, (job_id, value) in enumerate(asyncio.run(main())):
        assert (str(n), job_id) == value


def test_current_job_is_the_running_one() -> None:
    """Inside a body current_job() is the JobInfo that the body is given."""
    assert run(lambda scope, job, **rest: job is current_job()).value


def test_job_info_carries_the_attempt_s_facts() -> None:
    """Id, worker, queue, backend and counters are those of the attempt."""
    running = attempt_of(lambda scope, job, **rest: job, attempt=2, max_attempts=3, queue="mail")
    info = execute(running).value
    assert (
        running.job.id,
        running.job.worker,
        "mail",
        "sync",
        2,
        3,
        0,
        running.job.enqueued_at,
    ) == (
        info.id,
        info.worker,
        info.queue,
        info.backend,
        info.attempt,
        info.max_attempts,
        info.snoozes,
        info.enqueued_at,
    )


def test_what_a_body_raises_while_it_is_cancelled_is_its_verdict() -> None:
    """A cancellation that the body made an error of its own is not raised again."""
    begun = asyncio.Event()

    async def body(scope: AuditScope, **rest: Any) -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            raise OSError("it could not be undone")

    async def main() -> Verdict:
        task = asyncio.create_task(aexecute(attempt_of(body)))
        await begun.wait()
        task.cancel()
        return await task

    verdict = asyncio.run(main())
    assert ("discarded", OSError) == (verdict.state, type(verdict.error))


def test_a_coroutine_function_runs_by_its_own_loop() -> None:
    """Without a running loop an async worker is run to its end."""

    async def body(scope: AuditScope, **rest: Any) -> int:
        await asyncio.sleep(0)
        return 5

    assert 5 == run(body).value


def test_an_awaited_outcome_counts() -> None:
    """What a coroutine returns decides as what a function returns."""

    async def body(scope: AuditScope, **rest: Any) -> Any:
        return Snooze(4)

    assert ("scheduled", 4.0) == (arun(body).state, arun(body).delay)


def record_of(caplog: pytest.LogCaptureFixture, **options: Any) -> logging.LogRecord:
    with caplog.at_level(logging.DEBUG, "sigra.job"):
        run(raising(ValueError), **options)
    (record,) = caplog.records
    return record


def test_an_exception_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """The log line of a raising body has the traceback into the body."""
    record = record_of(caplog)
    assert record.exc_info is not None
    assert "body" in [frame.name for frame in traceback.extract_tb(record.exc_info[2])]


def test_an_exception_is_logged_with_the_job_s_ids(caplog: pytest.LogCaptureFixture) -> None:
    """Organization, actor, impersonator and attempt are attributes of the record."""
    record: Any = record_of(caplog)
    assert ("42", "7", "1", 1) == (
        record.organization_id,
        record.actor_id,
        record.impersonating_from,
        record.attempt,
    )


def test_the_log_line_names_the_job(caplog: pytest.LogCaptureFixture) -> None:
    """The record's job_id is in its text too."""
    record: Any = record_of(caplog)
    assert record.job_id in record.getMessage()


def test_failures_are_grouped_by_their_worker(caplog: pytest.LogCaptureFixture) -> None:
    """Sentry takes lines without a traceback for one issue if their unformatted text is the same."""

    def body(scope: AuditScope, why: str, **rest: Any) -> Any:
        return Failure(why)

    one, other = (tenant_worker(name=f"execute.{n} 100%s")(body).definition for n in ("a", "b"))
    for definition, why in ((one, "no stock"), (one, "no card"), (other, "no stock")):
        args = freeze({**TENANT, "why": why}, 10**6)
        execute(Attempt(Job(definition, args, JobOptions(), "sync"), 1, 0))
    first, second, third = caplog.records
    assert first.msg == second.msg != third.msg
    assert "of execute.a 100%s (organization 42, " in first.getMessage()
    assert second.getMessage().endswith("attempt 1 of 1, failed: no card")


def test_the_log_is_written_in_the_job_s_context(caplog: pytest.LogCaptureFixture) -> None:
    """A filter of the application's sees the running job when a failure is logged."""
    seen = []

    def keep(record: logging.LogRecord) -> bool:
        seen.append(current_job())
        return True

    log = logging.getLogger("sigra.job")
    log.addFilter(keep)
    try:
        record: Any = record_of(caplog)
    finally:
        log.removeFilter(keep)
    assert [record.job_id] == [job.id for job in seen if job]


def test_a_failure_s_reason_is_no_secret_leak(caplog: pytest.LogCaptureFixture) -> None:
    """A reason that is not text is logged by its type alone."""
    with caplog.at_level(logging.DEBUG, "sigra.job"):
        run(lambda scope, **rest: Failure({"password": "hunter2"}))
    assert "hunter2" not in caplog.text


def test_a_cancelled_job_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing else says why a job that will not run again did not do its work."""
    with caplog.at_level(logging.INFO, "sigra.job"):
        run(lambda scope, **rest: Cancel("the invoice is gone"))
    (line,) = caplog.messages
    assert line.endswith("attempt 1 of 1, was cancelled: the invoice is gone")


def test_an_id_may_be_the_worker_s_name(caplog: pytest.LogCaptureFixture) -> None:
    """The line names both."""
    made = tenant_worker(name="execute.line.twice")(raising(ValueError))
    made.new({**TENANT, "organization_id": made.name})
    assert "of execute.line.twice (organization execute.line.twice, actor 1 as 7)" in caplog.text


def test_a_failure_that_ends_the_job_is_logged_as_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever is called for errors hears of a job that is given up; a retry is a warning."""
    for attempt in (1, 2):
        execute(
            attempt_of(lambda scope, **rest: Failure("no stock"), TENANT, attempt, max_attempts=2)
        )
    assert ["WARNING", "ERROR"] == [record.levelname for record in caplog.records]


ACTION = "invoice.close"


@pytest.mark.parametrize(
    ("returned", "outcomes"),
    [
        (None, ["success"]),
        (Ok(1), ["success"]),
        (Failure(), ["failure"]),
        (Cancel(), ["failure"]),
        (Snooze(1), []),
    ],
)
def test_an_action_audits_each_finished_attempt(
    returned: Any, outcomes: list[str], audit_log: AuditLog
) -> None:
    """One event by outcome, none for a snooze, without a line in the body."""
    made = tenant_worker(action=ACTION, audit_schema=AuditEvent, name=f"execute.action.{returned}")
    made(lambda scope, **rest: returned).new(TENANT)
    assert [(ACTION, one) for one in outcomes] == [(e.action, e.outcome) for e in audit_log]


def test_an_action_audits_an_exception_as_error(audit_log: AuditLog) -> None:
    """A raising body is an event of outcome error."""
    made = tenant_worker(action=ACTION, audit_schema=AuditEvent, name="execute.action.error")
    made(raising(ValueError)).new(TENANT)
    assert ["error"] == [event.outcome for event in audit_log.of(ACTION)]


def test_an_action_is_logged_where_there_is_no_sink(capsys: pytest.CaptureFixture[str]) -> None:
    """structlog has the event; a worker without an action writes none."""
    for name, action in (("execute.action.line", ACTION), ("execute.action.silent", None)):
        made = tenant_worker(action=action, audit_schema=AuditEvent, name=name)
        made(lambda scope, **rest: None).new(TENANT)
    assert 1 == capsys.readouterr().out.count(ACTION)


class Queueing(AuditLog):
    """A sink that keeps events until it is told to write them, and may be unable to."""

    written, broken = 0, False

    def flush(self) -> None:
        if self.broken:
            raise OSError("hunter2")
        self.written = len(self.events)


def test_what_sinks_queue_is_written_before_the_job_has_ended() -> None:
    """A queue that hears of the end finds the job's events where they are kept."""
    made = tenant_worker(audit_schema=AuditEvent, name="execute.flush")
    with configure(sinks=[sink := Queueing()]):
        made(lambda scope, **rest: log_safe(ACTION, scope)).new(TENANT)
        assert 1 == sink.written


def test_a_sink_that_cannot_write_ends_no_job(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the other sinks are asked too."""
    made = tenant_worker(action=ACTION, audit_schema=AuditEvent, name="execute.flush.broken")
    bad, good = Queueing(), Queueing()
    bad.broken = True
    with configure(sinks=[bad, good]):
        job = made(lambda scope, **rest: None).new(TENANT)
    assert ("completed", 1) == (job.state, good.written)
    assert ["audit events wait: tests.test_execute.Queueing raised builtins.OSError"] == (
        caplog.messages
    )


def test_what_a_sink_raises_is_logged_by_its_type_alone(caplog: pytest.LogCaptureFixture) -> None:
    """A database's error holds the parameters of its statement, and so what was to be written."""
    made = tenant_worker(action=ACTION, audit_schema=AuditEvent, name="execute.flush.leak")
    sink = Queueing()
    sink.broken = True
    with configure(sinks=[sink]):
        made(lambda scope, **rest: None).new(TENANT)
    assert "hunter2" not in caplog.text


def test_the_lifecycle_event_carries_scope_and_job(audit_log: AuditLog) -> None:
    """The event of a failed attempt names organization, impersonator, user and job."""
    made = tenant_worker(action=ACTION, audit_schema=AuditEvent, name="execute.action.ids")
    job = made(raising(ValueError)).new(TENANT)
    (event,) = audit_log.of(ACTION)
    assert ("42", "1", "7", job.id, 1) == (
        event.organization_id,
        event.actor_id,
        event.effective_user_id,
        event.job_id,
        event.attempt,
    )


def test_a_bad_action_is_refused_at_decoration() -> None:
    """An action that would never be emitted raises ValueError where it is written."""
    with pytest.raises(ValueError, match="action"):
        tenant_worker(action="Close invoice")(lambda scope: None)


def test_a_worker_runs_in_the_caller_s_thread() -> None:
    """The sync execution uses no other thread."""
    assert threading.get_ident() == run(lambda scope, **rest: threading.get_ident()).value


def test_a_function_that_returns_a_coroutine_is_awaited() -> None:
    """A plain function that hands back a coroutine is no way to lose the work."""

    async def later() -> int:
        return 6

    assert 6 == run(lambda scope, **rest: later()).value


class Proxied(wrapt.ObjectProxy):  # type: ignore[misc]
    """A coroutine as New Relic's decorators hand it on; what Cython makes is of no other use."""

    def __await__(self) -> Any:
        return self.__wrapped__.__await__()

    def send(self, value: Any) -> Any:
        return self.__wrapped__.send(value)

    def throw(self, *error: Any) -> Any:
        return self.__wrapped__.throw(*error)

    def close(self) -> None:
        self.__wrapped__.close()


@pytest.mark.parametrize("run_it", [run, arun])
def test_a_coroutine_of_another_type_is_awaited(run_it: Callable[..., Verdict]) -> None:
    """A tracer's decorator, or a compiler, below the worker's is no way to lose the work either."""

    @wrapt.decorator
    def traced(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        return Proxied(wrapped(*args, **kwargs))

    @traced
    async def later(scope: AuditScope, **rest: Any) -> int:
        await asyncio.sleep(0)
        return 6

    assert 6 == run_it(later).value


@pytest.mark.parametrize("run_it", [run, arun])
def test_what_a_decorator_gives_in_place_of_a_coroutine_is_the_value(
    run_it: Callable[..., Verdict],
) -> None:
    """A cache below the worker's decorator may answer at once: nothing is left to await."""

    @wrapt.decorator
    def cached(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        return 6

    @cached
    async def later(scope: AuditScope, **rest: Any) -> int:
        return 5

    assert 6 == run_it(later).value


def test_a_plain_call_of_an_async_worker_gives_its_coroutine() -> None:
    """Calling is not running: the caller awaits, as with the bare function."""

    @worker
    async def later() -> int:
        return 6

    coroutine = later()
    assert inspect.iscoroutine(coroutine)
    assert 6 == asyncio.run(coroutine)


@pytest.mark.parametrize(("organization", "actor"), [(42, "7"), ("42", 7), (42, 7)])
def test_a_number_as_the_id_of_a_hand_built_job_becomes_text(organization: Any, actor: Any) -> None:
    """The scope of a job that never passed .new() has text ids all the same."""
    args = {"organization_id": organization, "actor_id": actor}
    expected = AuditScope.build(actor_id=7, organization_id=42)
    assert expected == run(lambda scope, **rest: scope, args).value


def test_on_a_loop_the_scope_is_built_from_the_ids_too() -> None:
    """An attempt on an event loop has the same scope as one in a thread."""

    async def body(scope: AuditScope, **rest: Any) -> AuditScope:
        return scope

    expected = AuditScope.build(actor_id=7, organization_id=42, impersonating_from=1)
    assert expected == arun(body).value


def test_on_a_loop_a_worker_for_no_tenant_needs_no_ids() -> None:
    """An agnostic worker runs on a loop without tenant keys and without a scope."""

    @worker(name="execute.agnostic")
    async def body(n: int) -> int:
        return n

    attempt = Attempt(Job(body.definition, freeze({"n": 5}, 10**6), JobOptions(), "asyncio"), 1, 0)
    assert (5, None) == (asyncio.run(aexecute(attempt)).value, attempt.scope)


@pytest.mark.parametrize("seconds", [10**10, 10**400])
def test_the_longest_snooze_is_three_centuries(seconds: int) -> None:
    """A snooze of any length has a delay that a clock can count, and up to that its own."""
    assert 1e10 == run(lambda scope, **rest: Snooze(seconds)).delay


def test_an_attempt_beyond_the_last_is_final_too() -> None:
    """A deploy that lowers max_attempts ends a job that is further on already."""
    assert "discarded" == run(raising(ValueError), attempt=3, max_attempts=2).state


def attempted(function: Any, caplog: pytest.LogCaptureFixture, **options: Any) -> str:
    with caplog.at_level(logging.DEBUG, "sigra.job"):
        run(function, **options)
    (record,) = caplog.records
    return record.getMessage()


@pytest.mark.parametrize("body", [raising(ValueError), lambda scope, **rest: Failure("why")])
@pytest.mark.parametrize(("backoff", "told"), [(3.0, "3"), (0.3, "0.3"), (7_000_000, "7000000")])
def test_the_log_says_when_a_job_is_tried_again(
    body: Any, backoff: float, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The line of a retried attempt ends with the seconds until the next."""
    line = attempted(body, caplog, max_attempts=2, backoff=backoff)
    assert line.endswith(f"; again in {told} s")


@pytest.mark.parametrize("body", [raising(ValueError), lambda scope, **rest: Failure("why")])
def test_the_log_of_the_last_attempt_promises_no_other(
    body: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The line of a discarded job says nothing of another attempt."""
    assert "again in" not in attempted(body, caplog)


def test_a_long_reason_is_logged_in_part(caplog: pytest.LogCaptureFixture) -> None:
    """Of a reason the log line has the first 200 characters."""
    message = attempted(lambda scope, **rest: Failure("~" * 500), caplog)
    assert "~" * 200 == message[message.index("~") :]


def test_the_log_names_who_acts_as_whom(caplog: pytest.LogCaptureFixture) -> None:
    """An impersonated job's line has both, as the audit page has them."""
    assert "organization 42, actor 1 as 7)" in attempted(raising(ValueError), caplog)


def test_the_log_of_a_job_that_is_refused_shows_its_ids(caplog: pytest.LogCaptureFixture) -> None:
    """A number as it is, and of what is no id at all the type."""
    args = {"organization_id": 42, "actor_id": 1.5}
    made = tenant_worker(name="execute.line.refused")(lambda scope, **_: None)
    consume(args, made.definition, "test", native_id="n-1")
    (message,) = caplog.messages
    assert "job n-1 of execute.line.refused (organization 42, actor <float>)" in message


@pytest.mark.parametrize("sign", ["\n", "\r", "\x1b", "\u2028", "\u202e", "\x85"])
def test_no_id_or_reason_makes_a_line_of_its_own(
    sign: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What a tenant may have chosen is escaped where it would break or turn the line."""
    made = tenant_worker(name=f"execute.line.{ord(sign)}")(lambda scope, **_: Failure(f"a{sign}b"))
    ids = {
        "organization_id": f"acme{sign}ERROR",
        "actor_id": f"ann{sign}",
        "impersonating_from": f"bob{sign}",
    }
    made.new(ids)
    (record,) = caplog.records
    assert record.getMessage().isprintable()
    assert ids["organization_id"] == vars(record)["organization_id"]


def test_no_id_of_a_queue_makes_a_line_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever writes to a broker chooses the id of a job that he built by hand."""
    made = tenant_worker(name="execute.line.native")(lambda scope, **_: None)
    for name in ("execute.line.nobody", made.definition):
        consume({}, name, "test", native_id="7\nERROR")
    assert 2 == len(caplog.messages)
    assert all(message.isprintable() for message in caplog.messages)


def test_without_an_action_an_attempt_is_no_event(audit_log: AuditLog) -> None:
    """A worker that names no action is audited by what its body logs, and by nothing else."""
    made = tenant_worker(audit_schema=AuditEvent, name="execute.action.none")
    made(lambda scope, **rest: None).new(TENANT)
    assert [] == audit_log.events


def test_a_log_filter_that_raises_decides_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """The job ends as its body did, and the filter's own exception is printed."""

    def broken(record: logging.LogRecord) -> bool:
        raise LookupError("no request here")

    log = logging.getLogger("sigra.job")
    log.addFilter(broken)
    try:
        verdict = run(raising(ValueError))
    finally:
        log.removeFilter(broken)
    assert ("discarded", ValueError) == (verdict.state, type(verdict.error))
    assert "LookupError: no request here" in capsys.readouterr().err


@pytest.mark.parametrize("run_it", [run, arun])
def test_a_value_is_told_by_its_type(run_it: Callable[..., Verdict]) -> None:
    """A proxy that cannot say its class, or says that of an outcome, is a value like any other."""

    class Proxy:
        @property
        def __class__(self) -> type:
            raise RuntimeError("outside of a request")

    value = Proxy()
    assert run_it(lambda scope, **rest: value).value is value


def test_a_value_whose_type_cannot_be_compared_is_a_value() -> None:
    """A metaclass's own methods are not asked what was returned."""

    class Odd(type):
        def __eq__(cls, other: object) -> bool:
            raise RuntimeError("compared")

        def __hash__(cls) -> int:
            raise RuntimeError("hashed")

    class Value(metaclass=Odd):
        pass

    value = Value()
    assert run(lambda scope, **rest: value).value is value


class EvasiveError(Exception):
    """An error of which nobody can ask whether it is one of a kind."""

    @property
    def __class__(self) -> Any:
        raise LookupError("no class here")


@pytest.mark.parametrize("make", [raising, raising_later])
@pytest.mark.parametrize("max_attempts", [1, 2])
def test_an_error_that_tells_no_class_is_a_failed_attempt(
    make: Any, max_attempts: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends the attempt alone, though nothing can log it: that is told on stderr."""
    try:
        verdict = run(make(EvasiveError), max_attempts=max_attempts)
    except LookupError:  # with the other one as its context, at which pytest would break off
        verdict = Verdict("available")
    assert verdict.state == ("discarded" if max_attempts == 1 else "retryable")
    assert type(verdict.error) is EvasiveError
    assert "LookupError: no class here" in capsys.readouterr().err
