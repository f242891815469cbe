"""What log_safe and log do with a call: the event, where it goes, and what is said of it."""

from __future__ import annotations

import asyncio
import contextvars
import dis
import errno
import gc
import inspect
import json
import logging
import os
import subprocess
import sys
import threading
import warnings
import weakref
from collections import ChainMap, OrderedDict, UserDict, namedtuple
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone, tzinfo
from enum import Enum
from functools import cached_property, wraps
from hashlib import sha256
from types import MappingProxyType, SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
import structlog
from amounts import MANY
from racing import at_once

from sigra import AuditEvent, AuditResult, AuditScope, Identity, configure
from sigra.audit import AuditStats, audit_stats, failure, log, log_safe
from sigra.audit.compose import event_id
from sigra.audit.emit import log_begin, log_lifecycle
from sigra.audit.failure import _windows
from sigra.audit.line import _best_dump
from sigra.audit.sink import write_record
from sigra.context import Attempt, running
from sigra.errors import AuditRejectedError
from sigra.frozen import FrozenDict
from sigra.scope import scope_from_ids

SCOPE = AuditScope.build(actor_id=7, organization_id=42)


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.records: list[Any] = []

    def write(self, event: AuditEvent, record: Any) -> None:
        self.events.append(event)
        self.records.append(record)

    def close(self) -> None:
        pass


class Raising:
    """A sink that raises what it was made with."""

    def __init__(self, error: BaseException | type[BaseException]) -> None:
        self.error = error

    def write(self, event: AuditEvent, record: Any) -> None:
        raise self.error

    def close(self) -> None:
        pass


@pytest.fixture
def sink() -> Kept:
    return Kept()


@pytest.fixture(autouse=True)
def lines(sink: Kept) -> Iterator[list[dict[str, Any]]]:
    """Capture what reaches structlog, with AuditEvent as schema and one sink."""
    kept: list[dict[str, Any]] = []

    def keep(_: Any, level: str, event: dict[str, Any]) -> Any:
        kept.append({"level": level, **event})
        raise structlog.DropEvent

    _windows.clear()
    structlog.configure(processors=[keep])
    with configure(audit_schema=AuditEvent, sinks=[sink], on_audit_failure=None):
        yield kept
    structlog.reset_defaults()


def change(before: AuditStats) -> tuple[int, int, int]:
    now = audit_stats()
    return tuple(new - old for new, old in zip(now, before, strict=True))  # type: ignore[return-value]


def nested(levels: int) -> dict[str, Any]:
    """Return a mapping of so many levels."""
    return {"a": nested(levels - 1)} if levels > 1 else {"a": 1}


def in_job(
    function: Any, *, schema: Any = AuditEvent, scope: AuditScope | None = SCOPE,
    attempt: int = 1, snoozes: int = 0, job_id: str = "0198f3a0-0000-7000-8000-000000000001",
) -> Any:  # fmt: skip
    """Run a function where a job runs."""
    job: Any = SimpleNamespace(
        id=job_id, definition=SimpleNamespace(name="mod.work", schema=schema)
    )
    attempt_ = Attempt(job, attempt, snoozes, scope)

    def inside() -> Any:
        running.set(attempt_)
        return function()

    return contextvars.copy_context().run(inside)


# --- the event ---------------------------------------------------------------


def test_an_event_carries_what_was_passed_and_what_the_scope_says() -> None:
    """The event has the arguments, the scope's ids and the defaults of the rest."""
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    result = log_safe(
        "invoice.close", SCOPE, outcome="failure", target_id=9, target_type="invoice",
        metadata={"lines": 2}, ip_address="10.0.0.1", user_agent="curl/8", occurred_at=moment,
    )  # fmt: skip
    event = result.event
    assert event is not None
    assert AuditEvent(
        event_id=event.event_id, action="invoice.close", outcome="failure", organization_id="42",
        actor_id="7", effective_user_id="7", actor_type="user", target_id="9",
        target_type="invoice", ip_address="10.0.0.1", user_agent="curl/8",
        metadata={"lines": 2}, occurred_at=moment,
    ) == event  # fmt: skip
    assert timezone.utc is event.occurred_at.tzinfo
    assert AuditResult("emitted", None, event, ()) == result


def test_the_event_reaches_structlog_with_every_field(lines: list[dict[str, Any]]) -> None:
    """structlog gets the action as the event's name and every other field as a keyword."""
    event = log_safe("invoice.close", SCOPE, target_id=9).event
    assert event is not None
    (line,) = lines
    expected = {name: getattr(event, name) for name in AuditEvent.__dataclass_fields__}
    expected["occurred_at"] = event.occurred_at.isoformat()
    expected["event"] = expected.pop("action")
    assert {**expected, "level": "info"} == line


@pytest.mark.parametrize(
    ("outcome", "level"), [("success", "info"), ("failure", "warning"), ("error", "error")]
)
def test_the_level_follows_the_outcome(
    outcome: Any, level: str, lines: list[dict[str, Any]]
) -> None:
    """Success is logged as info, failure as warning, error as error."""
    log_safe("a.b", SCOPE, outcome=outcome)
    assert [level] == [line["level"] for line in lines]


def test_the_impersonator_is_the_actor() -> None:
    """Where there is an impersonator, it acted, and the user is whom it acted as."""
    scope = AuditScope.build(actor_id=7, organization_id=42, impersonating_from=1)
    event = log_safe("a.b", scope).event
    assert event is not None
    assert ("1", "7") == (event.actor_id, event.effective_user_id)


def test_what_is_passed_wins_over_the_scope() -> None:
    """actor_id and organization_id win over the scope; the effective user stays the scope's."""
    event = log_safe("a.b", SCOPE, actor_id=5, organization_id=UUID(int=1)).event
    assert event is not None
    assert ("5", "7", str(UUID(int=1))) == (
        event.actor_id, event.effective_user_id, event.organization_id,
    )  # fmt: skip


def test_none_that_is_passed_wins_too() -> None:
    """actor_id=None says that there is no actor, and organization_id=None no organization."""
    event = log_safe("a.b", SCOPE, actor_id=None, organization_id=None).event
    assert event is not None
    assert (None, "system", None) == (event.actor_id, event.actor_type, event.organization_id)


@pytest.mark.parametrize("scope", [None, AuditScope.build(actor_id=None, organization_id=None)])
def test_no_actor_is_the_system(scope: Any) -> None:
    """An event without an actor is the system's, unless the caller says otherwise."""
    first, second = log_safe("a.b", scope).event, log_safe("a.b", scope, actor_type="cron").event
    assert first is not None and second is not None
    assert ("system", "cron") == (first.actor_type, second.actor_type)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (9, "9"), ("x", "x"), (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (None, None), (1 << 70, str(1 << 70)), (1 << 1024, "<int 1025 bits>"), (True, "true"), (False, "false"),
        (1.0, "1.0"), (0.0, "0.0"),
        (object(), "<builtins.object>"), ([1], "<builtins.list>"), ("\ufffdx", "\ufffdx"),
    ],
)  # fmt: skip
def test_a_target_is_kept_as_text(target: Any, text: str | None) -> None:
    """A target's id is stored as text; of an unknown type, that type's name is."""
    event = log_safe("a.b", SCOPE, target_id=target).event
    assert event is not None
    assert text == event.target_id


def test_a_long_text_is_cut_and_still_tells_itself_apart() -> None:
    """A text field of any length stays short, and two that differ at the end stay different."""
    first = log_safe("a.b", SCOPE, target_id="\x01" * 5_000 + "x").event
    second = log_safe("a.b", SCOPE, target_id="\x01" * 5_000 + "y").event
    assert first is not None and second is not None
    assert first.target_id != second.target_id
    assert len(str(first.target_id)) <= 256


@pytest.mark.parametrize("length", [1_025, (1 << 20) + 1])
def test_a_long_text_ends_with_its_digest(length: int) -> None:
    """It is cut in one way for good: a later event of the same target has the same id."""
    event = log_safe("a.b", SCOPE, target_id="x" * length).event
    digest = sha256(b"x" * min(length, 1 << 20)).hexdigest()
    assert event is not None
    assert f"{'x' * 176}...sha256:{digest}" == event.target_id


@pytest.mark.parametrize("field", ["target_type", "actor_type", "ip_address", "user_agent"])
def test_a_text_that_no_utf8_can_carry_is_mended(field: str) -> None:
    """What names nobody needs no digest to stay apart."""
    call: Any = log_safe
    assert "\ufffdx" == getattr(call("a.b", SCOPE, **{field: "\ud800x"}).event, field)


def test_ids_that_no_utf8_can_carry_stay_different() -> None:
    """An organization, person or target is taken for no other; what is well-formed stays."""
    ids = ["t\ud800", "t\udfff", "t\ufffd", "\ud800" * 5_000, "\udfff" * 5_000]
    for name in ("organization_id", "actor_id", "target_id"):
        events = [log_safe("a.b", None, **{name: odd}).event for odd in ids]
        kept = [str(getattr(each, name)) for each in events]
        assert (len(set(kept)), kept[2]) == (len(ids), "t\ufffd")
        assert all(len(one) <= 256 and one.encode() for one in kept)


