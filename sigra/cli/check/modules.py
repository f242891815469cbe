"""Read the Python files below some paths, and tell which of them an import means."""

from __future__ import annotations

import ast
import os
import re
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import takewhile
from pathlib import Path

_ALLOW = re.compile(r"#\s*sigra:\s*allow\b")


@dataclass(eq=False)
class Module:
    """A file: its dotted name, its tree, and what its names stand for elsewhere.

    ``way``: the folders down to it and its own name. ``packaged``: how many of these an import
    has to name. ``stars``: the modules of which it imports every name. ``tried``: what names
    are imported as in a ``try``; where that fails they may stand for something else.
    ``allowed``: the lines with the comment ``# sigra: allow``.
    """

    name: str
    path: Path
    tree: ast.Module
    way: tuple[str, ...]
    packaged: int
    allowed: frozenset[int]
    imports: dict[str, str] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    tried: dict[str, list[str]] = field(default_factory=dict)

    def goes_by(self, names: Sequence[str]) -> bool:
        """Tell whether an import of ``a.b.c`` can mean this file, whatever folder is searched."""
        return len(names) >= self.packaged and self.way[-len(names) :] == tuple(names)

    def shared(self, other: Module) -> int:
        """Return how far down this file and another lie in the same folder."""
        pairs = zip(self.way, other.way, strict=False)
        return len([*takewhile(lambda pair: pair[0] == pair[1], pairs)])


class Modules(dict[str, Module]):
    """All files below some paths, each by a name of its own.

    ``unreadable``: files that are not Python, and folders, with the reason.
    """

    def __init__(self, paths: list[Path]) -> None:
        super().__init__()
        self.unreadable: list[tuple[Path, str]] = []
        self._called: dict[str, list[Module]] = {}
        files = sorted({file for path in paths for file in self._files(path)})
        for place, file in {file.resolve(): file for file in files}.items():
            self._read(file, place)
        for module in self.values():
            self._link(module)

    def _files(self, path: Path) -> Iterator[Path]:
        if path.is_file():
            yield path
            return
        for folder, inner, names in os.walk(path, onerror=self._miss):
            inner[:] = [name for name in inner if not _is_passed_over(folder, name)]
            for name in names:
                if name.endswith(".py") and not name.startswith("."):
                    yield Path(folder, name)

    def _miss(self, error: OSError) -> None:
        self.unreadable.append((Path(error.filename), str(error)))

    def _read(self, file: Path, place: Path) -> None:
        try:
            source = file.read_bytes()
            tree = ast.parse(source, filename=str(file))
            allowed = _allowed(source)
        except (
            tokenize.TokenError,
            SyntaxError,
            ValueError,
            OSError,
            RecursionError,
            MemoryError,
        ) as error:
            self.unreadable.append((file, str(error)))
            return
        way, packaged = _way(place)
        number, name = packaged, ".".join(way[-packaged:])
        while name in self:  # of another project, or of a folder that is no package
            number += 1
            name = ".".join(way[-number:]) if number <= len(way) else f"{name}_"
        self[name] = module = Module(name, file, tree, way, packaged, allowed)
        self._called.setdefault(way[-1], []).append(module)

    def _link(self, module: Module) -> None:
        tried = set[ast.stmt]()
        for node in ast.walk(module.tree):  # from the outside in
            if isinstance(node, (ast.Try, ast.TryStar)):
                tried.update(node.body)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    names = alias.name.split(".")
                    known = {names[0]: names[:1], alias.name: names}
                    for name, means in ({alias.asname: names} if alias.asname else known).items():
                        module.imports[name] = self._meant(module, means)
            elif isinstance(node, ast.ImportFrom):
                base = _base(node, module)
                if node.names[0].name == "*":
                    module.stars.append(self._meant(module, base))
                    continue
                for alias in node.names:
                    meant = self._meant(module, [*base, alias.name])
                    module.imports[alias.asname or alias.name] = meant
                    if node in tried:
                        module.tried.setdefault(alias.asname or alias.name, []).append(meant)

    def _meant(self, module: Module, names: Sequence[str]) -> str:
        """Return a dotted name, its beginning replaced by the name of the module that it means.

        Of several such modules it is the nearest one.
        """
        for end in range(len(names), 0, -1):
            begin = names[:end]
            found = [one for one in self._called.get(begin[-1], ()) if one.goes_by(begin)]
            if found:
                nearest = max(found, key=module.shared)
                return ".".join([nearest.name, *names[end:]])
        return ".".join(names)


def _allowed(source: bytes) -> frozenset[int]:
    """Return the lines with a comment, not a string, that allows a call there."""
    if not _ALLOW.search(source.decode("latin-1")):
        return frozenset()
    tokens = tokenize.tokenize(BytesIO(source).readline)
    comments = [token for token in tokens if token.type == tokenize.COMMENT]
    return frozenset(token.start[0] for token in comments if _ALLOW.search(token.string))


def _is_passed_over(folder: str, name: str) -> bool:
    virtual = os.path.join(folder, name, "pyvenv.cfg")  # a virtual environment has it
    return name.startswith(".") or name == "node_modules" or os.path.exists(virtual)


def _way(place: Path) -> tuple[tuple[str, ...], int]:
    """Return a file's folders and name, and how many of these make its name for an import."""
    own = place.parent if place.name == "__init__.py" else place.with_suffix("")
    packaged, folder = 1, own.parent
    while (folder / "__init__.py").exists():
        packaged, folder = packaged + 1, folder.parent
    return own.parts, packaged


def _base(node: ast.ImportFrom, module: Module) -> list[str]:
    """Return the names of the module from which a statement imports."""
    names = node.module.split(".") if node.module else []
    if not node.level:
        return names
    up = node.level - (module.path.name == "__init__.py")
    return [*module.way[: len(module.way) - up], *names]
