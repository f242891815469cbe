"""Follow a worker's scope through the source of a program."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass

from sigra.cli.check.local_names import FunctionDef
from sigra.cli.check.modules import Module
from sigra.cli.check.names import SCOPE
from sigra.cli.check.sources import Function, Sources
from sigra.cli.check.state import State
from sigra.cli.check.statements import Statements

_FRAMES = 100_000
"""More than the deepest expression takes that Python can parse; they use no C stack."""


@dataclass(frozen=True)
class Flow:
    """A worker's scope that reaches a function which decides on authority.

    ``place``: ``file:line`` of the last call. ``way``: the functions in between. ``allowed``:
    whether that line says that it is none.
    """

    place: str
    worker: Function
    target: Function
    way: tuple[str, ...]
    allowed: bool


def find_flows(sources: Sources) -> list[Flow]:
    """Return every flow of a worker's scope into a marked function, by place."""
    found: dict[tuple[str, str, str], Flow] = {}
    frames = sys.getrecursionlimit()
    sys.setrecursionlimit(max(frames, _FRAMES))
    try:
        for worker in sources.functions.values():
            if worker.worker and worker.positional:
                tracer = Tracer(sources, worker)
                tracer.enter(worker, State({(worker.positional[0], SCOPE)}), ())
                for flow in tracer.flows:
                    found.setdefault((flow.place, worker.name, flow.target.name), flow)
    finally:
        sys.setrecursionlimit(frames)
    return sorted(found.values(), key=_where)


def _where(flow: Flow) -> tuple[str, int]:
    path, _, line = flow.place.rpartition(":")
    return path, int(line)


class Tracer:
    """Follow one worker's scope from call to call: a function once for each state of its names."""

    def __init__(self, sources: Sources, worker: Function) -> None:
        self.sources, self.worker = sources, worker
        self.flows: list[Flow] = []
        self.kept: set[str] = set()  # the attributes in which objects keep the scope
        self.homes: dict[ast.Lambda, Function] = {}  # in which function each lambda stands
        self._ends: dict[tuple[object, object], tuple[bool, State]] = {}

    def enter(self, function: Function, given: State, way: tuple[str, ...]) -> bool:
        """Walk a function from what its parameters are given; tell if its result is the scope."""
        return self._once(Statements(self, function, given, way), function.node)[0]

    def closure(
        self, around: Function, node: FunctionDef, state: State, way: tuple[str, ...]
    ) -> tuple[bool, State]:
        """Walk a function within another, from what is known where it is called.

        Tell if its result is the scope, and what its names, ``nonlocal`` ones too, are then.
        """
        function = self.sources.functions.get(f"{around.name}.{node.name}", around)
        return self._once(Statements(self, function, state, way), node)

    def reached(self, target: Function, module: Module, line: int, way: tuple[str, ...]) -> None:
        """Note that the scope was handed to a marked function."""
        place, allowed = f"{module.path}:{line}", line in module.allowed
        self.flows.append(Flow(place, self.worker, target, way, allowed))

    def _once(self, statements: Statements, node: FunctionDef) -> tuple[bool, State]:
        key = node, statements.state
        if key not in self._ends:
            self._ends[key] = False, State()  # what a recursive call is assumed to give
            self._ends[key] = statements.walk(node.body), statements.left | statements.state
        return self._ends[key]