@pytest.mark.parametrize("field", ["target_id", "target_type", "ip_address", "user_agent"])
def test_a_secret_in_a_field_is_redacted(field: str) -> None:
    """A text that looks like a secret is redacted in any field, and its name reported."""
    call: Any = log_safe
    result = call("a.b", SCOPE, **{field: "Bearer abc.def.ghi"})
    assert "[REDACTED]" == getattr(result.event, field)
    assert (field,) == result.redacted


def test_the_event_is_not_lost_for_its_secrets() -> None:
    """An event whose metadata holds secrets is emitted without them, and says where they were."""
    result = log_safe("a.b", SCOPE, metadata={"card": {"number": 1}, "n": [{"pwd": "x"}]})
    assert ("emitted", ("$.card", "$.n[0].pwd")) == (result.status, result.redacted)


@pytest.mark.parametrize("metadata", ["note", 5, ["a"], object()])
def test_metadata_that_is_no_mapping_is_kept_as_a_value(metadata: Any) -> None:
    """Metadata of a wrong type is worth less than the event: it goes under ``value``."""
    event = log_safe("a.b", SCOPE, metadata=metadata).event
    assert event is not None
    assert ["value"] == list(event.metadata)


def test_metadata_is_a_copy() -> None:
    """What the caller changes afterwards does not reach the event."""
    metadata: dict[str, Any] = {"a": {"b": [1]}}
    event = log_safe("a.b", SCOPE, metadata=metadata).event
    metadata["a"]["b"].append(2)
    assert event is not None
    assert {"a": {"b": [1]}} == event.metadata


# --- scopes of the host ------------------------------------------------------


class Slotted:
    __slots__ = ("active_organization", "impersonating_from", "user")


def slotted() -> Slotted:
    scope = Slotted()
    scope.user, scope.active_organization = Identity("7"), Identity("42")
    return scope


class Computed:
    @property
    def user(self) -> Any:
        return SimpleNamespace(id=7)

    @cached_property
    def active_organization(self) -> Any:
        return {"id": "42"}


class OfTheClass:
    user = 7
    active_organization = "42"
    impersonating_from = None


class Lazy:
    """As Django's lazy user: everything through __getattr__, the real one in _wrapped."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("asked a lazy object")


Named = namedtuple("Named", "user active_organization impersonating_from")

HOST_SCOPES = [
    {"user": {"id": 7}, "active_organization": {"id": 42}},
    OrderedDict(user=7, active_organization=42, impersonating_from=None),
    MappingProxyType({"user": 7, "active_organization": 42}),
    SimpleNamespace(user=SimpleNamespace(id=7), active_organization=SimpleNamespace(id="42")),
    SimpleNamespace(user=Lazy(SimpleNamespace(id=7)), active_organization=42),
    slotted(),
    Computed(),
    OfTheClass(),
    Named(7, 42, None),
]


@pytest.mark.parametrize("scope", HOST_SCOPES, ids=lambda scope: type(scope).__name__)
def test_the_hosts_own_scope_is_read(scope: Any) -> None:
    """An object or mapping with the members is a scope: attributes, slots, properties, keys."""
    event = log_safe("a.b", scope).event
    assert event is not None
    assert ("42", "7", "7") == (event.organization_id, event.actor_id, event.effective_user_id)


@pytest.mark.parametrize(
    "scope",
    [
        {"user": 7, "active_organization": 42, "impersonating_from": {"id": 1}},
        SimpleNamespace(user=7, active_organization=42, impersonating_from=Identity("1")),
        Named(7, 42, 1),
    ],
)
def test_the_impersonator_in_the_hosts_own_scope_is_the_actor(scope: Any) -> None:
    """Whoever stands behind the user is named, as in a job."""
    event = log_safe("a.b", scope).event
    assert event is not None
    assert ("1", "7") == (event.actor_id, event.effective_user_id)


def test_a_members_id_may_be_none_of_its_kinds() -> None:
    """A member that is None is no id; a UUID is one."""
    event = log_safe("a.b", {"user": None, "active_organization": UUID(int=2)}).event
    assert event is not None
    assert (None, str(UUID(int=2))) == (event.actor_id, event.organization_id)


class RaisingScope:
    active_organization = None

    @property
    def user(self) -> Any:
        raise RuntimeError("no session")


@pytest.mark.parametrize(
    "scope",
    [
        {}, {"user": None}, {"active_organization": None}, object(), "scope", 5, RaisingScope(),
        {"user": {"id": 1.5}, "active_organization": None},
        {"user": {"name": "x"}, "active_organization": None},
        {"user": "", "active_organization": None},
    ],
)  # fmt: skip
def test_a_scope_that_cannot_be_read_is_rejected(scope: Any, sink: Kept) -> None:
    """A scope without a readable user and organization fails, and that is itself an event."""
    result = log_safe("a.b", scope)
    assert ("failed", None) == (result.status, result.event)
    assert ["sigra.audit.rejected"] == [event.action for event in sink.events]
    assert sink.events[0].metadata["field"].startswith("scope")


class Loaded:
    """As a member of SQLAlchemy's or Django's that is loaded when it is asked for."""

    def __get__(self, instance: Any, owner: Any) -> Any:
        raise RuntimeError("asked a descriptor")


class LoadsItsImpersonator:
    user, active_organization, impersonating_from = 7, 42, Loaded()


class HasNoImpersonator:
    user, active_organization = 7, 42


class LeavesItEmpty(HasNoImpersonator):
    __slots__ = ("impersonating_from",)


def test_an_impersonator_that_would_have_to_be_loaded_is_not_taken_for_none() -> None:
    """No event says that the user did it where a member that is not read might name another."""
    result = log_safe("a.b", LoadsItsImpersonator())
    assert ("failed", None) == (result.status, result.event)
    assert result.reason is not None
    assert result.reason.startswith("rejected at scope.impersonating_from: ")


@pytest.mark.parametrize("scope", [HasNoImpersonator(), LeavesItEmpty()])
def test_a_scope_without_an_impersonator_has_none(scope: Any) -> None:
    """A scope whose class knows no impersonator, or whose slot for it is empty, is one all the same."""
    event = log_safe("a.b", scope).event
    assert event is not None
    assert ("7", "7") == (event.actor_id, event.effective_user_id)


def test_what_a_scope_raised_is_the_cause_of_its_rejection() -> None:
    """Who called log sees what the property of the request scope raised."""
    with pytest.raises(AuditRejectedError) as caught:
        log("a.b", RaisingScope())
    assert ("scope.user", RuntimeError) == (caught.value.field, type(caught.value.__cause__))


def test_what_a_time_zone_raised_is_the_cause_of_its_rejection() -> None:
    """Who called log sees what the time zone of occurred_at raised."""

    class Lost(tzinfo):
        def utcoffset(self, moment: datetime | None) -> Any:
            raise LookupError

    with pytest.raises(AuditRejectedError) as caught:
        log("a.b", SCOPE, occurred_at=datetime(2026, 1, 1, tzinfo=Lost()))
    assert ("occurred_at", LookupError) == (caught.value.field, type(caught.value.__cause__))


IDS_OF_BOTH = {"user": 7, "active_organization": 42}


@pytest.mark.parametrize(
    ("scope", "field", "kind"),
    [
        (UserDict(IDS_OF_BOTH), "active_organization", "collections.UserDict"),
        (ChainMap(IDS_OF_BOTH), "active_organization", "collections.ChainMap"),
        ({**IDS_OF_BOTH, "user": UserDict(id=7)}, "user.id", "collections.UserDict"),
    ],
)
def test_who_passes_another_mapping_than_a_dict_is_told_which(
    scope: Any, field: str, kind: str
) -> None:
    """Its own code would have to run to read it: the reason names the type, and what to pass."""
    result = log_safe("a.b", scope)
    assert result.reason is not None
    assert result.reason.startswith(f"rejected at scope.{field}: {kind} has none, ")
    assert result.reason.endswith("and any mapping as dict(...)")
    copy = {name: dict(x) if isinstance(x, UserDict) else x for name, x in dict(scope).items()}
    event = log_safe("a.b", copy).event
    assert event is not None
    assert ("7", "42") == (event.actor_id, event.organization_id)


def test_of_several_faults_the_first_is_told() -> None:
    """A call with several wrong arguments is rejected for one: the organization, then the user."""
    result = log_safe("a.b", {"active_organization": None}, actor_id=1.5)  # type: ignore[arg-type]
    assert result.reason is not None
    assert result.reason.startswith("rejected at scope.user: ")


def test_an_organization_that_is_passed_need_not_be_readable() -> None:
    """The scope's organization is not asked for where the caller passes one."""
    assert "emitted" == log_safe("a.b", {"user": 7}, organization_id=1).status


# --- rejection ---------------------------------------------------------------


class Pretended(str):
    """A keyword that says that it is one."""

    def isidentifier(self) -> bool:
        return True


