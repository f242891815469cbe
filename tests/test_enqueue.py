"""Enqueueing: what .new() checks, in which order, and what the job then holds."""

from __future__ import annotations

import asyncio
import collections
import json
import uuid
from collections import UserDict, defaultdict
from collections.abc import Iterator, Mapping
from enum import IntEnum, StrEnum
from typing import Any

import pytest

from sigra import (
    AuditScope,
    CrossTenantError,
    EnqueueError,
    InvalidArgsError,
    InvalidOptionError,
    MissingTenantKeysError,
    SigraError,
    SyncBackend,
    configure,
    tenant_args,
    tenant_worker,
    worker,
)
from sigra.enqueue import Enqueuer
from sigra.testing import RecordingBackend

TENANT = {"organization_id": "42", "actor_id": "7"}


@tenant_worker
def note(scope: AuditScope, args: dict[str, Any]) -> Any:
    return args


@tenant_worker
def one(scope: AuditScope, n: int) -> int:
    return n


@worker
def sweep(args: dict[str, Any]) -> Any:
    return args


def refusal(args: Any, **options: Any) -> SigraError:
    with pytest.raises(SigraError) as caught:
        one.new(args, **options)
    return caught.value


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Made(dict[str, Any]):
    """A mapping that makes up what it lacks."""

    def __missing__(self, key: str) -> str:
        return "made up"

    def __contains__(self, key: object) -> bool:
        return True

    def keys(self) -> Any:
        return ["organization_id", "actor_id"]


@pytest.mark.parametrize(
    ("absent", "missing"),
    [
        (["organization_id"], ("organization_id",)),
        (["actor_id"], ("actor_id",)),
        (["actor_id", "organization_id"], ("organization_id", "actor_id")),
    ],
)
def test_absent_tenant_keys_are_all_named_in_order(absent: list[str], missing: Any) -> None:
    """The error lists every missing key, the organization first."""
    args = {key: value for key, value in {**TENANT, "n": 1}.items() if key not in absent}
    error = refusal(args)
    assert (MissingTenantKeysError, missing, one.name) == (
        type(error),
        getattr(error, "missing", None),
        getattr(error, "worker", None),
    )


@pytest.mark.parametrize("key", ["organization_id", "actor_id"])
def test_none_is_present(key: str) -> None:
    """A system or pre-login job passes None, and that is an answer."""
    assert None is note.new({**TENANT, key: None}).args[key]


@pytest.mark.parametrize("args", [defaultdict(str), Made()])
def test_a_made_up_key_is_not_present(args: Any) -> None:
    """A mapping that would invent the key does not make it present."""
    assert isinstance(refusal(args), MissingTenantKeysError)


def test_a_plain_worker_needs_no_tenant_key() -> None:
    """A tenant-agnostic worker takes args without any."""
    assert {} == sweep.new({}).result()


def test_audit_schema_is_never_a_required_key() -> None:
    """The schema belongs to the decorator, not to the args."""
    assert TENANT == note.new(TENANT).result()


@pytest.mark.parametrize("args", [None, [], "organization_id", 7, object(), [("a", 1)]])
def test_args_that_are_no_mapping_are_refused_first(args: Any) -> None:
    """Anything but a mapping raises InvalidArgsError at the root."""
    error = refusal(args)
    assert (InvalidArgsError, "$") == (type(error), getattr(error, "path", None))


def test_any_mapping_will_do() -> None:
    """A collections.abc.Mapping that is no dict is taken by its items."""
    assert {**TENANT, "n": 1} == one.new(UserDict({**TENANT, "n": 1})).args


class Lying(dict[str, Any]):
    """A dict that says other than what it holds."""

    def __getitem__(self, key: str) -> Any:
        return "another"

    def __iter__(self) -> Iterator[str]:
        return iter(())


def test_a_dict_is_taken_as_it_is_whatever_its_own_methods_say() -> None:
    """What is checked is what travels: no method of a subclass runs."""
    assert {**TENANT, "n": 1} == one.new(Lying({**TENANT, "n": 1})).args


