"""Read objects by their exact type: of their own code, only properties run."""

from __future__ import annotations

import gc
from collections import namedtuple
from errno import errorcode
from functools import cached_property
from itertools import islice
from types import GetSetDescriptorType, MappingProxyType, MemberDescriptorType
from typing import Any

from sigra.json import is_unicode, type_qualname

ABSENT: Any = object()
"""Stands for a member that an object does not have."""

# Straight from ``type``: a metaclass may define any of these anew.
mro_of = type.__dict__["__mro__"].__get__
_namespace = type.__dict__["__dict__"].__get__
_module = type.__dict__["__module__"].__get__
_cause, _facts = (BaseException.__dict__[name].__get__ for name in ("__cause__", "__dict__"))

_tuple_getter = type(namedtuple("_One", "member").__dict__["member"])  # noqa: PYI024 - for its type
_KEYS = 10_000
_NAME = 120


def type_name(kind: type) -> str:
    """Return ``module.qualname`` of a type as the type itself holds it, cut to size."""
    name = str.__str__(type_qualname(kind))[:_NAME]
    if issubclass(type(module := _module(kind)), str):
        name = f"{str.__str__(module)[:_NAME]}.{name}"
    return well_formed(name)


def error_name(error: BaseException) -> str:
    """Name an error by its type and, in brackets, its code or the type of what caused it.

    The code is SQLite's, or the system's where the type does not tell it (``ENOSPC``).
    Never by its text, which may hold what was logged.
    """
    inner = error
    for _ in range(3):  # SQLAlchemy's error, its adapter's, the driver's
        inner = inner if (cause := _cause(inner)) is None else cause
    code = _item(_facts(inner), "sqlite_errorname")
    if type(inner) is OSError and type(inner.errno) is int:  # its subclasses name themselves
        code = errorcode.get(inner.errno)
    more = code if type(code) is str else "" if inner is error else type_name(type(inner))
    return type_name(type(error)) + (f" ({more})" if more else "")


def well_formed(text: str) -> str:
    """Replace lone surrogates, which no UTF-8 can carry, by U+FFFD."""
    if text.isascii() or is_unicode(text):
        return text
    # Each becomes three marks, which are made one. Of the ways to do it, this is the fastest.
    marked = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return marked.replace("\ufffd\ufffd\ufffd", "\ufffd")


def mapping_of(value: Any) -> dict[Any, Any] | None:
    """Return the dict that a value is, or that a mapping proxy wraps."""
    if type(value) is MappingProxyType:
        # The proxy does not show what it wraps, and its get() would run that one's methods.
        value = next(iter(gc.get_referents(value)), None)
    return value if issubclass(type(value), dict) else None


def read_member(source: Any, name: str) -> Any:
    """Return a member of a mapping or an object, or ``ABSENT``.

    Slots, properties, cached properties, the instance's ``__dict__``, the fields of a
    named tuple and plain class attributes are read. What only a ``__getattr__`` or
    ``__getitem__`` of the application knows is absent. What a property raises passes
    through.
    """
    if (mapping := mapping_of(source)) is not None:
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
    if (value := _item(attributes, name)) is not ABSENT:
        return value
    if described is cached_property:
        return on_type.func(source)
    if on_type is not ABSENT and _on_type(described, "__get__") is ABSENT:
        return on_type
    # Django's lazy user answers through __getattr__; once loaded it holds the user here.
    inner = ABSENT if name == "_wrapped" else _item(attributes, "_wrapped")
    return ABSENT if inner is ABSENT else read_member(inner, name)


def is_described(source: Any, name: str) -> bool:
    """Tell if an absent member could come from code of its class that ``read_member`` skips."""
    return (found := _on_type(type(source), name)) is not ABSENT and not _is_slot(type(found))


def _is_slot(kind: type) -> bool:
    # By identity: ``in`` would run the == of a metaclass.
    return kind is MemberDescriptorType or kind is GetSetDescriptorType or kind is _tuple_getter


def _on_type(kind: type, name: str) -> Any:
    for cls in mro_of(kind):
        if name in (namespace := _namespace(cls)):
            return namespace[name]
    return ABSENT


def _attributes(source: Any, kind: type) -> dict[Any, Any]:
    getter = _on_type(kind, "__dict__")
    found: Any = getter.__get__(source, kind) if _is_slot(type(getter)) else None
    return found if issubclass(type(found), dict) else {}


def _item(mapping: dict[Any, Any], name: str) -> Any:
    # Not get(): where hashes collide, it asks the stored key's own __eq__.
    for key, value in islice(dict.items(mapping), _KEYS):
        if type(key) is str and key == name:
            return value
    return ABSENT