BAD_CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("action", (), {}),
    ("scope", ("a.b",), {}),
    ("action", ("Bad", SCOPE), {}),
    ("action", ("auth.login", SCOPE), {}),
    ("action", ("sigra.audit.rejected", SCOPE), {}),
    ("action", (None, SCOPE), {}),
    ("outcome", ("a.b", SCOPE), {"outcome": "done"}),
    ("outcome", ("a.b", SCOPE), {"outcome": None}),
    ("outcome", ("a.b", SCOPE), {"outcome": ["success"]}),
    ("colour", ("a.b", SCOPE), {"colour": "red"}),
    ("(an odd keyword)", ("a.b", SCOPE), {"a\nb": 1}),
    ("(an odd keyword)", ("a.b", SCOPE), {Pretended("a\nb"): 1}),
    ("scope", ("a.b", SCOPE, "success"), {}),
    ("action", ("a.b", SCOPE), {"action": "c.d"}),
    ("occurred_at", ("a.b", SCOPE), {"occurred_at": datetime(2026, 1, 1)}),
    ("occurred_at", ("a.b", SCOPE), {"occurred_at": "2026-01-01T00:00:00Z"}),
    ("actor_id", ("a.b", SCOPE), {"actor_id": 1.5}),
    ("actor_id", ("a.b", SCOPE), {"actor_id": True}),
    ("actor_id", ("a.b", SCOPE), {"actor_id": " "}),
    ("organization_id", ("a.b", SCOPE), {"organization_id": object()}),
    ("organization_id", ("a.b", SCOPE), {"organization_id": 1 << 1024}),
]
bad_calls = pytest.mark.parametrize(("field", "args", "keywords"), BAD_CALLS)


@bad_calls
def test_a_bad_call_fails_and_is_an_event(
    field: str, args: Any, keywords: Any, sink: Kept, lines: list[dict[str, Any]]
) -> None:
    """A call that is not well formed gives "failed", and one event that says which part was bad."""
    before = audit_stats()
    result = log_safe(*args, **keywords)
    assert ("failed", None) == (result.status, result.event)
    assert result.reason is not None
    assert result.reason.startswith(f"rejected at {field}: ")
    assert [("sigra.audit.rejected", "warning")] == [(x["event"], x["level"]) for x in lines]
    (event,) = sink.events
    assert field == event.metadata["field"]
    assert (0, 0, 1) == change(before)


@bad_calls
def test_strict_log_raises_for_a_bad_call(
    field: str, args: Any, keywords: Any, sink: Kept, lines: list[dict[str, Any]]
) -> None:
    """log raises AuditRejectedError for what log_safe rejects, and logs nothing itself."""
    before = audit_stats()
    with pytest.raises(AuditRejectedError) as caught:
        log(*args, **keywords)
    assert field == caught.value.field
    assert [] == lines == sink.events
    assert (0, 0, 1) == change(before)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"order": {"apiToken": "t0p"}}, "it holds a secret at $.order.apiToken"),
        ({"pin": "1", "order": {"pwd": "x"}}, "it holds a secret at $.pin"),
        ({"note": "x" * 9_000}, "it must be a dict up to 8,192 bytes as JSON"),
        (["x" * 9_000], "it must be a dict up to 8,192 bytes as JSON"),
    ],
)
def test_strict_log_raises_where_log_safe_would_change_metadata(
    metadata: Any, reason: str, sink: Kept
) -> None:
    """log raises AuditRejectedError for secrets and for too much metadata, which log_safe replaces."""
    with pytest.raises(AuditRejectedError) as caught:
        log("a.b", SCOPE, metadata=metadata)
    assert ("metadata", reason) == (caught.value.field, caught.value.reason)
    assert [] == sink.events
    assert "emitted" == log_safe("a.b", SCOPE, metadata=metadata).status


LOOP: dict[str, Any] = {}
LOOP["again"] = LOOP
LAUGHS: list[Any] = [1]
for _ in range(30):
    LAUGHS = [LAUGHS] * 10

MENDED: list[tuple[str, dict[str, Any]]] = [
    ("target_id", {"target_id": 1.5}),
    ("target_id", {"target_id": True}),
    ("target_id", {"target_id": [1]}),
    ("target_id", {"target_id": b"inv_1"}),
    ("target_id", {"target_id": 1 << 1024}),
    ("target_id", {"target_id": -(1 << 1024) - 1}),
    ("target_id", {"target_id": "x" * 2_000}),
    ("target_id", {"target_id": "\ud800x"}),
    ("target_id", {"target_id": "Bearer abc.def.ghi"}),
    ("target_type", {"target_type": 5}),
    ("target_type", {"target_type": UUID(int=1)}),
    ("actor_type", {"actor_type": ["cron"]}),
    ("ip_address", {"ip_address": 167_772_161}),
    ("ip_address", {"ip_address": "\xe4" * 257}),
    ("user_agent", {"user_agent": b"curl/8"}),
    ("user_agent", {"user_agent": "x" * 2_000}),
    ("user_agent", {"user_agent": "\x01" * 257}),
    ("user_agent", {"user_agent": "Bearer abc.def.ghi"}),
    ("actor_id", {"actor_id": "x" * 2_000}),
    ("actor_id", {"actor_id": "\udfffx"}),
    ("organization_id", {"organization_id": "x" * 2_000}),
    ("scope.user.id", {"scope": AuditScope.build(actor_id="x" * 2_000, organization_id=1)}),
    (
        "scope.active_organization.id",
        {"scope": AuditScope.build(actor_id=1, organization_id="\xe4" * 300)},
    ),
    (
        "scope.impersonating_from.id",
        {"scope": AuditScope.build(actor_id=1, organization_id=1, impersonating_from="x" * 2_000)},
    ),
    ("scope.user", {"scope": {"user": "\ud800", "active_organization": 1}}),
    ("audit_schema", {"audit_schema": 5}),
    ("audit_schema", {"audit_schema": object}),
    ("metadata", {"metadata": 5}),
    ("metadata", {"metadata": "note"}),
    ("metadata", {"metadata": [("a", 1)]}),
    ("metadata", {"metadata": {"a": object()}}),
    ("metadata", {"metadata": {"a": {1, 2}}}),
    ("metadata", {"metadata": {"at": datetime(2026, 1, 1)}}),
    ("metadata", {"metadata": {"a": float("nan")}}),
    ("metadata", {"metadata": {"a": 1 << 70}}),
    ("metadata", {"metadata": {"a": "\ud800"}}),
    ("metadata", {"metadata": {1: "a"}}),
    ("metadata", {"metadata": LOOP}),
    ("metadata", {"metadata": {"a": LAUGHS}}),
    ("metadata", {"metadata": {"truncated": LAUGHS, "bytes": 9_000, "sha256": "5f" * 32}}),
    ("metadata", {"metadata": {"note": "Bearer abc.def.ghi"}}),
    ("metadata", {"metadata": {chr(0xFDFA) * 250 + chr(97 + n): 1 for n in range(11)}}),
]


@pytest.mark.parametrize(("field", "keywords"), MENDED)
@pytest.mark.parametrize("sinks", [0, 1])
def test_strict_log_raises_for_what_log_safe_would_mend(
    field: str, keywords: dict[str, Any], sinks: int, sink: Kept, lines: list[dict[str, Any]]
) -> None:
    """What log_safe would replace, cut or render in its own way, log refuses by the keyword."""
    call: Any = log
    before = audit_stats()
    with configure(sinks=[sink][:sinks]), pytest.raises(AuditRejectedError) as caught:
        call(**{"action": "a.b", "scope": SCOPE} | keywords)
    assert (field, True) == (caught.value.field, len(caught.value.reason) > 20)
    assert [] == lines == sink.events
    assert (0, 0, 1) == change(before)
    call = log_safe
    assert call(**{"action": "a.b", "scope": SCOPE} | keywords).event is not None


@pytest.mark.parametrize("keywords", [{"target_id": 1.5}, {"metadata": 5}, {"actor_id": 1.5}])
def test_strict_log_raises_though_nothing_would_be_logged(keywords: dict[str, Any]) -> None:
    """A call that is wrong where auditing is on is so where it is off."""
    call: Any = log
    with pytest.raises(AuditRejectedError):
        call("a.b", SCOPE, audit_schema=None, **keywords)


class Kind(str, Enum):  # noqa: UP042 - as it was written before 3.11
    INVOICE = "invoice"
    EMPTY = ""


class Unwilling(dict[str, Any]):
    """A dict that answers none of its own questions."""

    def __len__(self) -> int:
        raise RuntimeError("asked a foreign dict")

    __bool__ = __iter__ = items = keys = __len__  # type: ignore[assignment]


KEPT: list[dict[str, Any]] = [
    {"target_id": 9}, {"target_id": UUID(int=1)}, {"target_id": ""}, {"target_id": Kind.EMPTY}, {"target_id": -(1 << 127)},
    {"target_type": Kind.INVOICE}, {"actor_type": ""}, {"user_agent": "x" * 1_024},
    {"ip_address": "\xe4" * 256}, {"metadata": MappingProxyType({"a": (1, [2.5, None])})},
    {"metadata": FrozenDict({"a": FrozenDict({})})}, {"metadata": nested(64)},
    {"metadata": Unwilling(a=1)}, {"metadata": {"a": Unwilling(b=Unwilling())}},
    {"metadata": {}},
    {"metadata": {"bytes": 9_000}},
    {"metadata": {"truncated": True, "bytes": 9_000, "sha256": "5f" * 32}},
    {"metadata": Unwilling(truncated=True, bytes=9_000, sha256="5f" * 300)},
    {"occurred_at": datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2)))},
]  # fmt: skip


@pytest.mark.parametrize("keywords", KEPT)
def test_strict_log_takes_what_is_kept_as_it_is(keywords: dict[str, Any]) -> None:
    """What the event has as it was passed, log takes, and logs as log_safe does."""
    call: Any = log
    strict, safe = call("a.b", SCOPE, **keywords), log_safe("a.b", SCOPE, **keywords)
    assert ("emitted", ()) == (strict.status, strict.redacted)
    for field in keywords:
        assert getattr(safe.event, field) == getattr(strict.event, field)


