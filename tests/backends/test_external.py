"""The consumer's side: read, admit, run, and say what follows."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sigra import (
    AuditScope,
    EnvelopeError,
    Failure,
    InvalidArgsError,
    MissingArgError,
    PoisonedJobError,
    Snooze,
    UnknownWorkerError,
    current_job,
    tenant_worker,
)
from sigra.backends import redelivery
from sigra.backends.envelope import MARK, VERSION, add_delivery, pack
from sigra.backends.external import (
    Consumed,
    aconsume,
    consume,
    ends_in,
    failures_in,
    refuse_positional,
)
from sigra.backends.jsonb import unfit, writable
from sigra.backends.kombu_json import unfit as unfit_kombu
from sigra.backends.native_error import error_text

TENANT = {"organization_id": "42", "actor_id": "7"}
ran: list[Any] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    ran.clear()


@tenant_worker(max_attempts=3, backoff=2)
def close(scope: AuditScope, then: str = "done") -> Any:
    ran.append(current_job())
    match then:
        case "fail":
            return Failure("why")
        case "raise":
            raise RuntimeError("why")
        case "exit":
            raise SystemExit
        case "snooze":
            return Snooze(9)
    return then


@tenant_worker
async def later(scope: AuditScope) -> int:
    await asyncio.sleep(0)
    return threading.get_ident()


def take(payload: Any, **counts: Any) -> Consumed:
    return consume(payload, close.definition, "test", **counts)


def envelope(then: str = "done", **counts: int) -> dict[str, Any]:
    with_job = close.new({**TENANT, "then": "done" if then == "exit" else then})
    ran.clear()
    payload = pack(with_job, **counts)
    return {**payload, "args": {**TENANT, "then": then}}


def test_an_envelope_is_run() -> None:
    """The body's value is the verdict's."""
    done = take(envelope())
    assert ("completed", "done") == (done.verdict.state, done.verdict.value)


def test_what_came_of_it_shows_no_args() -> None:
    """Tools that report an error show the variables beside it, and hide a secret by its key alone."""
    done = take(envelope() | {"args": {**TENANT, "then": "done", "password": "hunter2"}})
    assert "hunter2" not in repr(done)


def test_the_job_has_the_producer_s_id() -> None:
    """The id is the same on both sides."""
    payload = envelope()
    take(payload)
    assert [payload["id"]] == [info.id for info in ran]


def test_a_hand_built_job_is_run() -> None:
    """Plain args with the tenant keys do what .new() would have done."""
    assert "completed" == take(TENANT, native_id="n1").verdict.state


def test_a_hand_built_job_has_the_queue_s_id() -> None:
    """Without an envelope the queue's own id names the job."""
    take(TENANT, native_id="n1")
    assert ["n1"] == [info.id for info in ran]


def test_a_hand_built_job_may_have_numbers_for_ids() -> None:
    """Ids that did not come through .new() are read as .new() would."""
    assert "completed" == take({"organization_id": 42, "actor_id": 7}).verdict.state


@pytest.mark.parametrize("absent", ["organization_id", "actor_id"])
def test_a_hand_built_job_without_a_key_never_runs(absent: str) -> None:
    """It fails for good, named, without a retry."""
    args = {key: value for key, value in TENANT.items() if key != absent}
    done = take(args)
    assert ("discarded", MissingArgError, []) == (
        done.verdict.state,
        type(done.verdict.error),
        ran,
    )


def test_a_job_that_is_refused_does_not_begin() -> None:
    """A queue that notes which jobs are begun writes nothing of one that lacks a key."""

    async def note() -> None:
        ran.append("begun")

    asyncio.run(aconsume({"organization_id": None}, later.definition, "test", note=note))
    assert [] == ran


def test_the_refusal_names_key_and_worker() -> None:
    """The error carries what was missing where."""
    error: Any = take({"organization_id": None}).verdict.error
    assert ("actor_id", close.name) == (error.key, error.worker)


def test_args_whose_text_is_no_json_end_the_job() -> None:
    """They are refused here, and not by an error that a queue would try again."""
    for text in ("", "{", "7", "[" * 100_000):
        for payload in (unfit({**envelope(), "args": text}), unfit_kombu({MARK: text})):
            assert ("discarded", []) == (take(payload).verdict.state, ran)


