"""Follow a function's expressions, and tell which are a worker's scope or hold it."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator
from itertools import chain, product
from typing import TYPE_CHECKING

from sigra.cli.check.local_names import FunctionDef
from sigra.cli.check.names import SCOPE, Names, Put, dotted, is_super
from sigra.cli.check.parameters import defaults, passed
from sigra.cli.check.sources import Function
from sigra.cli.check.state import State
from sigra.cli.check.values import FILLERS, GIVERS, choices, items, keeps, later, names_in, returned

if TYPE_CHECKING:
    from sigra.cli.check.flows import Tracer

_OWN = {"user", "active_organization", "impersonating_from"}
"""What a scope has: only ids."""


class Expressions(Names):
    """The expressions of one function, each followed with what the names may be at its place."""

    def __init__(
        self, tracer: Tracer, function: Function, state: State, way: tuple[str, ...]
    ) -> None:
        super().__init__(state)
        self._tracer, self._function, self._way = tracer, function, way
        self._known: dict[tuple[ast.expr, State], tuple[bool, State]] = {}
        self._names: dict[ast.AST, frozenset[str]] = {}  # within the bodies of lambdas

    def holds(self, node: ast.expr) -> bool:
        """Tell whether a value is the scope or holds it, and follow the calls within."""
        key = node, self.state
        if key not in self._known:  # else calls within calls are followed again and again
            self._known[key] = False, self.state  # what a recursive call is assumed to return
            self._known[key] = self._look(node), self.state
        held, self.state = self._known[key]
        return held

    def what(self, value: ast.expr) -> set[object]:
        """Return all that is known of a value."""
        value = ast.Name("self") if is_super(value) else value
        what: set[object] = {SCOPE} if self.holds(value) else set()
        if several := choices(value):
            return what.union(*map(self.what, several))
        what |= {self._tracer.sources.made(self._function, value)} - {None}
        return what | self.facts(dotted(value)) | {*self._called(value)}

    def assign(self, target: ast.expr, value: ast.expr) -> None:
        """Record that a target is what a value is, and no longer what it was."""
        for one, what in self._each(target, value):
            self.put(one, what)

    def turns(self, target: ast.expr, through: ast.expr) -> list[list[Put]]:
        """List what each turn of a loop makes of its target; of one that is not told, one turn."""
        held = self.holds(through)
        values = through.elts if isinstance(through, ast.Set) else items(through)
        return [self._each(target, value) for value in values] or [
            [(target, {SCOPE} if held else set())]
        ]

    def _each(self, target: ast.expr, value: ast.expr) -> list[Put]:
        """List what is assigned to a target, or to each of those of which it is made."""
        targets, values = items(target), items(value)
        if values and len(targets) == len(values):
            return [(one, self.what(v)) for one, v in zip(targets, values, strict=True)]
        return [(target, self.what(value))]

    def keep(self, target: ast.expr, what: Collection[object]) -> None:
        """Note, besides, in which attribute an object keeps the scope, whatever its name."""
        super().keep(target, what)
        if isinstance(target, ast.Attribute) and SCOPE in what and target.attr not in _OWN:
            self._tracer.kept.add(target.attr)

    def closure(self, node: FunctionDef, given: State, *way: str) -> bool:
        """Follow a function within this one: it sees the names around it, but for its own."""
        before = self.state
        self._enter(node.args, given)
        inside, self.state = self.state, before
        held, left = self._tracer.closure(self._function, node, inside, (*self._way, *way))
        shared = {n for one in ast.walk(node) if isinstance(one, ast.Nonlocal) for n in one.names}
        self.state |= left.only(shared)
        return held

    def _enter(self, args: ast.arguments, given: State) -> None:
        """Record that parameters of an inner function are what they are given, or their default."""
        values = {name: self.what(default) for name, default in defaults(args).items()}
        for arg in (*args.posonlyargs, *args.args, args.vararg, *args.kwonlyargs, args.kwarg):
            if arg is not None:
                self.put(ast.Name(arg.arg), values.get(arg.arg, set()) | given.of(arg.arg))

    def _look(self, node: ast.expr) -> bool:
        match node:
            case ast.Name(id=name):
                return self._name(name)
            case ast.Attribute(value=value, attr=attr):
                inside = self.holds(value) and ("scope" in attr or attr in self._tracer.kept)
                return inside or SCOPE in self.facts(dotted(node))
            case ast.Call():
                return self._call(node)
            case ast.NamedExpr(target=target, value=value):
                what = self.what(value)
                self.put(target, what)
                return SCOPE in what
            case ast.Lambda():
                return self._lambda(node, State())
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
                return self._comprehension(node.generators, [node.elt])
            case ast.DictComp():
                return self._comprehension(node.generators, [node.key, node.value])
        return self._parts(node)

    def _name(self, name: str) -> bool:
        what = self.facts(name)
        for inner in what:
            if isinstance(inner, FunctionDef):  # the names around it may be others by now
                self.closure(inner, State())
        return SCOPE in what

    def _parts(self, node: ast.expr) -> bool:
        """Follow the values that another is made of; tell if it holds what one of them holds."""
        match node:
            case ast.IfExp(test=test, body=body, orelse=orelse):
                self.holds(test)
                return self._either([body], [orelse])
            case ast.BoolOp(values=[first, *others]):
                return self._any([first]) | self._either([], others)
            case ast.Subscript(value=value, slice=index):
                held = self.holds(value)
                self.holds(index)
                return held
        held = self._any(n for n in ast.iter_child_nodes(node) if isinstance(n, ast.expr))
        return held and not isinstance(node, (ast.Compare, ast.JoinedStr, ast.UnaryOp))

    def _any(self, nodes: Iterable[ast.expr]) -> bool:
        """Follow each of the values, not only those up to the first that holds the scope."""
        return True in [self.holds(node) for node in nodes]

    def _either(self, *ways: list[ast.expr]) -> bool:
        """Follow each of several ways; afterwards names may be what any of them made them."""
        before, after, held = self.state, State(), False
        for values in ways:
            self.state = before
            held |= self._any(values)
            after |= self.state
        self.state = after
        return held

    def _comprehension(self, generators: list[ast.comprehension], parts: list[ast.expr]) -> bool:
        before, own = self.state, set[str]()
        for generator in generators:
            self.turn(self.turns(generator.target, generator.iter))
            own |= {n.id for n in ast.walk(generator.target) if isinstance(n, ast.Name)}
            for test in generator.ifs:
                self.holds(test)
        held = self._any(parts)
        self.state = before | self.state.without(own)
        return held

    def _lambda(self, node: ast.Lambda, given: State) -> bool:
        """Follow a lambda; tell if its result holds the scope, or what it keeps of its place."""
        before, caller = self.state, self._function
        self._function = self._tracer.homes.setdefault(node, caller)  # it is first met at home
        self._enter(node.args, given)
        if node.body not in self._names:
            self._names |= names_in(node.body)
        names = self._names[node.body]
        result = self.holds(node.body) or any(SCOPE in self.facts(name) for name in names)
        self.state, self._function = before, caller
        return result

    def _call(self, node: ast.Call) -> bool:
        """Follow the scope into the function that is called; tell if the result holds it."""
        name = dotted(node.func)
        last = name.rpartition(".")[2] if name else ""
        result = self.holds(node.func) and any(isinstance(f, FunctionDef) for f in self.facts(name))
        given = self._any((*node.args, *(keyword.value for keyword in node.keywords)))
        found = [*self._called(node.func)]
        for called in found:
            result |= self._follow(called, node, node)
        if given and not found:
            self._hand_over(node, later(node))
        if not found and isinstance(node.func, ast.Attribute) and node.func.attr in GIVERS:
            result |= self.holds(node.func.value)
        # A class that was given the scope, here or elsewhere, keeps it for what is known.
        return result or (given and (keeps(name) or last[:1].isupper()))

    def _hand_over(self, node: ast.Call, call: ast.Call) -> None:
        """Assume that what is not in the tree (``map``, a pool, a list) calls or keeps its args."""
        if isinstance(node.func, ast.Attribute) and node.func.attr in FILLERS:
            self.keep(node.func.value, {SCOPE})
        for number, arg in enumerate(call.args):
            for called in self._called(arg):
                self._follow(called, ast.Call(arg, call.args[number + 1 :], call.keywords), node)

    def _called(self, node: ast.expr) -> Iterator[Function | ast.Lambda]:
        """Yield what a call of a value may run."""
        if isinstance(node, ast.Lambda):
            yield node
        elif several := choices(node):
            yield from chain.from_iterable(map(self._called, several))
        elif isinstance(node, ast.Call):
            for maker in self._called(node.func):
                if isinstance(maker, Function):
                    for value in returned(maker.node):
                        yield from self._tracer.sources.called(maker, value, ())
        known = [f for f in self.facts(dotted(node)) if isinstance(f, (Function, ast.Lambda))]
        yield from sorted(known, key=lambda one: getattr(one, "place", ""))
        of = dotted(node.value) if isinstance(node, ast.Attribute) else None
        made = sorted(fact for fact in self.facts(of) if isinstance(fact, str))
        yield from self._tracer.sources.called(self._function, node, made)

    def _follow(self, called: Function | ast.Lambda, call: ast.Call, at: ast.Call) -> bool:
        given = State(self._given_to(called, call))
        held = SCOPE in {what for _, what in given}
        if isinstance(called, ast.Lambda):  # it sees the names around it, whatever it is given
            return bool(given) and self._lambda(called, given) and held
        if held and called.marked:
            self._tracer.reached(called, self._function.module, at.lineno, self._way)
        if called.marked or not given:
            return False
        if called.node in {what for _, what in self.state}:
            return self.closure(called.node, given, called.name) and held
        return held and self._tracer.enter(called, given, (*self._way, called.name))

    def _given_to(
        self, called: Function | ast.Lambda, call: ast.Call
    ) -> Iterator[tuple[str, object]]:
        """Yield each parameter of which something is known by what a call passes, and what."""
        args = called.args if isinstance(called, ast.Lambda) else called.node.args
        bound = isinstance(called, Function) and called.bound
        if bound and (first := [*args.posonlyargs, *args.args][:1]):
            of = self.what(call.func.value) if isinstance(call.func, ast.Attribute) else set()
            of |= {self._tracer.sources.made(self._function, call)}
            yield from ((first[0].arg, one) for one in of if one is SCOPE or isinstance(one, str))
        for name, value in passed(args, call, bound=bound):
            yield from product([name], self._passed(value))

    def _passed(self, value: ast.expr) -> set[object]:
        """Return what is known of a value and holds in another function too."""
        return {what for what in self.what(value) if not isinstance(what, FunctionDef)}
