"""How a job's args reach a function: worked out from its signature, once."""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from sigra.errors import InvalidArgsError
from sigra.scope import AuditScope, id_fault, id_text

TENANT_KEYS = ("organization_id", "actor_id")
"""Keys that must be present in a tenant worker's args, in the order errors name them."""

IMPERSONATOR_KEY = "impersonating_from"
ID_KEYS = (*TENANT_KEYS, IMPERSONATOR_KEY)
_INJECTED = ("args", "job")
_NOT_A_SCOPE = ("self", "cls", *_INJECTED, *ID_KEYS)
_SCOPE = re.compile(r"\b(AuditScope|Any)\b")
# The arguments of a generic type: a list[AuditScope] is no scope. Not those of Optional, Union and
# Annotated, which stand for one of their arguments.
_ARGUMENTS = re.compile(r"(?<!Optional)(?<!Union)(?<!Annotated)\[(\[[^][]*\]|[^][])*\]")

AS_WRITTEN: dict[str, Any] = {"annotation_format": 4} if sys.version_info >= (3, 14) else {}
"""For ``inspect.signature``: leaves annotations as text (``annotationlib.Format.STRING``). From
Python 3.14 on it evaluates them otherwise, and one may be a name that only type checkers import."""

Invoke = Callable[[Any, Mapping[str, Any], Any], Any]
"""Call the function with (scope, args, running attempt)."""


@dataclass(frozen=True, slots=True, eq=False)
class Binding:
    """What a function takes from a job. ``invoke`` calls it; ``check`` refuses bad args."""

    invoke: Invoke
    required: tuple[str, ...]
    reserved: set[str]
    allowed: set[str] | None
    """The keys that it accepts; None if it accepts any (``args`` or ``**rest``)."""

    def check(self, args: Mapping[str, Any], worker: str | None = None) -> None:
        """Raise ``InvalidArgsError`` for args (str keys) that the function cannot take."""
        if missing := [name for name in self.required if name not in args]:
            reason = "the function needs it, and the args lack it"
            raise InvalidArgsError(f"$.{missing[0]}", reason, worker)
        for name in args:
            if name in self.reserved:
                reason = "Sigra itself passes the parameter of this name; rename the key"
                raise InvalidArgsError(f"$.{name}", reason, worker)
            if self.allowed is not None and name not in self.allowed:
                # A key may hold data: it is shown only if it could be the name of a parameter.
                path = f"$.{name}" if name.isidentifier() and len(name) <= 64 else "$[...]"
                reason = "the function has no such parameter; add one, or take 'args' or **rest"
                raise InvalidArgsError(path, reason, worker)


def text_ids(args: Mapping[str, Any], worker: str | None) -> dict[str, str | None]:
    """Return the ids in args as text; raise ``InvalidArgsError`` for a value that is not an id."""
    ids = {key: id_text(args[key]) for key in ID_KEYS if key in args}
    for key, text in ids.items():
        if text is None and args[key] is not None:
            raise InvalidArgsError(f"$.{key}", id_fault(args[key]), worker)
    return ids


def bind(function: Callable[..., Any], *, tenant: bool) -> Binding:
    """Work out how args reach ``function``; raise ``TypeError`` if it cannot be a worker."""
    where = describe(function)
    parameters = _parameters(function, where)
    scope_names = [_scope_parameter(function, where, parameters)] if tenant else []
    parameters = parameters[len(scope_names) :]
    for parameter in parameters:
        _refuse_kind(function, where, parameter)
    single = [p for p in parameters if p.kind is not Parameter.VAR_KEYWORD]
    has_rest = len(single) < len(parameters)
    injected = [p.name for p in single if p.name in _INJECTED]
    named = [p for p in single if p.name not in _INJECTED]
    names = {p.name for p in named}.union(ID_KEYS if tenant else ())
    return Binding(
        invoke=_invoke(function, tenant, named, injected, names if has_rest else None),
        required=tuple(p.name for p in named if p.default is Parameter.empty),
        reserved={*injected, *scope_names},
        allowed=None if has_rest or "args" in injected else names,
    )