class Unreadable(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise KeyError("hunter2")

    def __iter__(self) -> Iterator[str]:
        return iter(("organization_id", "actor_id"))

    def __len__(self) -> int:
        return 2


def test_a_mapping_that_cannot_be_read_is_refused_by_the_type_of_its_error() -> None:
    """What it raises is not raised by new(), and its text, which may hold a value, not told."""
    with pytest.raises(InvalidArgsError) as caught:
        note.new(Unreadable())
    assert ("$", "reading the mapping raised KeyError") == (caught.value.path, caught.value.reason)
    assert caught.value.__context__ is None


def test_a_key_that_is_no_str_is_refused_before_absent_keys() -> None:
    """The form of the mapping is checked before what is in it."""
    error = refusal({1: 2})
    assert isinstance(error, InvalidArgsError)
    assert ("$", one.name) == (error.path, error.worker)


def test_absent_keys_are_refused_before_bad_json() -> None:
    """Presence is checked before values."""
    assert isinstance(refusal({"organization_id": "42", "n": object()}), MissingTenantKeysError)


def test_a_bad_id_is_refused_before_bad_json() -> None:
    """Ids are checked before the other values."""
    assert "$.actor_id" == getattr(refusal({**TENANT, "n": {1}, "actor_id": 1.5}), "path", None)


def test_bad_json_is_refused_before_a_bad_binding() -> None:
    """Values are checked before the function's parameters."""
    assert "$.other" == getattr(refusal({**TENANT, "other": {1}}), "path", None)


def test_a_bad_binding_is_refused_before_a_bad_option() -> None:
    """Args are checked before options."""
    assert isinstance(refusal(TENANT, color="red"), InvalidArgsError)


@pytest.mark.parametrize(
    ("given", "travels"),
    [
        ("42", "42"),
        (42, "42"),
        (0, "0"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (Colour.RED, "red"),
        (Level.HIGH, "3"),
    ],
)
@pytest.mark.parametrize("key", ["organization_id", "actor_id", "impersonating_from"])
def test_ids_travel_as_strings(key: str, given: Any, travels: str) -> None:
    """A str, int or UUID id is text in the job's args."""
    value = note.new({**TENANT, key: given}).args[key]
    assert (str, travels) == (type(value), value)


@pytest.mark.parametrize("given", ["", "  ", "\n", True, False, 4.2, b"42", [], {}, object()])
@pytest.mark.parametrize("key", ["organization_id", "actor_id", "impersonating_from"])
def test_what_is_no_id_is_refused_at_its_path(key: str, given: Any) -> None:
    """Blank strings, bools and other types are no ids."""
    with pytest.raises(InvalidArgsError) as caught:
        note.new({**TENANT, key: given})
    assert f"$.{key}" == caught.value.path


def test_an_id_that_is_too_long_an_int_is_told_so() -> None:
    """The reason is the length, not the type."""
    with pytest.raises(
        InvalidArgsError, match="at most 1,024 bits, a UUID or None, not a longer int"
    ):
        note.new({**TENANT, "actor_id": 1 << 1024})


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (float("nan"), "$.n"),
        ([1, float("inf")], "$.n[1]"),
        ({"a": "\ud800"}, "$.n.a"),
        ({1: 2}, "$.n"),
        ([{"price": 1j}], "$.n[0].price"),
        (2**63 + 2**63, "$.n"),
        ({1, 2}, "$.n"),
        (b"bytes", "$.n"),
    ],
)
def test_what_is_not_strict_json_is_refused_at_its_path(value: Any, path: str) -> None:
    """The path says where the value is that no queue could carry."""
    assert path == getattr(refusal({**TENANT, "n": value}), "path", None)


def test_a_refusal_never_repeats_a_value() -> None:
    """Args may hold secrets: the text has the path and the type alone."""
    assert "hunter2" not in str(refusal({**TENANT, "n": {"hunter2"}}))


def test_a_refusal_names_the_worker() -> None:
    """Which worker's args were bad is a fact of the error."""
    assert one.name == getattr(refusal({**TENANT, "n": {1}}), "worker", None)


def test_args_beyond_the_limit_are_refused() -> None:
    """max_args_bytes of compact UTF-8 are allowed, and no byte more."""
    args = {**TENANT, "text": ""}
    room = 1000 - len(json.dumps(args, separators=(",", ":")))
    with configure(max_args_bytes=1000):
        note.new({**args, "text": "x" * room})
        with pytest.raises(InvalidArgsError, match="1001 bytes"):
            note.new({**args, "text": "x" * (room + 1)})


def test_keys_that_were_seen_before_count_as_well() -> None:
    """Keys that a worker has taken before are counted anew for each limit."""
    args = {**TENANT, "k" * 990: 1}
    sweep.new(args)
    with (
        configure(max_args_bytes=1000),
        pytest.raises(InvalidArgsError, match="max_args_bytes is 1000"),
    ):
        sweep.new(args)


def test_the_sets_of_keys_that_were_seen_fill_no_memory() -> None:
    """Of the valid ones 64 are remembered, not all."""
    enqueuer = Enqueuer(sweep.definition)
    for n in range(200):
        enqueuer.validate({f"key_{n}": n})
    assert 0 < len(enqueuer._shapes) <= 64


def test_what_the_caller_changes_later_does_not_reach_the_job() -> None:
    """The job holds a deep copy."""
    lines = [{"price": 1}]
    job = note.new({**TENANT, "lines": lines})
    lines[0]["price"] = 2
    assert [{"price": 1}] == job.args["lines"]


