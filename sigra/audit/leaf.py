"""Values that hold no others, as JSON has them: by exact type, through base slots alone."""

from __future__ import annotations

import sys
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from sigra.audit.read import exact_datetime, read_member, type_name, uuid_text

_LOWEST, _HIGHEST = -(1 << 63), (1 << 64) - 1

# Types of modules that not every process loads: a value of one implies that it has.
_PRINTED = {
    "ipaddress": ("IPv4Address", "IPv4Network", "IPv6Address", "IPv6Network"),
    "pathlib": ("PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath"),
}


def leaf(value: Any) -> Any:
    """Return a value as a str (unchecked), int, float, bool or None of the exact type.

    What JSON has no word for becomes text: moments in ISO 8601, numbers beyond 64
    bits, NaN and infinities by name, bytes decoded where they are UTF-8. An object
    of any other type becomes ``<module.qualname>``.
    """
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, int):
        return _integer(int.__int__(value))
    if issubclass(kind, float):
        return _float(float.__float__(value))
    if issubclass(kind, (bytes, bytearray)):
        return _binary(value, bytes if issubclass(kind, bytes) else bytearray)
    if issubclass(kind, Enum):
        return _member(value, kind)
    return _text(value, kind)


def _integer(value: int) -> int | str:
    # Printing an int of many digits is slow, and Python refuses beyond 4,300.
    return value if _LOWEST <= value <= _HIGHEST else f"<int {value.bit_length()} bits>"


def _float(value: float) -> float | str:
    if value - value == 0.0:
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def _binary(value: Any, base: Any) -> str:
    try:
        return base.decode(value)  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        return f"<{base.__name__} {base.__len__(value)}>"


def _member(value: Any, kind: type) -> Any:
    held = read_member(value, "_value_")
    of = type(held)
    if of is str or of is int or of is float or of is bool:
        return leaf(held)
    return f"<{type_name(kind)}>"


def _text(value: Any, kind: type) -> str:
    """Write a value of the standard library's types; name the type of any other."""
    if issubclass(kind, UUID):
        return uuid_text(value)
    if issubclass(kind, datetime):
        return _moment(value)
    if issubclass(kind, date):
        return date.isoformat(value)
    if kind is time:
        return time.isoformat(value.replace(tzinfo=None))
    if issubclass(kind, timedelta):
        return f"{timedelta.total_seconds(value)} s"
    if issubclass(kind, Decimal):
        return Decimal.__str__(value)
    if kind is complex:
        return complex.__repr__(value)
    if type(kind) is type and _is_printed(kind):
        return str(value)
    return f"<{type_name(kind)}>"


def _moment(value: datetime) -> str:
    exact = exact_datetime(value)
    zone = exact.tzinfo
    zones = sys.modules.get("zoneinfo")
    # Any other time zone is foreign code.
    if zone is None or type(zone) is timezone or (zones and type(zone) is zones.ZoneInfo):
        return exact.isoformat()
    return exact.replace(tzinfo=None).isoformat()


def _is_printed(kind: type) -> bool:
    for module, names in _PRINTED.items():
        loaded = sys.modules.get(module)
        if loaded is not None and any(getattr(loaded, name) is kind for name in names):
            return True
    return False
