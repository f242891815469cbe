"""What ``from module import *`` brings into a file, as far as the sources tell."""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

import sigra

if TYPE_CHECKING:
    from sigra.cli.check.modules import Module


def spread(
    modules: Mapping[str, Module], defined: Collection[str], ours: Collection[str]
) -> Iterator[tuple[Module, ast.Name]]:
    """Give each module the names that its star imports bring, from module to module.

    ``defined``: the functions and classes of the tree. ``ours``: the decorators that flows
    begin and end with. What is spelt like one of these, and can only have come by the star of
    a module outside the tree, is taken for it. Yields the other decorators that can only
    have come so: behind each may be a worker.
    """
    offered = {name: {*module.imports} for name, module in modules.items()}
    offered.setdefault("sigra", set()).update(sigra.__all__)
    for full in (*defined, *ours):
        home, _, name = full.rpartition(".")
        offered.setdefault(home, set()).add(name)
    opaque: set[str] = set()
    known = -1
    while known != sum(map(len, offered.values())) + len(opaque):
        known = sum(map(len, offered.values())) + len(opaque)
        for module in modules.values():
            for home in module.stars:
                for name in offered.get(home, set()) - module.imports.keys():
                    module.imports[name] = f"{home}.{name}"
                offered[module.name] |= module.imports.keys()
                if home in opaque or (home not in offered and _is_foreign(home)):
                    opaque.add(module.name)
    public = {full.rpartition(".")[2]: full for full in ours if full.count(".") == 1}
    for module in (modules[name] for name in sorted(opaque)):
        given = _given(module)
        module.imports |= {name: full for name, full in public.items() if name not in given}
        given |= public.keys()
        yield from ((module, node) for node in _decorators(module) if node.id not in given)


def _is_foreign(home: str) -> bool:
    top = home.partition(".")[0]
    return top != "sigra" and top not in sys.stdlib_module_names


def _given(module: Module) -> set[str]:
    """Return the names to which something in a file, or Python itself, gives a value."""
    given = {*vars(builtins), *module.imports}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            given.add(node.id)
        elif isinstance(node, ast.arg):
            given.add(node.arg)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            given.add(node.name)
    return given


def _decorators(module: Module) -> Iterator[ast.Name]:
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for decorator in node.decorator_list:
                target = decorator.func if isinstance(decorator, ast.Call) else decorator
                while isinstance(target, ast.Attribute):
                    target = target.value
                if isinstance(target, ast.Name):
                    yield target
