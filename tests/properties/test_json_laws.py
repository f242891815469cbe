"""Laws of strict JSON, each document with orjson and without."""

from __future__ import annotations

import contextlib
import itertools
import json
import pickle
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sigra.codec import Codec, Compiled, Stdlib
from sigra.errors import InvalidArgsError
from sigra.frozen import FrozenDict, FrozenList, thaw
from sigra.json import freeze

LIMIT = 256 * 1024
CODECS: list[Codec] = [Stdlib()]
try:
    CODECS.append(Compiled())
except ImportError:  # the extra "fast" is not installed
    pass

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(text, inner, max_size=4)
    ),
    max_leaves=12,
)
documents = st.dictionaries(text, values, max_size=6)
odd_leaves = (
    leaves
    | st.floats()
    | st.integers()
    | st.text(max_size=3)
    | st.sampled_from([b"", {1}, 1j, object(), {1: 1}, {None: 0}, {True: 0}, 2**63, 2**64 - 1])
)
odd_documents = st.dictionaries(
    text,
    st.recursive(
        odd_leaves,
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
        ),
        max_leaves=12,
    ),
    max_size=4,
)


def exact(value: Any) -> Any:
    """Return a form in which values of different types, or zeros of different sign, differ."""
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [exact(item) for item in value]
    return type(value).__name__, repr(value)


@given(document=documents)
def test_what_arrives_is_what_a_json_round_trip_delivers(document: dict[str, Any]) -> None:
    """For all that is accepted the copy equals json.loads(json.dumps(x)), with exact types."""
    through = json.loads(json.dumps(document))
    for codec in CODECS:
        frozen = freeze(document, LIMIT, codec=codec)
        assert through == frozen, codec
        assert exact(through) == exact(frozen), codec
        assert list(through) == list(frozen), codec


@given(document=odd_documents)
def test_both_codecs_accept_and_refuse_the_same(document: dict[str, Any]) -> None:
    """The extra makes Sigra faster and changes nothing else, the error's path and text included."""
    answers = []
    for codec in CODECS:
        try:
            answers.append(exact(freeze(document, LIMIT, codec=codec)))
        except InvalidArgsError as error:
            answers.append((error.path, error.reason))
    assert answers[0] == answers[-1]


@given(document=documents)
def test_every_level_is_frozen(document: dict[str, Any]) -> None:
    """No plain dict or list can be reached, and thawing gives only plain ones."""

    def kinds(value: Any) -> set[type]:
        inner = value.values() if isinstance(value, dict) else value
        found = {type(value)} if isinstance(value, (dict, list)) else set()
        return found.union(*map(kinds, inner)) if found else found

    for codec in CODECS:
        frozen = freeze(document, LIMIT, codec=codec)
        frozen == {}  # noqa: B015 - reads the first level
        assert kinds(thaw(frozen)) <= {dict, list}, codec
        assert all(issubclass(kind, (FrozenDict, FrozenList)) for kind in kinds(frozen)), codec


@given(document=documents)
def test_frozen_args_survive_pickling_and_freezing_again(document: dict[str, Any]) -> None:
    """Both are the identity."""
    for codec in CODECS:
        frozen = freeze(document, LIMIT, codec=codec)
        assert frozen == pickle.loads(pickle.dumps(frozen)) == freeze(frozen, LIMIT, codec=codec), (
            codec
        )


@given(document=documents)
def test_reading_undoes_writing(document: dict[str, Any]) -> None:
    """What either codec writes, both read as the same."""
    for codec, other in itertools.product(CODECS, CODECS):
        frozen = freeze(document, LIMIT, codec=codec)
        assert exact(frozen) == exact(other.loads(codec.dumps(frozen))), (codec, other)


@given(data=st.text(max_size=20) | st.binary(max_size=20))
def test_reading_raises_nothing_but_value_error(data: str | bytes) -> None:
    """Any bytes at all are JSON or a ValueError."""
    for codec in CODECS:
        with contextlib.suppress(ValueError):
            codec.loads(data)
