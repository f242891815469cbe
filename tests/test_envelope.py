"""The envelope: versioned JSON, read by this release and the one before."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest

from sigra import (
    AuditScope,
    EnvelopeError,
    InvalidArgsError,
    InvalidOptionError,
    Job,
    Signing,
    configure,
    tenant_worker,
)
from sigra.backends.envelope import MARK, VERSION, add_delivery, pack, unpack
from sigra.backends.external import consume
from sigra.options import parse_options

TENANT = {"organization_id": "42", "actor_id": "7", "impersonating_from": "1"}


@tenant_worker(backoff=lambda attempt: attempt * 5)
def close(scope: AuditScope, n: int = 0) -> int:
    return n


def made(**options: Any) -> Job:
    frozen = close.new({**TENANT, "n": 9}).args
    return Job(close.definition, frozen, parse_options(options, close.definition.defaults), "test")


def travelled(payload: Any) -> Any:
    """Send a payload through JSON, as a queue does."""
    return json.loads(json.dumps(payload))


def read(payload: Any) -> Any:
    return unpack(travelled(payload), close.definition, "test")


PREVIOUS = {
    "sigra": VERSION - 1,
    "id": "01890a5d-ac96-774b-bcce-b302099a8057",
    "worker": close.name,
    "args": {**TENANT, "n": 9},
    "queue": "mail",
    "priority": 2,
    "max_attempts": 5,
    "backoff": 1.5,
    "enqueued_at": 1_700_000_000_000_000_000,
    "attempt": 3,
    "snoozes": 1,
}


def test_the_version_is_in_the_envelope() -> None:
    """A consumer sees at once which release wrote it."""
    assert VERSION == pack(made())[MARK]


def test_the_envelope_is_json() -> None:
    """Every value is one that JSON has."""
    payload = pack(made(queue="mail", backoff=2))
    assert payload == travelled(payload)


@pytest.mark.parametrize("fact", ["id", "worker", "args", "enqueued_at", "queue", "backend"])
def test_a_job_arrives_as_it_was_sent(fact: str) -> None:
    """Id, worker, args, time, queue and backend are the same on both sides."""
    job = made(queue="mail")
    assert getattr(job, fact) == getattr(read(pack(job)).job, fact)


def test_options_that_a_consumer_needs_travel() -> None:
    """Attempts, backoff and priority are in the envelope."""
    options = read(pack(made(max_attempts=4, backoff=2, priority=3))).job.options
    assert (4, 2.0, 3) == (options.max_attempts, options.backoff, options.priority)


def test_counters_travel() -> None:
    """What a queue loses on redelivery is in the envelope."""
    delivery = read(pack(made(max_attempts=2), failures=1, snoozes=2, deliveries=3, lost=4))
    counted = (delivery.failures, delivery.snoozes, delivery.deliveries, delivery.lost)
    assert (1, 2, 3, 4) == counted


def test_an_envelope_of_this_version_without_lost_runs_is_read() -> None:
    """This version's first consumers did not count them."""
    payload = pack(made())
    del payload["lost"]
    assert 0 == read(payload).lost


def test_a_backoff_function_is_the_consumer_s_own() -> None:
    """A function cannot travel; the definition has it."""
    assert 10.0 == read(pack(made())).job.options.retry_delay(2)


@pytest.mark.parametrize("function", [lambda attempt: 5.0, float])
def test_a_backoff_function_of_the_call_s_own_is_refused(function: Any) -> None:
    """No consumer would have it, and the job's retries would come by another."""
    with pytest.raises(InvalidOptionError, match="give it to the decorator") as caught:
        pack(made(backoff=function))
    assert ("backoff", close.name) == (caught.value.option, caught.value.worker)


def test_args_arrive_read_only() -> None:
    """The consumer's job is as frozen as the producer's."""
    with pytest.raises(TypeError):
        read(pack(made())).job.args["n"] = 1


def test_the_impersonator_travels() -> None:
    """impersonating_from is in the envelope."""
    assert "1" == read(pack(made())).job.args["impersonating_from"]


def test_the_previous_version_is_read() -> None:
    """A job of the release before loses neither id, args nor counters."""
    delivery = read(PREVIOUS)
    assert (PREVIOUS["id"], PREVIOUS["args"], 2, 1, 0) == (
        delivery.job.id,
        delivery.job.args,
        delivery.failures,
        delivery.snoozes,
        delivery.deliveries,
    )


