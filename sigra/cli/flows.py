"""Where a worker's scope goes: followed through the text of a program."""

from __future__ import annotations

from dataclasses import dataclass

from sigra.cli.names import SCOPE, State
from sigra.cli.sources import Definition, Function, Sources
from sigra.cli.statements import Statements


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
            tracer = Tracer(sources, worker)
            tracer.enter(worker, frozenset(worker.positional[:1]), ())
            for flow in tracer.flows:
                found.setdefault((flow.place, worker.name, flow.target.name), flow)
    return sorted(found.values(), key=lambda flow: flow.place)


class Tracer:
    """Follow one worker's scope from call to call; each function once for each set of holders."""

    def __init__(self, sources: Sources, worker: Function) -> None:
        self.sources, self.worker = sources, worker
        self.flows: list[Flow] = []
        self._returns: dict[tuple[object, object], bool] = {}

    def enter(self, function: Function, held: frozenset[str], way: tuple[str, ...]) -> bool:
        """Walk a function some of whose parameters hold the scope; tell if its result does."""
        state = State((name, SCOPE) for name in held)
        return self._once(Statements(self, function, state, way), function.node)

    def closure(
        self, around: Function, node: Definition, state: State, way: tuple[str, ...]
    ) -> bool:
        """Walk a function within another, from what is known where it is called."""
        function = self.sources.functions.get(f"{around.name}.{node.name}", around)
        return self._once(Statements(self, function, state, way), node)

    def reached(self, target: Function, place: str, way: tuple[str, ...]) -> None:
        """Note that the scope was handed to a marked function."""
        self.flows.append(Flow(place, self.worker, target, way))

    def _once(self, statements: Statements, node: Definition) -> bool:
        key = node, statements.state
        if key not in self._returns:
            self._returns[key] = False  # what a recursive call is taken to return
            self._returns[key] = statements.walk(node.body)
        return self._returns[key]
