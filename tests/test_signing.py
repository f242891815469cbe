"""Signed envelopes: nothing runs that was not signed as it is."""

from __future__ import annotations

import hmac
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from amounts import MANY

from sigra import AuditScope, EnvelopeError, Signing, SyncBackend, catalog, configure, tenant_worker
from sigra.backends.envelope import MARK, VERSION, pack, unpack
from sigra.backends.external import consume
from sigra.verdict import Verdict

KEY, OTHER = b"k" * 32, b"o" * 32
FORGERIES = 100_000 if MANY else 1_000
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


@tenant_worker(name="signing.anything")
def anything(scope: AuditScope, **rest: Any) -> None:
    ran.append((scope, rest))


def signing(**changes: Any) -> Signing:
    settings: dict[str, Any] = {"keys": {"a": KEY}, "current": "a", "application": "billing"}
    return Signing(**(settings | changes))


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    ran.clear()
    with configure(backend=SyncBackend(), signing=signing()):
        yield


def sealed(amount: Any = 1, worker: Any = pay, **counters: int) -> dict[str, Any]:
    """Return an envelope as it comes out of a queue; the job itself does not run."""
    with configure(signing=None):
        job = worker.new({**IDS, "amount": amount}, delay=1)
    payload: dict[str, Any] = json.loads(json.dumps(pack(job, **counters)))
    return payload


