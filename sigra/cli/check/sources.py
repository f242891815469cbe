"""What a tree of Python files defines, read from their source: none of it is run."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from sigra.cli.check.local_names import FunctionDef, local_names
from sigra.cli.check.modules import Module, Modules
from sigra.cli.check.names import dotted, is_super
from sigra.cli.check.stars import spread
from sigra.cli.check.values import choices

WORKER = frozenset({"sigra.tenant_worker", "sigra.decorators.tenant_worker"})
MARK = frozenset({"sigra.request_scope_only", "sigra.authority.request_scope_only"})
_LONGEST_WAY = 8


@dataclass(eq=False)
class Function:
    """A function of the tree: ``name`` is dotted, ``owner`` the class that it is a method of."""

    name: str
    module: Module
    node: FunctionDef
    owner: str | None
    marked: bool = False
    worker: bool = False

    @property
    def positional(self) -> list[str]:
        """Return the names that a call's positional arguments go to."""
        return [arg.arg for arg in (*self.node.args.posonlyargs, *self.node.args.args)]

    @property
    def bound(self) -> bool:
        """Tell whether a call gives its first parameter the object that it is called on."""
        static = any(dotted(node) == "staticmethod" for node in self.node.decorator_list)
        return self.owner is not None and not static

    @property
    def place(self) -> str:
        """Return where it stands, as ``file:line``."""
        return f"{self.module.path}:{self.node.lineno}"


