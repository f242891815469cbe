"""Which names in a file are local to a function, by Python's own rules, and not the module's."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from sigra.cli.check.parameters import defaults

FunctionDef = ast.FunctionDef | ast.AsyncFunctionDef
"""A ``def``, async or not."""

_Names = Mapping[str, bool]
"""The local names of a function and those around it, and whether an import binds them."""

_Scope = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def local_names(tree: ast.Module) -> dict[ast.expr, bool]:
    """Map each use of a name that is local to a function around it to whether it is an import."""
    found: dict[ast.expr, bool] = {}
    pending: list[tuple[ast.AST, _Names]] = [(tree, {})]
    while pending:  # not by recursion: each "elif" is a level
        node, seen = pending.pop()
        if isinstance(node, ast.Name) and node.id in seen:
            found[node] = seen[node.id]
        pending += _parts(node, seen)
    return found


def _parts(node: ast.AST, seen: _Names) -> Iterator[tuple[ast.AST, _Names]]:
    """Yield the parts of a node, each with the local names that are visible there."""
    inside, inner = set[ast.AST](), seen
    match node:
        case ast.FunctionDef(body=body) | ast.AsyncFunctionDef(body=body):
            inside, inner = {*body}, _within(node, seen)
        case ast.Lambda(args=args, body=result):
            inside, inner = {result}, {**seen, **_parameters(args)}
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
            targets = [part for each in node.generators for part in ast.walk(each.target)]
            own = [part.id for part in targets if isinstance(part, ast.Name)]
            inner = {**seen, **dict.fromkeys(own, False)}
            first = node.generators[0]  # what this one iterates over is evaluated outside
            yield first.iter, seen
            inside = {first.target, *first.ifs, *ast.iter_child_nodes(node)} - {first}
            yield from ((part, inner) for part in inside)
            return
    yield from ((n, inner if n in inside else seen) for n in ast.iter_child_nodes(node))


def _within(node: FunctionDef, seen: _Names) -> _Names:
    """Return the local names that are visible in the body of a function."""
    own, shared = _parameters(node.args), set[str]()
    pending = list[ast.AST](node.body)
    while pending:
        part = pending.pop()
        match part:
            case ast.Global(names=names):
                shared |= {*names}
            case ast.Import(names=imported) | ast.ImportFrom(names=imported):
                own |= {(n.asname or n.name).partition(".")[0]: True for n in imported}
            case _ if (name := _given(part)) is not None:
                own.setdefault(name, False)
        if isinstance(part, ast.comprehension):
            pending += [part.iter, *part.ifs]  # its target is local to it; ":=" in it is not
        elif not isinstance(part, _Scope):
            pending += ast.iter_child_nodes(part)
    kept = {name: imported for name, imported in seen.items() if name not in shared}
    return kept | {name: own[name] for name in own.keys() - shared - _same(node.args)}


def _given(node: ast.AST) -> str | None:
    """Return the name that a node binds, None if it binds none."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.ExceptHandler(name=name) | ast.MatchAs(name=name) | ast.MatchStar(name=name):
            return name
        case ast.MatchMapping(rest=name):
            return name
    return None


def _parameters(args: ast.arguments) -> dict[str, bool]:
    """Return the names of parameters, except one like ``f=f``, which may be the ``f`` outside."""
    every = (*args.posonlyargs, *args.args, args.vararg, *args.kwonlyargs, args.kwarg)
    return {arg.arg: False for arg in every if arg is not None and arg.arg not in _same(args)}


def _same(args: ast.arguments) -> set[str]:
    known = defaults(args).items()
    return {name for name, value in known if isinstance(value, ast.Name) and value.id == name}
