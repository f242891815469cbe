"""Who a job runs for: ids alone, fit for audit events and for nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, final
from uuid import UUID

from sigra.errors import AuditOnlyScopeError

Id = str | int | UUID
"""What an id may be when it is given; it travels as a string."""

_uuid_int = UUID.__dict__["int"].__get__


class _Sealed:
    """A value that can be neither changed nor asked for more than it has."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        if cls.__base__ is not _Sealed or cls.__module__ != __name__:
            raise TypeError("Identity and AuditScope are final and cannot be subclassed")

    # Hidden from type checkers, which would take them for a license to use any name.
    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: object) -> NoReturn:
            raise AttributeError(f"{type(self).__name__} is immutable: {name!r} cannot be set")

        def __delattr__(self, name: str) -> NoReturn:
            raise AttributeError(f"{type(self).__name__} is immutable: {name!r} cannot be deleted")

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            raise AuditOnlyScopeError(name)


@final
@dataclass(frozen=True, slots=True)
class Identity(_Sealed):
    """The id of a user or an organization, as a string, and nothing else about it.

    Raises ``TypeError`` or ``ValueError`` for what is not an id, as ``AuditScope.build`` does.
    """

    id: str

    def __post_init__(self) -> None:
        if (text := _text("id", self.id)) is None:
            raise TypeError("an Identity must have an id; if there is none, pass None in its place")
        _set_id(self, text)


@final
@dataclass(frozen=True, slots=True, init=False)
class AuditScope(_Sealed):
    """The audit-only scope of a job, rebuilt from its ids without any database read.

    Members: ``user``, ``active_organization`` and ``impersonating_from``, each an
    ``Identity`` or None. Reading any other public attribute raises
    ``AuditOnlyScopeError``: there is no request, session, membership or role here.
    """

    user: Identity | None
    active_organization: Identity | None
    impersonating_from: Identity | None

    def __init__(self) -> None:
        raise TypeError("build a scope with AuditScope.build(actor_id=..., organization_id=...)")

    @staticmethod
    def build(
        *, actor_id: Id | None, organization_id: Id | None, impersonating_from: Id | None = None
    ) -> AuditScope:
        """Build a scope from ids (str, int or UUID, or None if there is none).

        Raises ``TypeError`` for any other type and ``ValueError`` for a blank id.
        """
        return scope_from_ids(
            _text("actor_id", actor_id),
            _text("organization_id", organization_id),
            _text("impersonating_from", impersonating_from),
        )


# What dataclass() writes for a frozen slotted class raises TypeError for an unknown name.
for _sealed in (Identity, AuditScope):
    del _sealed.__setattr__, _sealed.__delattr__

# The slots' own setters: the only way past the sealed __setattr__, and a fast one.
_set_id = Identity.__dict__["id"].__set__
_set_user = AuditScope.__dict__["user"].__set__
_set_organization = AuditScope.__dict__["active_organization"].__set__
_set_impersonator = AuditScope.__dict__["impersonating_from"].__set__
_new = object.__new__


def scope_from_ids(
    actor_id: str | None, organization_id: str | None, impersonating_from: str | None
) -> AuditScope:
    """Build a scope from ids that have been checked already."""
    scope = _new(AuditScope)
    user = organization = impersonator = None
    if actor_id is not None:
        _set_id(user := _new(Identity), actor_id)
    if organization_id is not None:
        _set_id(organization := _new(Identity), organization_id)
    if impersonating_from is not None:
        _set_id(impersonator := _new(Identity), impersonating_from)
    _set_user(scope, user)
    _set_organization(scope, organization)
    _set_impersonator(scope, impersonator)
    return scope


def id_text(value: Any) -> str | None:
    """Return an id as the string that travels, or None where ``value`` cannot be one.

    A str, int (not bool) or UUID can; a blank string or an int beyond 1,024 bits cannot.
    Its exact type decides, and it is read through the base type's slots: no code of a
    subclass or of a proxy runs.
    """
    kind = type(value)
    if issubclass(kind, str):
        text = str.__str__(value)
        return text if text.strip() else None
    if issubclass(kind, int) and kind is not bool:
        return int.__repr__(value) if int.bit_length(value) <= 1024 else None
    if issubclass(kind, UUID):
        with suppress(Exception):  # its number may be absent, or not be one
            return str(UUID(int=int.__int__(_uuid_int(value))))
    return None


def id_fault(value: object) -> str:
    """Say why a value is no id, without showing it."""
    kind = {str: "a blank str", int: "a longer int"}.get(type(value), type(value).__qualname__)
    return f"an id must be a str, an int of at most 1,024 bits, a UUID or None, not {kind}"


def _text(name: str, value: Id | None) -> str | None:
    if (text := id_text(value)) is not None or value is None:
        return text
    if isinstance(value, str):
        raise ValueError(f"{name} is blank; pass None where there is no such id")
    raise TypeError(f"{name}: {id_fault(value)}")


def tenant_args(scope: object) -> dict[str, str | None]:
    """Return the tenant keys for a child job, or for the first job of a request.

    ``scope`` is an ``AuditScope`` or the host's own request scope: an object or a
    mapping with ``user``, ``active_organization`` and perhaps
    ``impersonating_from``, each None or something with an ``id``. The keys are
    ``organization_id`` and ``actor_id``, and ``impersonating_from`` if there is
    one. Raises ``TypeError`` if a member or its id is absent: absent is not None.
    """
    keys = {
        "organization_id": _read_id(scope, "active_organization"),
        "actor_id": _read_id(scope, "user"),
    }
    if (impersonator := _read_id(scope, "impersonating_from", None)) is not None:
        keys["impersonating_from"] = impersonator
    return keys


_ABSENT: Any = object()


def _read(source: object, name: str, default: Any = _ABSENT) -> Any:
    if isinstance(source, Mapping):
        return source.get(name, default)
    return getattr(source, name, default)


def _read_id(scope: object, name: str, default: Any = _ABSENT) -> str | None:
    member = _read(scope, name, default)
    if member is _ABSENT:
        raise TypeError(
            f"the scope ({type(scope).__qualname__}) has no {name!r}, and absent is not None. "
            "If the request has none, set it to None."
        )
    value = member if member is None or isinstance(member, Id) else _read(member, "id")
    if value is _ABSENT:
        raise TypeError(f"the scope's {name!r} ({type(member).__qualname__}) has no 'id'")
    return _text(f"{name}.id", value)
