"""The fan-out makes one job for each organization."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from sigra import (
    AuditScope,
    CrossTenantError,
    EnqueueError,
    InvalidArgsError,
    InvalidOptionError,
    Job,
    SyncBackend,
    ThreadBackend,
    configure,
    tenant_worker,
    worker,
)
from sigra.workers import afor_each_organization, for_each_organization

seen: list[tuple[Any, ...]] = []


@tenant_worker(name="fan_out.remind")
def remind(scope: AuditScope, days: int = 1) -> None:
    assert scope.active_organization is not None
    seen.append((scope.active_organization.id, scope.user, days))


@worker(name="fan_out.agnostic")
def agnostic() -> None:
    raise AssertionError("never runs")


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    seen.clear()
    with configure(backend=SyncBackend()):
        yield


@pytest.mark.parametrize("organizations", [["acme"], []])
def test_a_bad_option_is_named_before_anything_else(organizations: list[str]) -> None:
    """As .new() names it, whatever its type and however few the organizations."""
    with pytest.raises(InvalidOptionError, match="'queue'.*must be a str, not list"):
        for_each_organization(remind, organizations, queue=["mail"])


class Narrow:
    """A backend that takes batches of any size but the third, and knows no unique keys."""

    name = "narrow"
    capabilities: frozenset[Any] = frozenset()

    def __init__(self) -> None:
        self.batches: list[Sequence[Job]] = []

    def enqueue(self, jobs: Sequence[Job]) -> None:
        if len(self.batches) == 2:
            raise EnqueueError(self.name, "the broker went away")
        self.batches.append(jobs)

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        self.enqueue(jobs)


def test_each_organization_gets_one_job_with_the_system_as_actor() -> None:
    """Ids may be str, int, UUID or what has an id, and each counts once."""
    uuid = UUID(int=7)
    given = ["acme", 5, uuid, SimpleNamespace(id="globex"), "acme"]
    jobs = for_each_organization(remind, given, {"days": 3})
    assert [(id, None, 3) for id in ("acme", "5", str(uuid), "globex")] == seen
    assert 4 == len(jobs)


def test_a_round_that_is_repeated_adds_no_job() -> None:
    """Tick and organization are a unique key while the job is unfinished."""
    first = for_each_organization(remind, ["a", "b"], tick="1", delay=60)
    again = for_each_organization(remind, ["a", "b", "c"], tick="1", delay=60)
    later = for_each_organization(remind, ["a"], tick="2", delay=60)
    assert [False, False] == [job.duplicate for job in first]
    assert [True, True, False] == [job.duplicate for job in again]
    assert [False] == [job.duplicate for job in later]


def test_a_round_without_a_name_is_the_current_minute_in_utc() -> None:
    """A scheduler that calls twice within it makes no second job."""
    before = datetime.now(UTC)
    (job,) = for_each_organization(remind, ["a"], delay=60)
    minutes = [f"{moment:%Y-%m-%dT%H:%M}Z a" for moment in (before, datetime.now(UTC))]
    assert job.options.unique in minutes


def test_a_unique_key_of_the_callers_own_is_taken_as_it_is() -> None:
    """No key is then made of the round and the organization."""
    jobs = for_each_organization(remind, ["a", "b"], tick="1", unique="once", delay=60)
    assert [False, True] == [job.duplicate for job in jobs]


@pytest.mark.parametrize(
    ("one", "other"), [(("eu 1", "7"), ("eu", "1 7")), (("eu 1", "7"), ("eu%201", "7"))]
)
def test_no_other_round_and_organization_have_the_same_key(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    """Names of rounds and ids of organizations may have spaces."""
    for tick, organization in (one, other):
        (job,) = for_each_organization(remind, [organization], tick=tick, delay=60)
        assert not job.duplicate


def test_all_is_validated_before_the_first_is_sent() -> None:
    """One bad organization, and no other one gets its job."""
    with pytest.raises(TypeError, match="organizations, item 1: object is not an id"):
        for_each_organization(remind, ["acme", object()])
    with pytest.raises(InvalidArgsError) as caught:
        for_each_organization(remind, ["acme", "globex"], {"dais": 3})
    assert "$.dais" == caught.value.path
    assert [] == seen


@pytest.mark.parametrize("key", ["organization_id", "actor_id"])
def test_the_tenant_keys_are_the_fan_outs_to_set(key: str) -> None:
    """Nobody's ids slip into everybody's jobs."""
    with pytest.raises(InvalidArgsError) as caught:
        for_each_organization(remind, ["acme"], {key: "x"})
    assert f"$.{key}" == caught.value.path


def test_an_agnostic_worker_is_refused() -> None:
    """Only a tenant worker's jobs run for an organization."""
    with pytest.raises(TypeError, match="not a tenant worker"):
        for_each_organization(agnostic, ["acme"])  # type: ignore[arg-type]


