"""What an ``audit_schema`` takes of an event, and how one of its records is made."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Annotated, Any, NewType, Union, get_origin

from sigra.audit.event import EVENT_FIELDS
from sigra.audit.read import ABSENT
from sigra.binding import AS_WRITTEN
from sigra.frozen import thaw
from sigra.json import type_qualname

Fields = tuple[tuple[str, str], ...]
"""Pairs of an event's field and the keyword under which a record type takes it."""

_plain_callables = (type, FunctionType, MethodType, BuiltinFunctionType, NewType, partial)

_LIMIT = 256
# Keyed by id: a hash could run code of a metaclass. The schema is kept, so that no other object can
# get its id.
_known: dict[int, tuple[Any, Fields]] = {}


def schema_fields(schema: Any) -> Fields:
    """Return which fields of an event the record type takes, and by which keywords.

    Looked for once, in the declaration of the type: the fields of a dataclass, an attrs,
    pydantic or msgspec class, the columns of a mapped class, the concrete fields of a Django
    model, the keys of a TypedDict; otherwise the parameters of the call. Raises ``TypeError``
    if there are none.
    """
    if (known := _known.get(id(schema))) is not None:
        return known[1]
    bare = schema.__origin__ if get_origin(schema) is Annotated else schema
    makes = callable(bare) and bare is not Any and get_origin(bare) is not Union
    if not makes or inspect.iscoroutinefunction(_called(bare)):
        kind = "an async one" if makes else type_qualname(type(bare))
        raise TypeError(
            f"audit_schema must be a record type or a plain function, not {kind}. "
            "Pass sigra.AuditEvent, or a class of your own with some of its fields."
        )
    # Of the type itself, without its parameters.
    if not (fields := _matched(_declared(record := get_origin(bare) or bare))):
        name = type_qualname(record if issubclass(type(record), type) else type(record))
        raise TypeError(
            f"audit_schema {name} declares none of an event's fields: {', '.join(EVENT_FIELDS)}. "
            "Give it the ones it should hold (metadata may be called metadata_)."
        )
    if len(_known) >= _LIMIT:
        _known.clear()
    _known[id(schema)] = (schema, fields)
    return fields


def check_schema(schema: Any) -> Any:
    """Return a schema, or None; raise ``TypeError`` for what could take nothing of an event."""
    if schema is not None:
        schema_fields(schema)
    return schema


def build_record(schema: Any, event: Any) -> Any:
    """Make a record of the event: the event itself if the schema is its own type.

    Its metadata is a copy. Whatever the record type raises passes through.
    """
    if schema is type(event):
        return event
    fields = schema_fields(schema)
    return schema(**thaw({keyword: getattr(event, field) for field, keyword in fields}))


def _matched(declared: dict[str, str]) -> Fields:
    """Keep what is a field of an event; ``metadata_`` stands in where ``metadata`` cannot be."""
    if "metadata_" in declared:
        declared = {"metadata": declared["metadata_"], **declared}
    return tuple((field, declared[field]) for field in EVENT_FIELDS if field in declared)


def _declared(schema: Any) -> dict[str, str]:
    """Map the names that a record type declares to the keywords that its call takes."""
    for marker, read in _KINDS if issubclass(type(schema), type) else ():
        declaration = _attribute(schema, marker)
        if declaration is not ABSENT and (names := read(schema, declaration)) is not None:
            return names
    return _parameters(schema)


def _attribute(schema: type, name: str) -> Any:
    # Not getattr: a metaclass of the application may answer for names that the class does not have.
    try:
        return type.__getattribute__(schema, name)
    except AttributeError:
        return ABSENT


def _columns(schema: type, mapper: Any) -> dict[str, str] | None:
    # A mapped dataclass has an __init__ of its own, which may leave columns out. mapper.columns,
    # unlike mapper.attrs, does not yet resolve relationships to classes that are still to come.
    return _parameters(schema, mapper.columns.keys())


def _model_columns(_: type, options: Any) -> dict[str, str] | None:
    if (fields := getattr(options, "concrete_fields", None)) is None:
        return None
    # A foreign key is also taken by the column that holds its id.
    return _by_name([*(field.attname for field in fields), *(field.name for field in fields)])


def _attrs_fields(_: type, attributes: Any) -> dict[str, str] | None:
    names = {attribute.name: attribute.alias for attribute in attributes if attribute.init}
    return names | _by_name(names.values())


def _model_fields(schema: type, fields: Any) -> dict[str, str] | None:
    config = _attribute(schema, "model_config")  # a pydantic dataclass has the other one
    if config is ABSENT:
        config = _attribute(schema, "__pydantic_config__")
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    names, aliases = {}, {}
    for name, field in fields.items():
        if getattr(field, "init", None) is not False:
            given = _aliases(field)
            names[name] = name if by_name or not given else given[0]
            aliases.update(dict.fromkeys(given, names[name]))
    return aliases | names


def _aliases(field: Any) -> list[str]:
    """Return the keywords, other than its own name, by which a pydantic field is given."""
    alias = field.validation_alias
    return [choice for choice in getattr(alias, "choices", (alias,)) if isinstance(choice, str)]


def _typed_keys(of: Any, _: Any) -> dict[str, str] | None:
    return _by_name(of.__required_keys__ | of.__optional_keys__) if dict in of.__mro__ else None


_KINDS = (
    ("__mapper__", _columns),
    ("__attrs_attrs__", _attrs_fields),
    ("__pydantic_fields__", _model_fields),
    ("_meta", _model_columns),
    ("__total__", _typed_keys),
)


def _by_name(names: Iterable[str]) -> dict[str, str]:
    """Map names to themselves: each is also the keyword."""
    return {name: name for name in names}


def _parameters(schema: Any, if_any: Iterable[str] = EVENT_FIELDS) -> dict[str, str]:
    """Return the keywords of a call: ``if_any`` if it takes any, none if it has no signature."""
    try:
        taken = inspect.signature(_called(schema), **AS_WRITTEN).parameters.values()
    except (TypeError, ValueError):
        return _by_name(if_any if schema is dict else ())
    if any(p.kind is p.VAR_KEYWORD for p in taken):
        return _by_name(if_any)
    return _by_name(p.name for p in taken if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))


def _called(schema: Any) -> Any:
    """Return what a call of an object runs, read from its type, not from the object."""
    kind = type(schema)
    if issubclass(kind, _plain_callables):
        return schema
    # By wrapt, whose proxy takes any call. That of functools.wraps says nothing of an instance.
    proxied = inspect.isdatadescriptor(_attribute(kind, "__wrapped__"))
    return _attribute(kind, "__wrapped__" if proxied else "__call__").__get__(schema, kind)
