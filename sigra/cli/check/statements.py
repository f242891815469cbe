"""Follow a function's statements, and what each makes of its names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sigra.cli.check.expressions import Expressions
from sigra.cli.check.local_names import FunctionDef
from sigra.cli.check.names import SCOPE
from sigra.cli.check.sources import Function
from sigra.cli.check.state import State

if TYPE_CHECKING:
    from sigra.cli.check.flows import Tracer


class Statements(Expressions):
    """The body of one function. After branches, a name may be what either branch made it."""

    def __init__(
        self, tracer: Tracer, function: Function, state: State, way: tuple[str, ...]
    ) -> None:
        super().__init__(tracer, function, state, way)
        self._returned = False
        self.left = State()  # what names are where the function is left before its end
        self._trails: list[State] = []  # of each "try" around: what names were within it
        self._loops: list[list[State]] = []  # what they were at "break" and "continue"

    def walk(self, body: list[ast.stmt]) -> bool:
        """Go through the statements; tell if what is returned holds the scope."""
        for statement in body:
            self._note()
            self._statement(statement)
        self._note()
        return self._returned

    def _note(self) -> None:
        self._trails = [trail | self.state for trail in self._trails]

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._define(node)
            case ast.ClassDef(name=name, body=body):
                before = self.state
                self.walk(body)
                self.state = before
                self.forget(name)
            case ast.If(test=test, body=body, orelse=orelse):
                self.holds(test)
                before = self.state
                self.walk(body)
                after, self.state = self.state, before
                self.walk(orelse)
                self.state |= after
            case ast.For() | ast.AsyncFor() | ast.While():
                self._loop(node)
            case ast.Try() | ast.TryStar():
                self._try(node)
            case ast.With(items=items, body=body) | ast.AsyncWith(items=items, body=body):
                for item in items:
                    what = self.what(item.context_expr)
                    if item.optional_vars is not None:
                        self.put(item.optional_vars, what)
                self.walk(body)
            case ast.Match():
                self._match(node)
            case _:
                self._simple(node)

    def _simple(self, node: ast.stmt) -> None:
        """Follow a statement without others in it."""
        match node:
            case ast.Assign(targets=targets, value=value):
                self._targets(targets)
                for target in targets:
                    self.assign(target, value)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self.assign(target, value)
            case ast.AugAssign(target=target, value=value):
                self.keep(target, {SCOPE} if self.holds(value) else ())
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                for alias in names:
                    self.forget(alias.asname or alias.name.partition(".")[0])
            case ast.Delete(targets=targets):
                for target in targets:
                    self.put(target, ())
            case _:
                self._plain(node)

    def _plain(self, node: ast.stmt) -> None:
        """Follow a statement that binds no name; after some, such as return, nothing follows."""
        held = self._any(n for n in ast.iter_child_nodes(node) if isinstance(n, ast.expr))
        if isinstance(node, ast.Return):
            self._returned |= held
        if isinstance(node, (ast.Return, ast.Raise)):
            self.left |= self.state
        elif isinstance(node, (ast.Break, ast.Continue)):
            self._loops[-1][isinstance(node, ast.Continue)] |= self.state
        if isinstance(node, (ast.Return, ast.Raise, ast.Break, ast.Continue)):
            self.state = State()

    def _parts(self, node: ast.expr) -> bool:
        """Take what a generator yields for what it returns: a loop over it gets that."""
        held = super()._parts(node)
        self._returned |= held and isinstance(node, (ast.Yield, ast.YieldFrom))
        return held

    def _targets(self, targets: list[ast.expr]) -> None:
        """Follow the calls within what is assigned to: ``found[ask(scope)] = 1``."""
        for target in targets:
            for inner in ast.walk(target):
                if isinstance(inner, ast.Call):
                    self.holds(inner)

    def _define(self, node: FunctionDef) -> None:
        for decorator in node.decorator_list:
            self.holds(decorator)
        name = ast.Name(node.name)
        self.put(name, {node})
        if self.closure(node, State()):
            self.keep(name, {SCOPE})

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While) -> None:
        """Go round until nothing new is found of any name."""
        turns = [] if isinstance(node, ast.While) else self.turns(node.target, node.iter)
        left, entered = State(), None
        while entered != self.state:
            entered = self.state
            if isinstance(node, ast.While):
                self.holds(node.test)
            else:
                self.turn(turns)
            self._loops.append([left, State()])
            self.walk(node.body)
            left, again = self._loops.pop()
            self.state |= entered | again
        if isinstance(node, ast.While):
            self.holds(node.test)
            if isinstance(node.test, ast.Constant) and node.test.value:
                self.state = State()
        self.walk(node.orelse)
        self.state |= left

    def _try(self, node: ast.Try | ast.TryStar) -> None:
        """Follow handlers from any place of the body, and ``finally`` from any place at all."""
        self._trails += [State(), State()]
        self.walk(node.body)
        within = self._trails.pop()
        self.walk(node.orelse)
        after = self.state
        for handler in node.handlers:
            self.state = within
            if handler.type is not None:
                self.holds(handler.type)
            if handler.name is not None:
                self.forget(handler.name)
            self.walk(handler.body)
            after |= self.state
        for state in (self._trails.pop(), after):
            self.state = state
            self.walk(node.finalbody)

    def _match(self, node: ast.Match) -> None:
        held = self.holds(node.subject)
        before, after = self.state, State()
        for case in node.cases:
            self.state = before
            for name, holding in _captured(case.pattern, held=held):
                self.put(ast.Name(name), {SCOPE} if holding else ())
            if case.guard is not None:
                self.holds(case.guard)
            self.walk(case.body)
            after |= self.state
        last = node.cases[-1].pattern if node.cases[-1].guard is None else None
        always = isinstance(last, ast.MatchAs) and last.pattern is None
        self.state = after if always else after | before


def _captured(pattern: ast.pattern, *, held: bool) -> Iterator[tuple[str, bool]]:
    """Yield the names that a pattern binds, and whether they hold what the subject holds."""
    name = getattr(pattern, "rest" if isinstance(pattern, ast.MatchMapping) else "name", None)
    if name is not None:
        yield name, held
    if isinstance(pattern, ast.MatchClass):
        for inner in pattern.patterns:
            yield from _captured(inner, held=False)
        for attr, inner in zip(pattern.kwd_attrs, pattern.kwd_patterns, strict=True):
            yield from _captured(inner, held=held and "scope" in attr)
        return
    for child in ast.iter_child_nodes(pattern):
        if isinstance(child, ast.pattern):
            yield from _captured(child, held=held)
