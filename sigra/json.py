"""Strict JSON: check and copy a job's args in one go, write and read them."""

from __future__ import annotations

from collections.abc import Callable
from gc import get_referents as all_referents
from itertools import chain, islice
from json.encoder import encode_basestring_ascii
from typing import Any, NoReturn

from sigra.codec import HIGH, LOW, Codec, choose_codec
from sigra.errors import InvalidArgsError
from sigra.frozen import HAS_GIL, FrozenDict, read_only

LEVELS = 64
"""How deep args may be; they are themselves the first level."""

_LONGEST_KEY = 40
_NESTING = (dict, list, tuple)
_LEAVES = frozenset((str, int, float, bool, type(None)))

type_qualname: Callable[[Any], str] = type.__dict__["__qualname__"].__get__
"""Read a type's name from its slot: no code of a metaclass runs."""

_codec = choose_codec()
dumps, loads = _codec.dumps, _codec.loads


def freeze(  # noqa: C901 - one loop, though long: a call for each value doubles the time
    args: dict[str, Any], max_bytes: int, keys: str = "", codec: Codec = _codec
) -> FrozenDict:
    """Check that args are strict JSON and return a deep, read-only copy.

    ``keys``: all keys joined to one text, if the caller has it. The copy equals
    what a JSON round trip would deliver: tuples are lists, and subclasses of
    str, int, float, dict, list and tuple their base. Raises
    ``InvalidArgsError`` with the path of what is not JSON, is deeper than 64 levels
    (args are the first) or makes more than ``max_bytes`` of compact UTF-8.
    """
    plain: dict[str, Any] = args if type(args) is dict else dict(dict.items(args))
    frozen = FrozenDict(plain)
    chars = 0
    for key, value in frozen.items():
        if type(key) is not str:
            break
        kind = type(value)
        if kind is str:
            if not value.isascii() and not is_unicode(value):
                break
            chars += len(value)
        elif kind is int:
            if not LOW <= value <= HIGH:
                break
        elif kind is float:
            if value - value != 0.0:  # infinity and NaN alone
                break
        elif value is not None and kind is not bool:
            break
    else:
        keys = keys or "".join(frozen)
        # 6 for an escape such as \u0001; 32 for quotes, a colon, a comma and any number.
        bound = 6 * (chars + len(keys)) + 32 * len(frozen)
        if bound < max_bytes and (keys.isascii() or is_unicode(keys)):
            return frozen
    return _freeze_nested(plain, max_bytes, codec)


def _freeze_nested(args: dict[str, Any], max_bytes: int, codec: Codec) -> FrozenDict:
    """Let the codec copy; walk the tree only if that fails or the copy differs."""
    try:
        check_depth(args, max_bytes)
        tree = codec.copy(args, max_bytes)
        exact = bool(tree == args)
    except LargeError:
        raise InvalidArgsError("$", f"over {max_bytes} bytes of JSON: see max_args_bytes") from None
    except Exception:  # the codec's, or any from an object that is compared
        tree, exact = None, False
    if not exact:
        tree = _rebuild(args, ("$", None), 1)
        if (size := len(codec.dumps(tree))) > max_bytes:
            reason = f"{size} bytes of JSON, but max_args_bytes is {max_bytes}; see configure()"
            raise InvalidArgsError("$", reason)
    return read_only(tree)  # type: ignore[no-any-return]


_INSIDE: dict[Any, Any] = {base: base.__iter__ for base in (list, tuple)}
_INSIDE[dict] = lambda held: (*dict.keys(held), *dict.values(held))


def _held_by(*values: Any) -> list[Any]:
    """Return the keys and values in dicts, lists and tuples."""
    nested = [(_INSIDE[base], x) for x in values for base in _NESTING if issubclass(type(x), base)]
    return [held for inside, x in nested for held in inside(x)]


# Without the GIL, gc's own function stops all threads.
get_referents = all_referents if HAS_GIL else _held_by


class LargeError(ValueError):
    """Tell that a value makes more JSON than it may, perhaps because one part of it recurs."""


def check_depth(value: Any, most: int) -> None:
    """Raise ``ValueError`` for what is nested deeper than ``LEVELS``, or makes too much JSON.

    Called before a codec writes it: orjson does not count tuples, and the standard library's
    encoder needs a large stack, so a cycle could end the process. So could a list that is held a
    million times. ``LargeError``: it makes more than ``most`` bytes.
    """
    near, size = [value], 0
    for _ in range(LEVELS):
        near = get_referents(*near)
        if not near:
            return
        size += len(near)
        if size > 1_000:
            break
    near, size = [value], 0
    for _ in range(LEVELS + 1):  # again, more slowly: what is held at a time stays small
        if not (nested := [held for held in near if type(held) not in _LEAVES]):
            return
        fits = {*_NESTING}.issuperset(map(type, nested)) and sum(map(len, nested)) <= most
        below = chain.from_iterable(map(_held_by, nested))
        near = get_referents(*nested) if fits else [*islice(below, most)]
        # Each value takes a byte at least, and each character of a text.
        size += len(near) + sum(map(str.__len__, [x for x in near if issubclass(type(x), str)]))
        if size > most:
            raise LargeError
    raise ValueError


_Path = tuple[str, Any]
"""The last part of a path, and the path before it: made into text only for an error."""


def _rebuild(value: Any, path: _Path, level: int) -> Any:
    """Copy through the slots of the base types alone, so that no code of the caller's runs."""
    kind = type(value)
    if kind is bool or value is None:
        return value
    if issubclass(kind, str):
        return _checked_text(str.__str__(value), path)
    if issubclass(kind, int):
        if not LOW <= int.__int__(value) <= HIGH:
            _fail(path, "an int beyond 64 bits; pass it as str")
        return int.__int__(value)
    if issubclass(kind, float):
        number = float.__float__(value)
        if number - number != 0.0:
            _fail(path, "a float that is NaN or infinite; pass None or str")
        return number
    if not issubclass(kind, _NESTING):
        reason = "is not JSON; pass str, int, float, bool, None, list or dict"
        _fail(path, f"{type_qualname(kind)} {reason}")
    if level > LEVELS:
        _fail(path, f"nested deeper than {LEVELS} levels")
    if issubclass(kind, dict):
        return {
            _checked_key(key, path): _rebuild(item, (_key_part(key), path), level + 1)
            for key, item in dict.items(value)
        }
    items = list.__iter__(value) if issubclass(kind, list) else tuple.__iter__(value)
    return [_rebuild(item, (f"[{i}]", path), level + 1) for i, item in enumerate(items)]


def _checked_key(key: Any, path: _Path) -> str:
    if not issubclass(type(key), str) or hash(key) != hash(str.__str__(key)):
        _fail(path, f"a key is {type_qualname(type(key))}; JSON keys are str")
    return _checked_text(str.__str__(key), (_key_part(key), path))


def _checked_text(text: str, path: _Path) -> str:
    if not is_unicode(text):
        _fail(path, "a str with a lone surrogate, which UTF-8 cannot carry")
    return text


def is_unicode(text: str) -> bool:
    """Tell whether UTF-8 can carry a text: a lone surrogate it cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _key_part(key: str) -> str:
    text = str.__str__(key)
    if len(text) > _LONGEST_KEY:
        text = text[:_LONGEST_KEY] + "..."
    plain = text.isascii() and text.isidentifier()
    return f".{text}" if plain else f"[{encode_basestring_ascii(text)}]"


def _fail(path: _Path, reason: str) -> NoReturn:
    text, above = path
    while above is not None:
        text, above = above[0] + text, above[1]
    raise InvalidArgsError(text, reason)
