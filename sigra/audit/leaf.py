"""Values that hold no other values, in JSON's terms: read only through the slots of base types."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from sigra.audit.read import read_member, type_name
from sigra.scope import id_text

_LOWEST, _HIGHEST = -(1 << 63), (1 << 64) - 1


def leaf(value: Any) -> Any:
    """Return a value as a str (unchecked), int, float, bool or None of the exact type.

    What JSON cannot say becomes text: times in ISO 8601, numbers beyond 64 bits, NaN and
    infinities by name, bytes decoded if they are UTF-8. An object of any other type becomes
    ``<module.qualname>``.
    """
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    try:
        for base, plain in _KINDS:
            if issubclass(kind, base):
                return plain(value)
        # By name and identity: the question must not load the modules of these classes.
        if any(getattr(sys.modules.get(home), name, None) is kind for home, name in _PRINTED):
            return str.__str__(str(value))
    except Exception:  # noqa: S110 - an object made without its __init__, or tampered with
        pass
    return f"<{type_name(kind)}>"


def exact_datetime(value: datetime) -> datetime:
    """Return a datetime, or one of a subclass, as a plain datetime."""
    return datetime.combine(datetime.date(value), datetime.timetz(value))


def in_utc(value: datetime) -> datetime | None:
    """Return the moment in UTC, or None where the datetime is naive.

    The time zone's own ``utcoffset`` is asked, and what it raises passes through.
    """
    exact = exact_datetime(value)
    return None if exact.utcoffset() is None else exact.astimezone(timezone.utc)


def _integer(value: Any) -> int | str:
    exact = int.__int__(value)
    # Printing an int of many digits is slow, and Python refuses beyond 4,300.
    return exact if _LOWEST <= exact <= _HIGHEST else f"<int {exact.bit_length()} bits>"


def _float(value: Any) -> float | str:
    exact = float.__float__(value)
    # Only infinity and NaN minus themselves are not zero.
    if exact - exact == 0.0:
        return exact
    return "NaN" if exact != exact else "Infinity" if exact > 0 else "-Infinity"


def _binary(value: Any) -> str:
    base: Any = bytes if issubclass(type(value), bytes) else bytearray
    try:
        # A slice is of the base type, whose buffer no subclass has a say in.
        return base.decode(base.__getitem__(value, slice(None)))  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        return f"<{base.__name__} {base.__len__(value)}>"


def _member(value: Any) -> Any:
    held = read_member(value, "_value_")
    of = type(held)
    if of is str or of is int or of is float or of is bool:
        return leaf(held)
    return f"<{type_name(type(value))}>"


def _moment(value: Any) -> str:
    exact, zones = exact_datetime(value), sys.modules.get("zoneinfo")
    # Any other time zone would run foreign code.
    known = type(exact.tzinfo) is timezone or (zones and type(exact.tzinfo) is zones.ZoneInfo)
    return (exact if known else exact.replace(tzinfo=None)).isoformat()


_KINDS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, _integer),
    (float, _float),
    ((bytes, bytearray), _binary),
    (Enum, _member),
    (UUID, lambda value: id_text(value) or f"<{type_name(type(value))}>"),
    (datetime, _moment),
    (date, date.isoformat),
    (time, lambda value: datetime.combine(date.min, value, None).time().isoformat()),
    (timedelta, lambda value: f"{timedelta.total_seconds(value)} s"),
    (Decimal, Decimal.__str__),
    (complex, complex.__repr__),
)
"""The first type that fits decides, so datetime comes before date, which it is a subclass of."""

_PRINTED = tuple(
    [("ipaddress", f"IPv{version}{what}") for version in "46" for what in ("Address", "Network")]
    + [("pathlib", f"{pure}{kind}Path") for pure in ("", "Pure") for kind in ("Posix", "Windows")]
)