class Sources:
    """All files below some paths.

    ``unreadable``: those that are not Python, with the reason. ``unknown``: place and name of
    decorators that a star import has brought from outside the paths.
    """

    def __init__(self, paths: list[Path]) -> None:
        self.modules = Modules(paths)
        self.functions: dict[str, Function] = {}
        self.classes: dict[str, tuple[Module, list[ast.expr]]] = {}  # and what they inherit from
        self.unreadable = self.modules.unreadable
        self._local: dict[ast.expr, bool] = {}
        self._searched: set[Module] = set()  # the modules whose local names are known
        for module in self.modules.values():
            self._define(module, module.tree.body, module.name, None)
        brought = spread(self.modules, [*self.functions, *self.classes], WORKER | MARK)
        self.unknown = [(f"{m.path}:{node.lineno}", node.id) for m, node in brought]
        for module in self.modules.values():
            self._alias(module)
        for function in self.functions.values():
            self._decorate(function)
        for module in self.modules.values():
            self._mark_assigned(module)
            self._alias(module)  # again: of several functions, one that is marked

    def resolve(self, module: Module, name: str, *, imported: bool = False) -> str:
        """Follow a dotted name through imports, re-exports too, to where it is defined.

        ``imported``: it is known to come from an import, whatever the module defines.
        """
        first = name.partition(".")[0]
        for begin in module.tried.get(first, ()):
            if (found := self._defined(begin + name[len(first) :])) is not None:
                return found
        own = f"{module.name}.{first}"
        full = f"{module.name}.{name}"
        defined = own in self.functions or own in self.classes
        if first in module.imports and (imported or not defined):
            begins = accumulate(name.split("."), "{}.{}".format)
            *_, known = (begin for begin in begins if begin in module.imports)
            full = module.imports[known] + name[len(known) :]
        return self._defined(full) or full

    def _defined(self, full: str, steps: int = _LONGEST_WAY) -> str | None:
        """Follow re-exports, those in a ``try`` first; None if they lead out of the tree."""
        home, _, last = full.rpartition(".")
        module = self.modules.get(home)
        if module is not None and steps:
            for begin in module.tried.get(last, ()):
                if (found := self._defined(begin, steps - 1)) is not None:
                    return found
        if full in self.functions or full in self.classes or full in WORKER | MARK:
            return full
        target = None if module is None else module.imports.get(last)
        if module is None and home and steps:  # in a module or class that is itself re-exported
            outer = self._defined(home, steps - 1)
            target = f"{outer}.{last}" if outer not in (None, home) else None
        found = self._defined(target, steps - 1) if target is not None and steps else None
        return full if found is None and full in self.modules else found

    def made(self, here: Function, node: ast.expr) -> str | None:
        """Return the class in the tree of which a call makes an object, None for anything else."""
        full = self._meant(here.module, node.func) if isinstance(node, ast.Call) else None
        return full if full in self.classes else None

    def _meant(self, module: Module, node: ast.expr) -> str | None:
        """Resolve a dotted name; None for anything else, and if it begins with a local name."""
        name, imported = dotted(node), self._imports(module, node)
        if name is None or imported is False:
            return None
        return self.resolve(module, name, imported=imported is True)

    def _imports(self, module: Module, node: ast.expr) -> bool | None:
        """Tell if a dotted name begins with a local import; None if its begin is not local."""
        if module not in self._searched:  # only when asked for: few files have flows
            self._searched.add(module)
            self._local |= local_names(module.tree)
        while isinstance(node, ast.Attribute):
            node = node.value
        return self._local.get(node)

    def called(self, here: Function, node: ast.expr, owners: Collection[str]) -> Iterator[Function]:
        """Yield what a call may run; ``owners``: the classes that a method's object may have."""
        name = dotted(node) or ""
        full = self._inner(here, name) or self._meant(here.module, node) or ""
        full += ".__init__" if full in self.classes else ""
        if (function := self._method(full)) is not None:
            yield function
        elif isinstance(node, ast.Attribute):
            own = (above := is_super(node.value)) or dotted(node.value) in ("self", "cls")
            made = here.owner if own else self.made(here, node.value)
            found = (f"{owner}.{node.attr}" for owner in (made, *owners))
            methods = [self._method(full, above=above) for full in found]
            yield from dict.fromkeys(filter(None, methods))
            if not any(methods[:1] if own else methods) and (
                name.partition(".")[0] not in here.module.imports
                or self._imports(here.module, node) is False
                or self._is_variable(self._meant(here.module, node.value) or "")
            ):
                # The source does not tell whose method it is: decide by its name alone.
                for function in self.functions.values():
                    if function.marked and function.owner and function.node.name == node.attr:
                        yield function

    def _is_variable(self, full: str, steps: int = _LONGEST_WAY) -> bool:
        """Tell if a name means a variable of a module of the tree, or an attribute of it."""
        begins = [*accumulate(full.split("."), "{}.{}".format)]
        homes = [number for number, begin in enumerate(begins) if begin in self.modules]
        if not (steps and homes and (inner := begins[homes[-1] + 1 :])):
            return False
        target = self.modules[begins[homes[-1]]].imports.get(inner[0].rpartition(".")[2])
        known = inner[0] in self.classes or inner[0] in self.functions
        if target is None:
            return not known
        return self._is_variable(target + full[len(inner[0]) :], steps - 1)

    def _method(
        self, full: str, steps: int = _LONGEST_WAY, *, above: bool = False
    ) -> Function | None:
        """Return the function of that name; a method may be inherited, and is if ``above``."""
        if not above and (full in self.functions or not steps):
            return self.functions.get(full)
        owner, _, name = full.rpartition(".")
        module, bases = self.classes.get(self._defined(owner) or owner, (None, []))
        if module is None:
            return None
        of = [self.resolve(module, base) for base in map(dotted, bases) if base]
        inherited = (self._method(f"{base}.{name}", steps - 1) for base in of)
        return next(filter(None, inherited), None)

    def _inner(self, here: Function, name: str) -> str | None:
        """Find a function that is defined within this one, or beside it within another."""
        outer = here.name
        while outer != here.module.name and outer:
            if f"{outer}.{name}" in self.functions and outer not in self.classes:
                return f"{outer}.{name}"
            outer = outer.rpartition(".")[0]
        return None

    def _define(self, module: Module, body: list[ast.stmt], prefix: str, owner: str | None) -> None:
        pending = list[ast.AST](body[::-1])  # not by recursion: each "elif" is a level
        while pending:
            node = pending.pop()
            if isinstance(node, ast.ClassDef):
                self.classes[f"{prefix}.{node.name}"] = module, node.bases
                self._define(module, node.body, f"{prefix}.{node.name}", f"{prefix}.{node.name}")
            elif isinstance(node, FunctionDef):
                function = Function(f"{prefix}.{node.name}", module, node, owner)
                self.functions[function.name] = function
                self._define(module, node.body, function.name, None)
            elif isinstance(node, (ast.stmt, ast.excepthandler, ast.match_case)):
                pending += [*ast.iter_child_nodes(node)][::-1]

    def _decorate(self, function: Function) -> None:
        named = {self._decorator(function.module, node) for node in function.node.decorator_list}
        function.worker, function.marked = bool(named & WORKER), bool(named & MARK)

    def _decorator(self, module: Module, node: ast.expr) -> str:
        target = node.func if isinstance(node, ast.Call) else node
        return self.resolve(module, dotted(target) or "?")

    def _alias(self, module: Module) -> None:
        """Take a name to which a module assigns a function or class for it: ``f = g``."""
        for node in [one for one in module.tree.body if isinstance(one, ast.Assign)]:
            given = filter(None, map(dotted, choices(node.value) or [node.value]))
            known = [self.resolve(module, name) for name in given]
            for full in sorted(known, key=lambda f: getattr(self.functions.get(f), "marked", 0)):
                if full in self.functions or full in self.classes or full in WORKER | MARK:
                    module.imports |= {t.id: full for t in node.targets if isinstance(t, ast.Name)}

    def _mark_assigned(self, module: Module) -> None:
        """Mark what a call wraps: ``guarded = request_scope_only(f)``, ``tenant_worker(f)``."""
        for node in ast.walk(module.tree):
            made = self._wrapped(module, node, WORKER)
            if made is not None:
                made.worker = True
            found = self._wrapped(module, getattr(node, "value", None), MARK)
            if found is None or not isinstance(node, ast.Assign):
                continue
            for name in [target.id for target in node.targets if isinstance(target, ast.Name)]:
                full = f"{module.name}.{name}"
                self.functions[full] = replace(found, name=full, marked=True, worker=False)

    def _wrapped(self, module: Module, node: Any, by: Collection[str]) -> Function | None:
        """Return the function that a decorator, or what it gives, is called with."""
        if not (isinstance(node, ast.Call) and node.args):
            return None
        if self._decorator(module, node.func) not in by:
            return None
        if isinstance(node.args[0], ast.Lambda):
            return self._from_lambda(module, node.args[0])
        return self.functions.get(self._meant(module, node.args[0]) or "")

    def _from_lambda(self, module: Module, node: ast.Lambda) -> Function:
        """Take a lambda for a function that returns what it gives."""
        body: list[ast.stmt] = [ast.copy_location(ast.Return(node.body), node)]
        made = ast.FunctionDef(name="<lambda>", args=node.args, body=body, decorator_list=[])
        function = Function(f"{module.name}.<lambda>", module, ast.copy_location(made, node), None)
        return self.functions.setdefault(f"{module.name}.{id(node)}", function)
