"""Read-only dicts and lists; the children of a dict become read-only when it is first read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

HAS_GIL: bool = getattr(sys, "_is_gil_enabled", lambda: True)()


def _refuse(_self: object, *_args: object, **_kwargs: object) -> NoReturn:
    raise TypeError(
        "a job's args and an event's metadata are read-only: change a copy, made with dict(...), "
        "list(...) or, for all levels, copy.deepcopy(...)"
    )


class _Copying:
    """How both kinds are copied and pickled."""

    __slots__ = ()

    def __copy__(self: Any) -> Any:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return thaw(self)

    def __reduce_ex__(self: Any, protocol: object) -> tuple[Any, ...]:
        return type(self), (self.copy(),)


class FrozenDict(dict[str, Any], _Copying):
    """A dict that refuses every change.

    Equal to a dict, an instance of dict, and written by json as one. ``.copy()`` and
    ``|`` give a plain dict whose children are still frozen, ``copy.deepcopy`` a plain
    tree; pickled, it stays frozen. It takes its children as they are: ``read_only``
    freezes a whole tree.
    """

    __slots__ = ()


class FrozenList(list[Any], _Copying):
    """A list that refuses every change; see ``FrozenDict``."""

    __slots__ = ()


class _UnreadDict(FrozenDict):
    """A dict that nobody has read yet: its children are still plain and must not get out.

    Decoding gives a plain tree, and wrapping all of it would take as long again. So the first
    read wraps the children of this one dict, then makes the object a FrozenDict, whose reads
    are the built-in ones. Two threads may do so at once: their wrappers are equal.
    """

    __slots__ = ()


def _settle(level: Any) -> None:
    """Wrap the children of an unread dict, which is a FrozenDict from then on."""
    for key, value in dict.items(level):
        if (wrapper := _WRAPPERS.get(type(value))) is not None:
            dict.__setitem__(level, key, wrapper(value))
    level.__class__ = FrozenDict


def _list_of(children: list[Any]) -> FrozenList:
    """Wrap the children at once: much C code reads a list, unlike a dict, without its methods."""
    return FrozenList(map(read_only, children))


def _dict_of(children: dict[str, Any]) -> FrozenDict:
    """Wrap the children at once: without the GIL, another class for a dict stops all threads."""
    return FrozenDict({key: read_only(value) for key, value in children.items()})


_WRAPPERS: dict[type, Any] = {dict: _UnreadDict if HAS_GIL else _dict_of, list: _list_of}


def _reading(name: str) -> Callable[..., Any]:
    def read(self: Any, *args: Any) -> Any:
        _settle(self)
        return getattr(self, name)(*args)

    return read


def _define(cls: type, methods: dict[str, Callable[..., Any]]) -> None:
    for name, method in methods.items():
        setattr(cls, name, method)


_READS = "__getitem__ __iter__ __reversed__ __eq__ __ne__ __or__ __reduce_ex__ "
_READS += "copy get items keys values"
_DICT_CHANGES = "__setitem__ __delitem__ __ior__ clear pop popitem setdefault update"
_LIST_CHANGES = "__setitem__ __delitem__ __iadd__ __imul__ append clear extend insert "
_LIST_CHANGES += "pop remove reverse sort"

_define(FrozenDict, dict.fromkeys(_DICT_CHANGES.split(), _refuse))
_define(FrozenList, dict.fromkeys(_LIST_CHANGES.split(), _refuse))
# __iter__ matters most: without it dict(x) and {**x} copy past every method.
_define(_UnreadDict, {name: _reading(name) for name in _READS.split()})


def read_only(tree: Any) -> Any:
    """Return a decoded JSON tree as frozen dicts and lists; ``tree`` must have no other owner."""
    wrapper = _WRAPPERS.get(type(tree))
    return tree if wrapper is None else wrapper(tree)


def thaw(tree: Any) -> Any:
    """Return a tree of frozen dicts and lists as plain ones that may be changed."""
    if isinstance(tree, dict):
        return {key: thaw(value) for key, value in dict.items(tree)}
    if isinstance(tree, list):
        return [thaw(value) for value in list.__iter__(tree)]
    return tree
