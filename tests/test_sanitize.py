"""How values of every type are read into metadata, and scopes member by member."""

from __future__ import annotations

import ipaddress
import math
import threading
from collections import OrderedDict, defaultdict, deque, namedtuple
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum, IntFlag
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from amounts import MANY

from sigra.audit.leaf import exact_datetime, in_utc, leaf
from sigra.audit.read import ABSENT, mapping_of, read_member, type_name, well_formed
from sigra.audit.sanitize import sanitize, sanitize_value
from sigra.scope import id_text


class Colour(Enum):
    RED = "red"
    ODD = object()


class Size(IntEnum):
    LARGE = 3


class Flag(IntFlag):
    A = 1
    B = 2


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Ratio(float):
    pass


class Zone(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta:
        raise RuntimeError("foreign code")


Pair = namedtuple("Pair", "first second")
MOMENT = datetime(2026, 1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (5, 5),
        (-(1 << 63), -(1 << 63)),
        ((1 << 64) - 1, (1 << 64) - 1),
        (1 << 64, "<int 65 bits>"),
        (-(1 << 63) - 1, "<int 64 bits>"),
        (10**5_000, "<int 16610 bits>"),
        (1.5, 1.5),
        (-0.0, 0.0),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        ("x", "x"),
        ("\ud800x", "\ufffdx"),
        (Text("x"), "x"),
        (Number(5), 5),
        (Ratio(1.5), 1.5),
        (Colour.RED, "red"),
        (Colour.ODD, "<tests.test_sanitize.Colour>"),
        (Size.LARGE, 3),
        (Flag.A | Flag.B, 3),
        (b"text", "text"),
        (b"\xff\x00", "<bytes 2>"),
        (bytearray(b"text"), "text"),
        (memoryview(b"x"), "<builtins.memoryview>"),
        (MOMENT, "2026-01-02T03:04:05"),
        (MOMENT.replace(tzinfo=timezone.utc), "2026-01-02T03:04:05+00:00"),
        (MOMENT.replace(tzinfo=Zone()), "2026-01-02T03:04:05"),
        (date(2026, 1, 2), "2026-01-02"),
        (time(3, 4), "03:04:00"),
        (timedelta(minutes=1), "60.0 s"),
        (Decimal("1.50"), "1.50"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (1 + 2j, "(1+2j)"),
        (ipaddress.ip_address("10.0.0.1"), "10.0.0.1"),
        (ipaddress.ip_network("10.0.0.0/8"), "10.0.0.0/8"),
        (PurePosixPath("/a/b"), "/a/b"),
        (object(), "<builtins.object>"),
        (ValueError("hunter2"), "<builtins.ValueError>"),
        (Text, "<builtins.type>"),
        (len, "<builtins.builtin_function_or_method>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_single_value_becomes_plain(value: Any, plain: Any) -> None:
    """Each type of value has one plain form, of an exact type."""
    answer = sanitize({"x": value})[0]["x"]
    assert (plain, type(plain)) == (answer, type(answer))
    assert plain == sanitize_value(value)


def test_a_value_made_past_its_init_is_told_by_its_type() -> None:
    """One that its own printer fails on costs no event: it becomes ``<module.qualname>``."""
    bare, odd = UUID.__new__(UUID), UUID(int=1)
    object.__setattr__(odd, "int", "hunter2")
    vast, path = ipaddress.IPv4Address("1.2.3.4"), PurePosixPath("/a")
    vast._ip = 10**5_000
    path._str = 5  # type: ignore[attr-defined]
    told = ["<uuid.UUID>", "<uuid.UUID>", "<ipaddress.IPv4Address>"]
    assert told == [leaf(value) for value in (bare, odd, vast)]
    assert leaf(path).startswith("<")
    assert id_text(bare) is id_text(odd) is None


def test_a_named_zone_is_kept() -> None:
    """A moment in a zone of the standard library keeps its offset."""
    try:
        zone = ZoneInfo("Europe/Paris")
    except Exception:
        pytest.skip("no time zone data here")
    assert "2026-01-02T03:04:05+01:00" == leaf(MOMENT.replace(tzinfo=zone))


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ([1, [2]], [1, [2]]),
        ((1, (2,)), [1, [2]]),
        (Pair(1, "a"), [1, "a"]),
        (deque([1, 2]), [1, 2]),
        (["b", "a"], ["b", "a"]),
        ({*"badcfe"}, [*"abcdef"]),
        (frozenset({5}), [5]),
        (set(), []),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(list, {"a": [1]}), {"a": [1]}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (
            {1: "a", None: "b", False: "c", 2.5: "d"},
            {"1": "a", "null": "b", "false": "c", "2.5": "d"},
        ),
        ({b"k": 1, Text("t"): 2, (1,): 3}, {"k": 1, "t": 2, "<builtins.tuple>": 3}),
        ({"1": "a", 1: "b"}, {"1": "a", "1#1": "b"}),
        ({"x": 1, "x#2": 2, b"x": 3}, {"x": 1, "x#2": 2, "x#3": 3}),
        ({b"x": 1, "x": 2}, {"x": 1, "x#1": 2}),
        ({"k\ud800": 1}, {"k\ufffd": 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_container_becomes_plain(value: Any, plain: Any) -> None:
    """Sequences and sets become lists, mappings dicts with keys of str, none of them lost."""
    assert plain == sanitize({"x": value})[0]["x"]


def test_a_set_need_not_have_an_order() -> None:
    """Values that cannot be compared come in any order, and none is lost."""
    assert {1, "a", None} == {*sanitize({"x": {1, "a", None}})[0]["x"]}


def test_what_is_flat_is_as_well_formed_as_what_is_nested() -> None:
    """No lone surrogate stays in metadata, in its own keys and texts either."""
    assert {"k\ufffd": 1} == sanitize({"k\ud800": 1})[0]
    assert {"t": "\ufffd"} == sanitize({"t": "\ud800"})[0]


def test_a_cycle_is_cut_where_it_closes() -> None:
    """A container inside itself is told as a cycle; one that stands twice is read twice."""
    cycle: dict[str, Any] = {"n": 1}
    cycle["again"] = [cycle]
    twice = [1]
    plain, _ = sanitize({"cycle": cycle, "twice": [twice, twice]})
    assert {"cycle": {"n": 1, "again": ["<cycle>"]}, "twice": [[1], [1]]} == plain


def test_depth_is_cut_at_64_levels() -> None:
    """The 64th level is the last that is read."""
    value: Any = "bottom"
    for _ in range(63):
        value = [value]
    assert "bottom" in str(sanitize({"x": value})[0])
    told = str(sanitize({"x": [value]})[0])
    assert "bottom" not in told
    assert "<deeper than 64 levels>" in told
    assert "bottom" in str(sanitize_value([value]))
    assert "bottom" not in str(sanitize_value([[value]]))


def test_metadata_that_is_changed_meanwhile_costs_only_itself() -> None:
    """If another thread changes the metadata while it is read, an answer still comes."""
    metadata: dict[str, Any] = {f"k{n}": [n] for n in range(200)}
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            metadata["more"] = 1
            metadata.pop("more", None)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        answers = [sanitize(metadata)[0] for _ in range(60 if MANY else 20)]
    finally:
        stop.set()
        thread.join()
    assert all(answer == {"unreadable": "RuntimeError"} or len(answer) >= 3 for answer in answers)


def test_only_known_types_are_read_as_mappings() -> None:
    """A dict and a proxy of one are mappings; a proxy of anything else is not asked."""

    class Own(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            raise RuntimeError

    own = Own(a=1)
    assert mapping_of(own) is own
    assert {"a": 1} == mapping_of(MappingProxyType({"a": 1}))
    assert mapping_of(MappingProxyType(own)) is own
    assert mapping_of(["a"]) is mapping_of(None) is None


# --- names, ids and moments ---------------------------------------------------


def test_a_types_name_is_read_from_the_type() -> None:
    """A type is told by module and qualified name, cut and well formed."""
    odd = type("x" * 500, (), {"__module__": "m\ud800"})
    assert "tests.test_sanitize.Colour" == type_name(Colour)
    assert "m\ufffd." + "x" * 120 == type_name(odd)
    assert "NoModule" == type_name(type("NoModule", (), {"__module__": 5}))


def test_names_of_types_do_not_pile_up() -> None:
    """What is remembered of types is bounded, and never taken for another type."""
    names = [type_name(type(f"T{n}", (), {"__module__": "m"})) for n in range(600)]
    assert [f"m.T{n}" for n in range(600)] == names


@pytest.mark.parametrize(
    ("text", "formed"),
    [
        ("abc", "abc"),
        ("é世🎉", "é世🎉"),
        ("a\ud800b", "a\ufffdb"),
        ("\udfff\ud800", "\ufffd\ufffd"),
    ],
    ids=ascii,
)
def test_lone_surrogates_are_replaced(text: str, formed: str) -> None:
    """Text is made such that UTF-8 can carry it, and is otherwise as it was."""
    assert formed == well_formed(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("7", "7"), (" 7 ", " 7 "), (7, "7"), (-7, "-7"), (Number(7), "7"), (Text("7"), "7"),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"), (Size.LARGE, "3"),
        ("", None), (" \t", None), (Text(""), None), (True, None), (None, None), (1.0, None),
        (b"7", None), (1 << 1024, None), ([7], None), (object(), None),
    ],
)  # fmt: skip
def test_an_id_is_text_or_none_at_all(value: Any, text: str | None) -> None:
    """A str that is not blank, an int of up to 1,024 bits and a UUID are ids; nothing else is."""
    assert text == id_text(value)


def test_a_uuid_is_read_from_its_slot() -> None:
    """The text of a UUID is the usual one, for a subclass too."""

    class Own(UUID):
        def __str__(self) -> str:
            raise RuntimeError

    value = UUID("0198f3a0-0000-7000-8000-00000000abcd")
    assert str(value) == id_text(value) == id_text(Own(int=value.int))


def test_a_moment_comes_out_in_utc() -> None:
    """An aware moment is converted, a naive one is none."""
    ahead = datetime(2026, 1, 2, 5, tzinfo=timezone(timedelta(hours=2)))
    assert datetime(2026, 1, 2, 3, tzinfo=timezone.utc) == in_utc(ahead)
    assert in_utc(MOMENT) is None
    with pytest.raises(RuntimeError):
        in_utc(MOMENT.replace(tzinfo=Zone()))


def test_a_fold_survives() -> None:
    """The second of two equal hours stays the second."""

    class Own(datetime):
        pass

    assert 1 == exact_datetime(Own(2026, 10, 25, 2, 30, fold=1)).fold


# --- members ------------------------------------------------------------------


class Described:
    """Answers through a descriptor of the application's own."""

    def __get__(self, instance: Any, owner: Any) -> Any:
        raise RuntimeError("foreign code")


class Host:
    plain = 5
    described = Described()

    def __init__(self) -> None:
        self.own = 6
        self.shadow = 7

    shadow = Described()

    def method(self) -> None: ...


@pytest.mark.parametrize(
    ("name", "value"),
    [("plain", 5), ("own", 6), ("shadow", 7), ("described", ABSENT), ("method", ABSENT),
     ("absent", ABSENT)],
)  # fmt: skip
def test_members_are_read_without_foreign_descriptors(name: str, value: Any) -> None:
    """The instance's own attributes and plain class attributes are read, and nothing that runs."""
    assert read_member(Host(), name) is value or value == read_member(Host(), name)


def test_an_inherited_slot_is_read() -> None:
    """A slot of a base class is a member, an empty one is absent."""

    class Base:
        __slots__ = ("user",)

    class Derived(Base):
        __slots__ = ()

    scope = Derived()
    assert read_member(scope, "user") is ABSENT
    scope.user = 7
    assert 7 == read_member(scope, "user")


def test_what_a_property_raises_passes() -> None:
    """A property is the application's own code: its exception is the caller's to handle."""

    class Raising:
        @property
        def user(self) -> Any:
            raise LookupError

    with pytest.raises(LookupError):
        read_member(Raising(), "user")


def test_a_key_is_found_among_strange_ones() -> None:
    """A member of a mapping is found by exact str keys; no stored key is asked for equality."""

    class Key:
        def __hash__(self) -> int:
            return hash("user")

        def __eq__(self, other: object) -> bool:
            if asked_by_us:
                raise RuntimeError("foreign code")
            return self is other

    asked_by_us = False
    with_user, without = {Key(): 1, 5: 2, "user": 7}, {Key(): 1}
    asked_by_us = True
    assert 7 == read_member(with_user, "user")
    assert read_member(without, "user") is ABSENT


@pytest.mark.parametrize(
    "keywords",
    [
        {"target_id": "\ud800" * 5_000_000},
        {"actor_id": "\ud800" * 5_000_000},
        {"metadata": {"\ud800" * 5_000_000: 1}},
        {"metadata": {"k": "\ud800" * 5_000_000}},
    ],
    ids=["text", "id", "key", "value"],
)
def test_of_a_vast_text_only_the_beginning_is_looked_at(keywords: dict[str, Any]) -> None:
    """No text of 5 MB that UTF-8 cannot carry is rewritten whole, in whatever place it stands."""
    import tracemalloc

    from sigra import AuditEvent, log_safe

    log_safe("a.b", None, audit_schema=AuditEvent, metadata={"long": "\ud800" * 10_000})
    tracemalloc.start()
    try:
        log_safe("a.b", None, audit_schema=AuditEvent, **keywords)
        assert tracemalloc.get_traced_memory()[1] < 16_000_000
    finally:
        tracemalloc.stop()