def test_a_rejected_event_has_the_ids_that_can_be_read(sink: Kept) -> None:
    """The event of a rejection names organization and actor as far as they are readable."""
    log_safe("Bad", {"user": 7, "active_organization": object()}, actor_id=object())
    log_safe("Bad", SCOPE)
    half, whole = sink.events
    assert (None, None, "7") == (half.organization_id, half.actor_id, half.effective_user_id)
    assert ("42", "7", "7") == (whole.organization_id, whole.actor_id, whole.effective_user_id)


def test_a_rejection_repeats_no_value(sink: Kept, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the event of a rejection nor the log line nor the reason holds what was passed."""
    result = log_safe("Hunter2 secret", SCOPE, outcome="hunter2", hunter=("hunter2",))
    told = f"{sink.events} {caplog.text} {result.reason}"
    assert "hunter2" not in told.lower().replace("hunter:", "")


def test_action_and_scope_may_be_keywords() -> None:
    """action and scope may be passed by name, like any other argument."""
    assert "emitted" == log_safe(action="a.b", scope=SCOPE).status
    assert "emitted" == log("a.b", scope=SCOPE).status


def test_subclasses_of_str_are_read_as_str() -> None:
    """An action or outcome from a str enumeration is the str that it is."""

    class Names(str, Enum):  # noqa: UP042 - as it was written before 3.11
        CLOSE = "invoice.close"
        BAD = "failure"

    event = log_safe(Names.CLOSE, SCOPE, outcome=Names.BAD).event  # type: ignore[arg-type]
    assert event is not None
    assert [str, str] == [type(event.action), type(event.outcome)]


def test_the_signature_says_what_to_pass() -> None:
    """inspect and help show the arguments of log_safe and log, not the tolerant ones."""
    for function in (log_safe, log):
        parameters = inspect.signature(function).parameters
        assert ["action", "scope", "outcome"] == list(parameters)[:3]
        assert not any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        assert {inspect.Parameter.KEYWORD_ONLY} == {p.kind for p in [*parameters.values()][2:]}
        assert (function.__doc__ or "").startswith("Log an audit event")


# --- the schema --------------------------------------------------------------


def test_no_schema_means_nothing_is_logged(sink: Kept, lines: list[dict[str, Any]]) -> None:
    """Without a schema anywhere the call is a no-op that says so and is counted."""
    before = audit_stats()
    with configure(audit_schema=None):
        result = log_safe("a.b", None)
    assert ("disabled", None) == (result.status, result.event)
    assert [] == lines == sink.events
    assert (0, 1, 0) == change(before)


def test_none_in_the_call_disables_it(sink: Kept) -> None:
    """audit_schema=None switches one call off, whatever is configured, and warns of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "disabled" == log_safe("a.b", SCOPE, audit_schema=None).status
    assert [] == sink.events


def test_the_schema_of_the_call_wins_over_the_jobs_over_the_configured(sink: Kept) -> None:
    """The record type is the call's, else the running worker's, else the configured one."""

    def passed(action: str) -> str:
        return "call"

    def of_job(action: str) -> str:
        return "job"

    def configured(action: str) -> str:
        return "configured"

    with configure(audit_schema=configured):
        log_safe("a.b", SCOPE)
        in_job(lambda: log_safe("a.b", SCOPE), schema=of_job)
        in_job(lambda: log_safe("a.b", SCOPE), schema=None)
        in_job(lambda: log_safe("a.b", SCOPE, audit_schema=passed), schema=of_job)
    assert ["configured", "job", "configured", "call"] == sink.records


def test_the_events_own_type_makes_the_event_the_record(sink: Kept) -> None:
    """With AuditEvent as schema, sinks get the event as record."""
    log_safe("a.b", SCOPE)
    assert sink.events[0] is sink.records[0]


def test_a_schema_that_raises_keeps_the_event_from_no_one(
    sink: Kept, lines: list[dict[str, Any]]
) -> None:
    """If the schema raises, structlog and sinks still get the event, and the result says so."""

    def broken(action: str) -> None:
        raise LookupError("hunter2")

    result = log_safe("a.b", SCOPE, audit_schema=broken)
    assert ("failed", "the audit_schema raised builtins.LookupError") == (
        result.status,
        result.reason,
    )
    assert result.event is sink.events[0]
    assert (1, [None]) == (len(lines), sink.records)


class Changing(Kept):
    """A sink that takes out what it does not want, of the event and of the record."""

    def write(self, event: AuditEvent, record: Any) -> None:
        super().write(event, record)
        for metadata in (record.metadata, event.metadata, event.metadata["order"]):
            metadata.clear()


@pytest.mark.parametrize(
    "schema", [AuditEvent, lambda metadata: SimpleNamespace(metadata=metadata)]
)
def test_a_sink_cannot_change_what_the_next_one_writes(schema: Any, sink: Kept) -> None:
    """Metadata of an event that sinks share is read-only at each level, and a record has its own."""
    with configure(sinks=[Changing(), sink]):
        result = log_safe("a.b", SCOPE, metadata={"order": {"lines": [1]}}, audit_schema=schema)
    assert "tests.test_emit.Changing raised builtins.TypeError" == result.reason
    assert [{"order": {"lines": [1]}}] == [event.metadata for event in sink.events]
    assert result.event is sink.events[0]


@pytest.mark.parametrize("nested", [False, True])
def test_a_record_has_plain_metadata_of_its_own(nested: bool, sink: Kept) -> None:
    """What a record type is given is a dict that it may change, at each level."""
    metadata: dict[str, Any] = {"order": {"lines": [1]}} if nested else {"order": 1}
    event = log_safe("a.b", SCOPE, metadata=metadata, audit_schema=dict).event
    (record,) = sink.records
    assert dict is type(record["metadata"]) is type(metadata)
    record["metadata"]["more"] = 1
    if nested:
        record["metadata"]["order"]["lines"].append(2)
    assert event is not None
    assert metadata == event.metadata


def test_a_schema_that_takes_nothing_fails(sink: Kept) -> None:
    """A schema with none of the fields, passed in a call, is a failure and no exception."""
    result = log_safe("a.b", SCOPE, audit_schema=object)
    assert ("failed", "the audit_schema raised builtins.TypeError") == (
        result.status,
        result.reason,
    )
    assert [None] == sink.records


@pytest.mark.parametrize("function", [log_safe, log])
def test_a_scope_without_a_job_warns_once_for_a_line(function: Any) -> None:
    """A worker's scope where no job runs warns at the caller's line, once, that nothing is known."""

    def call() -> None:
        function("a.b", SCOPE)

    with configure(audit_schema=None), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            call()
    (warning,) = caught
    assert warning.category is RuntimeWarning
    assert (__file__, call.__code__.co_firstlineno + 1) == (warning.filename, warning.lineno)


def test_a_function_warns_once_whatever_is_done_with_warnings() -> None:
    """Where every warning is shown there is still one for a function, and one for each block."""

    def call() -> None:
        log_safe("a.b", SCOPE)

    def other() -> None:
        log_safe("a.b", SCOPE)

    for action in ("always", "error", "always"):
        with configure(audit_schema=None), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter(action)  # type: ignore[arg-type]
            for each in (call, call, other, call):
                each()
        assert (0 if action == "error" else 2) == len(caught)


def test_a_function_that_was_warned_of_can_go() -> None:
    """What was made at run time is not kept for the life of the process."""
    names: dict[str, Any] = {"log_safe": log_safe, "scope": SCOPE}
    exec("def call():\n    log_safe('a.b', scope)", names)
    with configure(audit_schema=None), pytest.warns(RuntimeWarning, match="where no job runs"):
        names["call"]()
    code = weakref.ref(names.pop("call").__code__)
    gc.collect()
    assert code() is None


@pytest.mark.parametrize("function", [log_safe, log])
def test_a_scope_that_is_passed_by_name_warns_too(function: Any) -> None:
    """How a worker's scope was passed where no job runs makes no difference to the warning."""
    with configure(audit_schema=None), pytest.warns(RuntimeWarning, match="where no job runs"):
        function(action="a.b", scope=SCOPE)


def test_nothing_is_warned_of_where_something_is_logged() -> None:
    """A scope without a job is fine where a schema is passed or configured."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        log_safe("a.b", SCOPE)
        log_safe("a.b", SCOPE, audit_schema=AuditEvent)
        with configure(audit_schema=None):
            log_safe("a.b", None)
    assert [] == caught


def test_a_warning_that_is_an_error_is_not_raised() -> None:
    """With warnings as errors log_safe still answers."""
    with configure(audit_schema=None), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "disabled" == log_safe("a.b", SCOPE).status
        assert "disabled" == log("a.b", SCOPE).status


def test_a_job_without_schema_does_not_warn() -> None:
    """Inside a job that has no schema, disabled is what was asked for."""
    with configure(audit_schema=None), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert "disabled" == in_job(lambda: log_safe("a.b", SCOPE), schema=None).status
    assert [] == caught


# --- inside a job ------------------------------------------------------------


def test_an_event_of_a_job_names_it() -> None:
    """Inside a job the event carries worker, job and attempt; outside they are None."""
    event = in_job(lambda: log_safe("a.b", SCOPE), attempt=3).event
    assert ("mod.work", "0198f3a0-0000-7000-8000-000000000001", 3) == (
        event.worker, event.job_id, event.attempt,
    )  # fmt: skip
    outside = log_safe("a.b", SCOPE).event
    assert outside is not None
    assert outside.worker is outside.job_id is outside.attempt is None


def ids(**attempt: Any) -> list[str]:
    return in_job(
        lambda: [log_safe("a.b", SCOPE).event.event_id for _ in range(3)],  # type: ignore[union-attr]
        **attempt,
    )


def test_a_redelivered_attempt_has_the_same_ids() -> None:
    """The same attempt of the same job yields the same ids, each event another."""
    assert ids() == ids()
    assert 3 == len(set(ids()))


def test_the_events_of_a_body_are_counted_from_one() -> None:
    """The ids of a body's events are those of the places 1, 2 and 3; 0 is the attempt's end."""
    job = "0198f3a0-0000-7000-8000-000000000001"
    told = ("42", "7", "a.b", "success", None, None)
    assert [event_id(job, 1, 0, place, *told) for place in (1, 2, 3)] == ids()
    end = in_job(lambda: log_lifecycle(running.get(), "work.done", "success"))  # type: ignore[arg-type]
    told = ("42", "7", "work.done", "success", None, None)
    assert event_id(job, 1, 0, 0, *told) == end.event.event_id


@pytest.mark.parametrize(
    "other",
    [
        {"action": "a.c"},
        {"outcome": "failure"},
        {"target_id": 8},
        {"target_type": "order"},
        {"actor_id": "8"},
    ],
)
def test_another_event_in_the_same_place_has_another_id(other: dict[str, Any]) -> None:
    """A body that goes on after a crash, with what is left, logs nothing that passes for done."""

    def body(action: str = "a.b", target_id: int = 7, **details: Any) -> str:
        return log_safe(action, SCOPE, target_id=target_id, **details).event.event_id  # type: ignore[union-attr]

    assert in_job(lambda: body(**other)) != in_job(body)


def test_the_event_of_another_organization_takes_no_id() -> None:
    """Who runs a job under another's job id writes events of other ids."""
    foreign = AuditScope.build(actor_id=7, organization_id="attacker")
    theirs = in_job(lambda: log_safe("a.b", foreign).event.event_id)  # type: ignore[union-attr]
    assert theirs not in ids()


@pytest.mark.parametrize("other", [{"attempt": 2}, {"snoozes": 1}, {"job_id": "another"}])
def test_another_attempt_has_other_ids(other: dict[str, Any]) -> None:
    """Another attempt, snooze or job yields other ids."""
    assert not set(ids()) & set(ids(**other))


def test_a_rejection_takes_an_ordinal_like_any_event() -> None:
    """A rejected and a disabled call count in the order of a body, so later ids do not shift."""

    def body(action: str, schema: Any) -> str:
        log_safe(action, SCOPE, audit_schema=schema)
        return log_safe("a.b", SCOPE).event.event_id  # type: ignore[union-attr]

    answers = {
        in_job(lambda: body("a.b", AuditEvent)),
        in_job(lambda: body("Bad", AuditEvent)),
        in_job(lambda: body("a.b", None)),
    }
    assert 1 == len(answers)


def test_the_lifecycle_event_is_number_zero(sink: Kept) -> None:
    """The end of an attempt is an event with the job's scope, apart from all of its body."""

    def body() -> list[AuditResult]:
        first = log_safe("a.b", SCOPE)
        attempt = running.get()
        assert attempt is not None
        return [first, log_lifecycle(attempt, "work.done", "error"), log_safe("a.b", SCOPE)]

    first, lifecycle, second = (result.event for result in in_job(body))
    assert ("work.done", "error", "42", "7") == (
        lifecycle.action, lifecycle.outcome, lifecycle.organization_id, lifecycle.actor_id,
    )  # fmt: skip
    assert [first.event_id, second.event_id] == ids()[:2]
    assert lifecycle.event_id not in ids()


def test_who_logs_while_an_end_is_logged_takes_an_id_too() -> None:
    """A callback for failures, or a processor, whose own events are apart from the body's."""
    told = list[AuditResult]()

    def tell(_: AuditResult) -> None:
        told.extend(log_safe("a.b", SCOPE, audit_schema=AuditEvent) for _ in range(2))

    with configure(on_audit_failure=tell):
        bodys = ids()
        in_job(lambda: log_lifecycle(running.get(), "Bad", "success"))  # type: ignore[arg-type]
    events = [result.event.event_id for result in told if result.event]
    assert ["emitted"] * 2 == [result.status for result in told]
    assert 5 == len({*bodys, *events})


def test_a_bad_lifecycle_action_is_rejected_like_any(sink: Kept) -> None:
    """log_lifecycle raises nothing either."""
    attempt: Any = in_job(lambda: running.get())
    assert "failed" == log_lifecycle(attempt, "Bad", "success").status
    broken: Any = Attempt(None, 1, 0)  # type: ignore[arg-type]
    assert "failed" == log_lifecycle(broken, "a.b", "success").status
    assert ["sigra.audit.rejected"] == [event.action for event in sink.events]


def test_an_attempt_begins_whatever_its_ids_are(sink: Kept) -> None:
    """The begin of a hand-built job whose actor is blank is noted without it."""
    odd = scope_from_ids(" ", "42", None)
    assert in_job(lambda: log_begin(running.get()), scope=odd) is None  # type: ignore[arg-type]
    (event,) = sink.events
    assert ("sigra.job.begun", "42", None) == (event.action, event.organization_id, event.actor_id)


def test_a_lifecycle_event_leaves_the_job_as_it_was() -> None:
    """After the event of an attempt's end, the attempt that runs is the same as before."""

    def body() -> tuple[Any, Any]:
        attempt: Any = running.get()
        log_lifecycle(attempt, "work.done", "success")
        return attempt, running.get()

    before, after = in_job(body)
    assert before is after


@pytest.mark.parametrize("call", [log_safe, log])
def test_a_crash_is_counted_once_and_told_by_type(
    call: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the event cannot even be built, the result says which exception came, as the log does."""

    class Broken(Attempt):
        @property
        def snoozes(self) -> int:  # type: ignore[override]
            raise ZeroDivisionError("hunter2")

        @snoozes.setter
        def snoozes(self, _: int) -> None: ...

    def body() -> AuditResult:
        attempt: Any = running.get()
        running.set(Broken(attempt.job, 1, 0))
        return call("a.b", SCOPE)  # type: ignore[no-any-return]

    before, told = audit_stats(), list[AuditResult]()
    with configure(on_audit_failure=told.append):
        result = in_job(body)
    reason = "builtins.ZeroDivisionError while the event was built"
    assert AuditResult("failed", reason) == result
    assert ([result], (0, 0, 1)) == (told, change(before))
    assert [f"audit event a.b failed: {reason}"] == caplog.messages


# --- failures ----------------------------------------------------------------


def test_a_rejection_that_no_sink_takes_says_both() -> None:
    """If the event of a rejection fails itself, the reason has the rejection and the failure."""
    with configure(sinks=[Raising(OSError)]):
        result = log_safe("zoo.open", SCOPE, actor_id=1.5)
    assert result.reason is not None
    first, second = result.reason.split("; ")
    assert first.startswith("rejected at actor_id: ")
    assert "tests.test_emit.Raising raised builtins.OSError" == second


def test_structlog_and_sinks_fail_apart(sink: Kept) -> None:
    """Each that raises is named by type; the others get the event all the same."""

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("hunter2")

    structlog.configure(processors=[broken])
    before = audit_stats()
    with configure(sinks=[Raising(OSError("disk full")), sink, Raising(ValueError)]):
        result = log_safe("a.b", SCOPE)
    assert "failed" == result.status
    assert (
        "structlog raised builtins.ZeroDivisionError; tests.test_emit.Raising raised "
        "builtins.OSError; tests.test_emit.Raising raised builtins.ValueError"
    ) == result.reason
    assert [result.event] == sink.events
    assert (0, 0, 1) == change(before)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_what_a_sink_s_error_came_from_is_named_by_its_type(depth: int) -> None:
    """The driver's own error says what is wrong; its text may hold what was logged."""
    error: Exception = LookupError("hunter2")
    for number in range(depth):
        outer = OSError(f"hunter{number}")
        outer.__cause__, error = error, outer
    with configure(sinks=[Raising(error)]):
        result = log_safe("a.b", SCOPE)
    assert "tests.test_emit.Raising raised builtins.OSError (builtins.LookupError)" == result.reason


def test_errors_that_came_from_each_other_are_named() -> None:
    """Looking for the first of them ends."""
    one, other = OSError(), ValueError()
    one.__cause__, other.__cause__ = other, one
    with configure(sinks=[Raising(one)]):
        reason = log_safe("a.b", SCOPE).reason
    assert "tests.test_emit.Raising raised builtins.OSError (builtins.ValueError)" == reason


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (OSError(errno.ENOSPC, "hunter2"), "builtins.OSError (ENOSPC)"),
        (OSError(-1, "hunter2"), "builtins.OSError"),
        (OSError({"hunter": 2}, "hunter2"), "builtins.OSError"),
        (PermissionError(errno.EACCES, "hunter2"), "builtins.PermissionError"),
    ],
)
def test_a_full_disk_is_told_by_the_system_s_code(error: OSError, name: str) -> None:
    """An error of the system whose type is that of many others is named by its code too."""
    with configure(sinks=[Raising(error)]):
        reason = log_safe("a.b", SCOPE).reason
    assert f"tests.test_emit.Raising raised {name}" == reason


