"""log_safe never raises, never runs foreign code and never costs much, whatever it is given."""

from __future__ import annotations

import io
import itertools
import json
import sys
import tracemalloc
from collections import ChainMap, OrderedDict, UserDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePosixPath
from types import MappingProxyType, SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
import structlog
from amounts import MANY, some_of
from hypothesis import given
from hypothesis import strategies as st

from sigra import AuditEvent, AuditResult, AuditScope, Identity, configure
from sigra.audit import JSONLinesSink, JSONRenderer, audit_stats, log, log_safe
from sigra.audit.sanitize import sanitize
from sigra.errors import AuditRejectedError

SCOPE = AuditScope.build(actor_id=7, organization_id=42)

# --- what a hostile caller may pass ------------------------------------------


def refuse(*_: Any, **__: Any) -> Any:
    raise RuntimeError("foreign code ran")


DUNDERS = """
repr str bytes format hash bool len length_hint iter next reversed contains getitem setitem
delitem missing call enter exit eq ne lt le gt ge int float complex index round trunc add radd
mul mod or and sub neg getattr getattribute setattr delattr dir get copy deepcopy
reduce reduce_ex getstate fspath await aiter anext instancecheck subclasscheck sizeof buffer
release_buffer
""".split()


def hostile_class(base: type = object, meta: type = type) -> type:
    """Make a subclass of ``base`` of which every special method raises."""
    names: dict[str, Any] = {f"__{dunder}__": refuse for dunder in DUNDERS}
    names |= {"isoformat": refuse, "items": refuse, "keys": refuse, "get": refuse}
    names["__class__"] = property(refuse)
    return type.__new__(meta, "Hostile", (base,), names)


class HostileMeta(type):
    __hash__ = __eq__ = __repr__ = __getattribute__ = refuse  # type: ignore[assignment]
    __instancecheck__ = __subclasscheck__ = refuse  # type: ignore[assignment]
    __mro__ = property(refuse)  # type: ignore[assignment]


def plain(base: type, *args: Any, meta: type = type) -> Callable[[], Any]:
    return lambda: base.__new__(hostile_class(base, meta=meta), *args)


class ColourMember(Enum):
    RED = object()


class BadZone(tzinfo):
    utcoffset = dst = tzname = refuse


class BadProperty:
    user = active_organization = impersonating_from = id = property(refuse)


class BadSlots:
    __slots__ = ("active_organization", "id", "user")


class BadDict:
    __dict__ = property(refuse)  # type: ignore[assignment]
    __slots__ = ()


class OddName:
    pass


OddName.__module__ = 5  # type: ignore[assignment]
OddName.__qualname__ = "x\n" * 5_000


class Raising(Exception):
    __str__ = __repr__ = refuse


def filled(base: type, content: Any, fill: Callable[[Any, Any], None]) -> Callable[[], Any]:
    def build() -> Any:
        value = base.__new__(hostile_class(base))
        fill(value, content)
        return value

    return build


def cyclic_list() -> Any:
    cycle: list[Any] = []
    cycle.append([cycle])
    return cycle


def cyclic_dict() -> Any:
    cycle: dict[str, Any] = {}
    cycle["self"] = {"again": cycle}
    return cycle


