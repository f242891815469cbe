"""Strict JSON: check and copy a job's args in one go, write and read them."""

from __future__ import annotations

from collections.abc import Callable
from gc import get_referents as all_referents
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
_PLAIN = _LEAVES | {*_NESTING}
_MANY = 50_000

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
        check_depth(args)
        tree = codec.copy(args, max_bytes)
        exact = bool(tree == args)
    except Exception:  # the codec's, or any from an object that is compared
        tree, exact = None, False
    if not exact:
        tree = _rebuild(args, ("$", None), 1)
        if (size := len(codec.dumps(tree))) > max_bytes:
            reason = f"{size} bytes of JSON, but max_args_bytes is {max_bytes}; see configure()"
            raise InvalidArgsError("$", reason)
    return read_only(tree)  # type: ignore[no-any-return]


_INSIDE: dict[Any, Any] = {dict: dict.values, list: list.__iter__, tuple: tuple.__iter__}


def _held_by(*values: Any) -> list[Any]:
    """Return the values in dicts, lists and tuples."""
    nested = [(_INSIDE[base], x) for x in values for base in _NESTING if issubclass(type(x), base)]
    return [held for inside, x in nested for held in inside(x)]


# Without the GIL, gc's own function stops all threads.
get_referents = all_referents if HAS_GIL else _held_by


def check_depth(value: Any) -> None:
    """Raise ``ValueError`` for what is nested deeper than ``LEVELS``.

    Called before a codec writes it: orjson does not count tuples, and the standard library's
    encoder needs a large stack, so a cycle could end the process.
    """
    near = [value]
    for _ in range(LEVELS):
        near = get_referents(*near) if len(near) < 1_000 else _all_below(near)
        if not near:
            return
        # An object that is not JSON refers to its class, and the class to nearly everything, which
        # a sample reveals. A cycle with two branches doubles with each level.
        if len(near) > 200 and (
            len(near) > _MANY or not _PLAIN.issuperset(map(type, near[:: len(near) // 50]))
        ):
            break
    once = {0: value}
    for _ in range(LEVELS):  # again, with each container once and nothing else: slower, but exact
        below = get_referents(*once.values())
        once = {id(x): x for x in below if type(x) not in _LEAVES and issubclass(type(x), _NESTING)}
        if not once:
            return
    raise ValueError


def _all_below(level: list[Any]) -> list[Any]:
    """Return what a large level holds, up to a little more than ``_MANY``; empty the level."""
    found: list[Any] = []
    while level and len(found) <= _MANY:
        found += get_referents(*level[-500:])
        del level[-500:]
    return found


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