@pytest.mark.parametrize("sinks", [[Kept()], []])
def test_a_broken_logger_factory_is_structlogs_failure(sinks: list[Kept]) -> None:
    """A logger that cannot even be made keeps the event from no sink, and is told where none is."""

    def broken(*_: Any) -> Any:
        raise OSError("no stream")

    structlog.configure(logger_factory=broken)
    with configure(sinks=sinks):
        result = log_safe("a.b", SCOPE)
    assert ("failed", "structlog raised builtins.OSError") == (result.status, result.reason)
    assert [result.event for _ in sinks] == [event for sink in sinks for event in sink.events]


def test_strict_log_reports_a_failed_sink_in_the_result() -> None:
    """log is strict about the call, not about sinks: those are in its result."""
    with configure(sinks=[Raising(OSError)]):
        assert "failed" == log("a.b", SCOPE).status


def test_a_failure_is_written_to_the_standard_logger(caplog: pytest.LogCaptureFixture) -> None:
    """The logger sigra.audit gets one error with the action, types and keys, and no value."""
    token = "ghp_" + "a" * 36
    with configure(sinks=[Raising(OSError("hunter2"))]):
        log_safe("a.b", SCOPE, metadata={"x": "hunter2", "y\n\u202e": 1, token: 2})
    (record,) = caplog.records
    assert ("sigra.audit", logging.ERROR) == (record.name, record.levelno)
    assert "a.b" in record.getMessage() and "OSError" in record.getMessage()
    assert record.getMessage().endswith(r"; keys of its metadata: 'x', 'y\n\u202e', '[REDACTED]'")
    assert "hunter2" not in caplog.text and token not in caplog.text