@pytest.mark.parametrize(
    "args",
    [
        {**TENANT, "unknown": 1},
        {**TENANT, "scope": 1},
        {**TENANT, "organization_id": ""},
        {**TENANT, "actor_id": True},
        {**TENANT, "then": float("nan")},
        {**TENANT, "then": object()},
    ],
)
def test_args_that_do_not_bind_end_the_job(args: Any) -> None:
    """A job that a deploy has made impossible is not retried."""
    done = take(args)
    assert ("discarded", InvalidArgsError, []) == (
        done.verdict.state,
        type(done.verdict.error),
        ran,
    )
    error: Any = done.verdict.error
    assert error.worker == close.name and close.name in str(error)


def test_a_refusal_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A job that ends unrun leaves an error line with the worker's name."""
    with caplog.at_level(logging.ERROR, "sigra.job"):
        take({})
    assert close.name in caplog.text


def test_an_envelope_that_is_refused_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """By the queue's id of it, where that is known, for it can be trusted in nothing else."""
    with caplog.at_level(logging.ERROR, "sigra.job"):
        take({"sigra": 2, "args": {}})
        consume({"sigra": 2, "args": {}}, close.definition, "test", native_id="n1")
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith(f"a job of {close.name} was refused and ends here: ")
    assert second.startswith(f"job n1 of {close.name} was refused and ends here: ")


def test_a_refusal_can_be_searched_for(caplog: pytest.LogCaptureFixture) -> None:
    """Its record has the worker and the queue's id of the job, as what a log in JSON shows."""
    with caplog.at_level(logging.ERROR, "sigra.job"):
        consume({"sigra": 2, "args": {}}, close.definition, "test", native_id="n1")
        refuse_positional(close.name, "n2")
    found = [(vars(record)["worker"], vars(record)["native_id"]) for record in caplog.records]
    assert [(close.name, "n1"), (close.name, "n2")] == found


