"""Hypothesis strategies for args that are valid, and for values that are not."""

from __future__ import annotations

from types import NoneType
from typing import Any, NoReturn

from hypothesis import strategies as st

from sigra.binding import ID_KEYS

_PASSED_BY_SIGRA = ("scope", "args", "job")
_characters = st.characters(exclude_categories=["Cs"])
_text = st.text(_characters, max_size=20)
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    _text,
)
# A blank one is refused, but not one with spaces, line ends or a zero byte in it.
_ids = st.none() | st.text(_characters, min_size=1, max_size=20).filter(str.strip)


def json_args(*, max_leaves: int = 10) -> st.SearchStrategy[dict[str, Any]]:
    """Generate dicts with str keys and strict JSON values.

    The tenant keys are left out, and ``scope``, ``args`` and ``job``, which Sigra itself passes.
    """
    values = st.recursive(
        _scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
        max_leaves=max_leaves,
    )
    keys = _text.filter(lambda key: key not in (*ID_KEYS, *_PASSED_BY_SIGRA))
    return st.dictionaries(keys, values, max_size=5)


@st.composite
def tenant_args_strategy(
    draw: st.DrawFn, extra: st.SearchStrategy[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Generate args that have the tenant keys, each a str or None.

    Sometimes there is an impersonator too. ``extra`` generates further items, and wins: it may
    also generate the ids.
    """
    if not isinstance(extra, (st.SearchStrategy, NoneType)):
        kind = type(extra).__qualname__
        raise TypeError(
            f"extra must be a strategy, as st.fixed_dictionaries({{...}}), not a {kind}"
        )
    args: dict[str, Any] = {"organization_id": draw(_ids), "actor_id": draw(_ids)}
    if draw(st.booleans()):
        args["impersonating_from"] = draw(_ids)
    return args if extra is None else {**args, **draw(extra)}


def hostile_values() -> st.SearchStrategy[Any]:
    """Generate values that break careless code: raising methods, cycles, odd numbers.

    None of them is strict JSON.
    """
    return st.one_of(
        st.sampled_from([float("nan"), float("inf"), -float("inf"), 2**64, -(2**70)]),
        st.builds(pow, st.just(10), st.just(5000)),  # it cannot be shown, and this can
        st.just("\ud800"),
        st.binary(max_size=8),
        st.complex_numbers(),
        st.builds(object),
        st.builds(_Hostile),
        st.builds(_cycle),
        st.builds(_deep),
        st.dictionaries(st.integers(), st.none(), min_size=1, max_size=2),
        st.sets(st.integers(), min_size=1, max_size=2),
        st.sampled_from([_Hostile, len, ..., NotImplemented]),
    )


class _Hostile:
    """An object of which every common protocol raises, but the one by which Hypothesis shows it."""

    @staticmethod  # for the class too, which is one of the values
    def _repr_pretty_(*given: Any) -> None:  # older releases of Hypothesis give the object too
        given[-2].text("<hostile>")

    def _raise(self, *_: Any, **__: Any) -> NoReturn:
        raise RuntimeError("hostile")

    __repr__ = __str__ = __len__ = __iter__ = __getitem__ = __contains__ = _raise
    __bool__ = __int__ = __float__ = __index__ = __eq__ = __hash__ = _raise
    __getattr__ = __format__ = __bytes__ = __call__ = _raise


def _cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    return deep
