"""Which values an expression may give, and which calls keep what they are given."""

from __future__ import annotations

import ast
from functools import cache

from sigra.cli.check.local_names import FunctionDef
from sigra.cli.check.names import dotted

_HOLDERS = {"dict", "list", "tuple", "set", "frozenset", "copy", "deepcopy", "partial", "replace"}
_HOLDERS |= {"cast", "chain", "nullcontext"}
_WRAPPERS = {"sync_to_async", "async_to_sync", "database_sync_to_async"}
_BUILT_IN = {"enumerate", "filter", "iter", "next", "reversed", "sorted", "zip"}
"""What a call of these gives, and of ``_HOLDERS`` by whatever path, holds what it was given."""

FILLERS = {"append", "appendleft", "extend", "insert", "add", "update", "setdefault", "put"}
"""Methods that put what they are given into a list, set, dict or queue."""

GIVERS = {"get", "setdefault", "pop", "popleft", "popitem", "values", "items", "copy"}
"""Methods that give back what was put in."""

_THREAD = ("group", "target", "name", "args", "kwargs")
_STARTERS = {"Thread": _THREAD, "Process": _THREAD, "Timer": ("_", "function", "args", "kwargs")}
"""Classes whose objects call what they are given, by the names of their parameters."""


def choices(node: ast.expr) -> list[ast.expr]:
    """List the values one of which an expression gives: ``a if b else c``, ``sync_to_async(a)``.

    A ``partial(a, b=c)`` is ``a``: what a call of it gets goes to the parameters that ``a`` has.
    """
    match node:
        case ast.IfExp(body=body, orelse=orelse):
            return [body, orelse]
        case ast.BoolOp(values=values):
            return values
        case ast.Call(func=func, args=[wrapped, *given]):
            last = (dotted(func) or "").split(".")[-1]
            return [wrapped] if last in _WRAPPERS or (last == "partial" and not given) else []
    return []


def later(call: ast.Call) -> ast.Call:
    """Return a call as a pool takes it: of ``Thread(target=f, args=(a,))`` it is ``f, *(a,)``.

    Any other class calls nothing.
    """
    last = (dotted(call.func) or "").rpartition(".")[2]
    if not last[:1].isupper():
        return call
    given = dict(zip(_STARTERS.get(last, ()), call.args, strict=False))
    given |= {word.arg: word.value for word in call.keywords if word.arg}
    args = [given[name] for name in ("target", "function") if name in given]
    args += [ast.Starred(given["args"])] if "args" in given else []
    words = [ast.keyword(None, given["kwargs"])] if "kwargs" in given else []
    return ast.Call(call.func, args if last in _STARTERS else [], words)


def keeps(name: str | None) -> bool:
    """Tell whether the result of a call by that name holds what it was given."""
    return name is not None and (name in _BUILT_IN or name.rpartition(".")[2] in _HOLDERS)


def items(node: ast.expr) -> list[ast.expr]:
    """List the items of a tuple or list; none if one is starred."""
    found = node.elts if isinstance(node, (ast.Tuple, ast.List)) else []
    return [] if any(isinstance(item, ast.Starred) for item in found) else found


def names_in(root: ast.expr) -> dict[ast.AST, frozenset[str]]:
    """Map each part of an expression to the names within it."""
    names: dict[ast.AST, frozenset[str]] = {}
    for node in reversed([*ast.walk(root)]):
        own = frozenset((node.id,) if isinstance(node, ast.Name) else ())
        names[node] = own.union(*(names[part] for part in ast.iter_child_nodes(node)))
    return names


@cache
def returned(node: FunctionDef) -> list[ast.expr]:
    """List the values that a function returns by name."""
    values = [inner.value for inner in ast.walk(node) if isinstance(inner, ast.Return)]
    return [one for value in values if value for one in choices(value) or [value] if dotted(one)]