@pytest.mark.parametrize(
    "name", ["x\nCRITICAL root\x1b[2J\u202e", "x" * 5_000_000], ids=["odd", "long"]
)
def test_a_name_that_a_message_makes_up_is_one_short_line(
    caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """It can neither pass for another line, nor steer a terminal, nor fill the log."""
    with caplog.at_level(logging.ERROR, "sigra.job"):
        refuse_positional(name, "n1")
        consume(envelope(), name, "test", native_id="n2")
    # Of Sigra alone: asyncio may tell here of a task that an earlier test has left.
    lines = [record.getMessage() for record in caplog.records if record.name == "sigra.job"]
    assert 2 == len(lines)
    assert all(line.isprintable() and len(line) < 1_000 for line in lines)


def test_what_stands_for_a_name_and_is_none_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    """RQ passes on whatever a message has there."""
    what: Any = ["hunter2"]
    with caplog.at_level(logging.ERROR, "sigra.job"):
        refuse_positional(what, "n1")
    assert "hunter2" not in caplog.text


def test_the_end_of_a_job_that_kills_its_consumers_names_its_tenant(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its record has the ids that every other record of the job has."""
    payload = {**envelope(), "max_attempts": 1}
    with caplog.at_level(logging.ERROR, "sigra.job"):
        take(payload, deliveries=1)
    facts = vars(caplog.records[-1])
    expected = {**TENANT, "job_id": payload["id"], "worker": close.name, "impersonating_from": None}
    assert expected == {key: facts[key] for key in expected}


def test_a_worker_is_found_by_its_name() -> None:
    """Who has no definition at hand gives the name that the job was sent to."""
    assert "completed" == consume(TENANT, close.name, "test").verdict.state


def test_a_job_of_a_name_that_no_worker_has_waits(caplog: pytest.LogCaptureFixture) -> None:
    """It is for a consumer of the next deploy, and goes on as it came."""
    done = consume(envelope(), "not.deployed", "test", native_id="n1")
    assert ("scheduled", UnknownWorkerError) == (done.verdict.state, type(done.verdict.error))
    assert done.verdict.delay > 0
    assert done.payload == done.following()
    assert "job n1 waits for a consumer with its worker: no worker is named" in caplog.text


def test_a_newer_version_waits() -> None:
    """A job of a newer release is left for a consumer of that release."""
    done = take({**envelope(), MARK: VERSION + 1})
    assert ("scheduled", True, []) == (done.verdict.state, done.verdict.delay > 0, ran)


def test_a_newer_version_s_payload_is_sent_on_unchanged() -> None:
    """What this release cannot read it does not touch."""
    payload = {**envelope(), MARK: VERSION + 1, "new": "field"}
    assert payload == take(payload).following() == take(payload).by_hand(1)


def test_a_too_old_version_ends() -> None:
    """A version that no consumer will read again is refused for good."""
    done = take({**envelope(), MARK: VERSION - 2})
    assert ("discarded", EnvelopeError) == (done.verdict.state, type(done.verdict.error))


def test_a_damaged_envelope_ends() -> None:
    """A missing field is refused for good, not raised."""
    payload = envelope()
    del payload["id"]
    assert "discarded" == take(payload).verdict.state


def test_the_previous_version_runs() -> None:
    """A rolling deploy loses nothing."""
    payload = envelope()
    payload.update({MARK: VERSION - 1, "attempt": 2})
    for key in ("failures", "deliveries"):
        del payload[key]
    take(payload)
    assert [2] == [info.attempt for info in ran]


@pytest.mark.parametrize("then", ["fail", "raise", "exit"])
def test_a_failed_attempt_counts(then: str) -> None:
    """The next payload has one failure more, after the decorator's backoff."""
    done = take(envelope(then))
    assert ("retryable", 2.0, 1, 0) == (
        done.verdict.state,
        done.verdict.delay,
        done.following()["failures"],
        done.following()["snoozes"],
    )


def test_a_snooze_does_not_count() -> None:
    """The next payload has one snooze more and the same failures."""
    following = take(envelope("snooze", failures=1)).following()
    assert (1, 1) == (following["failures"], following["snoozes"])


def test_the_last_attempt_ends() -> None:
    """The failures that the envelope carries use up attempts: after the last, the job is at its end."""
    assert "discarded" == take(envelope("fail", failures=2)).verdict.state


def test_the_queue_s_own_count_wins() -> None:
    """Where the queue counts attempts, its count is taken."""
    take(envelope(failures=1), failures=0)
    assert [1] == [info.attempt for info in ran]


def test_the_queue_s_own_count_of_snoozes_wins_too() -> None:
    """Where the queue counts snoozes, its count is taken."""
    take(envelope(), snoozes=2)
    assert [2] == [info.snoozes for info in ran]


def test_what_follows_keeps_id_and_args() -> None:
    """A retry is the same job."""
    payload = envelope("fail")
    following = take(payload).following()
    assert (payload["id"], payload["args"]) == (following["id"], following["args"])


def test_a_poisoned_job_ends_unrun() -> None:
    """A job whose consumer died with it until no attempt was left is not tried again."""
    done = take(envelope(deliveries=3))
    assert ("discarded", PoisonedJobError, []) == (
        done.verdict.state,
        type(done.verdict.error),
        ran,
    )


def test_deliveries_that_died_count_with_failures() -> None:
    """Two deaths and one failure use up three attempts."""
    done = take(envelope(failures=1), deliveries=2)
    assert isinstance(done.verdict.error, PoisonedJobError)


def test_a_job_that_died_once_gets_its_other_attempts() -> None:
    """A single death is no end while attempts are left."""
    assert "completed" == take(envelope(deliveries=1)).verdict.state


def test_a_death_before_a_failure_stays_an_attempt() -> None:
    """Of three attempts one died and two failed: the second failure is the end."""
    first = take(envelope("raise"), deliveries=1)
    second = take(first.following(), deliveries=0)
    assert ("retryable", "discarded") == (first.verdict.state, second.verdict.state)
    assert [1, 2] == [info.attempt for info in ran]


def test_a_death_before_a_snooze_stays_an_attempt() -> None:
    """A job that kills its consumer after each snooze ends, too."""
    payload = envelope("snooze")
    for _ in range(2):
        payload = take(payload, deliveries=1).following()
    assert isinstance(take(payload, deliveries=1).verdict.error, PoisonedJobError)


def test_the_queue_s_own_count_of_lost_runs_wins() -> None:
    """Where the queue counts the consumers that died, its count is taken."""
    assert "discarded" == take(envelope("fail"), lost=2).verdict.state
    assert "retryable" == take({**envelope("fail"), "lost": 2}, lost=1).verdict.state


@given(st.lists(st.sampled_from(["die", "fail", "snooze"]), max_size=12))
@example(["die", "fail", "fail"])
def test_an_attempt_dies_or_fails_and_max_attempts_of_them_end_the_job(fates: list[str]) -> None:
    """Whatever the order, three deaths and failures are the end, and snoozes use up none."""
    payload, begun = envelope(), list[str]()
    for fate in fates:
        then = {"die": "done", "fail": "fail", "snooze": "snooze"}[fate]
        ran.clear()
        done = take({**payload, "args": {**TENANT, "then": then}})
        begun += [fate] * len(ran)
        if ran and fate == "fail":  # a body knows whether the attempt is its last
            last = ran[0].attempt == ran[0].max_attempts
            assert (done.verdict.state == "discarded") == last
        if fate == "die" and ran:
            add_delivery(payload)  # its consumer never came to what follows
        elif done.verdict.state == "discarded":
            break
        else:
            payload = done.following()
    used = [fate for fate in begun if fate != "snooze"]
    wanted = [fate for fate in fates if fate != "snooze"][:3]
    assert wanted == used


def test_a_coroutine_runs_on_the_consumer_s_loop() -> None:
    """aconsume awaits an async body."""
    done = asyncio.run(aconsume(TENANT, later.definition, "test"))
    assert threading.get_ident() == done.verdict.value


def test_a_function_runs_beside_the_consumer_s_loop() -> None:
    """A sync body does not block the loop."""
    seen: list[int] = []

    @tenant_worker
    def where(scope: AuditScope) -> None:
        seen.append(threading.get_ident())

    done = asyncio.run(aconsume(TENANT, where.definition, "test"))
    assert ("completed", False) == (done.verdict.state, threading.get_ident() in seen)


def test_aconsume_refuses_as_consume_does() -> None:
    """Absent keys end the job on a loop too."""
    done = asyncio.run(aconsume({}, later.definition, "test"))
    assert isinstance(done.verdict.error, MissingArgError)


def test_aconsume_waits_for_a_deploy_too() -> None:
    """A newer version is left alone on a loop too."""
    payload = {**envelope(), MARK: VERSION + 1}
    done = asyncio.run(aconsume(payload, later.definition, "test"))
    assert "scheduled" == done.verdict.state


@pytest.mark.parametrize("times", range(1, 6))
@pytest.mark.parametrize("counts", [False, True], ids=["nobody counts", "the queue counts"])
def test_each_further_delivery_is_reported(
    times: int, counts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Of 1 to 5 deliveries of one attempt all but the first say so, with the job's ids."""
    payload = {**envelope(), "max_attempts": 9}
    with caplog.at_level("WARNING", "sigra.job"):
        for number in range(times):
            take(dict(payload), deliveries=number if counts else 0)
    told = [record for record in caplog.records if "delivered again" in record.getMessage()]
    expected = [(number, payload["id"]) for number in range(2, times + 1)]
    assert expected == [
        (int(record.getMessage().split()[-4]), record.__dict__["job_id"]) for record in told
    ]


@pytest.mark.parametrize(
    ("failures", "lost", "poisoned"),
    [(1, 1, True), (0, 2, True), (0, 3, True), (0, 1, False), (2, 0, False)],
)
def test_lost_deliveries_end_a_job_that_has_used_up_its_attempts(
    failures: int, lost: int, poisoned: bool
) -> None:
    """Without a lost one it runs, as somebody may ask for by hand."""
    payload = {**envelope(), "max_attempts": 2}
    error = take(payload, failures=failures, lost=lost).verdict.error
    assert poisoned is isinstance(error, PoisonedJobError)


@pytest.mark.parametrize(("attempts", "failures", "kept"), [(2, 0, 1), (2, 1, 0), (3, 0, 2)])
def test_a_job_that_ended_by_lost_deliveries_runs_once_more_by_hand(
    attempts: int, failures: int, kept: int
) -> None:
    """Whoever asks for it has seen what killed the consumers; another lost one ends it again."""
    payload = {**envelope(), "max_attempts": attempts}
    ended = take(payload, failures=failures, lost=9)
    again = ended.by_hand(9)
    assert isinstance(ended.verdict.error, PoisonedJobError)
    assert (again["lost"], take(again).verdict.state) == (kept, "completed")


def test_a_run_by_hand_repeats_the_last_attempt_and_says_what_the_queue_had_counted() -> None:
    """The envelope then tells how many runs came to an end: as a rule, its failed attempts."""
    payload = {**envelope("fail"), "max_attempts": 2}
    then = take(payload).following()
    again = take(then).by_hand(5)
    assert [ends_in(each) for each in (TENANT, payload, then, again)] == [0, 0, 1, 5]
    assert [failures_in(each) for each in (TENANT, payload, then, again)] == [0, 0, 1, 1]
    assert (then.get("snoozes", 0), again["snoozes"]) == (0, 1)


@pytest.mark.parametrize("odd", [None, "2", True, 1.0])
def test_counts_of_another_kind_count_nothing(odd: Any) -> None:
    """Whoever wrote them into an envelope ends no consumer."""
    payload = {**envelope(), "failures": odd, "ended": odd}
    assert (failures_in(payload), ends_in(payload)) == (0, 0)


def test_what_the_queue_alone_counts_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """The earlier delivery was another process's."""
    take({**envelope(), "max_attempts": 9}, deliveries=1)
    assert "was delivered again: this is delivery 2 of the attempt" in caplog.text


def test_a_failed_attempt_that_comes_again_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Also where the job has not ended, and the queue counts nothing."""
    payload = envelope("fail")
    take(payload)
    take(payload)
    assert "was delivered again: this is delivery 2 of the attempt" in caplog.text


def test_what_is_known_of_jobs_does_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer remembers the last ones, and runs for months."""
    monkeypatch.setattr(redelivery, "_KEPT", 3)
    monkeypatch.setattr(redelivery, "_known", {})
    ids = [payload["id"] for payload in (envelope() for _ in range(5)) if take(payload)]
    assert ids[2:] == list(redelivery._known)


def test_a_retry_is_no_second_delivery(caplog: pytest.LogCaptureFixture) -> None:
    """Another attempt of the job, and the same one after a snooze, are reported by nothing."""
    for then in ("fail", "snooze"):
        payload = envelope(then)
        for _ in range(3):
            payload = take(payload).following()
    assert "delivered again" not in caplog.text


@pytest.mark.parametrize("counters", [{"failures": 2}, {"snoozes": 7}])
def test_a_job_that_ended_is_reported_whatever_its_counters_say(
    counters: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    """A replay is known by the job's id."""
    payload = envelope()
    take(payload)
    assert "delivered again" not in caplog.text
    take({**payload, **counters})
    assert "was delivered again: it had already ended in an earlier attempt" in caplog.text


def test_an_attempt_that_another_followed_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """What is delivered late comes again, too."""
    payload = envelope("fail")
    take(take(payload).following())
    assert "delivered again" not in caplog.text
    take(payload)
    assert "this is delivery 2 of the attempt" in caplog.text


@pytest.mark.parametrize("counts", [{"failures": 3}, {"failures": 2**62}, {"failures": 10**30}])
def test_failures_that_leave_no_attempt_are_refused(counts: dict[str, int]) -> None:
    """No job has more attempts than its max_attempts, whatever its envelope counts."""
    done = take(envelope(**counts))
    assert ("discarded", EnvelopeError, []) == (done.verdict.state, type(done.verdict.error), ran)


def test_attempts_that_the_release_before_counted_leave_one() -> None:
    """The third of three runs, and there is no fourth."""
    older = {**envelope(), MARK: VERSION - 1}
    assert "completed" == take({**older, "attempt": 3}).verdict.state
    assert isinstance(take({**older, "attempt": 4}).verdict.error, EnvelopeError)


@pytest.mark.parametrize("count", ["x", 1.5, True, -1, [1]])
@pytest.mark.parametrize("name", ["failures", "snoozes", "deliveries"])
def test_a_queue_s_count_that_is_none_ends_the_job(name: str, count: Any) -> None:
    """Who can write to a queue can write its counts, and raises nothing in a consumer."""
    done = take(envelope(), **{name: count})
    assert ("discarded", EnvelopeError, []) == (done.verdict.state, type(done.verdict.error), ran)


class MuteError(Exception):
    """An error that has no text."""

    def __str__(self) -> str:
        raise TypeError("mute")


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ValueError("why"), "ValueError: why"),
        (ValueError("\udc80\0"), "ValueError: \\udc80\\x00"),
        (MuteError(), "MuteError: <exception str() failed>"),
        (SystemExit(3), "SystemExit: 3"),
        (LookupError(), "LookupError"),
    ],
)
def test_any_error_can_be_shown_by_a_queue(error: BaseException, shown: str) -> None:
    """One that has no text, or a text that no database takes, would end the consumer instead."""
    assert shown == error_text(error)
    assert shown in error_text(writable(error))
