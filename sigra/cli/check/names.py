"""What the names of a function may be at one place of its source."""

from __future__ import annotations

import ast
from collections.abc import Collection

from sigra.cli.check.state import State, root_of

SCOPE = object()
"""What a name may be: a worker's scope, or an object that holds one.

It may also be a class (by its name), or what a call runs.
"""

Put = tuple[ast.expr, set[object]]
"""A target, and what is put into it."""


class Names:
    """The names of one function; ``state`` is what they may be by now."""

    def __init__(self, state: State) -> None:
        self.state = state

    def facts(self, name: str | None) -> set[object]:
        """Return what a name may be, as far as it is known."""
        return set() if name is None else self.state.of(name)

    def forget(self, name: str) -> None:
        """Forget what a name, and each attribute of it, may be."""
        self.state = self.state.forget(name)

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
            self.state |= State((name, one) for one in what)
            if "." in name and SCOPE in what:
                self.state |= State({(root_of(name), SCOPE)})


def dotted(node: ast.expr) -> str | None:
    """Return ``a.b.c`` for names and attributes of names, None for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return None if inner is None else f"{inner}.{node.attr}"
    return None


def is_super(node: ast.expr) -> bool:
    """Tell whether a value is the object itself, as the class above sees it: ``super()``."""
    return isinstance(node, ast.Call) and dotted(node.func) == "super"
