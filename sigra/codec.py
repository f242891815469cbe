"""Two ways to write and read strict JSON: the standard library's, and orjson's."""

from __future__ import annotations

import json
import os
from bisect import bisect_left
from contextlib import suppress
from gc import get_referents
from typing import Any

LEVELS = 64
"""How deep args may be; they are themselves the first level."""

LOW, HIGH = -(2**63), 2**63 - 1


class Stdlib:
    """The json module of the standard library, made strict."""

    def __init__(self) -> None:
        # A cycle ends in a RecursionError, so looking for one would only cost time.
        form: Any = {"allow_nan": False, "check_circular": False, "separators": (",", ":")}
        self._encode = json.JSONEncoder(ensure_ascii=False, **form).encode
        self._encode_ascii = json.JSONEncoder(**form).encode
        self._decode_own = json.JSONDecoder(parse_int=_signed_64).decode
        self._decode = json.JSONDecoder(
            parse_int=_read_int, parse_float=_read_float, parse_constant=_read_float
        ).decode

    def dumps(self, value: Any, /) -> bytes:
        """Write ``value``, which must be strict JSON already (see ``freeze``), compactly."""
        return self._encode(value).encode()

    def loads(self, data: bytes | str, /) -> Any:
        """Read strict JSON; raise ``ValueError`` that gives the position and no content."""
        try:
            text = data if isinstance(data, str) else str(data, "utf-8")
            value = self._decode(text)
            if "\\u" in text or not text.isascii():
                self.dumps(value)  # fails for a lone surrogate
            return value
        except json.JSONDecodeError as error:
            where = f"character {error.pos}"
        except (ValueError, RecursionError):
            where = "an unknown position"
        raise _unreadable(where)

    def copy(self, value: dict[str, Any], max_bytes: int, /) -> Any:
        """Write and read ``value`` again.

        Raises anything if it is not strict JSON, deeper than ``LEVELS`` or longer
        than ``max_bytes``. What was coerced on the way shows in the copy, which then
        differs from ``value``.
        """
        text = self._encode_ascii(value)  # the faster of the two, and never the shorter
        tree = self._decode_own(text)
        # What a lone surrogate is written as, or half of a pair: then encode() tells which.
        if (len(text) > max_bytes or "\\ud" in text) and len(self.dumps(tree)) > max_bytes:
            raise ValueError
        if text.count("{") + text.count("[") > LEVELS:  # fewer cannot be too deep
            _check_depth(tree)
        return tree


class Compiled:
    """The orjson package, from the extra ``fast``: it reads the same values."""

    def __init__(self) -> None:
        orjson = load_orjson()
        self.dumps, self._decode = orjson.dumps, orjson.loads
        # Ints beyond 53 bits end in the exact walk: orjson alone lets 2**64-1 through.
        self._strict = (
            orjson.OPT_STRICT_INTEGER
            | orjson.OPT_PASSTHROUGH_DATETIME
            | orjson.OPT_PASSTHROUGH_DATACLASS
        )
        # Beside ours: orjson writes 254 levels in all releases so far.
        self._outer = bisect_left(range(1_024), x=True, key=self._is_too_deep) - 1 - LEVELS
        self._spare: list[tuple[Any, list[Any]]] = []

    def loads(self, data: bytes | str, /) -> Any:
        """Read as ``Stdlib`` does."""
        try:
            return self._decode(data)
        except json.JSONDecodeError as error:
            where = f"character {error.pos}"
        raise _unreadable(where)

    def copy(self, value: dict[str, Any], max_bytes: int, /) -> Any:
        """Write and read ``value`` again, as ``Stdlib`` does.

        It is written inside as many lists as leave it exactly ``LEVELS`` until
        orjson's own limit, so that the depth is checked at no cost for each item.
        """
        # orjson does not count tuples: a cycle through one, or 1,000 of them, may end the process.
        # To look for them at all levels would cost a fifth of .new(), so the first two have to do.
        near = get_referents(value)
        if tuple in {*map(type, near + get_referents(*near))}:
            raise ValueError
        # If another thread takes the last one meanwhile, pop() raises, and the args are walked.
        outermost, innermost = (self._spare or [_nest(self._outer)]).pop()
        innermost[0] = value
        try:
            data = self.dumps(outermost, None, self._strict)[self._outer : -self._outer]
        finally:
            innermost[0] = None
            self._spare.append((outermost, innermost))
        if len(data) > max_bytes:
            raise ValueError
        return self._decode(data)

    def _is_too_deep(self, levels: int) -> bool:
        with suppress(TypeError):  # orjson.JSONEncodeError is one
            return not self.dumps(_nest(levels)[0])
        return True


def _nest(levels: int) -> tuple[Any, list[Any]]:
    innermost: list[Any] = [None]
    outermost = innermost
    for _ in range(levels - 1):
        outermost = [outermost]
    return outermost, innermost


def _check_depth(tree: Any) -> None:
    level = [tree]
    for _ in range(LEVELS):
        level = [
            item
            for above in level
            for item in (above.values() if type(above) is dict else above)
            if type(item) is dict or type(item) is list
        ]
        if not level:
            return
    raise ValueError


def _signed_64(digits: str) -> int:
    if len(digits) > 20 or (len(digits) > 18 and not LOW <= int(digits) <= HIGH):
        raise ValueError
    return int(digits)


def _read_int(digits: str) -> int | float:
    """Read an integer beyond 64 bits as a float, as orjson does."""
    if len(digits) < 19:
        return int(digits)
    value = int(digits) if len(digits) < 21 else 2**64
    return value if LOW <= value < 2**64 else _read_float(digits)


def _read_float(digits: str) -> float:
    """Read a float, but neither what is beyond its range nor ``NaN`` and ``Infinity``."""
    value = float(digits)
    if value - value != 0.0:
        raise ValueError
    return value


def _unreadable(where: str) -> ValueError:
    """Make the error outside any ``except``: a chained cause would hold the document."""
    return ValueError(f"not strict JSON at {where}")


def load_orjson() -> Any:
    """Return the package; raise ``ImportError`` if there is none that can be used."""
    import orjson

    if [*map(int, orjson.__version__.split(".")[:2])] < [3, 12]:
        raise ImportError("orjson before 3.12 writes beyond its buffer where many levels end")
    return orjson


Codec = Stdlib | Compiled


def choose_codec() -> Codec:
    """Return orjson's codec if it is installed, unless SIGRA_JSON=stdlib."""
    with suppress(ImportError):
        if os.environ.get("SIGRA_JSON") != "stdlib":
            return Compiled()
    return Stdlib()