def resigned(payload: dict[str, Any], change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """Return the envelope as somebody who has the key signs something else."""
    body = json.loads(payload["signed"])
    change(body)
    return with_text(payload, json.dumps(body))


def with_text(payload: dict[str, Any], text: str) -> dict[str, Any]:
    """Return the envelope with a text that the key has signed."""
    mac = hmac.digest(KEY, text.encode("utf-8", "surrogatepass"), "sha256").hex()
    return {**payload, "signed": text, "mac": mac}


def sealed_before() -> dict[str, Any]:
    """Return an envelope as the release before signed it."""

    def as_before(body: dict[str, Any]) -> None:
        for name in (MARK, "failures", "snoozes"):
            body.pop(name, None)

    return resigned(sealed(), as_before)


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
    """Plain args carry no signature, though whoever sent them has the key: that is no cure."""
    told = refusal({**IDS, "amount": 9})
    assert "it is not signed" in told
    assert "make it with .new(), in a process that has the key" in told


def test_a_consumer_without_keys_says_so() -> None:
    """A deploy that began with the producers is told what it forgot."""
    payload = sealed()
    with configure(signing=None):
        verdict = consume(payload, pay.definition, "test").verdict
    assert ("discarded", []) == (verdict.state, ran)
    assert "signed by the key 'a', and this consumer has no keys" in str(verdict.error)


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


MARKS = ("2", 2.0, None, True, [2], {"a": 2}, -1, 0, 1, 3, 2**31, 2**70)
BESIDE = {"organization_id": "victim", "actor_id": "root", "amount": 10**6}


def forged(chance: random.Random, kind: str, good: Any, other: Any, stolen: Any) -> dict[str, Any]:
    """Return an envelope that was changed in a way of that kind."""
    payload = dict(good)
    if kind == "other":
        spliced = chance.choice(("signed", "mac"))
        payload[spliced] = other[spliced]
    elif kind == "stolen":
        payload["signed"] = stolen["signed"]
        payload["mac"] = chance.choice((stolen, good))["mac"]
    elif kind == "no mark":
        del payload[MARK]
    elif kind == "another mark":
        payload[MARK] = chance.choice(MARKS)
    elif kind != "beside":
        text = payload[kind]
        at, bit = chance.randrange(len(text)), 1 << chance.randrange(7)
        payload[kind] = text[:at] + chr(ord(text[at]) ^ bit) + text[at + 1 :]
    if kind == "beside" or chance.randrange(2):
        payload |= BESIDE
    return payload


def test_forgeries_are_refused() -> None:
    """Bits, splices, other keys, other marks: none is read; and what is beside is not looked at."""
    chance = random.Random(15)
    good, other = sealed(1, worker=anything), sealed(2, worker=anything)
    with configure(signing=signing(keys={"a": OTHER})):
        stolen = sealed(3, worker=anything)
    kinds = ("signed", "mac", "key", "other", "stolen", "no mark", "another mark", "beside")
    counts = Counter[tuple[str, str]]()
    for _ in range(FORGERIES):
        kind = chance.choice(kinds)
        payload = forged(chance, kind, good, other, stolen)
        try:
            read = unpack(payload, anything.definition, "test").job.args
        except EnvelopeError:
            counts[kind, "refused"] += 1
        else:
            counts[kind, "as signed" if read == {**IDS, "amount": 1} else "forged"] += 1
    expected = {(kind, "as signed" if kind == "beside" else "refused") for kind in kinds}
    assert (expected, FORGERIES) == (set(counts), counts.total())


@pytest.mark.parametrize("version", MARKS)
def test_another_mark_makes_no_hand_built_job(version: Any) -> None:
    """What was signed is read as it was signed, or not at all."""
    refusal({**sealed(worker=anything), **BESIDE, MARK: version}, anything.name)


def test_without_its_mark_it_is_no_hand_built_job() -> None:
    """The args of the body are never those that stand beside the signature."""
    payload = {**sealed(worker=anything), **BESIDE}
    del payload[MARK]
    assert "its version is not the one that was signed" in refusal(payload, anything.name)


def test_what_the_release_before_signed_is_read() -> None:
    """It signed no version."""
    assert "completed" == deliver(sealed_before()).state
    (ran_so,) = ran
    assert 1 == ran_so[1]


@pytest.mark.parametrize("version", ["2", 2.0, None, True, 0, 3])
def test_what_the_release_before_signed_is_no_hand_built_job(version: Any) -> None:
    """Its version stands outside the signature, and decides nothing but whether it is read."""
    with pytest.raises(EnvelopeError):
        unpack({**sealed_before(), **BESIDE, MARK: version}, pay.definition, "test")


def test_a_signed_job_of_a_newer_release_waits() -> None:
    """A rolling deploy loses nothing."""
    payload = resigned(sealed(), lambda body: body.update({MARK: VERSION + 1}))
    assert "scheduled" == deliver({**payload, MARK: VERSION + 1}).state
    assert [] == ran


def test_counters_are_under_the_signature() -> None:
    """A replay is the attempt that it was, and gives the same event ids."""
    signed = sealed(failures=1, snoozes=4, lost=2)
    payload = {**signed, "failures": 0, "snoozes": 9, "attempt": 3, "lost": 0}
    delivery = unpack(payload, pay.definition, "test")
    assert (1, 4, 2) == (delivery.failures, delivery.snoozes, delivery.lost)


def test_counters_of_the_release_before_are_read() -> None:
    """They stood beside its signature, and in its first version attempts were counted."""
    second = {**sealed_before(), "failures": 2, "snoozes": 3}
    first = {**second, MARK: 1, "failures": 0, "attempt": 3}
    for payload in (first, second):
        delivery = unpack(payload, pay.definition, "test")
        assert (2, 3) == (delivery.failures, delivery.snoozes)


def test_deliveries_are_counted_beside_the_signature() -> None:
    """Queues count them in what they hold, and have no keys."""
    assert 2 == unpack({**sealed(), "deliveries": 2}, pay.definition, "test").deliveries


@pytest.mark.parametrize("key", [None, 1, "", "A", ["a"], {"a": 1}, "a\x00"])
def test_a_key_id_is_looked_up_and_nothing_else(key: Any) -> None:
    """No key id makes the verification go another way."""
    refusal({**sealed(), "key": key})


@pytest.mark.parametrize("mac", ["", "ü", "\ud800"])
def test_a_signature_that_is_any_other_text_does_not_match(mac: str) -> None:
    """One that no UTF-8 carries ends as a refused job too."""
    assert "its signature does not match" in refusal({**sealed(), "mac": mac})


def test_an_old_key_is_good_until_it_is_removed_and_then_never() -> None:
    """Keys are rotated without losing a job."""
    payload = sealed()
    with configure(signing=signing(keys={"a": KEY, "b": OTHER}, current="b")):
        assert "completed" == deliver(payload).state
        ran.clear()
        assert "b" == sealed()["key"]
    with configure(signing=signing(keys={"b": OTHER}, current="b")):
        assert "a key that this consumer does not have, 'a': if it is yours" in refusal(payload)


@pytest.mark.parametrize("application", ["crm", "accounts", "billing2"])
def test_another_applications_job_is_refused(application: str) -> None:
    """Two applications that share a key do not run each other's jobs."""
    payload = sealed()
    with configure(signing=signing(application=application)):
        told = refusal(payload)
    assert "signed for another application" in told
    assert f"Signing has application='{application}' here" in told


@pytest.mark.parametrize(
    "text", ['{"hello":1}', "[1]", "1", "null", "", "not json", "[" * 100_000, "\ud800", "1e999"]
)
def test_a_text_of_another_kind_that_the_key_signed_is_refused(text: str) -> None:
    """A key that signs other things too makes no jobs of them."""
    assert "signed for another application" in refusal(with_text(sealed(), text))


@pytest.mark.parametrize("args", ["ab", None, 5, [["organization_id", "acme"]]])
def test_args_that_are_no_object_are_refused_though_they_are_signed(args: Any) -> None:
    """A key may sign what no release writes, and the consumer lives on."""
    changed = resigned(sealed(), lambda body: body.update(args=args))
    assert "a field is missing or ill-typed" in refusal(changed)


@pytest.mark.parametrize("end", ["tomorrow", None, [], 1.5e308])
def test_an_end_of_a_lifetime_that_is_no_number_is_over(end: Any) -> None:
    """In whole nanoseconds, as it is signed here, or the job does not begin."""
    changed = resigned(sealed(), lambda body: body.update(not_after=end))
    assert "its signature has expired" in refusal(changed)


@pytest.mark.parametrize("field", ["type", "application", "key", "worker"])
def test_what_says_whose_job_it_is_is_under_the_signature(field: str) -> None:
    """Without one of these fields it is nobody's."""
    assert "it was signed for another" in refusal(resigned(sealed(), lambda body: body.pop(field)))


def test_a_job_whose_lifetime_is_over_is_refused() -> None:
    """What lay too long is not begun."""
    with configure(signing=signing(lifetime=1e-9)):
        assert "its signature has expired" in refusal(sealed())
    with configure(signing=signing(lifetime=3600)):
        assert "completed" == deliver(sealed()).state


def test_a_lifetime_is_counted_from_the_enqueue() -> None:
    """In seconds, to the nanosecond: the last one in which a job may begin is the whole of it."""
    settings = signing(lifetime=90)
    with configure(signing=settings):
        payload = sealed()
    end = payload["enqueued_at"] + 90 * 10**9
    assert payload["id"] == settings.open(payload, "signing.pay", end)["id"]
    with pytest.raises(EnvelopeError, match="its signature has expired"):
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
    last = consume(following, fails.definition, "test").verdict
    assert ("discarded", LookupError) == (last.state, type(last.error))


def test_the_refusal_names_the_key_whose_bytes_may_differ() -> None:
    """Two environments that give one key's name to different bytes look like a forger."""
    payload = sealed()
    with configure(signing=signing(keys={"a": OTHER})):
        assert "or its producer has other bytes for the key 'a'" in refusal(payload)


def test_unsigned_jobs_run_while_that_is_allowed() -> None:
    """Consumers get the keys first; producers follow; then the door is closed."""
    with configure(signing=None):
        unsigned = sealed()
    assert "it is not signed" in refusal(unsigned)
    with configure(signing=signing(accept_unsigned=True)):
        assert "completed" == deliver(unsigned).state
        ran.clear()
        assert "its signature does not match" in refusal({**sealed(), "mac": "0" * 64})


@pytest.mark.parametrize("built_by_hand", [False, True])
def test_what_came_unsigned_goes_on_unsigned(built_by_hand: bool) -> None:
    """No consumer vouches for ids that it cannot have verified, not for a retry either."""

    @tenant_worker(name="signing.fails_unsigned", max_attempts=2, backoff=0)
    def fails(scope: AuditScope) -> None:
        raise LookupError

    with configure(signing=None):
        payload = IDS if built_by_hand else pack(fails.new(IDS, delay=1))
    with configure(signing=signing(accept_unsigned=True)):
        consumed = consume(payload, fails.definition, "test")
    assert "retryable" == consumed.verdict.state
    with configure(signing=signing(accept_unsigned=True)):
        following = consumed.following()
        assert "signed" not in following
        assert "discarded" == consume(following, fails.definition, "test").verdict.state
    assert "it is not signed" in refusal(following, fails.name)


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
        ({"keys": {"": KEY}, "current": ""}, "the id of a key must be a name"),
        ({"keys": {"\ud800": KEY}, "current": "\ud800"}, "the id of a key must be a name"),
        ({"current": "b"}, "must be one of the ids in keys"),
        ({"current": None}, "signs nothing"),
        ({"lifetime": 0}, "above zero"),
        ({"lifetime": -1}, "above zero"),
        ({"lifetime": float("inf")}, "or None for no limit"),
        ({"lifetime": "60"}, "or None for no limit"),
        ({"lifetime": True}, "or None for no limit"),
        ({"application": None}, "must be a name"),
        ({"application": b"billing"}, "must be a name"),
        ({"application": ""}, "must be a name"),
        ({"application": " "}, "must be a name"),  # as of a variable that is not set
        ({"application": "\ud800"}, "must be a name"),
    ],
)
def test_settings_that_protect_nothing_are_refused(changes: dict[str, Any], reason: str) -> None:
    """A weak key fails where it is configured."""
    with pytest.raises(ValueError, match=reason):
        signing(**changes)


def test_the_keys_are_those_that_were_checked() -> None:
    """Whoever changes the mapping afterwards changes no settings."""
    keys = {"a": KEY}
    settings = signing(keys=keys)
    keys["a"] = b"short"
    assert {"a": KEY} == settings.keys


def test_no_key_is_shown() -> None:
    """A settings object may end up in a log."""
    assert "kkk" not in repr(signing())


@pytest.mark.parametrize("changes", [{"current": KEY}, {"keys": {KEY: "a"}}])
def test_no_key_is_shown_by_an_error(changes: dict[str, Any]) -> None:
    """Whoever puts a key where its id belongs finds it in no traceback."""
    with pytest.raises(ValueError) as raised:
        signing(**changes)
    assert "kkk" not in str(raised.value)