def deep(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def shared() -> Any:
    value: Any = ["x"]
    for _ in range(60):
        value = [value, value]
    return value


class Colliding:
    """A key whose hash is that of a name and whose == raises, once it may."""

    armed = False

    def __init__(self, name: str) -> None:
        self.name = name

    def __hash__(self) -> int:
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        if Colliding.armed:
            refuse()
        return self is other


CORPUS: dict[str, Callable[[], Any]] = {
    "object": object,
    "hostile object": plain(object),
    "hostile metaclass": plain(object, meta=HostileMeta),
    "hostile str": plain(str, "invoice.close"),
    "hostile str, hostile metaclass": plain(str, "invoice.close", meta=HostileMeta),
    "hostile int": plain(int, 5),
    "hostile float": plain(float, 1.5),
    "hostile bytes": plain(bytes, b"abc"),
    "hostile bytearray": plain(bytearray),
    "hostile tuple": plain(tuple, (1, "a")),
    "hostile frozenset": plain(frozenset, (1, 2)),
    "hostile list": filled(list, ["a", object()], list.extend),
    "hostile dict": filled(dict, {"user": "x", "password": "p"}, dict.update),
    "hostile set": filled(set, {1, "a"}, set.update),
    "hostile deque": filled(deque, [1, "a"], deque.extend),
    "hostile datetime": plain(datetime, 2026, 1, 1),
    "hostile date": plain(date, 2026, 1, 1),
    "hostile timedelta": plain(timedelta, 1),
    "hostile Decimal": plain(Decimal, "1.5"),
    "hostile exception": plain(Raising),
    "raising property": BadProperty,
    "unset slots": BadSlots,
    "raising __dict__": BadDict,
    "odd type name": OddName,
    "enumeration": lambda: ColourMember.RED,
    "named tuple": lambda: namedtuple("Pair", "user id")(object(), 2),
    "zone that raises": lambda: datetime(2026, 1, 1, tzinfo=BadZone()),
    "earliest moment": lambda: datetime.min.replace(tzinfo=BadZone()),
    "NaN": lambda: float("nan"),
    "infinity": lambda: float("-inf"),
    "int of 5,000 digits": lambda: 10**5_000,
    "negative int of 64 bits": lambda: -(2**64) + 1,
    "complex": lambda: complex(1, float("nan")),
    "fraction": lambda: Fraction(1, 3),
    "signalling NaN": lambda: Decimal("sNaN"),
    "lone surrogate": lambda: "\ud800\udfff\ud800",
    "line separators": lambda: "a\u2028b\u2029c\x85d\r\ne\x00f\x1b[31mg\u202eh",
    "format string": lambda: "%s %(x)s {0} {x!r}",
    "bytes": lambda: b"\xff\xfe",
    "memoryview": lambda: memoryview(b"abc"),
    "cycle of lists": cyclic_list,
    "cycle of dicts": cyclic_dict,
    "deep": lambda: deep(3_000),
    "shared twice sixty times": shared,
    "colliding key": lambda: {Colliding("user"): 1, Colliding("password"): 2, "user": 3},
    "keys of every kind": lambda: {None: 1, True: 2, 1.5: 3, (1,): 4, b"x": 5, object(): 6},
    "keys that read the same": lambda: {1: "a", "1": "b", 1.5: "c", "1.5": "d"},
    "default dict": lambda: defaultdict(refuse, {"a": 1}),
    "ordered dict": lambda: OrderedDict(a=object()),
    "chain map": lambda: ChainMap({"a": 1}),
    "user dict": lambda: UserDict({"a": 1}),
    "mapping proxy": lambda: MappingProxyType({"user": 1, "active_organization": None}),
    "proxy of a hostile mapping": lambda: MappingProxyType(UserDict({"a": refuse})),
    "generator": lambda: (refuse() for _ in range(1)),
    "iterator": lambda: iter([1]),
    "function": lambda: refuse,
    "class": lambda: hostile_class(),
    "class of a hostile metaclass": lambda: hostile_class(meta=HostileMeta),
    "module": lambda: json,
    "namespace": lambda: SimpleNamespace(user=object(), id=refuse),
    "path": lambda: PurePosixPath("/a/b"),
    "uuid": lambda: UUID(int=5),
    "ellipsis": lambda: ...,
    "long text": lambda: "é\u2028" * 20_000,
    "many keys": lambda: dict.fromkeys(map(str, range(5_000))),
}

POSITIONS: dict[str, Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]]] = {
    "action": lambda x: ((x, SCOPE), {}),
    "scope": lambda x: (("a.b", x), {}),
    "scope.user": lambda x: (("a.b", {"user": x, "active_organization": None}), {}),
    "scope.user.id": lambda x: (("a.b", {"user": {"id": x}, "active_organization": 1}), {}),
    "identity": lambda x: (("a.b", AuditScopeOf(x)), {}),
    "outcome": lambda x: (("a.b", SCOPE), {"outcome": x}),
    "target_id": lambda x: (("a.b", SCOPE), {"target_id": x}),
    "target_type": lambda x: (("a.b", SCOPE), {"target_type": x}),
    "metadata": lambda x: (("a.b", SCOPE), {"metadata": x}),
    "in metadata": lambda x: (("a.b", SCOPE), {"metadata": {"x": x, "pin": x, "l": [x, {"y": x}]}}),
    "actor_type": lambda x: (("a.b", SCOPE), {"actor_type": x}),
    "ip_address": lambda x: (("a.b", SCOPE), {"ip_address": x}),
    "user_agent": lambda x: (("a.b", SCOPE), {"user_agent": x}),
    "occurred_at": lambda x: (("a.b", SCOPE), {"occurred_at": x}),
    "organization_id": lambda x: (("a.b", SCOPE), {"organization_id": x}),
    "actor_id": lambda x: (("a.b", SCOPE), {"actor_id": x}),
    "wrong keyword": lambda x: (("a.b", SCOPE), {"colour": x}),
    "surplus": lambda x: (("a.b", SCOPE, x), {}),
}


