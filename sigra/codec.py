"""Two ways to write and read strict JSON: the standard library's, and orjson's."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from typing import Any

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
        """Read strict JSON; else raise ``ValueError`` with the position, never the content."""
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
        """Return a copy of ``value``, written and read again; ``check_depth`` has passed it.

        Raises an exception of any type if it is not strict JSON or longer than ``max_bytes``.
        If something was coerced on the way, the copy differs from ``value``.
        """
        text = self._encode_ascii(value)  # faster than dumps(), and its text is never shorter
        tree = self._decode_own(text)
        # "\\ud" begins a lone surrogate or half of a pair; dumps() refuses only the first.
        if (len(text) > max_bytes or "\\ud" in text) and len(self.dumps(tree)) > max_bytes:
            raise ValueError
        return tree


class Compiled:
    """The orjson package, from the extra ``fast``: it reads the same values."""

    def __init__(self) -> None:
        orjson = load_orjson()
        self.dumps, self._decode = orjson.dumps, orjson.loads
        # Strict: ints beyond 53 bits are refused here and checked by freeze() one by one. Without
        # it orjson would let 2**64-1 through.
        self._strict = (
            orjson.OPT_STRICT_INTEGER
            | orjson.OPT_PASSTHROUGH_DATETIME
            | orjson.OPT_PASSTHROUGH_DATACLASS
        )

    def loads(self, data: bytes | str, /) -> Any:
        """Read as ``Stdlib`` does."""
        try:
            return self._decode(data)
        except json.JSONDecodeError as error:
            where = f"character {error.pos}"
        raise _unreadable(where)

    def copy(self, value: dict[str, Any], max_bytes: int, /) -> Any:
        """Return a copy as ``Stdlib`` does."""
        data = self.dumps(value, None, self._strict)
        if len(data) > max_bytes:
            raise ValueError
        return self._decode(data)


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
    """Read a float; refuse ``NaN``, ``Infinity`` and what is beyond a float's range."""
    value = float(digits)
    if value - value != 0.0:
        raise ValueError
    return value


def _unreadable(where: str) -> ValueError:
    """Make the error outside any ``except``: a chained cause would hold the document."""
    return ValueError(f"not strict JSON at {where}")


def load_orjson() -> Any:
    """Return the package; raise ``ImportError`` if it is missing or too old."""
    import orjson

    if [int(part) for part in re.findall(r"\d+", orjson.__version__)[:2]] < [3, 12]:
        raise ImportError("orjson before 3.12 writes beyond its buffer where many levels end")
    return orjson


Codec = Stdlib | Compiled


def choose_codec() -> Codec:
    """Return orjson's codec if it is installed, unless SIGRA_JSON=stdlib."""
    with suppress(ImportError):
        if os.environ.get("SIGRA_JSON") != "stdlib":
            return Compiled()
    return Stdlib()
