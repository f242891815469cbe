"""The chain's construction: one text for equal values, and no two entries with one text."""

from __future__ import annotations

import copy
import json
import math
import sys
from datetime import datetime, timedelta, timezone
from typing import Any

import hypothesis.strategies as st
import pytest
import rfc8785
from events import event
from hypothesis import given

from sigra.frozen import read_only
from sigra.store.canonical import _best_sorted, _is_simple, canonical
from sigra.store.chain import (
    VERSION,
    chain_tag,
    commit,
    entry_hash,
    is_committed,
    is_hash,
    is_tag,
    organization_of,
    payload_of,
    time_text,
    version_of,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
LEAVES = st.none() | st.booleans() | TEXT | st.integers(-(2**53) + 1, 2**53 - 1)
LEAVES |= st.floats(allow_nan=False, allow_infinity=False)
JSON = st.dictionaries(
    TEXT,
    st.recursive(
        LEAVES, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=8
    ),
)


@given(JSON)
def test_canonical_json_is_that_of_the_standard(value: dict[str, Any]) -> None:
    """The quick way and the library's agree, byte for byte, of read-only JSON too."""
    text = rfc8785.dumps(value).decode()
    assert text == canonical(value) == canonical(read_only(copy.deepcopy(value)))


@given(JSON)
def test_canonical_json_can_be_read_back(value: dict[str, Any]) -> None:
    """No value is lost on the way, though a whole number may come back as an int."""
    assert json.loads(canonical(value), parse_int=float) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"n": 2**53}, '{"n":"9007199254740992"}'),
        ({"n": [-(2**60)]}, '{"n":["-1152921504606846976"]}'),
        ({"n": math.nan}, '{"n":"NaN"}'),
        ({"s": "\ud800"}, '{"s":"\ufffd"}'),
        ({"n": [-(2**53), 2**53]}, '{"n":["-9007199254740992","9007199254740992"]}'),
        ({1: 2}, '{"1":2}'),
        ({"d": {"x": {1.5}}}, '{"d":{"x":[1.5]}}'),
    ],
)
def test_what_json_has_no_word_for_becomes_text(value: Any, expected: str) -> None:
    """An event is never refused for its metadata."""
    assert canonical(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, "{}"),
        ({"n": [2**53 - 1, 1 - 2**53, 0]}, '{"n":[9007199254740991,-9007199254740991,0]}'),
        ({"b": {"d": [None, True], "c": {}}, "a": []}, '{"a":[],"b":{"c":{},"d":[null,true]}}'),
        ({"a": 1e21, "b": [{"c": 1.0}]}, '{"a":1e+21,"b":[{"c":1}]}'),
        # In UTF-16, by which the standard sorts, the second comes first.
        ({"k": {"\ue000": 1, "\U0001f600": "\u00fc"}}, '{"k":{"\U0001f600":"\u00fc","\ue000":1}}'),
    ],
)
def test_what_json_has_a_word_for_stays_what_it_is(value: Any, expected: str) -> None:
    """Integers of 53 bits, keys in the order of UTF-16, nothing between what is there."""
    assert canonical(value) == expected


@pytest.mark.parametrize(
    ("value", "quick"),
    [
        ({"a": [1, -5, None, True, False, "x", "\u00fc", {"b": []}]}, True),
        ({"n": 2**53 - 1, "m": 1 - 2**53}, True),
        ({"n": 2**53}, False),
        ({"n": [-(2**53)]}, False),
        ({"n": 1.0}, False),
        ({"n": {"m": [0.5]}}, False),
        ({"\u00fc": 1}, False),
        ({"k": [{"\u00fc": 1}]}, False),
        ({1: 2}, False),
        ({"s": "\ud800"}, False),
        ({"s": ("a tuple",)}, False),
    ],
)
def test_what_goes_the_quick_way(value: Any, quick: bool) -> None:
    """All that needs no care for floats or the order of keys, and nothing that does."""
    assert _is_simple(value) is quick


