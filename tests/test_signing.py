"""Signed envelopes: nothing runs that was not signed as it is."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from sigra import AuditScope, EnvelopeError, Signing, SyncBackend, catalog, configure, tenant_worker
from sigra.backends.envelope import pack, unpack
from sigra.backends.external import consume
from sigra.verdict import Verdict

KEY, OTHER = b"k" * 32, b"o" * 32
IDS = {"organization_id": "acme", "actor_id": "ann"}
ran: list[Any] = []


@tenant_worker(name="signing.pay", max_attempts=3)
def pay(scope: AuditScope, amount: Any = 1) -> None:
    ran.append((scope, amount))


@tenant_worker(name="signing.delete")
def delete(scope: AuditScope, amount: Any = 1) -> None:
    ran.append("deleted")


@tenant_worker(name="signing.refund")
def refund(scope: AuditScope, amount: Any = 1) -> None:
    ran.append("refunded")


def signing(**changes: Any) -> Signing:
    settings: dict[str, Any] = {"keys": {"a": KEY}, "current": "a", "application": "billing"}
    return Signing(**(settings | changes))


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    ran.clear()
    with configure(backend=SyncBackend(), signing=signing()):
        yield


def sealed(amount: Any = 1, **counters: int) -> dict[str, Any]:
    """Return an envelope as it comes out of a queue; the job itself does not run."""
    with configure(signing=None):
        job = pay.new({**IDS, "amount": amount}, delay=1)
    payload: dict[str, Any] = json.loads(json.dumps(pack(job, **counters)))
    return payload


def deliver(payload: dict[str, Any], worker: str = "signing.pay") -> Verdict:
    return consume(payload, catalog.lookup(worker), "test").verdict


def refusal(payload: dict[str, Any], worker: str = "signing.pay") -> str:
    verdict = deliver(payload, worker)
    assert "discarded" == verdict.state
    assert isinstance(verdict.error, EnvelopeError)
    assert [] == ran
    return str(verdict.error)


@pytest.mark.parametrize("amount", [1, 1e16, -0.0, "\x00 ü 𝄞", {"deep": [[None]]}])
def test_what_was_signed_runs(amount: Any) -> None:
    """Scope and args arrive as they were signed, to the last digit."""
    assert "completed" == deliver(sealed(amount)).state
    ((scope, arrived),) = ran
    assert AuditScope.build(actor_id="ann", organization_id="acme") == scope
    assert repr(amount) == repr(arrived)


def test_the_args_travel_under_the_signature_alone() -> None:
    """There is no second copy that a reader could take by mistake."""
    assert "args" not in sealed()


@pytest.mark.parametrize("field", ["signed", "mac", "key"])
def test_without_its_signature_it_is_refused(field: str) -> None:
    """Stripping is no way round."""
    payload = sealed()
    del payload[field]
    assert "it is not signed" in refusal({**payload, "args": {**IDS, "amount": 9}})


def test_a_hand_built_job_is_refused() -> None:
    """Plain args carry no signature."""
    assert "it is not signed" in refusal({**IDS, "amount": 9})


def test_a_consumer_without_keys_says_so() -> None:
    """A deploy that began with the producers is told what it forgot."""
    payload = sealed()
    with configure(signing=None):
        verdict = consume(payload, pay.definition, "test").verdict
    assert ("discarded", []) == (verdict.state, ran)
    assert "this consumer has no keys" in str(verdict.error)


def test_it_runs_as_the_worker_that_was_signed_and_no_other() -> None:
    """A signed report does not become a deletion."""
    assert "signed for another worker" in refusal(sealed(), "signing.delete")
    assert "signed for another worker" in refusal(sealed(), "signing.refund")


def test_what_stands_beside_the_signature_decides_nothing() -> None:
    """Changed copies of signed fields are not what the body sees."""
    forged = {
        **sealed(),
        "id": "x",
        "worker": "signing.delete",
        "queue": "q",
        "args": {"amount": 9},
    }
    delivery = unpack(forged, pay.definition, "test")
    assert (pay.name, None, 1) == (
        delivery.job.worker,
        delivery.job.options.queue,
        delivery.job.args["amount"],
    )
    assert "x" != delivery.job.id


def test_one_hundred_thousand_forgeries_are_refused() -> None:
    """Bits flipped, fields spliced from other jobs, other keys, other key ids: none is read."""
    chance = random.Random(15)
    good, other = sealed(1), sealed(2)
    with configure(signing=signing(keys={"a": OTHER})):
        stolen = sealed(3)
    refused = 0
    for _ in range(100_000):
        forged = dict(good)
        field = chance.choice(("signed", "mac", "key", "other", "stolen"))
        if field == "other":
            spliced = chance.choice(("signed", "mac"))
            forged[spliced] = other[spliced]
        elif field == "stolen":
            forged["signed"], forged["mac"] = stolen["signed"], chance.choice((stolen, good))["mac"]
        else:
            text = forged[field]
            at, bit = chance.randrange(len(text)), 1 << chance.randrange(7)
            forged[field] = text[:at] + chr(ord(text[at]) ^ bit) + text[at + 1 :]
        try:
            unpack(forged, pay.definition, "test")
        except EnvelopeError:
            refused += 1
    assert 100_000 == refused


@pytest.mark.parametrize("key", [None, 1, "", "A", ["a"], {"a": 1}, "a\x00"])
def test_a_key_id_is_looked_up_and_nothing_else(key: Any) -> None:
    """No key id makes the verification go another way."""
    refusal({**sealed(), "key": key})


def test_an_old_key_is_good_until_it_is_removed_and_then_never() -> None:
    """Keys are rotated without losing a job."""
    payload = sealed()
    with configure(signing=signing(keys={"a": KEY, "b": OTHER}, current="b")):
        assert "completed" == deliver(payload).state
        ran.clear()
        assert "b" == sealed()["key"]
    with configure(signing=signing(keys={"b": OTHER}, current="b")):
        assert "a key that this consumer does not have" in refusal(payload)


@pytest.mark.parametrize("application", ["crm", "accounts", "billing2", ""])
def test_another_applications_job_is_refused(application: str) -> None:
    """Two applications that share a key do not run each other's jobs."""
    payload = sealed()
    with configure(signing=signing(application=application)):
        assert "signed for another application" in refusal(payload)


