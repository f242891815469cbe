"""Reading objects by their exact type, so that no code of theirs runs but properties."""

from __future__ import annotations

import gc
from datetime import date, datetime, timezone
from functools import cached_property
from itertools import islice
from types import GetSetDescriptorType, MappingProxyType, MemberDescriptorType
from typing import Any, NamedTuple
from uuid import UUID

ABSENT: Any = object()
"""Stands for a member that an object does not have."""

# Straight from ``type``: a metaclass may have its own idea of any of these.
_mro = type.__dict__["__mro__"].__get__
_namespace = type.__dict__["__dict__"].__get__
_qualname = type.__dict__["__qualname__"].__get__
_module = type.__dict__["__module__"].__get__
_uuid_int = UUID.__dict__["int"].__get__


class _One(NamedTuple):
    member: None


_tuple_getter = type(_One.__dict__["member"])
_KEYS = 10_000
_NAME = 120
_KNOWN = 256
_names: dict[int, tuple[type, str]] = {}


def type_name(kind: type) -> str:
    """Return ``module.qualname`` of a type as the type itself holds it, cut to size."""
    known = _names.get(id(kind))
    if known is not None and known[0] is kind:
        return known[1]
    name = _type_name(kind)
    if len(_names) >= _KNOWN:
        _names.clear()
    _names[id(kind)] = (kind, name)
    return name


def _type_name(kind: type) -> str:
    qualname = str.__str__(_qualname(kind))[:_NAME]
    module = _module(kind)
    if not issubclass(type(module), str):
        return well_formed(qualname)
    return well_formed(f"{str.__str__(module)[:_NAME]}.{qualname}")


def well_formed(text: str) -> str:
    """Replace lone surrogates, which no UTF-8 can carry, by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        # Each comes out as three marks; of all ways to do it this is the fastest by far.
        marked = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        return marked.replace("\ufffd\ufffd\ufffd", "\ufffd")
    return text


def id_of(value: Any) -> str | None:
    """Return a str, int (not bool) or UUID as the text of an id; None for all else.

    A blank string or an int beyond 64 bits is none.
    """
    kind = type(value)
    if kind is str:
        return value if value and not value.isspace() else None
    if kind is bool or kind is type(None):
        return None
    if issubclass(kind, str):
        return id_of(str.__str__(value))
    if issubclass(kind, int):
        return int.__repr__(value) if int.bit_length(value) <= 64 else None
    if issubclass(kind, UUID):
        return uuid_text(value)
    return None


def uuid_text(value: UUID) -> str:
    """Write a UUID, or one of a subclass, from the number in its slot."""
    text = f"{_uuid_int(value):032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def mapping_of(value: Any) -> dict[Any, Any] | None:
    """Return the dict that a value is, or that a mapping proxy stands before."""
    kind = type(value)
    if kind is MappingProxyType:
        # The proxy has no word for what it wraps, and its own get() would ask that.
        value = next(iter(gc.get_referents(value)), None)
        kind = type(value)
    return value if issubclass(kind, dict) else None


def read_member(source: Any, name: str) -> Any:
    """Return a member of a mapping or an object, or ``ABSENT``.

    Read are slots, properties and cached properties, the instance's ``__dict__``, the
    fields of a named tuple and plain class attributes. What only a ``__getattr__`` or
    a ``__getitem__`` of the application could tell is absent. A property's own
    exception passes through.
    """
    mapping = mapping_of(source)
    if mapping is not None:
        return _item(mapping, name)
    kind = type(source)
    on_type = _on_type(kind, name)
    described = type(on_type)
    if described is property:
        return on_type.fget(source)
    if _is_slot(described):
        try:
            return on_type.__get__(source, kind)
        except AttributeError:
            return ABSENT
    attributes = _attributes(source, kind)
    value = ABSENT if attributes is None else _item(attributes, name)
    if value is not ABSENT:
        return value
    if described is cached_property:
        return on_type.func(source)
    if on_type is ABSENT or _on_type(described, "__get__") is not ABSENT:
        return _unwrapped(attributes, name)
    return on_type


def _is_slot(kind: type) -> bool:
    # By identity throughout: an ``in`` would ask the == of a metaclass.
    return kind is MemberDescriptorType or kind is GetSetDescriptorType or kind is _tuple_getter


def _on_type(kind: type, name: str) -> Any:
    for cls in _mro(kind):
        namespace = _namespace(cls)
        if name in namespace:
            return namespace[name]
    return ABSENT


def _attributes(source: Any, kind: type) -> dict[Any, Any] | None:
    for cls in _mro(kind):
        getter = _namespace(cls).get("__dict__")
        if _is_slot(type(getter)):
            found = getter.__get__(source, kind)
            return found if issubclass(type(found), dict) else None
    return None


def _unwrapped(attributes: dict[Any, Any] | None, name: str) -> Any:
    # Django's lazy user answers through __getattr__; once loaded it holds the user here.
    inner = ABSENT if attributes is None or name == "_wrapped" else _item(attributes, "_wrapped")
    return ABSENT if inner is ABSENT or inner is None else read_member(inner, name)


def _item(mapping: dict[Any, Any], name: str) -> Any:
    # Not get(): where hashes collide, it asks the stored key's own __eq__.
    for key, value in islice(dict.items(mapping), _KEYS):
        if type(key) is str and key == name:
            return value
    return ABSENT


_parts: tuple[Any, ...] = (
    *(date.__dict__[name].__get__ for name in ("year", "month", "day")),
    *(datetime.__dict__[name].__get__ for name in ("hour", "minute", "second", "microsecond")),
    datetime.__dict__["tzinfo"].__get__,
)
_fold = datetime.__dict__["fold"].__get__


def exact_datetime(value: datetime) -> datetime:
    """Return a datetime, or one of a subclass, as a plain datetime."""
    if type(value) is datetime:
        return value
    return datetime(*(part(value) for part in _parts), fold=_fold(value))  # noqa: DTZ001


def in_utc(value: datetime) -> datetime | None:
    """Return the moment in UTC, or None where the datetime is naive.

    The time zone's own ``utcoffset`` is asked, and what it raises passes through.
    """
    exact = exact_datetime(value)
    zone = exact.tzinfo
    if zone is timezone.utc:
        return exact
    if zone is None or exact.utcoffset() is None:
        return None
    return exact.astimezone(timezone.utc)