def _invoke(
    function: Callable[..., Any], tenant: bool, named: list[Parameter], injected: list[str],
    bound: set[str] | None,
) -> Invoke:  # fmt: skip
    """Build the call. ``bound``: the keys that ``**rest`` does not get; None without ``**rest``."""
    if tenant and injected == ["args"] and not named and bound is None:
        return lambda scope, args, _: function(scope, args=args)
    names = [p.name for p in named]
    with_args, with_job = "args" in injected, "job" in injected

    def invoke(scope: Any, args: Mapping[str, Any], attempt: Any) -> Any:
        # What the args lack is left out: the function itself has the default.
        given = {name: args[name] for name in names if name in args}
        if with_args:
            given["args"] = args
        if with_job:
            given["job"] = attempt.info
        if bound is not None:
            given.update((key, args[key]) for key in args if key not in bound)
        return function(scope, **given) if tenant else function(**given)

    return invoke


def _parameters(function: Callable[..., Any], where: str) -> list[Parameter]:
    if isinstance(function, type):
        raise TypeError(f"{where} is a class; a worker is a plain function")
    kind: Any = type(function)
    if not (callable(function) and hasattr(function, "__qualname__") and kind.__weakrefoffset__):
        cure = "make a method a @staticmethod" if kind is classmethod else "decorate a def"
        what = f"the {kind.__name__} {where}; {cure}, and pass settings by keyword"
        raise TypeError(f"a worker is a plain function (def or async def), not {what}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{where} is a generator; a worker runs once and returns its outcome")
    try:
        return list(inspect.signature(function, **AS_WRITTEN).parameters.values())
    except ValueError:
        raise TypeError(f"{where} has no readable signature; wrap it in a def") from None


def _scope_parameter(function: Callable[..., Any], where: str, parameters: list[Parameter]) -> str:
    first = parameters[0] if parameters else None
    if first is None or first.kind not in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD):
        raise TypeError(
            f"{where} has no positional parameter for the scope; write it as "
            "(scope, ...), or use @worker if the job is not a tenant's"
        )
    if first.name in _NOT_A_SCOPE:
        raise TypeError(
            f"the first parameter of {where} is {first.name!r}, but it receives the scope: put "
            "'scope' first, and make a method a @staticmethod"
        )
    if first.annotation is not Parameter.empty and not _takes_scope(function, first.annotation):
        raise TypeError(
            f"the first parameter of {where} is annotated {first.annotation!r}, but it receives "
            "a sigra.AuditScope: annotate it so, or leave the annotation out"
        )
    return first.name


def _refuse_kind(function: Callable[..., Any], where: str, parameter: Parameter) -> None:
    if parameter.kind is Parameter.VAR_POSITIONAL:
        raise TypeError(f"{where} takes *{parameter.name}, but args are bound by name: remove it")
    if parameter.kind is Parameter.POSITIONAL_ONLY:
        raise TypeError(f"{where} has {parameter.name!r} positional-only: move it after the '/'")
    noted = parameter.annotation if parameter.default is Parameter.empty else ""
    if "AuditScope" in str(getattr(noted, "__args__", noted)) and _takes_scope(function, noted):
        raise TypeError(f"{where}: put the scope first, and use @tenant_worker: only it passes one")
    if parameter.name in ("self", "cls") and parameter.default is Parameter.empty:
        raise TypeError(f"{where} takes {parameter.name!r}; make a method a @staticmethod")


def _takes_scope(function: Callable[..., Any], annotation: Any) -> bool:
    annotation = getattr(annotation, "__forward_arg__", annotation)
    try:
        if isinstance(annotation, str):
            namespace = getattr(inspect.unwrap(function), "__globals__", {})
            return _takes_scope(function, eval(annotation, namespace))  # noqa: S307
        if hasattr(annotation, "__value__"):  # what a ``type`` statement names
            return _takes_scope(function, annotation.__value__)
    except Exception:
        # A name that only type checkers import: judge by what is written, if that can be seen.
        return type(annotation) is not str or bool(_SCOPE.search(_ARGUMENTS.sub("", annotation)))
    origin, members = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Annotated, typing.Union, types.UnionType):
        members = members[:1] if origin is typing.Annotated else members
        return any(_takes_scope(function, member) for member in members)
    return annotation is Any or annotation is AuditScope


def describe(function: Any) -> str:
    """Say which function this is and where, as ``name (file:line)``."""
    name = getattr(function, "__qualname__", None) or repr(type(function))
    code = getattr(function, "__code__", None)
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code is not None else str(name)
