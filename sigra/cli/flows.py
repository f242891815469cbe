"""Where a worker's scope goes: followed through the text of a program."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from sigra.cli.sources import Definition, Function, Sources, dotted

_HOLDERS = {"dict", "list", "tuple", "set", "frozenset", "copy", "deepcopy", "partial", "replace"}
"""Calls whose result holds what they were given."""


@dataclass(frozen=True)
class Flow:
    """A worker's scope that reaches a function which decides on authority.

    ``place``: ``file:line`` of the last call. ``way``: the functions in between.
    """

    place: str
    worker: Function
    target: Function
    way: tuple[str, ...]


def find_flows(sources: Sources) -> list[Flow]:
    """Return every flow of a worker's scope into a marked function, by place."""
    found: dict[tuple[str, str, str], Flow] = {}
    for worker in sources.functions.values():
        if worker.worker and worker.positional:
            tracer = _Tracer(sources, worker)
            tracer.enter(worker, frozenset(worker.positional[:1]), ())
            for flow in tracer.flows:
                found.setdefault((flow.place, worker.name, flow.target.name), flow)
    return sorted(found.values(), key=lambda flow: flow.place)


class _Tracer:
    """Follow one worker's scope from call to call; each function once for each set of holders."""

    def __init__(self, sources: Sources, worker: Function) -> None:
        self.sources, self.worker = sources, worker
        self.flows: list[Flow] = []
        self._returns: dict[tuple[str, frozenset[str]], bool] = {}

    def enter(self, function: Function, held: frozenset[str], way: tuple[str, ...]) -> bool:
        """Walk a function some of whose parameters hold the scope; tell if its result does."""
        key = function.name, held
        if key not in self._returns:
            self._returns[key] = False  # what a recursive call is taken to return
            self._returns[key] = _Body(self, function, set(held), way).walk(function.node.body)
        return self._returns[key]


