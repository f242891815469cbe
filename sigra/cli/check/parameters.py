"""What the parameters of a function are given, by a call or by default."""

from __future__ import annotations

import ast
from collections.abc import Iterator


def defaults(args: ast.arguments) -> dict[str, ast.expr]:
    """Map parameters to their default values."""
    plain = [arg.arg for arg in (*args.posonlyargs, *args.args)]
    found = dict(zip(reversed(plain), reversed(args.defaults), strict=False))
    return found | {a.arg: d for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True) if d}


def passed(args: ast.arguments, call: ast.Call, *, bound: bool) -> Iterator[tuple[str, ast.expr]]:
    """Yield each parameter that a call may give a value, and the value.

    ``bound``: the first one is given the object that it is called on.
    """
    names = [arg.arg for arg in (*args.posonlyargs, *args.args)][bound:]
    rest = [args.vararg.arg] if args.vararg else []
    for number, arg in enumerate(call.args):
        many = isinstance(arg, ast.Starred)
        for name in (names[number:] if many else names[number : number + 1]) or rest:
            yield name, arg
    every = [*names, *(arg.arg for arg in args.kwonlyargs), *rest]
    kwarg = [args.kwarg.arg] if args.kwarg else []
    for keyword in call.keywords:
        known = [name for name in every if keyword.arg in (name, None)]
        for name in known if known and keyword.arg else [*known, *kwarg]:
            yield name, keyword.value
