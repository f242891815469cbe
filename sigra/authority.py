"""The fence around a host's authorization functions: no worker's scope gets in."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MappingView
from gc import get_referents
from typing import Any, ParamSpec, TypeVar, cast
from uuid import UUID
from weakref import ReferenceType

from sigra.errors import AuditOnlyScopeError
from sigra.scope import AuditScope, Identity

P = ParamSpec("P")
R = TypeVar("R")

_LAYERS = 9  # the arguments, and eight below them


def request_scope_only(function: Callable[P, R], /) -> Callable[P, R]:
    """Refuse a worker's scope in any argument of a host's authorization function.

    For sync and async functions. If an argument is an ``AuditScope`` or holds one, the call raises
    ``AuditOnlyScopeError`` and the function does not run.

    The search is 8 levels deep. It opens lists, tuples, sets, dicts (keys and values), attributes
    of any object and of its class, and what a function, generator, coroutine, future, exception
    or weak reference holds. It does not see what a property or ``__getattr__`` would make; of
    SQLAlchemy's own objects it opens only lists and dicts.
    """
    if isinstance(function, (staticmethod, classmethod)):
        return cast("Callable[P, R]", type(function)(request_scope_only(function.__func__)))
    if not callable(function):
        raise TypeError(f"@request_scope_only is for functions, not {type(function).__qualname__}")
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def guarded_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            _refuse_scope(function, *args, *kwargs.values())
            return await function(*args, **kwargs)

        return guarded_async  # type: ignore[return-value]

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        _refuse_scope(function, *args, *kwargs.values())
        return function(*args, **kwargs)

    return guarded


_OPENED = (list, tuple, set, frozenset, deque, dict, types.MethodType, functools.partial,
           BaseException, MappingView, types.CellType, types.GeneratorType, types.CoroutineType,
           types.AsyncGeneratorType, types.BuiltinMethodType, types.MethodWrapperType)  # fmt: skip
"""Types whose content the interpreter lists, so that no ``__iter__`` of a subclass is run."""

_BARE = frozenset({list, tuple, set, frozenset, dict})
_PYDANTIC = frozenset({"__pydantic_extra__", "__pydantic_private__"})
_LEAVES = frozenset({str, int, float, bool, bytes, types.NoneType, complex, UUID, Identity})


def _refuse_scope(function: Callable[..., Any], *layer: Any) -> None:
    """Search breadth first; each object once, so that cycles and sharing cost nothing."""
    seen: dict[int, Any] = {}  # keeps the objects alive, so that no id is used again
    for _ in range(_LAYERS):
        inner: list[Any] = []
        for value in layer:
            if type(value) in _LEAVES or id(value) in seen:
                continue
            seen[id(value)] = value
            is_scope = False
            with contextlib.suppress(Exception):  # its __class__ may be a property
                is_scope = isinstance(value, AuditScope)
            if is_scope:
                name = getattr(function, "__qualname__", repr(function))
                reason = f"{name}() decides on authority and was given a worker's scope"
                raise AuditOnlyScopeError(name, reason)
            # What cannot be read, such as a lazy object that fails to load, must not hide the rest.
            for part in (_items, _attributes):
                with contextlib.suppress(Exception):
                    inner.extend(part(value))
        layer = tuple(inner)


def _items(value: Any) -> Iterator[Any]:
    """Yield what an object holds beside its attributes: items, keys, captured variables."""
    if isinstance(value, _OPENED):
        yield from get_referents(value)
    elif isinstance(value, Mapping):
        yield from (*value.keys(), *value.values())
    elif isinstance(value, asyncio.Future):
        yield from (value._result, value._exception)  # type: ignore[attr-defined]
    elif isinstance(value, ReferenceType):
        yield value()
    elif isinstance(value, types.FunctionType):
        held = *(value.__closure__ or ()), value.__defaults__, value.__kwdefaults__
        yield from get_referents(*held)


def _attributes(value: Any) -> Iterator[Any]:
    # SQLAlchemy's own objects lead from any model to every table, and never to a scope.
    bare = type(value) in _BARE or str(type(value).__module__).startswith("sqlalchemy.")
    if bare or issubclass(type(value), (type, types.ModuleType)):
        return
    for read in (object.__getattribute__, getattr):  # the class may hide it, or be a proxy
        with contextlib.suppress(Exception):
            yield from read(value, "__dict__").values()
    for cls in type(value).__mro__[:-1]:
        members = cls.__dict__.values()
        if AuditScope in map(type, members):
            yield from members
        # Through descriptors, because a name such as __scope is mangled. The members of a type
        # without __slots__ are the interpreter's own, such as a function's globals.
        for member in members if "__slots__" in cls.__dict__ else ():
            if isinstance(member, types.MemberDescriptorType):
                with contextlib.suppress(AttributeError):  # never set
                    held = member.__get__(value)
                    # Pydantic keeps extra and private attributes in dicts of their own.
                    yield from held.values() if member.__name__ in _PYDANTIC else (held,)
