"""What the names of a function may be at one place of its source."""

from __future__ import annotations

import ast
from collections.abc import Collection
from functools import cache

from sigra.cli.sources import Definition, dotted

SCOPE = object()
"""The fact that a name is a worker's scope, or an object that holds one."""

State = frozenset[tuple[str, object]]
"""Pairs of a name and what it may be: ``SCOPE``, a class (by its name), or what a call runs."""

Put = tuple[ast.expr, set[object]]
"""A target, and what is put into it."""

_HOLDERS = {"dict", "list", "tuple", "set", "frozenset", "copy", "deepcopy", "partial", "replace"}
_HOLDERS |= {"cast", "chain", "nullcontext"}
_WRAPPERS = {"sync_to_async", "async_to_sync", "database_sync_to_async"}
_BUILT_IN = {"enumerate", "filter", "iter", "next", "reversed", "sorted", "zip"}


class Names:
    """The names of one function; ``state`` is what they may be by now."""

    def __init__(self, state: State) -> None:
        self.state = state

    def facts(self, name: str | None) -> set[object]:
        """Return what a name may be, as far as it is known."""
        return {what for known, what in self.state if known == name}

    def forget(self, name: str) -> None:
        """Forget what a name, and each attribute of it, may be."""
        self.state = frozenset(
            fact for fact in self.state if fact[0] != name and not fact[0].startswith(f"{name}.")
        )

    def put(self, target: ast.expr, what: Collection[object]) -> None:
        """Record that a target is one of ``what``, and no longer what it was."""
        match target:
            case ast.Tuple(elts=items) | ast.List(elts=items):
                for item in items:
                    self.put(item, {SCOPE} & {*what})
            case ast.Starred(value=value):
                self.put(value, {SCOPE} & {*what})
            case ast.Subscript(value=value):
                self.keep(value, {SCOPE} & {*what})
            case _ if (name := dotted(target)) is not None:
                self.forget(name)
                self.keep(target, what)

    def turn(self, turns: list[list[Put]]) -> None:
        """Record that the target of a loop is what any of its turns makes of it."""
        before, after = self.state, State()
        for turn in turns:
            self.state = before
            for one, what in turn:
                self.put(one, what)
            after |= self.state
        self.state = after

    def keep(self, target: ast.expr, what: Collection[object]) -> None:
        """Record that a target may also be one of ``what``; its object then holds the scope too."""
        while isinstance(target, ast.Subscript):
            target = target.value
        name = dotted(target)
        if name is not None:
            self.state |= {(name, one) for one in what}
            if "." in name and SCOPE in what:
                self.state |= {(name.partition(".")[0], SCOPE)}


def choices(node: ast.expr) -> list[ast.expr]:
    """List the values of which an expression is one: ``a if b else c``, ``sync_to_async(a)``."""
    match node:
        case ast.IfExp(body=body, orelse=orelse):
            return [body, orelse]
        case ast.BoolOp(values=values):
            return values
        case ast.Call(args=[wrapped, *_]) if (dotted(node.func) or "").split(".")[-1] in _WRAPPERS:
            return [wrapped]
    return []


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
def returned(node: Definition) -> list[ast.expr]:
    """List the values that a function returns by name."""
    values = [inner.value for inner in ast.walk(node) if isinstance(inner, ast.Return)]
    return [one for value in values if value for one in choices(value) or [value] if dotted(one)]