class AuditScopeOf:
    """A scope of slots, as AuditScope is one, with anything for an id."""

    __slots__ = ("active_organization", "user")

    def __init__(self, id: Any) -> None:
        self.user = object.__new__(Identity)  # which itself takes no such id
        Identity.__dict__["id"].__set__(self.user, id)
        self.active_organization = None


RENDERERS: dict[str, Callable[[], Any]] = {
    "json": structlog.processors.JSONRenderer,
    "logfmt": structlog.processors.LogfmtRenderer,
    "console": lambda: structlog.dev.ConsoleRenderer(colors=False),
    "sigra": lambda: JSONRenderer(text=True),
}


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    Colliding.armed = False
    structlog.reset_defaults()


def test_the_corpus_is_wide_enough() -> None:
    """There are at least 49 classes of hostile values."""
    assert len(CORPUS) >= 49


@pytest.mark.parametrize("renderer", RENDERERS)
def test_nothing_escapes_in_any_position(renderer: str) -> None:
    """No value in any position makes log_safe raise, through any renderer; each call counts once."""
    stream, sunk = io.StringIO(), io.BytesIO()
    structlog.configure(
        processors=[RENDERERS[renderer]()], logger_factory=structlog.WriteLoggerFactory(stream)
    )
    before = sum(audit_stats())
    failed_lines = []
    cases = some_of(itertools.product(CORPUS.items(), POSITIONS.items()), 5)
    with configure(audit_schema=AuditEvent, sinks=[JSONLinesSink(sunk)]):
        for (kind, build), (position, call) in cases:
            args, keywords = call(build())
            Colliding.armed = True
            result = log_safe(*args, **keywords)
            Colliding.armed = False
            assert type(result) is AuditResult, (kind, position)
            # "failed" is the answer to a bad call alone: nothing broke on the way.
            if result.status != "emitted" and not (result.reason or "").startswith("rejected"):
                failed_lines.append((kind, position, result.reason))
    assert [] == failed_lines
    assert before + len(cases) == sum(audit_stats())
    for line in sunk.getvalue().splitlines():
        assert len(line) <= 64 * 1024
        json.loads(line, parse_constant=refuse)


def test_a_hostile_schema_is_survived() -> None:
    """Whatever is passed as audit_schema, log_safe answers."""
    structlog.configure(processors=[lambda *_: ""], logger_factory=structlog.ReturnLoggerFactory())
    for kind, build in CORPUS.items():
        assert type(log_safe("a.b", SCOPE, audit_schema=build())) is AuditResult, kind


# --- no foreign code ----------------------------------------------------------

CALLS: list[str] = []


def recorder(base: type, meta: type = type) -> type:
    """Make a subclass of ``base`` of which every special method tells that it was called."""

    def recording(name: str) -> Any:
        def method(*_: Any, **__: Any) -> Any:
            CALLS.append(name)
            raise RuntimeError(name)

        return method

    names: dict[str, Any] = {f"__{name}__": recording(name) for name in DUNDERS}
    names["__class__"] = property(recording("class"))
    names["__dict__"] = property(recording("dict"))
    return type.__new__(meta, "Recorder", (base,), names)


class RecordingMeta(type):
    def __getattribute__(cls, name: str) -> Any:
        CALLS.append(f"metaclass {name}")
        return type.__getattribute__(cls, name)

    def __hash__(cls) -> int:
        CALLS.append("metaclass hash")
        return 1

    def __eq__(cls, other: object) -> bool:
        CALLS.append("metaclass eq")
        return cls is other

    def __instancecheck__(cls, instance: Any) -> bool:
        CALLS.append("metaclass instancecheck")
        return False

    def __subclasscheck__(cls, subclass: Any) -> bool:
        CALLS.append("metaclass subclasscheck")
        return False