def test_a_job_whose_lifetime_is_over_is_refused() -> None:
    """What lay too long is not begun."""
    with configure(signing=signing(lifetime=1e-9)):
        assert "its lifetime is over" in refusal(sealed())
    with configure(signing=signing(lifetime=3600)):
        assert "completed" == deliver(sealed()).state


def test_a_lifetime_is_counted_from_the_enqueue() -> None:
    """In seconds, to the nanosecond: the last one in which a job may begin is the whole of it."""
    settings = signing(lifetime=90)
    with configure(signing=settings):
        payload = sealed()
    end = payload["enqueued_at"] + 90 * 10**9
    assert payload["id"] == settings.open(payload, "signing.pay", end)["id"]
    with pytest.raises(EnvelopeError, match="its lifetime is over"):
        settings.open(payload, "signing.pay", end + 1)


def test_a_longer_key_is_a_key() -> None:
    """32 bytes are the least."""
    with configure(signing=signing(keys={"a": KEY + b"k"})):
        assert "completed" == deliver(sealed()).state


def test_a_retry_is_signed_again() -> None:
    """The counters change, and the job goes on."""

    @tenant_worker(name="signing.fails", max_attempts=2, backoff=0)
    def fails(scope: AuditScope) -> None:
        raise LookupError

    with configure(signing=None):
        job = fails.new(IDS, delay=1)
    consumed = consume(pack(job), fails.definition, "test")
    following = consumed.following()
    assert ("retryable", 1) == (consumed.verdict.state, following["failures"])
    assert "discarded" == consume(following, fails.definition, "test").verdict.state


def test_unsigned_jobs_run_while_that_is_allowed() -> None:
    """Consumers get the keys first; producers follow; then the door is closed."""
    with configure(signing=None):
        unsigned = sealed()
    assert "it is not signed" in refusal(unsigned)
    with configure(signing=signing(accept_unsigned=True)):
        assert "completed" == deliver(unsigned).state
        ran.clear()
        assert "its signature does not fit" in refusal({**sealed(), "mac": "0" * 64})


def test_keys_are_known_before_anything_is_signed() -> None:
    """While a rolling deploy brings the keys, processes without them read what the others send."""

    @tenant_worker(name="signing.fails_early", max_attempts=2, backoff=0)
    def fails(scope: AuditScope) -> None:
        raise LookupError

    early, signed = signing(current=None, accept_unsigned=True), sealed()
    with configure(signing=early):
        assert "completed" == deliver(signed).state
        unsigned, job = sealed(), fails.new(IDS, delay=1)
        following = consume(pack(job), fails.definition, "test").following()
    with configure(signing=None):
        assert "completed" == deliver(unsigned).state
        last = consume(following, fails.definition, "test").verdict
    assert ("discarded", LookupError) == (last.state, type(last.error))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"keys": {"a": b"short"}}, "at least 32 random bytes"),
        ({"keys": {"a": "k" * 32}}, "at least 32 random bytes"),
        ({"current": "b"}, "not among the keys"),
        ({"current": None}, "signs nothing"),
        ({"lifetime": 0}, "above zero"),
        ({"lifetime": -1}, "above zero"),
    ],
)
def test_settings_that_protect_nothing_are_refused(changes: dict[str, Any], reason: str) -> None:
    """A weak key fails where it is configured."""
    with pytest.raises(ValueError, match=reason):
        signing(**changes)


def test_no_key_is_shown() -> None:
    """A settings object may end up in a log."""
    assert "kkk" not in repr(signing())
