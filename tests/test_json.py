"""Strict JSON: what is taken, what is refused and where, and that nothing gets out."""

from __future__ import annotations

import copy
import enum
import json
import operator
import pickle
import subprocess
import sys
import tracemalloc
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec
import pydantic
import pytest
from racing import at_once

from sigra.audit.line import _best_dump
from sigra.codec import Codec, Compiled, Stdlib, choose_codec
from sigra.errors import InvalidArgsError
from sigra.frozen import FrozenDict, FrozenList, read_only, thaw
from sigra.json import LargeError, check_depth, dumps, freeze, loads

LIMIT = 256 * 1024
CODECS: list[Codec] = [Stdlib()]
try:
    CODECS.append(Compiled())
except ImportError:  # the extra "fast" is not installed
    pass


@pytest.fixture(params=CODECS, ids=lambda codec: type(codec).__name__)
def codec(request: pytest.FixtureRequest) -> Codec:
    """Each promise holds with orjson and without."""
    found: Codec = request.param
    return found


def refused(args: dict[Any, Any], codec: Codec, limit: int = LIMIT) -> InvalidArgsError:
    """Return the error that freeze() raises."""
    with pytest.raises(InvalidArgsError) as caught:
        freeze(args, limit, codec=codec)
    return caught.value


class Color(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Plain(enum.Enum):
    ONE = 1


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("user code ran")

    __repr__ = __eq__ = __hash__ = __len__ = __str__  # type: ignore[assignment]


class Loud(dict[str, Any]):
    """A mapping that says something else than it holds."""

    def items(self) -> Any:
        return [("forged", True)]

    __iter__ = keys = __getitem__ = __len__ = items  # type: ignore[assignment]


class Agreeing:
    """Equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__


@dataclass(eq=False)
class AgreeingRecord:
    a: int = 1

    def __eq__(self, other: object) -> bool:
        return True


Point = namedtuple("Point", "x y")  # noqa: PYI024 - a class of the untyped kind is meant


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (Color.RED, "red"),
        (Level.HIGH, 3),
        (Point(1, (2,)), [1, [2]]),
        (defaultdict(int, a=1), {"a": 1}),
        (OrderedDict(a=OrderedDict()), {"a": {}}),
        ((), []),
        (-0.0, -0.0),
        (1e308, 1e308),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (2**53 + 1, 2**53 + 1),
        (True, True),
        (1.0, 1.0),
        ("\u2028\x00\U0001f600é", "\u2028\x00\U0001f600é"),
    ],
)
@pytest.mark.parametrize("wrap", [lambda v: {"k": v}, lambda v: {"k": [{"": v}]}])
def test_a_value_arrives_as_its_json_type(
    codec: Codec, value: Any, arrives: Any, wrap: Callable[[Any], dict[str, Any]]
) -> None:
    """Subclasses and tuples become their base; all else stays exactly what it is."""
    frozen = freeze(wrap(value), LIMIT, codec=codec)
    assert wrap(arrives) == frozen
    leaf = frozen["k"] if not isinstance(frozen["k"], list) or not frozen["k"] else frozen["k"]
    while isinstance(leaf, list) and leaf and isinstance(leaf[0], dict) and "" in leaf[0]:
        leaf = leaf[0][""]
    assert repr(arrives) == repr(leaf)
    assert isinstance(leaf, (dict, list)) or type(leaf) is type(arrives)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "a float that is NaN"),
        (float("-inf"), "a float that is NaN"),
        (2**63, "an int beyond 64 bits"),
        (-(2**63) - 1, "an int beyond 64 bits"),
        (10**5000, "an int beyond 64 bits"),
        ("a\ud800", "lone surrogate"),
        ("\ud83d", "lone surrogate"),
        ({1: 2}, "a key is int"),
        ({None: 2}, "a key is NoneType"),
        ({"a\udc00": 2}, "lone surrogate"),
        (b"x", "bytes is not JSON"),
        ({1}, "set is not JSON"),
        (datetime.now(UTC), "datetime is not JSON"),
        (uuid.UUID(int=1), "UUID is not JSON"),
        (Decimal(1), "Decimal is not JSON"),
        (Plain.ONE, "Plain is not JSON"),
        (object(), "object is not JSON"),
        (Agreeing(), "Agreeing is not JSON"),
        (AgreeingRecord(), "AgreeingRecord is not JSON"),
        (int, "type is not JSON"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_what_is_not_strict_json_is_refused_with_its_path(
    codec: Codec, value: Any, reason: str
) -> None:
    """The error says where and why, and never holds the value."""
    shallow = refused({"ok": 1, "bad": value}, codec)
    deep = refused({"ok": [0, {"price": value}]}, codec)
    assert shallow.path.startswith("$.bad")
    assert deep.path.startswith("$.ok[1].price")
    assert reason in shallow.reason
    assert reason in deep.reason
    assert reason in refused({"alone": value}, codec).reason


@pytest.mark.parametrize("key", [1, None, True, 1.5, b"k", (1,)])
def test_args_have_str_keys(codec: Codec, key: Any) -> None:
    """No key is turned into a string on the way."""
    error = refused({key: 1}, codec)
    assert ("$", f"a key is {type(key).__name__}; JSON keys are str") == (error.path, error.reason)


def test_a_str_subclass_as_key_becomes_str(codec: Codec) -> None:
    """Keys too arrive as their base."""
    frozen = freeze({Color.RED: 1, "n": {Color.RED: 2}}, LIMIT, codec=codec)
    assert [str, str, str] == [type(key) for key in (*frozen, *frozen["n"])]
    assert [str] == [*map(type, freeze({Color.RED: 1}, LIMIT, codec=codec))]


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("price", "$.price"),
        ("a b", '$["a b"]'),
        ("", '$[""]'),
        ('q"\n', '$["q\\"\\n"]'),
        ("é", '$["\\u00e9"]'),
        ("k" * 500, "$." + "k" * 40 + "..."),
    ],
)
def test_odd_keys_are_quoted_and_long_ones_cut(codec: Codec, key: str, path: str) -> None:
    """A path is one line of ASCII, whatever the keys are."""
    found = refused({key: object()}, codec).path
    assert path.replace("$." + "k" * 40 + "...", '$["' + "k" * 40 + '..."]') == found


def test_a_refusal_holds_no_value(codec: Codec) -> None:
    """What a tenant typed stays out of the error, its arguments and its causes."""
    error: BaseException | None = refused({"a": ["hunter2", {"b": "hunter2\ud800"}]}, codec)
    while error is not None:
        assert "hunter2" not in repr(error)
        assert "hunter2" not in repr(vars(error))
        error = error.__cause__


@pytest.mark.parametrize("make", [lambda inner: [inner], lambda inner: {"k": inner}])
def test_sixty_four_levels_are_allowed_and_no_more(
    codec: Codec, make: Callable[[Any], Any]
) -> None:
    """The args are the first level; an empty container counts as one."""
    value: Any = make(1)
    for _ in range(62):
        value = make(value)
    assert {"k": value} == freeze({"k": value}, LIMIT, codec=codec)
    assert "deeper than 64 levels" in refused({"k": make(value)}, codec).reason
    empty: Any = [] if isinstance(value, list) else {}
    for _ in range(63):
        empty = make(empty)
    assert "deeper than 64 levels" in refused({"k": empty}, codec).reason


@pytest.mark.parametrize("make", [lambda inner: (inner,), lambda inner: {"k": inner}])
def test_as_many_levels_are_allowed_with_tuples(codec: Codec, make: Callable[[Any], Any]) -> None:
    """Each counts as the list does that it becomes."""
    value: Any = (1,)
    for _ in range(62):
        value = make(value)
    told = json.dumps({"k": value})
    assert told == json.dumps(freeze({"k": value}, LIMIT, codec=codec))


def test_a_wide_document_is_not_taken_for_a_deep_one(codec: Codec) -> None:
    """Any number of containers is fine within the levels."""
    wide = {"k": [{"a": [i], "[{": "[[[["} for i in range(500)]}
    assert wide == freeze(wide, LIMIT, codec=codec)


@pytest.mark.parametrize("at", [0, 198, 500, 501, 699, 1_001])
def test_what_is_too_deep_is_found_wherever_it_stands(codec: Codec, at: int) -> None:
    """Among 1,200 containers none is passed over."""
    wide: list[Any] = [[n] for n in range(1_200)]
    wide[at] = within(1, 63)
    assert "deeper than 64 levels" in refused({"k": wide}, codec).reason


@pytest.mark.parametrize(
    "given", [{"\x01" * 500: "\x01" * 500}, {str(n): -(2**63) for n in range(500)}]
)
def test_keys_texts_and_numbers_count_together(codec: Codec, given: dict[str, Any]) -> None:
    """Each alone may be within the limit."""
    size = len(json.dumps(given, separators=(",", ":")))
    assert given == freeze(given, size, codec=codec)
    assert f"{size} bytes" in refused(given, codec, size - 1).reason


LONG_TEXT = "x" * 1_000_000


def doubled() -> Any:
    """Return what takes a few hundred bytes, and as JSON a terabyte."""
    value: Any = ["x"]
    for _ in range(40):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        doubled(),
        (doubled(), Color.RED),
        [[LONG_TEXT] * 10_000] * 10_000,
        [[0] * 10_000] * 1_000_000,
        [{LONG_TEXT: 1}] * 1_000_000,
        [type("Text", (str,), {})(LONG_TEXT)] * 10_000,
        {str(n): {"a": [LONG_TEXT] * 100} for n in range(1_000)},
    ],
    ids=range(7),
)
def test_what_is_held_many_times_is_not_written_out_to_be_measured(
    codec: Codec, value: Any
) -> None:
    """A few lines of YAML, whose aliases are such, would else take all memory."""
    tracemalloc.start()
    try:
        with pytest.raises(LargeError):  # first: if it did not, what follows would take all memory
            check_depth({"k": value}, LIMIT)
        reason = refused({"k": value}, codec).reason
        assert "over 262144 bytes of JSON: see max_args_bytes" == reason
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


def test_a_cycle_is_too_deep(codec: Codec) -> None:
    """A structure that holds itself is refused, not followed."""
    loop: dict[str, Any] = {"a": []}
    loop["a"].append(loop)
    assert "deeper than 64 levels" in refused(loop, codec).reason


def test_a_cycle_of_many_ways_takes_little_memory() -> None:
    """Children that lead to their parent are refused at once, by no more than there are."""
    parent: dict[str, Any] = {}
    parent["children"] = [{"parent": parent} for _ in range(20)]
    assert peak_of_refusing(parent) < 10_000_000


def test_shared_containers_are_looked_at_once() -> None:
    """Levels that double, of a value that leads to its class, are not that many."""
    shared: list[Any] = [Color.RED]
    for _ in range(70):
        shared = [shared, shared]
    assert peak_of_refusing(shared) < 10_000_000


def peak_of_refusing(value: Any) -> int:
    """Return how many bytes it takes at most to find that a value is too deep."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"^$"):
            check_depth(value, LIMIT)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("below", range(6))
def test_a_cycle_through_a_tuple_is_too_deep(codec: Codec, below: int) -> None:
    """A list in a tuple in that list is refused at any level; orjson would end the process."""
    loop: list[Any] = []
    loop.append((loop,))
    assert "deeper than 64 levels" in refused({"k": within(loop, below)}, codec).reason


@pytest.mark.parametrize("below", range(6))
def test_nested_tuples_are_too_deep(codec: Codec, below: int) -> None:
    """Tuples in tuples count as lists do, however many there are."""
    nested: Any = ()
    for _ in range(100_000):
        nested = (nested,)
    assert "deeper than 64 levels" in refused({"k": within(nested, below)}, codec).reason


@pytest.mark.parametrize("beside", [Color.RED, FrozenDict(a=1), [[1] * 300, Color.RED]])
def test_what_leads_to_its_class_is_no_deeper_for_it(codec: Codec, beside: Any) -> None:
    """A value of a class of the caller's is one level, however much its class holds."""
    args = {"k": [within(1, 61), beside]}
    assert args == freeze(args, LIMIT, codec=codec)
    assert "deeper than 64 levels" in refused({"k": [within(1, 63), beside]}, codec).reason


def within(value: Any, lists: int) -> Any:
    """Put a value within so many lists."""
    for _ in range(lists):
        value = [value]
    return value


@pytest.mark.parametrize("version", ["3.9.15", "3.11.9", "unknown"])
def test_an_orjson_that_corrupts_memory_is_not_used(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """Before 3.12 it wrote beyond its buffer where many levels end at once, as ours did."""
    orjson = pytest.importorskip("orjson")
    monkeypatch.setattr(orjson, "__version__", version)
    assert Stdlib is type(choose_codec())
    assert orjson.dumps is not _best_dump()[0]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("text", ["x" * 50, "é" * 50, "\x01" * 50, "\U0001f600" * 50, '"\\' * 50])
def test_size_is_counted_in_compact_utf8(codec: Codec, text: str, nested: bool) -> None:
    """One byte over the limit is refused, the limit itself is not."""
    args: dict[str, Any] = {"k": [text] if nested else text}
    size = len(json.dumps(args, ensure_ascii=False, separators=(",", ":")).encode())
    assert args == freeze(args, size, codec=codec)
    error = refused(args, codec, size - 1)
    assert ("$", f"{size} bytes of JSON, but max_args_bytes is {size - 1}; see configure()") == (
        error.path,
        error.reason,
    )


def test_no_code_of_the_caller_runs(codec: Codec) -> None:
    """Subclasses are read through their base, whatever their own methods say."""
    args = {"s": Text("a"), "d": Loud(real=1), "l": [Text("b")]}
    frozen = freeze(args, LIMIT, codec=codec)
    assert {"s": "a", "d": {"real": 1}, "l": ["b"]} == frozen
    assert {"real": 1} == freeze(Loud(real=1), LIMIT, codec=codec)


def test_later_changes_do_not_reach_the_copy(codec: Codec) -> None:
    """What the caller does with its own objects afterwards is its own affair."""
    args: dict[str, Any] = {"a": 1, "lines": [{"price": 1}]}
    frozen = freeze(args, LIMIT, codec=codec)
    args["lines"][0]["price"] = 2
    args["a"] = 2
    assert {"a": 1, "lines": [{"price": 1}]} == frozen


def tree() -> dict[str, Any]:
    """Return a document of three levels."""
    return {"n": 1, "d": {"l": [1, {"x": 1}]}, "l": [[1], {"y": [2]}]}


def is_frozen(value: Any) -> bool:
    """Tell whether nothing mutable can be reached from ``value`` by its own methods."""
    if isinstance(value, dict):
        return isinstance(value, FrozenDict) and all(map(is_frozen, value.values()))
    if isinstance(value, list):
        return isinstance(value, FrozenList) and all(map(is_frozen, value))
    return True


MUTATORS: list[Callable[[Any], Any]] = [
    lambda d: d.__setitem__("n", 2),
    lambda d: d.__delitem__("n"),
    lambda d: d.clear(),
    lambda d: d.pop("n"),
    lambda d: d.popitem(),
    lambda d: d.setdefault("z", 1),
    lambda d: d.update(z=1),
    lambda d: operator.ior(d, {}),
    lambda d: d["l"].__setitem__(0, 2),
    lambda d: d["l"].__delitem__(0),
    lambda d: d["l"].append(1),
    lambda d: d["l"].clear(),
    lambda d: d["l"].extend([]),
    lambda d: d["l"].insert(0, 1),
    lambda d: d["l"].pop(),
    lambda d: d["l"].remove(1),
    lambda d: d["l"].reverse(),
    lambda d: d["l"].sort(),
    lambda d: operator.iadd(d["l"], [1]),
    lambda d: operator.imul(d["l"], 2),
    lambda d: d["d"]["l"][1].update(x=2),
]


@pytest.mark.parametrize("change", MUTATORS)
def test_every_change_is_refused(change: Callable[[Any], Any]) -> None:
    """Changing args, at any level, read before or not, says that they are read-only."""
    frozen = freeze(tree(), LIMIT)
    for _ in range(2):
        with pytest.raises(TypeError, match="read-only: change a copy"):
            change(frozen)
    assert tree() == frozen


def _match(d: Any) -> list[Any]:
    match d:
        case {"d": {"l": [_, inner]}, "l": [first, *others], **rest}:
            return [inner, first, *others, *rest.values()]
    return []


def _kwargs(**given: Any) -> list[Any]:
    return [*given.values()]


READERS: list[Callable[[Any], Any]] = [
    lambda d: [d["d"], d["l"]],
    lambda d: [d.get("d")],
    lambda d: [*d.values()],
    lambda d: [v for _, v in d.items()],
    lambda d: [*dict(d).values()],
    lambda d: [*{**d}.values()],
    lambda d: _kwargs(**d),
    lambda d: [*(d | {}).values()],
    lambda d: [*({} | d).values()],
    lambda d: [*operator.ior({}, d).values()],
    lambda d: [*d.copy().values()],
    lambda d: [*copy.copy(d).values()],
    lambda d: [pickle.loads(pickle.dumps(d))],
    lambda d: [pickle.loads(pickle.dumps(d, 0))],
    lambda d: [d[key] for key in reversed(d)],
    lambda d: [d.keys().mapping["l"]],
    lambda d: [operator.itemgetter("l")(d)],
    _match,
    lambda d: [*d["l"]],
    lambda d: list(d["l"]),
    lambda d: tuple(d["l"]),
    lambda d: sorted(d["l"], key=str),
    lambda d: [*reversed(d["l"])],
    lambda d: [pair[0] for pair in zip(d["l"], d["l"], strict=True)],
    lambda d: d["l"][:],
    lambda d: d["l"] + [],
    lambda d: [] + d["l"],
    lambda d: operator.iadd([], d["l"]),
    lambda d: operator.concat([], d["l"]),
    lambda d: list.copy(d["l"]),
    lambda d: msgspec.convert(d["l"], list[Any]),
    lambda d: pydantic.TypeAdapter(list[Any]).validate_python(d["l"]),
    lambda d: d["l"] * 2,
    lambda d: 2 * d["l"],
    lambda d: d["l"].copy(),
    lambda d: copy.copy(d["l"]),
    lambda d: [pickle.loads(pickle.dumps(d["l"]))],
    lambda d: (lambda *a: a)(*d["l"]),
    lambda d: [max(d["l"], key=str)],
]


def test_no_way_of_reading_lets_a_mutable_child_out(codec: Codec) -> None:
    """However args are read first, what comes out is read-only all the way down."""
    for line, reader in enumerate(READERS):
        read = reader(freeze(tree(), LIMIT, codec=codec))
        assert read, line
        assert all(map(is_frozen, read)), (line, read)


def test_comparing_shows_no_mutable_child_to_the_other_side() -> None:
    """An object that is compared with args sees only frozen ones."""
    seen: list[Any] = []

    class Spy:
        def __eq__(self, other: object) -> bool:
            seen.append(other)
            return True

        __hash__ = None  # type: ignore[assignment]

    assert freeze(tree(), LIMIT) == {"n": 1, "d": Spy(), "l": Spy()}
    assert not freeze(tree(), LIMIT) != {"n": 1, "d": Spy(), "l": Spy()}
    assert Spy() in freeze(tree(), LIMIT)["l"]
    assert 1 == freeze(tree(), LIMIT)["l"].count(Spy()) - 1
    assert seen
    assert all(map(is_frozen, seen))


def test_extending_a_list_by_a_frozen_one_keeps_the_list() -> None:
    """``+=`` changes the left list in place, as with any right one."""
    left: list[Any] = []
    alias = left
    left += freeze(tree(), LIMIT)["l"]
    assert alias is left
    assert [[1], {"y": [2]}] == alias


def test_args_are_equal_to_and_instances_of_dict_and_list() -> None:
    """Code that asks for a dict or a list takes args."""
    frozen = freeze(tree(), LIMIT)
    assert isinstance(frozen, dict)
    assert isinstance(frozen["l"], list)
    assert tree() == frozen == freeze(tree(), LIMIT)
    assert frozen != {"n": 1}
    assert [[1], {"y": [2]}] == frozen["l"] <= [[1], {"y": [2]}]
    assert repr(tree()) == repr(freeze(tree(), LIMIT)) == repr(frozen)
    with pytest.raises(TypeError, match="unhashable"):
        hash(frozen)


def test_a_pickle_says_nothing_of_what_was_read() -> None:
    """Args that nobody has read are pickled as read ones, so that another release knows the class."""
    unread = pickle.dumps(freeze(tree(), LIMIT))
    assert FrozenDict is type(pickle.loads(unread)) is type(pickle.loads(unread)["d"])


def test_a_deep_copy_is_plain_and_may_be_changed() -> None:
    """copy.deepcopy gives a document to work on."""
    for copied in (copy.deepcopy(freeze(tree(), LIMIT)), thaw(freeze(tree(), LIMIT))):
        copied["d"]["l"][1]["x"] = 2
        assert dict is type(copied) is type(copied["d"]["l"][1])
        assert list is type(copied["l"])


def test_a_shallow_copy_may_be_changed_and_its_children_not() -> None:
    """.copy(), copy.copy and ``|`` give a plain dict or list of one level."""
    frozen = freeze(tree(), LIMIT)
    for copied in (frozen.copy(), copy.copy(frozen), frozen | {}, dict(frozen)):
        assert dict is type(copied)
        assert is_frozen(copied["l"])
    assert list is type(frozen["l"].copy()) is type(frozen["l"][:]) is type(frozen["l"] + [])


def test_frozen_args_can_be_written_before_and_after_reading(codec: Codec) -> None:
    """Every JSON writer takes args, at any state of reading."""
    frozen = freeze(tree(), LIMIT, codec=codec)
    for _ in range(2):
        assert tree() == codec.loads(codec.dumps(frozen)) == json.loads(json.dumps(frozen))
        frozen["l"][1]["y"]
    assert (
        tree()
        == freeze(frozen, LIMIT, codec=codec)
        == freeze({"in": frozen}, LIMIT, codec=codec)["in"]
    )


def test_threads_that_read_first_at_once_see_equal_frozen_args() -> None:
    """Closing off a level twice at once does no harm."""
    for _ in range(50):
        frozen, seen = freeze(tree(), LIMIT), list[Any]()
        at_once(partial(lambda f, s: s.extend(f.values()), frozen, seen))
        assert len(seen) == 12
        assert all(map(is_frozen, seen))


@pytest.mark.parametrize(
    "data",
    [
        "", "nul", "NaN", "Infinity", "-Infinity", "[1]x", "[1,]", "'a'", '{"a":NaN}', "1e999",
        "9" * 400, "01", '"\\ud800"', '"\\ud83d\\ud83d"', '"\n"', "\ufeff1", b"\xff", b'"\xed\xa0\x80"',
        '"\ud800"', "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_not_strict_json_is_not_read(codec: Codec, data: str | bytes) -> None:
    """Reading raises a ValueError that gives the position and holds no content."""
    with pytest.raises(ValueError, match=r"^not strict JSON at ") as caught:
        codec.loads(data)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (' {"a" : [1, 2.5, true, null]} ', {"a": [1, 2.5, True, None]}),
        ('{"a":1,"a":2}', {"a": 2}),
        ("18446744073709551615", 18446744073709551615),
        ("-9223372036854775808", -(2**63)),
        ("18446744073709551616", 18446744073709551616.0),
        ("-9223372036854775809", -9223372036854775809.0),
        ("-0.0", -0.0),
        ('"\\ud83d\\ude00\\u0041"', "\U0001f600A"),
        ('"\\\\ud800"', "\\ud800"),
    ],
)
def test_both_codecs_read_the_same(codec: Codec, data: str, value: Any) -> None:
    """The last of two equal keys wins; integers beyond 64 bits are read as floats."""
    for read in (codec.loads(data), codec.loads(data.encode())):
        assert repr(value) == repr(read)


def test_writing_is_compact_utf8(codec: Codec) -> None:
    """No byte is spent on spaces or on escapes that need not be."""
    assert '{"a":["é",1,null,true]}'.encode() == codec.dumps({"a": ["é", 1, None, True]})


def test_the_module_offers_the_codec_that_was_chosen() -> None:
    """dumps and loads undo each other."""
    assert tree() == loads(dumps(tree())) == read_only(loads(dumps(tree())))
    assert 1 == read_only(1)


@pytest.mark.programs
def test_the_environment_can_force_the_standard_library() -> None:
    """SIGRA_JSON=stdlib leaves orjson alone, for tests and benchmarks."""
    code = "import sys, sigra.json; print('orjson' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"SIGRA_JSON": "stdlib", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "False\n" == done.stdout