BASES: dict[type, tuple[Any, ...]] = {
    object: (), str: ("a.b",), int: (5,), float: (1.5,), bytes: (b"abc",), tuple: ((1, 2),),
    list: (), dict: (), set: (), frozenset: ((1,),), datetime: (2026, 1, 1), date: (2026, 1, 1),
    Decimal: ("1.5",), deque: (), Exception: ("x",), timedelta: (1,), bytearray: (),
}  # fmt: skip


@pytest.mark.parametrize("meta", [type, RecordingMeta])
@pytest.mark.parametrize("base", BASES, ids=lambda base: base.__name__)
def test_no_special_method_of_a_foreign_class_is_called(base: type, meta: type) -> None:
    """In no position does log_safe call a special method of a value, its class or metaclass."""
    structlog.configure(
        processors=[JSONRenderer()], logger_factory=structlog.BytesLoggerFactory(io.BytesIO())
    )
    with configure(audit_schema=AuditEvent, sinks=[JSONLinesSink(io.BytesIO())]):
        for position, call in POSITIONS.items():
            args, keywords = call(base.__new__(recorder(base, meta), *BASES[base]))
            CALLS.clear()
            log_safe(*args, **keywords)
            assert [] == CALLS, position


# --- laws ---------------------------------------------------------------------