@pytest.mark.parametrize(
    "wrong", [{"target": 9}, {"outcome": "ok"}, {"occurred_at": "now"}], ids=str
)
def test_the_line_of_a_failure_names_the_action(
    wrong: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever else is wrong, also if it is of an enum or passed by keyword: so it can be found."""
    call: Any = log_safe
    call("a.b")
    call("a.b", SCOPE, **wrong)
    call(action="a.b", scope=SCOPE, **wrong)
    call(Enum("Action", {"CLOSE": "a.b"}, type=str).CLOSE, SCOPE, **wrong)
    begin = "audit event a.b failed: rejected at "
    assert [True] * 4 == [message.startswith(begin) for message in caplog.messages]


def test_a_flood_of_one_failure_is_summed_up(caplog: pytest.LogCaptureFixture) -> None:
    """A sink that is down writes a bounded number of lines a second; all are counted."""
    before = audit_stats()
    with configure(sinks=[Raising(OSError)]):
        for _ in range(1_000):
            log_safe("a.b", SCOPE)
    assert (0, 0, 1_000) == change(before)
    assert 50 <= len(caplog.records) < 1_000


def test_what_was_left_out_is_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads that fail as the second is over both told it: more than had failed."""

    class Amid(dict[Any, Any]):
        def setdefault(self, *given: Any) -> Any:
            return self.after(super().setdefault(*given))

        def get(self, *given: Any) -> Any:
            return self.after(super().get(*given))

        def after(self, found: Any) -> Any:
            if now[0] and not other.ident:
                other.start()
                other.join()
            return found

    now, result = [0.0], AuditResult("failed", "it is down")
    other = threading.Thread(target=failure.report, args=[result, "a.b"])
    monkeypatch.setattr(failure, "monotonic", lambda: now[0])
    monkeypatch.setattr(failure, "_windows", Amid())
    for _ in range(60):
        failure.report(result, "a.b")
    now[0] = 5.0
    failure.report(result, "a.b")
    now[0] = 10.0
    failure.report(result, "a.b")
    told = [message.partition("(and ")[2].partition(" ")[0] for message in caplog.messages]
    assert ["10"] == [number for number in told if number]


def test_a_failure_is_offered_to_the_callback() -> None:
    """on_audit_failure is called with the result of each failure, and of nothing else."""
    told: list[AuditResult] = []
    with configure(on_audit_failure=told.append):
        log_safe("a.b", SCOPE)
        failed = log_safe("Bad", SCOPE)
    assert [failed] == told


def test_what_is_disabled_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    """A call for which there is no schema has no line in the log, and is offered to nobody."""
    told: list[AuditResult] = []
    with configure(on_audit_failure=told.append):
        assert "disabled" == log_safe("a.b", SCOPE, audit_schema=None).status
    assert ([], []) == (told, caplog.messages)


def test_a_logger_that_raises_keeps_no_failure_from_the_callback() -> None:
    """A filter of the application's that raises costs the failure its line alone."""

    def broken(_: logging.LogRecord) -> bool:
        raise RuntimeError

    told: list[AuditResult] = []
    logger = logging.getLogger("sigra.audit")
    logger.addFilter(broken)
    try:
        with configure(on_audit_failure=told.append):
            failed = log_safe("Bad", SCOPE)
    finally:
        logger.removeFilter(broken)
    assert [failed] == told


def test_a_callback_that_raises_is_ignored() -> None:
    """What on_audit_failure raises reaches no one, and is counted once."""

    def broken(_: AuditResult) -> None:
        raise RuntimeError

    before = audit_stats()
    with configure(on_audit_failure=broken):
        assert "failed" == log_safe("Bad", SCOPE).status
    assert (0, 0, 1) == change(before)


def test_a_callback_that_fails_again_ends() -> None:
    """A callback that logs a bad event itself is not called for that one."""
    calls: list[AuditResult] = []

    def again(result: AuditResult) -> None:
        calls.append(result)
        log_safe("Bad", SCOPE)

    before = audit_stats()
    with configure(on_audit_failure=again):
        log_safe("Bad", SCOPE)
    assert 1 == len(calls)
    assert (0, 0, 2) == change(before)


def test_a_sink_that_logs_ends(lines: list[dict[str, Any]]) -> None:
    """An event that a sink logs while it writes one reaches structlog, and says it went no further."""
    results: list[AuditResult] = []

    class Chatty(Kept):
        def write(self, event: AuditEvent, record: Any) -> None:
            super().write(event, record)
            results.append(log_safe("sink.wrote", SCOPE))

    chatty = Chatty()
    with configure(sinks=[chatty]):
        assert "emitted" == log_safe("a.b", SCOPE).status
    assert ["a.b"] == [event.action for event in chatty.events]
    assert ["failed"] == [result.status for result in results]
    assert ["a.b", "sink.wrote"] == [line["event"] for line in lines]


def test_a_processor_that_logs_ends() -> None:
    """A processor that logs an event for each event ends at the stack's limit, and says so."""

    def echo(*_: Any) -> Any:
        log_safe("a.b", SCOPE)
        raise structlog.DropEvent

    structlog.configure(processors=[echo])
    assert log_safe("a.b", SCOPE).status in ("emitted", "failed")


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError]
)
def test_what_ends_a_program_or_task_passes(error: type[BaseException]) -> None:
    """KeyboardInterrupt, SystemExit, GeneratorExit and CancelledError are not kept, from anywhere."""

    def end(*_: Any, **__: Any) -> Any:
        raise error

    class Ending(RaisingScope):
        user = property(end)

    with configure(sinks=[Raising(error)]), pytest.raises(error):
        log_safe("a.b", SCOPE)
    with pytest.raises(error):
        log_safe("a.b", SCOPE, audit_schema=end)
    with pytest.raises(error):
        log_safe("a.b", Ending())
    structlog.configure(processors=[end])
    with pytest.raises(error):
        log_safe("a.b", SCOPE)


def test_counts_are_exact_under_threads() -> None:
    """emitted, disabled and failed add up to the calls, exactly, from many threads."""
    before, times = audit_stats(), 300 if MANY else 60

    def work() -> None:
        for _ in range(times):
            log_safe("a.b", SCOPE)
            log_safe("a.b", SCOPE, audit_schema=None)
            log_safe("Bad", SCOPE)

    at_once(work, threads=6)
    assert (6 * times,) * 3 == change(before)


def test_an_interrupted_write_keeps_no_later_event_from_the_sinks(sink: Kept) -> None:
    """Wherever Ctrl-C falls before a sink has the event: the next one is none of a sink's own."""
    code = write_record.__code__
    # Python looks for signals at none of these: they are there for a line's number alone.
    steps = [step.offset for step in dis.get_instructions(code) if step.opname != "NOP"]

    def interrupted(offset: int) -> bool:
        def interrupt(frame: Any, what: str, _: Any) -> Any:
            if frame.f_code is not code:
                return None
            frame.f_trace_opcodes = True
            if what == "opcode" and frame.f_lasti == offset and not sink.events:
                raise KeyboardInterrupt
            return interrupt

        tracing = sys.gettrace()
        sys.settrace(interrupt)
        try:
            log_safe("a.b", SCOPE)
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(tracing)
        return False

    def try_all() -> None:
        tried = 0
        for offset in steps:
            sink.events.clear()
            if interrupted(offset):
                tried += 1
                assert "emitted" == log_safe("a.b", SCOPE).status
        assert tried > 30

    contextvars.copy_context().run(try_all)