class _Body:
    """One function's statements, and which of its names hold the scope."""

    def __init__(
        self, tracer: _Tracer, function: Function, held: set[str], way: tuple[str, ...]
    ) -> None:
        self._tracer, self._function, self._held, self._way = tracer, function, held, way
        self._returned = False
        self._classes: dict[str, str] = {}
        self._known: dict[tuple[ast.expr, int], bool] = {}

    def walk(self, body: list[ast.stmt]) -> bool:
        """Go through the statements until no further name is found to hold the scope."""
        known = -1
        while known != len(self._held):
            known = len(self._held)
            for statement in body:
                self._statement(statement)
        return self._returned

    def _statement(self, node: ast.stmt) -> None:
        if isinstance(node, Definition):
            self._inner(node)
            return
        if isinstance(node, ast.Return) and node.value is not None and self._holds(node.value):
            self._returned = True
        for target, value in _bindings(node):
            if self._holds(value):
                self._bind(target)
            made = self._tracer.sources.made(self._function, value)
            if made is not None and isinstance(target, ast.Name):
                self._classes[target.id] = made
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                self._statement(child)
            elif isinstance(child, (ast.ExceptHandler, ast.match_case)):
                for inner in child.body:
                    self._statement(inner)
            else:
                self._calls(child)

    def _inner(self, node: Definition) -> None:
        """Walk a function within this one: it sees the names around it, but for its own."""
        name = f"{self._function.name}.{node.name}"
        function = self._tracer.sources.functions.get(name, self._function)
        taken = {arg.arg for arg in ast.walk(node.args) if isinstance(arg, ast.arg)}
        inner = _Body(self._tracer, function, self._held - taken, self._way)
        if inner.walk(node.body):
            self._held.add(node.name)

    def _bind(self, target: ast.expr) -> None:
        if isinstance(target, (ast.Tuple, ast.List)):
            for item in target.elts:
                self._bind(item)
        elif isinstance(target, (ast.Starred, ast.Subscript)):
            self._bind(target.value)
        else:
            name = dotted(target)
            if name is not None:
                self._held.add(name)
                if "." in name:  # whoever gets the object gets what it holds
                    self._held.add(name.partition(".")[0])

    def _holds(self, node: ast.expr) -> bool:
        """Tell whether a value is the scope, or an object in which it can be found."""
        key = node, len(self._held)
        if key not in self._known:  # else calls within calls are followed again and again
            self._known[key] = self._look(node)
        return self._known[key]

    def _look(self, node: ast.expr) -> bool:
        match node:
            case ast.Name(id=name):
                return name in self._held
            case ast.Attribute(attr=attr):
                full = dotted(node)
                return full in self._held or ("scope" in attr and self._holds(node.value))
            case ast.Call():
                return self._call(node)
            case ast.Lambda(body=body):
                return any(self._holds(n) for n in ast.walk(body) if isinstance(n, ast.Name))
            case ast.Compare() | ast.JoinedStr() | ast.UnaryOp():
                return False
            case ast.IfExp(body=body, orelse=orelse):
                return self._holds(body) or self._holds(orelse)
            case ast.Subscript(value=value):
                return self._holds(value)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
                return self._iterates(node.generators) or self._holds(node.elt)
            case ast.DictComp():
                return self._iterates(node.generators) or self._holds(node.value)
        return any(self._holds(n) for n in ast.iter_child_nodes(node) if isinstance(n, ast.expr))

    def _iterates(self, generators: list[ast.comprehension]) -> bool:
        held = [generator for generator in generators if self._holds(generator.iter)]
        for generator in held:
            self._bind(generator.target)
        return bool(held)

    def _calls(self, node: ast.AST) -> None:
        for inner in ast.walk(node):
            if isinstance(inner, ast.expr):
                self._holds(inner)

    def _call(self, node: ast.Call) -> bool:
        """Follow the scope into the function that is called; tell if the result holds it."""
        name = dotted(node.func)
        last = name.rpartition(".")[2] if name else ""
        given = [arg for arg in (*node.args, *(k.value for k in node.keywords)) if self._holds(arg)]
        if last == "partial" and node.args and given:
            for function in self._called(node.args[0]):
                self._follow(function, ast.Call(node.args[0], node.args[1:], node.keywords), node)
        found = [function for function in self._called(node.func) if given or function.owner]
        results = [self._follow(function, node, node) for function in found]
        if any(results):
            return True
        # A class that was given the scope, here or elsewhere, keeps it for what is known.
        return bool(given) and (last in _HOLDERS or last[:1].isupper())

    def _called(self, node: ast.expr) -> Iterator[Function]:
        return self._tracer.sources.called(self._function, node, self._classes)

    def _follow(self, function: Function, call: ast.Call, at: ast.Call) -> bool:
        held = frozenset(self._given_to(function, call))
        if not held:
            return False
        if function.marked:
            place = f"{self._function.module.path}:{at.lineno}"
            self._tracer.flows.append(Flow(place, self._tracer.worker, function, self._way))
            return False
        return self._tracer.enter(function, held, (*self._way, function.name))

    def _given_to(self, function: Function, call: ast.Call) -> Iterator[str]:
        """Yield the parameters through which a call hands the scope over."""
        names, args = function.positional, function.node.args
        if function.owner is not None and not _is_static(function.node):
            if isinstance(call.func, ast.Attribute) and self._holds(call.func.value):
                yield from names[:1]
            names = names[1:]
        rest = [args.vararg.arg] if args.vararg else []
        for number, arg in enumerate(call.args):
            if self._holds(arg):
                many = isinstance(arg, ast.Starred)
                yield from (names[number:] if many else names[number : number + 1]) or rest
        for keyword in call.keywords:
            if self._holds(keyword.value):
                if keyword.arg is None or keyword.arg not in function.parameters:
                    yield from function.parameters if keyword.arg is None else ()
                    yield from [args.kwarg.arg] if args.kwarg else []
                else:
                    yield keyword.arg


def _bindings(node: ast.stmt) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield the pairs of a target and the value that a statement binds to it."""
    match node:
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                yield target, value
        case ast.AnnAssign(target=target, value=ast.expr() as value):
            yield target, value
        case ast.AugAssign(target=target, value=value):
            yield target, value
        case ast.For(target=target, iter=value) | ast.AsyncFor(target=target, iter=value):
            yield target, value
        case ast.With(items=items) | ast.AsyncWith(items=items):
            for item in items:
                if item.optional_vars is not None:
                    yield item.optional_vars, item.context_expr


def _is_static(node: Definition) -> bool:
    return any(dotted(decorator) == "staticmethod" for decorator in node.decorator_list)