@pytest.mark.parametrize(
    "change",
    [
        lambda args: args.update(n=2),
        lambda args: args.pop("organization_id"),
        lambda args: args["lines"].append(1),
        lambda args: args["lines"][0].clear(),
        lambda args: args.__setitem__("organization_id", "other"),
    ],
)
def test_a_job_s_args_refuse_every_change(change: Any) -> None:
    """Changing args at any level raises TypeError."""
    with pytest.raises(TypeError):
        change(note.new({**TENANT, "lines": [{}]}).args)


def test_args_are_dicts_and_lists() -> None:
    """Read-only args are still instances of dict and list."""
    args = note.new({**TENANT, "lines": (1, 2)}).args
    assert (True, True) == (isinstance(args, dict), isinstance(args["lines"], list))


def test_values_arrive_as_a_json_round_trip_gives_them() -> None:
    """Tuples become lists and subclasses their base, in-process too."""
    order = collections.OrderedDict(a=Colour.RED, b=Level.HIGH)
    arrived = note.new({**TENANT, "pair": (1, (2,)), "order": order}).result()
    assert ([1, [2]], {"a": "red", "b": 3}, str, int) == (
        arrived["pair"],
        arrived["order"],
        type(arrived["order"]["a"]),
        type(arrived["order"]["b"]),
    )


def test_a_body_s_exception_is_not_raised_by_new() -> None:
    """.new() returns the job; the failure is the job's."""

    @tenant_worker
    def broken(scope: AuditScope) -> None:
        raise RuntimeError

    assert "discarded" == broken.new(TENANT).state


def test_new_many_enqueues_all_in_order() -> None:
    """Each item becomes a job, in the order given."""
    jobs = one.new_many({**TENANT, "n": n} for n in range(3))
    assert [0, 1, 2] == [job.result() for job in jobs]


def test_new_many_enqueues_none_if_one_is_bad(sigra_backend: RecordingBackend) -> None:
    """A bad item at the end keeps the first from being enqueued."""
    with pytest.raises(SigraError):
        one.new_many([{**TENANT, "n": 1}, {"actor_id": None}])
    assert [] == sigra_backend.jobs


@pytest.mark.parametrize("bad", [{"actor_id": None}, {**TENANT, "n": {1}}, None, TENANT])
def test_new_many_names_the_bad_item(bad: Any) -> None:
    """The error's index and text say which item it is about."""
    with pytest.raises(SigraError, match="item 1") as caught:
        one.new_many([{**TENANT, "n": 1}, bad])
    assert 1 == caught.value.index


def test_new_many_is_one_batch() -> None:
    """The backend is handed all jobs in one call."""
    batches = []

    class Batching(SyncBackend):
        def enqueue(self, jobs: Any) -> None:
            batches.append(len(jobs))
            super().enqueue(jobs)

    with configure(backend=Batching()):
        one.new_many([{**TENANT, "n": n} for n in range(5)])
    assert [5] == batches


def test_new_many_of_nothing_is_nothing() -> None:
    """An empty iterable gives an empty list, and no backend is asked."""

    class Unasked(SyncBackend):
        def enqueue(self, jobs: Any) -> None:
            raise LookupError

        aenqueue = enqueue  # type: ignore[assignment]

    with configure(backend=Unasked()):
        assert [] == one.new_many([])
        assert [] == asyncio.run(one.anew_many([]))


def test_new_many_checks_its_options() -> None:
    """A wrong option is refused in a batch too."""
    with pytest.raises(InvalidOptionError):
        one.new_many([{**TENANT, "n": 1}], color="red")


def test_a_single_new_names_no_index() -> None:
    """Outside a batch there is no index."""
    assert None is refusal({}).index


def test_anew_enqueues_inside_a_loop() -> None:
    """await .anew() gives a job as .new() does."""

    async def main() -> Any:
        return await (await one.anew({**TENANT, "n": 4})).aresult()

    assert 4 == asyncio.run(main())


def test_anew_refuses_as_new_does() -> None:
    """The async way checks the same."""
    with pytest.raises(MissingTenantKeysError):
        asyncio.run(one.anew({}))


def test_anew_many_enqueues_all() -> None:
    """await .anew_many() gives the jobs in order."""

    async def main() -> list[Any]:
        jobs = await one.anew_many([{**TENANT, "n": n} for n in range(3)])
        return [job.result() for job in jobs]

    assert [0, 1, 2] == asyncio.run(main())


def test_anew_many_names_the_bad_item() -> None:
    """The async batch names the index too."""
    with pytest.raises(MissingTenantKeysError) as caught:
        asyncio.run(one.anew_many([{**TENANT, "n": 1}, {}]))
    assert 1 == caught.value.index