def test_both_quick_ways_write_one_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store is the same where orjson is not installed."""
    value = {
        "b": '\u00fc\u2028\x7f"\\/\b',
        "a": {"d": [None, True, -7], "c": {}},
        "_": "\U0001f600",
    }
    there = canonical(value)
    monkeypatch.setitem(sys.modules, "orjson", None)
    assert _best_sorted()(value) == there == rfc8785.dumps(value).decode()


@given(TEXT, TEXT, TEXT)
def test_a_payload_is_canonical(actor: str, target: str, agent: str) -> None:
    """What is written by hand is what the library would write."""
    each = event(1, actor_id=actor, target_id=target, user_agent=agent, metadata={"b": 1, "a": 2.0})
    payload = payload_of(each)
    assert payload == rfc8785.dumps(json.loads(payload)).decode()
    assert json.loads(payload)["user_agent"] == agent


FIELDS = ("tag", 1, bytes(32), "id", "time", "act.ion", None, "success", bytes(32))


@given(st.data())
def test_no_two_entries_have_one_hash(data: st.DataObject) -> None:
    """No character moves unseen from one field to the next, and None is no text."""
    strings = st.text("0123:-a", max_size=6)
    entry = st.tuples(
        strings, st.integers(0, 30), st.just(bytes(32)), strings, strings, strings,
        st.none() | strings, strings, st.just(bytes(32)),
    )  # fmt: skip
    one, two = data.draw(entry), data.draw(entry)
    assert (entry_hash(*one) == entry_hash(*two)) is (one == two)


@pytest.mark.parametrize("place", range(len(FIELDS)))
def test_every_field_is_in_the_hash(place: int) -> None:
    """A change of any field is a change of the hash."""
    other = list(FIELDS)
    other[place] = {str: "other", int: 2, bytes: b"\1" * 32, type(None): "worker"}[
        type(other[place])
    ]
    assert entry_hash(*other) != entry_hash(*FIELDS)


@pytest.mark.parametrize("value", [None, 5, 1.5, b"x", "\ud800"], ids=ascii)
@pytest.mark.parametrize("place", range(len(FIELDS)))
def test_a_field_of_any_other_type_has_another_hash(place: int, value: Any) -> None:
    """Whatever was written there, it is told and nothing is raised."""
    other = list(FIELDS)
    other[place] = value
    assert is_hash(entry_hash(*FIELDS), *other) is (value == FIELDS[place])


HASHES = {
    "1": "b4875b7a35acf5738a3133167d405ad0d3081389cfc608ce0b2c8d286dc14247",
    "2": "0000000000000001a5daa104585804a0ae8232745c3cdcb8d2919fade1d23e672639f1f7c419fe9e",
}


@pytest.mark.parametrize("version", HASHES)
def test_each_version_s_hash_stays_what_it_is(version: str) -> None:
    """Rows that were written by an older Sigra verify with a newer one."""
    digest = entry_hash(*FIELDS, version)
    assert (digest.hex(), version_of(digest)) == (HASHES[version], version)
    assert entry_hash(*FIELDS) == entry_hash(*FIELDS, VERSION)


def test_a_commitment_stays_what_it_is() -> None:
    """So does what binds the payload."""
    assert commit(bytes(32), "{}").hex() == (
        "fb1634c4e6cd4b1f1afe3ce2d6ef080f7ac5d1f357d723ad4dfca782733b62db"
    )


def test_a_commitment_is_to_a_salt_of_32_bytes() -> None:
    """No byte moves unseen from the salt to the payload, or back."""
    commitment = commit(bytes(32), "{}")
    assert is_committed(commitment, bytes(32), "{}")
    assert not is_committed(commitment, bytes(31), "\0{}")
    assert not is_committed(commitment, bytes(32) + b"{", "}")


def test_no_organization_is_named_like_the_chain_without_one() -> None:
    """Events without an organization have a chain that no tenant can join."""
    assert chain_tag("none") != chain_tag(None)
    assert [organization_of(chain_tag(name)) for name in ("none", "", None)] == ["none", "", None]


@given(st.none() | st.text("a%0:\0", max_size=6))
def test_a_tag_is_one_organization_s(name: str | None) -> None:
    """It can be read back, and has no NUL."""
    tag = chain_tag(name)
    assert (organization_of(tag), is_tag(tag), "\0" in tag) == (name, True, False)


@given(st.datetimes(timezones=st.just(timezone.utc)))
def test_a_time_is_read_back_from_its_text(moment: datetime) -> None:
    """It is written as Python itself would."""
    assert time_text(moment) == moment.isoformat("T", "microseconds")


def test_a_time_s_text_sorts_as_the_time() -> None:
    """All are in UTC and equally long."""
    zone = timezone(timedelta(hours=5))
    early = datetime(2026, 1, 1, 4, tzinfo=zone)
    late = datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=timezone.utc)
    assert time_text(early) < time_text(late)
    assert len(time_text(early)) == len(time_text(late)) == 32