@pytest.mark.parametrize("version", [VERSION + 1, VERSION + 98, 0, -1, VERSION - 2])
def test_another_version_is_not_guessed_at(version: int) -> None:
    """A version that this release does not read is refused by its number."""
    reads = f"reads {VERSION - 1} and {VERSION}"
    with pytest.raises(EnvelopeError, match=reads) as caught:
        read({**PREVIOUS, MARK: version})
    assert version == caught.value.version


@pytest.mark.parametrize("field", ["id", "queue", "max_attempts", "snoozes", "enqueued_at"])
def test_an_absent_field_is_refused(field: str) -> None:
    """A damaged envelope raises EnvelopeError and names what is wrong."""
    payload = pack(made())
    del payload[field]
    with pytest.raises(EnvelopeError, match=field):
        read(payload)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_attempts", "3"),
        ("max_attempts", True),
        ("failures", -1),
        ("failures", None),
        ("snoozes", 1.5),
        ("deliveries", "2"),
        ("deliveries", None),
        ("lost", None),
        ("lost", -1),
        ("backoff", "fast"),
        ("backoff", -1),
        ("backoff", True),
        ("backoff", float("inf")),
        ("backoff", float("nan")),
        ("enqueued_at", "now"),
        ("enqueued_at", 10**30),
        ("enqueued_at", 10**400),
        ("snoozes", 1 << 63),
        ("deliveries", 1 << 63),
        ("max_attempts", 1 << 63),
        ("priority", -(1 << 64)),
        ("queue", 7),
        ("priority", "high"),
        ("priority", None),
        ("id", None),
    ],
)
def test_an_ill_typed_field_is_refused(field: str, value: Any) -> None:
    """A field of the wrong type is no reason for another error."""
    with pytest.raises(EnvelopeError, match=field):
        read({**pack(made()), field: value})


NO_IDS = ["", " ", "\u2003", "a\nb", "\x1b[31m", "\u202e", "\ud800", "x" * 257, "x" * 5_000_000]


@pytest.mark.parametrize("id", NO_IDS, ids=range(len(NO_IDS)))
def test_an_id_that_no_line_and_no_store_takes_is_refused(id: str) -> None:
    """An id is printable, not blank, and of 256 characters at most."""
    with pytest.raises(EnvelopeError, match="id is not printable text of 1 to 256 characters"):
        read({**pack(made()), "id": id})


@pytest.mark.parametrize("id", [*NO_IDS, 7], ids=range(len(NO_IDS) + 1))
def test_a_hand_built_job_has_no_such_id_either(id: Any) -> None:
    """The queue's own id of it may have been chosen by whoever sent it."""
    with pytest.raises(EnvelopeError, match="not printable text of 1 to 256 characters"):
        unpack(TENANT, close.definition, "test", native_id=id)


@pytest.mark.parametrize("id", ["1", "x" * 256, "Größe: 𝄞", "worker:key/4"])
def test_an_id_may_be_any_other_text(id: str) -> None:
    """Queues make ids of their own, and so do releases."""
    assert id == read({**pack(made()), "id": id}).job.id
    assert id == unpack(TENANT, close.definition, "test", native_id=id).job.id


@pytest.mark.parametrize("seconds", [1e300, 10**400])
def test_a_backoff_is_three_centuries_at_most(seconds: float) -> None:
    """No queue is asked for a moment that no date holds."""
    assert 1e10 == read({**pack(made()), "backoff": seconds}).job.options.retry_delay(1)


def test_the_last_moment_of_64_bits_is_a_date() -> None:
    """What a body asks its job for, it gets."""
    assert 2262 == read({**pack(made()), "enqueued_at": (1 << 63) - 1}).job.enqueued_at.year


def test_a_version_that_no_release_will_have_is_waited_for_by_none() -> None:
    """It is refused, and its digits fill no log."""
    with pytest.raises(EnvelopeError, match="no release has its version") as caught:
        read({**PREVIOUS, MARK: 10**4000})
    assert caught.value.version is None