def test_a_broker_that_is_down_is_an_enqueue_error() -> None:
    """EnqueueError comes through as the backend raised it, chained to the native error."""

    class Down(SyncBackend):
        def enqueue(self, jobs: Any) -> None:
            try:
                raise ConnectionRefusedError("broker")
            except ConnectionRefusedError as error:
                raise EnqueueError("down", "no connection") from error

    with configure(backend=Down()), pytest.raises(EnqueueError) as caught:
        one.new({**TENANT, "n": 1})
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def from_inside(child: dict[str, Any], home: dict[str, Any] = TENANT, **options: Any) -> Any:
    """Enqueue a child from inside a running tenant worker; return the child's job."""

    @tenant_worker
    def parent(scope: AuditScope, args: dict[str, Any]) -> Any:
        return note.new(child, **options)

    return parent.new(home).result()


@pytest.mark.parametrize("other", ["43", None])
def test_another_organization_from_inside_a_job_is_refused(other: Any) -> None:
    """A job for another organization, or for none, raises CrossTenantError."""
    with pytest.raises(CrossTenantError) as caught:
        from_inside({**TENANT, "organization_id": other})
    error = caught.value
    assert ("42", other) == (error.running_organization_id, error.organization_id)
    assert note.name == error.worker


def test_cross_tenant_opens_the_border() -> None:
    """Where crossing is meant, the call says so."""
    assert (
        "43"
        == from_inside({**TENANT, "organization_id": 43}, cross_tenant=True).args["organization_id"]
    )


def test_cross_tenant_false_keeps_it_closed() -> None:
    """Saying False is the default."""
    with pytest.raises(CrossTenantError):
        from_inside({**TENANT, "organization_id": "43"}, cross_tenant=False)


def test_the_same_organization_passes_in_any_form_of_its_id() -> None:
    """42 and "42" are one organization."""
    assert "42" == from_inside({**TENANT, "organization_id": 42}).args["organization_id"]


def test_a_job_without_organization_may_enqueue_for_any() -> None:
    """A system job fans out."""
    home = {**TENANT, "organization_id": None}
    assert "43" == from_inside({**TENANT, "organization_id": "43"}, home).args["organization_id"]


def test_a_plain_job_may_enqueue_for_any_organization() -> None:
    """It has no scope, and so belongs to none."""

    @worker
    def parent() -> Any:
        return note.new(TENANT).args["organization_id"]

    assert "42" == parent.new({}).result()


def test_a_cross_tenant_item_of_a_batch_is_named() -> None:
    """new_many inside a job says which item crosses the border."""

    @tenant_worker
    def parent(scope: AuditScope) -> Any:
        note.new_many([tenant_args(scope), {**TENANT, "organization_id": "43"}])

    with pytest.raises(CrossTenantError) as caught:
        parent.new(TENANT).result()
    assert 1 == caught.value.index


def test_cross_tenant_opens_the_border_to_a_whole_batch() -> None:
    """Where each item is meant for another organization, one word says so."""

    @tenant_worker
    def parent(scope: AuditScope) -> Any:
        children = [{**TENANT, "organization_id": home} for home in ("43", "44")]
        return [job.state for job in note.new_many(children, cross_tenant=True)]

    assert ["available"] * 2 == parent.new(TENANT).result()


def test_outside_a_job_any_organization_may_be_named() -> None:
    """The border is a job's, not the process's."""
    assert ["1", "2"] == [
        note.new({**TENANT, "organization_id": n}).args["organization_id"] for n in (1, 2)
    ]


def test_a_plain_worker_may_be_enqueued_from_a_tenant_job() -> None:
    """A tenant-agnostic job belongs to no organization, so no border is crossed."""

    @tenant_worker
    def parent(scope: AuditScope) -> Any:
        return sweep.new({}).state

    assert "available" == parent.new(TENANT).result()


def test_the_worker_s_backend_wins_over_the_queue_s() -> None:
    """The decorator's backend is chosen before the configured ones."""

    class Own(SyncBackend):
        name = "own"

    @worker(backend=Own())
    def own() -> None: ...

    with configure(backends={"mail": "sync"}):
        assert "own" == own.new({}, queue="mail").backend


def test_the_queue_s_backend_wins_over_the_default() -> None:
    """A queue that is configured is served by its backend, and any other by the default."""

    class Mail(SyncBackend):
        name = "mail"

    with configure(backend="sync", backends={"mail": Mail()}):
        jobs = [sweep.new({}, queue="mail"), sweep.new({}, queue="other"), sweep.new({})]
    assert ["mail", "sync", "sync"] == [job.backend for job in jobs]


def test_a_changed_default_backend_takes_effect_at_once() -> None:
    """A worker that was used before follows a later configure()."""

    class Other(SyncBackend):
        name = "other"

    before = sweep.new({}).backend
    with configure(backend=Other()):
        during = sweep.new({}).backend
    assert ("sync", "other", "sync") == (before, during, sweep.new({}).backend)