def test_a_plain_function_is_refused() -> None:
    """As a decorator that was forgotten leaves it."""
    with pytest.raises(TypeError, match="function .* is not a tenant worker"):
        for_each_organization(remind.__wrapped__, ["acme"])


def test_a_tenants_own_job_cannot_fan_out_to_others() -> None:
    """The fence between organizations holds here too."""

    @tenant_worker(name="fan_out.parent")
    def parent(scope: AuditScope) -> None:
        for_each_organization(remind, ["acme", "globex"])

    job = parent.new({"organization_id": "acme", "actor_id": None})
    with pytest.raises(CrossTenantError):
        job.result()
    assert [] == seen


def test_a_refused_organization_is_named_by_its_place() -> None:
    """The one in the caller's list, in which others may stand more than once."""
    organizations = ["acme", "acme", "acme", "globex"]

    @tenant_worker(name="fan_out.crosses")
    def crosses(scope: AuditScope) -> None:
        for_each_organization(remind, organizations)

    with pytest.raises(CrossTenantError, match=r"^item 3: ") as caught:
        crosses.new({"organization_id": "acme", "actor_id": None}).result()
    assert (3, "globex") == (caught.value.index, caught.value.organization_id)


def test_progress_is_told_after_each_batch() -> None:
    """Thousands of organizations are sent in batches of 500."""
    told: list[tuple[int, int]] = []
    with configure(backend=Narrow()):
        for_each_organization(remind, range(1, 701), progress=lambda *step: told.append(step))
    assert [(500, 700), (700, 700)] == told


def fan_out_on_a_loop(*args: Any, **options: Any) -> list[Job]:
    return asyncio.run(afor_each_organization(*args, **options))


@pytest.mark.parametrize("fan_out", [for_each_organization, fan_out_on_a_loop])
def test_a_backend_that_gives_up_halfway_says_how_far_it_came(
    fan_out: Callable[..., list[Job]],
) -> None:
    """The error counts what was sent, so that the round can be repeated."""
    backend = Narrow()
    with configure(backend=backend), pytest.raises(EnqueueError, match="1000 of 1200 jobs"):
        fan_out(remind, range(1, 1201))
    assert [500, 500] == [len(batch) for batch in backend.batches]


def test_thousands_run_on_threads() -> None:
    """One job for each of 2,000 organizations."""
    with configure(backend=ThreadBackend(max_workers=4)):
        jobs = for_each_organization(remind, range(1, 2001))
        for job in jobs:
            job.result(timeout=30)
    assert {str(id) for id in range(1, 2001)} == {id for id, _, _ in seen}
    assert 2_000 == len(seen)


def test_the_async_form_does_the_same() -> None:
    """An application that lives on a loop awaits it."""
    told: list[tuple[int, int]] = []
    jobs = fan_out_on_a_loop(
        remind, ["a", "b"], {"days": 2}, progress=lambda *step: told.append(step)
    )
    assert [("a", None, 2), ("b", None, 2)] == seen
    assert [(2, 2)] == told
    assert ["a", "b"] == [job.args["organization_id"] for job in jobs]


def test_the_loop_goes_on_between_the_batches_of_the_async_form() -> None:
    """A backend may take thousands of jobs without waiting once."""
    steps: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().call_soon(steps.append, "the loop's own")
        await afor_each_organization(
            remind, range(1, 701), progress=lambda sent, _: steps.append(sent)
        )

    with configure(backend=Narrow()):
        asyncio.run(main())
    assert [500, "the loop's own", 700] == steps


@pytest.mark.parametrize("organizations", ["acme", b"acme"])
def test_a_text_is_no_list_of_organizations(organizations: Any) -> None:
    """Its letters are none."""
    with pytest.raises(TypeError, match="a list of organizations"):
        for_each_organization(remind, organizations)
    assert seen == []


@pytest.mark.parametrize("wrong", [None, "", " ", True, 1.5, SimpleNamespace(id=None), ["acme"]])
def test_what_is_no_organization_is_named_by_its_place(wrong: Any) -> None:
    """And none is sent, whether it comes from a list or a generator."""
    with pytest.raises(TypeError, match="organizations, item 1:"):
        for_each_organization(remind, (each for each in ("acme", wrong, "globex")))
    assert seen == []