@pytest.mark.parametrize(
    ("version", "stays"), [(VERSION + 1, True), (VERSION - 2, False), (-1, False)]
)
def test_only_a_newer_version_is_said_to_wait_for_an_update(version: int, stays: bool) -> None:
    """A job of an older one ends, so its error does not say that it stays in its queue."""
    with pytest.raises(EnvelopeError) as caught:
        read({**PREVIOUS, MARK: version})
    assert stays is ("stays in its queue" in str(caught.value))
    assert stays is not (".new()" in str(caught.value))


@pytest.mark.parametrize("payload", [None, 5, "", "x", b"{}", [], [TENANT]])
@pytest.mark.parametrize("signing", [None, Signing({"k": b"k" * 32}, "k", application="test")])
def test_a_payload_that_is_no_object_is_refused(payload: Any, signing: Any) -> None:
    """Whatever JSON stands in a queue ends as a refused job, and no consumer with it."""
    with configure(signing=signing):
        verdict = consume(payload, close.definition, "test").verdict
    assert ("discarded", EnvelopeError) == (verdict.state, type(verdict.error))


def test_plain_args_are_a_hand_built_job() -> None:
    """A payload without the mark is the args themselves."""
    delivery = unpack(TENANT, close.definition, "test", native_id="native-1")
    assert ("native-1", TENANT, 0) == (delivery.job.id, delivery.job.args, delivery.failures)


def test_args_may_be_any_mapping() -> None:
    """A third party's queue may hand on read-only ones."""
    payload = {**pack(made()), "args": MappingProxyType(TENANT)}
    assert TENANT == unpack(payload, close.definition, "test").job.args


def test_a_hand_built_job_has_the_decorator_s_options() -> None:
    """What was not said at enqueue is as the decorator says."""
    assert close.definition.defaults is unpack(TENANT, close.definition, "test").job.options


@pytest.mark.parametrize("name", [MARK, "signed"])
def test_a_hand_built_arg_of_the_mark_s_name_is_an_arg(name: str) -> None:
    """An arg that is called like the mark, or a field of signed ones, does not make an envelope."""
    args = {**TENANT, name: "yes"}
    assert args == unpack(args, close.definition, "test").job.args


@pytest.mark.parametrize(
    ("mark", "args"), [(VERSION, None), (VERSION, []), (VERSION, "x"), ("yes", {}), (None, {})]
)
def test_a_hand_built_job_may_have_the_mark_and_args_among_its_args(mark: Any, args: Any) -> None:
    """An envelope has a number for its version and an object for its args, or it is none."""
    given = {**TENANT, MARK: mark, "args": args}
    assert given == unpack(given, close.definition, "test").job.args


def test_a_hand_built_job_comes_for_the_first_time() -> None:
    """Who counts nothing says nothing of deliveries, lost runs, failures or snoozes."""
    delivery = unpack(TENANT, close.definition, "test")
    counted = (delivery.failures, delivery.snoozes, delivery.deliveries, delivery.lost)
    assert (0, 0, 0, 0) == counted


@pytest.mark.parametrize("attempt", [0, 1])
def test_the_first_attempt_of_the_previous_version_had_no_failure(attempt: int) -> None:
    """It counted attempts, and from one on."""
    assert 0 == read({**PREVIOUS, "attempt": attempt}).failures


@pytest.mark.parametrize("built_by_hand", [False, True])
def test_args_are_strict_json(built_by_hand: bool) -> None:
    """Args that no JSON carries are refused on this side too."""
    args = {**TENANT, "n": float("nan")}
    with pytest.raises(InvalidArgsError):
        unpack(args if built_by_hand else {**PREVIOUS, "args": args}, close.definition, "test")


@pytest.mark.parametrize("count", ["x", None, True, 1.5])
def test_a_count_of_deliveries_that_is_no_number_is_left_as_it_is(count: Any) -> None:
    """Who counts one more raises nothing; who reads it refuses it."""
    payload = {**pack(made()), "deliveries": count}
    add_delivery(payload)
    assert count is payload["deliveries"]


def test_one_delivery_more_is_counted() -> None:
    """From none on, which the release before wrote."""
    payload = dict(PREVIOUS)
    add_delivery(payload)
    add_delivery(payload)
    assert 2 == payload["deliveries"]