def test_a_stack_near_its_limit_is_survived() -> None:
    """At whatever depth of the stack it is entered, log_safe answers, and counts once."""
    wrong: list[Any] = []

    def descend(left: int) -> None:
        if left:
            return descend(left - 1)
        before = audit_stats()
        result = log_safe("a.b", SCOPE, metadata={"a": {"b": [1]}})
        if type(result) is not AuditResult or sum(change(before)) != 1:
            wrong.append((left, result))
        return None

    depth = len(inspect.stack())
    for left in range(sys.getrecursionlimit() - depth - 80, sys.getrecursionlimit() - depth + 5):
        try:
            descend(left)
        except RecursionError:  # before it was entered, or in this test's own counting
            continue
    assert [] == wrong


def stdlib_dump() -> Any:
    """Return what writes a line where orjson is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "orjson", None)
        return _best_dump()[0]


@pytest.mark.parametrize("dump", [_best_dump()[0], stdlib_dump()], ids=["installed", "stdlib"])
def test_the_stacks_end_costs_no_event_for_its_metadata(
    dump: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is room for an event without metadata, one with any is logged too."""
    from sigra.audit import JSONRenderer

    monkeypatch.setattr("sigra.audit.line._dump", dump)
    logger = structlog.ReturnLoggerFactory()
    structlog.configure([JSONRenderer()], logger_factory=logger, cache_logger_on_first_use=True)

    def descend(left: int, metadata: Any) -> AuditResult:
        return descend(left - 1, metadata) if left else log_safe("a.b", SCOPE, metadata=metadata)

    depth, statuses = len(inspect.stack()), list[tuple[str, str]]()
    for left in range(sys.getrecursionlimit() - depth - 80, sys.getrecursionlimit() - depth - 5):
        with suppress(RecursionError):  # before it was entered
            new_key = descend(left, {f"key{left}": "text"}).status
            statuses.append((descend(left, None).status, new_key))
    assert {("emitted", "emitted"), ("failed", "failed")} == set(statuses)


LOCKED = """
import os, signal, sys, threading, structlog
from sigra import AuditEvent, configure, log_safe
class Slow:
    def write(self, text):
        if os.getpid() == parent: writing.set(); forked.wait()
    def flush(self): pass
parent, writing, forked = os.getpid(), threading.Event(), threading.Event()
structlog.configure(logger_factory=structlog.PrintLoggerFactory(Slow()))
configure(audit_schema=AuditEvent)
threading.Thread(target=log_safe, args=("a.b", None), daemon=True).start(); writing.wait()
if not (child := os.fork()):
    signal.alarm(60)
    os._exit(log_safe("c.d", None).status != "emitted")
os._exit(bool(os.waitpid(child, 0)[1]))
"""


@pytest.mark.programs
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_forked_while_a_thread_logs_can_log() -> None:
    """structlog's loggers have locks of their own, and nobody in the child would free them."""
    command = [sys.executable, "-W", "ignore", "-c", LOCKED]
    assert 0 == subprocess.run(command, timeout=240, check=False).returncode


@pytest.mark.programs
def test_the_stacks_end_ends_no_process_that_writes_lines() -> None:
    """Where orjson had no room to ask a moment for its zone, a process of Python 3.11 was ended."""
    code = (
        "import io, logging, os, sys, structlog\n"
        "from sigra import AuditEvent, configure, log_safe, tenant_worker\n"
        "from sigra.audit import JSONLinesSink, JSONRenderer\n"
        "logging.disable(); loggers = structlog.BytesLoggerFactory(io.BytesIO())\n"
        "structlog.configure([JSONRenderer()], None, None, loggers, True)\n"
        "@tenant_worker(name='stack.end', audit_schema=AuditEvent)\n"
        "def work(scope):\n"
        "    def at(left, call, *given): return at(left - 1, call, *given) if left else call(*given)\n"
        "    log_safe('a.b', scope)\n"
        "    for left in range(240, 300):\n"
        "        if os.fork() == 0:  # code that ran often takes less of the stack\n"
        "            try: at(left, log_safe, 'a.b', scope)\n"
        "            finally: os._exit(0)\n"
        "        if os.wait()[1]: raise SystemExit(f'a process was ended {left} frames down')\n"
        "configure(sinks=[JSONLinesSink(io.BytesIO())]); sys.setrecursionlimit(300)\n"
        "job = work.new({'organization_id': '42', 'actor_id': '7'}); job.result()\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True)
    assert (0, b"") == (done.returncode, done.stderr)


def test_a_call_that_takes_the_last_frame_is_answered() -> None:
    """Where the stack has room for log_safe's own frame and for no more, it answers, and counts."""
    answers: list[AuditResult] = []
    log_safe("a.b", SCOPE)

    def descend(left: int) -> AuditResult:
        return log_safe("a.b", SCOPE) if left == 0 else descend(left - 1)

    depth = len(inspect.stack())
    for left in range(sys.getrecursionlimit() - depth - 80, sys.getrecursionlimit() - depth + 5):
        before = audit_stats()
        try:
            answers.append(descend(left))
        except RecursionError:  # before it was entered
            assert (0, 0, 0) == change(before)
        else:
            assert 1 == sum(change(before))
    assert "the stack or the memory ran out" in (answers[-1].reason or "")


# --- structlog, as it is configured ------------------------------------------


@pytest.mark.parametrize("cached", [True, False])
def test_processors_see_what_the_standard_logger_leaves_out(cached: bool) -> None:
    """As they see the application's own lines, before that logger does: capture_logs too."""
    seen = []

    def keep(logger: object, method: str, line: Any) -> Any:
        seen.append(line["event"])
        return line

    structlog.configure(
        processors=[keep, structlog.processors.JSONRenderer()],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=cached,
    )
    with configure(sinks=[]):
        assert "disabled" == log_safe("a.b", SCOPE).status
        with structlog.testing.capture_logs() as captured:
            assert "emitted" == log_safe("a.c", SCOPE).status
        assert "disabled" == log_safe("a.d", SCOPE).status
    assert (["a.b", "a.d"], ["a.c"]) == (seen, [line["event"] for line in captured])


def test_capture_logs_sees_events() -> None:
    """structlog's own capture_logs works, cached loggers included."""
    for cached in (False, True):
        structlog.configure(cache_logger_on_first_use=cached)
        log_safe("a.b", SCOPE)
        with structlog.testing.capture_logs() as captured:
            log_safe("invoice.close", SCOPE, outcome="error")
        assert [("invoice.close", "error")] == [(x["event"], x["log_level"]) for x in captured]


def test_capsys_sees_events(capsys: pytest.CaptureFixture[str]) -> None:
    """A logger that writes to sys.stdout follows it where it is replaced."""
    from sigra.audit import JSONRenderer

    structlog.configure(
        processors=[JSONRenderer(text=True)],
        logger_factory=structlog.WriteLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    log_safe("a.b", SCOPE)
    assert "a.b" == json.loads(capsys.readouterr().out)["event"]


def test_what_follows_the_shipped_renderer_is_called_too() -> None:
    """A processor of the application's after JSONRenderer gets the line that it made."""
    from sigra.audit import JSONRenderer

    after: list[Any] = []

    def keep(_: Any, __: str, line: Any) -> Any:
        after.append(json.loads(line)["event"])
        raise structlog.DropEvent

    structlog.configure(processors=[JSONRenderer(), keep])
    assert "emitted" == log_safe("a.b", SCOPE).status
    assert ["a.b"] == after


def test_a_later_configuration_is_followed(lines: list[dict[str, Any]]) -> None:
    """An event goes the way that structlog is configured at that moment."""
    other: list[Any] = []

    def keep(*call: Any) -> Any:
        other.append(call[2])
        raise structlog.DropEvent

    structlog.configure(cache_logger_on_first_use=True)
    log_safe("a.b", SCOPE)
    structlog.configure(processors=[keep])
    log_safe("c.d", SCOPE)
    assert (["a.b"], ["c.d"]) == ([x["event"] for x in lines], [x["event"] for x in other])


def test_context_variables_reach_the_line(lines: list[dict[str, Any]]) -> None:
    """What the application bound for its own lines stands in those of audit events too."""
    processors = structlog.get_config()["processors"]
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, *processors])
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        log_safe("a.b", SCOPE)
    assert "r1" == lines[0]["request_id"]


def test_a_wrapper_class_of_the_applications_own_is_used() -> None:
    """A bound logger of another class gets the event by its own method, as by structlog's: first."""
    calls: list[tuple[str, dict[str, Any]]] = []

    class Own(structlog.BoundLoggerBase):
        def info(self, message: str, **fields: Any) -> None:
            calls.append((message, fields))

    structlog.configure(wrapper_class=Own)
    log_safe("a.b", SCOPE, target_id=1)
    assert [("a.b", "1")] == [(event, fields["target_id"]) for event, fields in calls]