class OfCorpus:
    """Stand for a hostile value while Hypothesis handles it: it would run its methods."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


def real(value: Any) -> Any:
    """Put hostile values where they are stood for."""
    if type(value) is OfCorpus:
        return CORPUS[value.kind]()
    if type(value) is dict:
        return {key: real(item) for key, item in value.items()}
    return type(value)(map(real, value)) if type(value) in (list, tuple) else value


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(max_size=20),
    st.uuids(), st.datetimes(), st.decimals(), st.complex_numbers(), st.characters(categories=["Cs"]),
    st.builds(OfCorpus, st.sampled_from(sorted(CORPUS))),
)  # fmt: skip
keys = st.one_of(st.text(max_size=30), st.integers(), st.binary(max_size=5), st.none())
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(keys, inner, max_size=4),
        st.tuples(inner, inner),
    ),
    max_leaves=12,
)


@given(st.sampled_from(sorted(POSITIONS)), values)
def test_any_value_gives_an_answer(position: str, value: Any) -> None:
    """Generated values in any position give a result, and one count."""
    structlog.configure(processors=[JSONRenderer()], logger_factory=structlog.ReturnLoggerFactory())
    args, keywords = POSITIONS[position](real(value))
    before = sum(audit_stats())
    with configure(audit_schema=AuditEvent, sinks=[]):
        assert log_safe(*args, **keywords).status in ("emitted", "failed")
    assert before + 1 == sum(audit_stats())


def log_strictly(position: str, value: Any) -> None:
    """Call the strict log; what it does not refuse is in the event as it was passed."""
    args, keywords = POSITIONS[position](value)
    before = sum(audit_stats())
    try:
        with configure(audit_schema=AuditEvent, sinks=[]):
            result = log(*args, **keywords)
    except AuditRejectedError:
        assert before + 1 == sum(audit_stats())
        return
    assert ("emitted", ()) == (result.status, result.redacted)
    for field, value in keywords.items():
        if field == "metadata" and is_plain(value):
            assert json.loads(json.dumps(value)) == result.event.metadata
        elif is_one_of(value, str, int, UUID):
            assert str(value) == getattr(result.event, field)


def is_plain(value: Any) -> bool:
    """Tell whether the json module writes a value by its exact types alone."""
    if type(value) is dict:
        return all(type(key) is str for key in value) and all(map(is_plain, value.values()))
    if is_one_of(value, list, tuple):
        return all(map(is_plain, value))
    return is_one_of(value, str, int, float, bool)


def is_one_of(value: Any, *kinds: type) -> bool:
    """Tell whether a value is of one of these types exactly, without asking its type."""
    return any(type(value) is kind for kind in kinds)


@given(st.sampled_from(sorted(POSITIONS)), values)
def test_the_strict_log_keeps_a_value_or_refuses_it(position: str, value: Any) -> None:
    """Generated values in any position raise AuditRejectedError, or are logged unchanged."""
    structlog.configure(processors=[JSONRenderer()], logger_factory=structlog.ReturnLoggerFactory())
    log_strictly(position, real(value))


def test_the_strict_log_refuses_in_one_way() -> None:
    """No hostile value in any position raises something else than AuditRejectedError."""
    structlog.configure(processors=[lambda *_: ""], logger_factory=structlog.ReturnLoggerFactory())
    for build, position in some_of(itertools.product(CORPUS.values(), POSITIONS), 5):
        log_strictly(position, build())


@given(values)
def test_metadata_is_always_strict_json_of_bounded_size(value: Any) -> None:
    """Whatever metadata holds, what is kept of it is strict JSON of at most 8,192 bytes."""
    kept = sanitize({"x": real(value)})[0]
    data = json.dumps(kept, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    assert len(data) <= 8_192
    assert kept == json.loads(data)


@given(st.text(), st.text())
def test_one_event_is_one_line(text: str, other: str) -> None:
    """No text of a tenant, wherever it stands, makes a second line or turns one around."""
    stream = io.BytesIO()
    with configure(audit_schema=AuditEvent, sinks=[JSONLinesSink(stream)]):
        structlog.configure(
            processors=[lambda *_: ""], logger_factory=structlog.ReturnLoggerFactory()
        )
        log_safe("a.b", SCOPE, target_id=text, user_agent=other, metadata={text: other})
    line = stream.getvalue().decode()
    assert [line] == line.splitlines(keepends=True)
    assert not {ord(sign) for sign in line[:-1]} & {
        *range(32), *range(127, 160), *range(0x200B, 0x2010), *range(0x2028, 0x202F),
        *range(0x2066, 0x206A),
    }  # fmt: skip


# --- cost ---------------------------------------------------------------------

MILLION = 1_000_000 if MANY else 100_000

LARGE: dict[str, Callable[[], Any]] = {
    "text": lambda: {"x": "a" * 5 * MILLION},
    "controls": lambda: {"x": "\x01" * 5 * MILLION},
    "line separators": lambda: {"x": "\u2028" * 5 * MILLION},
    "surrogates": lambda: {"x": "\ud800" * 5 * MILLION},
    "a key": lambda: {"a" * 5 * MILLION: 1},
    "bytes": lambda: {"x": b"a" * 5 * MILLION},
    "keys": lambda: dict.fromkeys(map(str, range(MILLION)), 1),
    "secrets": lambda: {f"password_{n}": n for n in range(MILLION // 5)},
    "long odd keys": lambda: {"\u200baB.é" * 40 + str(n): n for n in range(MILLION // 50)},
    "odd keys": lambda: {"\ufdfa" * 5 + chr(n): n for n in range(0x4E00, 0x6800)},
    "keys that read the same": lambda: {
        **{f"<builtins.tuple>#{n}": n for n in range(1_000, 3_000)},
        **{(n,): n for n in range(2_000)},
    },
    "items": lambda: list(range(MILLION)),
    "depth": lambda: deep(MILLION // 10),
    "shared": shared,
    "texts to search": lambda: [f"://{n}:" * 20 for n in range(MILLION // 20)],
}


def work_of(function: Callable[[], Any]) -> tuple[int, int]:
    """Return how many calls a function makes, of Python's and C's, and how many bytes it holds."""
    calls = itertools.count()
    sys.setprofile(lambda frame, what, called: next(calls) if "call" in what else None)
    try:
        function()
    finally:
        sys.setprofile(None)
    tracemalloc.start()
    try:
        function()
        return next(calls), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", LARGE)
def test_cost_is_bounded(kind: str) -> None:
    """The largest metadata costs a quarter of a million calls, 8 MiB, and 64 KiB of line."""
    stream, statuses = io.BytesIO(), set[str]()
    structlog.configure(processors=[lambda *_: ""], logger_factory=structlog.ReturnLoggerFactory())
    value, agent = LARGE[kind](), "\x7f" * 5 * MILLION

    def log_it() -> None:
        statuses.add(log_safe("a.b", SCOPE, metadata=value, user_agent=agent).status)

    with configure(audit_schema=AuditEvent, sinks=[JSONLinesSink(stream)]):
        calls, held = work_of(log_it)
    assert {"emitted"} == statuses
    assert max(map(len, stream.getvalue().splitlines())) <= 64 * 1024
    assert calls <= 250_000
    assert held <= 8 * 1024 * 1024
    while isinstance(value, (list, dict)) and kind == "depth":  # let go level by level
        value = value["a"] if isinstance(value, dict) else value[0]