@pytest.mark.parametrize("more", [[], [structlog.processors.add_log_level]])
def test_a_tracer_that_wraps_structlog_sees_each_event(
    more: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """New Relic's agent collects lines so; it saw none that Sigra rendered by itself."""
    from sigra.audit import JSONRenderer

    seen, base = [], structlog._base.BoundLoggerBase
    process = base._process_event

    @wraps(process)
    def wrapped(self: Any, method: str, event: Any, line: Any) -> Any:
        seen.append((method, event or line["event"]))
        return process(self, method, event, line)

    monkeypatch.setattr(base, "_process_event", wrapped)
    logger = structlog.testing.CapturingLogger()
    structlog.configure(processors=[*more, JSONRenderer()], logger_factory=lambda *_: logger)
    assert "emitted" == log_safe("a.b", SCOPE).status
    assert [("info", "a.b")] == seen
    assert 1 == len(logger.calls)


def test_the_standard_library_integration_works(caplog: pytest.LogCaptureFixture) -> None:
    """Through structlog.stdlib an event arrives at the standard logger sigra.audit."""
    structlog.configure(
        processors=[structlog.stdlib.add_logger_name, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    with caplog.at_level(logging.INFO):
        log_safe("a.b", SCOPE)
    assert "sigra.audit" == json.loads(caplog.records[0].getMessage())["logger"]


@pytest.mark.parametrize("kind", ["BoundLogger", "AsyncBoundLogger"])
@pytest.mark.parametrize("own", [True, False])
def test_a_logger_that_has_no_levels_gets_all_events(kind: str, own: bool) -> None:
    """The integration's classes ask it for its level, and structlog's own loggers have none."""
    logger = structlog.testing.CapturingLogger()
    wrapper = getattr(structlog.stdlib, kind)
    structlog.configure(
        processors=[lambda _, __, line: line["event"]],
        wrapper_class=type("Own", (wrapper,), {}) if own else wrapper,
        logger_factory=lambda *_: logger,
    )

    async def main() -> str:
        return log_safe("a.b", SCOPE).status

    assert ("emitted", [("info", ("a.b",))]) == (asyncio.run(main()), [c[:2] for c in logger.calls])


def test_structlog_s_asynchronous_logger_loses_no_event(caplog: pytest.LogCaptureFixture) -> None:
    """Of AsyncBoundLogger, whose methods nobody here could await, the one inside is asked."""
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.stdlib.AsyncBoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )

    async def main() -> AuditResult:
        return log_safe("a.b", SCOPE)

    with caplog.at_level(logging.INFO):
        assert "emitted" == asyncio.run(main()).status
    assert ["a.b"] == [json.loads(record.getMessage())["event"] for record in caplog.records]


@pytest.mark.parametrize("returned", ["tuple", "dict", "wrong"])
def test_a_processors_last_word_may_take_any_form(returned: str) -> None:
    """The last processor may return arguments or keywords, and what structlog refuses fails."""
    calls: list[Any] = []
    answers = {"tuple": (("x",), {"y": 1}), "dict": {"y": 1}, "wrong": 5}
    logger = SimpleNamespace(info=lambda *args, **keywords: calls.append((args, keywords)))
    structlog.configure(processors=[lambda *_: answers[returned]], logger_factory=lambda *_: logger)
    status = log_safe("a.b", SCOPE).status
    expected = {"tuple": [(("x",), {"y": 1})], "dict": [((), {"y": 1})], "wrong": []}
    assert expected[returned] == calls
    assert ("failed" if returned == "wrong" else "emitted") == status


def test_a_level_that_is_filtered_out_disables(lines: list[dict[str, Any]]) -> None:
    """Without sinks, an event below the level is not even built."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    before = audit_stats()
    with configure(sinks=[]):
        result = log_safe("a.b", SCOPE)
        assert ("disabled", None) == (result.status, result.event)
        assert "emitted" == log_safe("a.b", SCOPE, outcome="error").status
    assert "level" in (result.reason or "")
    assert (1, 1, 0) == change(before)
    assert ["error"] == [line["level"] for line in lines]


@pytest.mark.parametrize("cached", [True, False])
def test_what_the_standard_logger_leaves_out_is_disabled(
    cached: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It drops what is below its level, and all once a dictConfig has disabled it."""
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=cached,
    )
    with configure(sinks=[]), caplog.at_level(logging.WARNING):
        assert "disabled" == log_safe("a.b", SCOPE).status
        assert "emitted" == log_safe("a.b", SCOPE, outcome="error").status
        caplog.set_level(logging.INFO)
        assert "emitted" == log_safe("a.b", SCOPE).status
        logging.getLogger("sigra.audit").disabled = True
        try:
            result = log_safe("a.b", SCOPE, outcome="error")
        finally:
            logging.getLogger("sigra.audit").disabled = False
    assert 2 == len(caplog.records)
    assert "disabled" == result.status and "a dictConfig disabled it" in str(result.reason)


def test_sinks_get_what_the_level_filters_out(sink: Kept, lines: list[dict[str, Any]]) -> None:
    """The level is that of the log; a sink gets every event."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    assert "emitted" == log_safe("a.b", SCOPE).status
    assert (1, []) == (len(sink.events), lines)


def test_what_a_processor_changes_does_not_reach_the_sinks(sink: Kept) -> None:
    """A processor may change its line as it likes; the event stays as it was."""

    def spoil(_: Any, __: str, event: dict[str, Any]) -> Any:
        event["metadata"]["deep"].clear()
        raise structlog.DropEvent

    structlog.configure(processors=[spoil])
    log_safe("a.b", SCOPE, metadata={"deep": {"x": 1}})
    assert {"deep": {"x": 1}} == sink.events[0].metadata


def test_a_subclassed_moment_is_read_as_a_plain_one() -> None:
    """A datetime of a subclass is converted to UTC without asking the subclass."""

    class Moment(datetime):
        def astimezone(self, tz: Any = None) -> Any:
            raise RuntimeError

    moment = Moment(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=1)))
    event = log_safe("a.b", SCOPE, occurred_at=moment).event
    assert event is not None
    assert datetime(2026, 1, 1, 11, tzinfo=timezone.utc) == event.occurred_at
    assert datetime is type(event.occurred_at)


class EqualToAll:
    """What a query expression is: equal to whatever it is compared with."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def test_no_argument_of_a_caller_makes_log_safe_strict() -> None:
    """An extra argument that claims to equal everything is rejected, and nothing is raised."""
    call: Any = log_safe
    result = call("a.b", SCOPE, EqualToAll())
    assert ("failed", "rejected at scope: all arguments after it must be passed by keyword") == (
        result.status,
        result.reason,
    )


def test_a_scope_that_equals_everything_is_the_scope() -> None:
    """A scope is never compared either."""

    class Scope(EqualToAll):
        user, active_organization = 7, 42

    for call in (log_safe, log):
        event = call("a.b", Scope()).event
        assert event is not None
        assert ("42", "7") == (event.organization_id, event.actor_id)


def test_an_action_that_equals_everything_is_no_action() -> None:
    """An action is told by its type, and is there even if it claims to be anything."""
    call: Any = log_safe
    assert "rejected at action: it is not a str" == call(EqualToAll(), SCOPE).reason


@pytest.mark.parametrize(("length", "shown"), [(63, True), (64, True), (65, False), (66, False)])
def test_a_wrong_keyword_is_named_if_it_is_short(length: int, shown: bool) -> None:
    """A keyword may come from a tenant's payload: one of more than 64 characters is not repeated."""
    call: Any = log_safe
    field = "x" * length if shown else "(an odd keyword)"
    assert f"rejected at {field}: no such keyword" == call("a.b", SCOPE, **{"x" * length: 1}).reason


def test_a_schema_that_equals_everything_is_the_schema(sink: Kept) -> None:
    """A record type is never compared: one that claims to equal all is called as any other."""

    class Schema(EqualToAll):
        def __call__(self, action: str) -> str:
            return f"record of {action}"

    log_safe("a.b", SCOPE, audit_schema=Schema())
    assert ["record of a.b"] == sink.records
    made: list[str] = []

    class Noting(EqualToAll):
        def __call__(self, action: str) -> None:
            made.append(action)

    with configure(sinks=[]):
        log_safe("a.b", SCOPE, audit_schema=Noting())
    assert ["a.b"] == made


def test_a_schema_that_raises_is_told_of_without_any_sink() -> None:
    """The record is made, and its failure seen, also where structlog alone is told."""

    def schema(**fields: Any) -> Any:
        raise KeyError("secret")

    with configure(sinks=[]):
        result = log_safe("a.b", SCOPE, audit_schema=schema)
    assert ("failed", "the audit_schema raised builtins.KeyError") == (result.status, result.reason)


PROCESSES = """
import multiprocessing
from sigra import AuditEvent, log_safe, tenant_worker

def take(scope, part):
    return log_safe("row.import", scope, metadata={"part": part}).event.event_id

@tenant_worker(audit_schema=AuditEvent)
def spread(scope):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        taken = [pool.apply_async(take, (scope, part)) for part in range(20)]
        return [each.get(60) for each in taken] + [take(scope, 20)]

ids = spread.new({"organization_id": "acme", "actor_id": None}).result()
assert len(set(ids)) == 21, ids
"""


@pytest.mark.programs
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_processes_that_a_body_forks_make_events_of_their_own() -> None:
    """Events of a body's forked processes do not share ids, by which a store would drop some."""
    code = [sys.executable, "-W", "ignore", "-c", PROCESSES]
    done = subprocess.run(code, capture_output=True, text=True, timeout=120)
    assert 0 == done.returncode, done.stderr
