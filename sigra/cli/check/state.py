"""What is known of the names of a function at one place of its source."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain

Fact = tuple[str, object]
"""A name, dotted or not, and what it may be."""

_NONE = frozenset[Fact]()


class State:
    """Facts that do not change: what adds to them or takes from them returns others.

    They are kept by the first part of the name, so that neither looks at those of other names.
    """

    __slots__ = ("_by_root", "_hash")

    def __init__(self, facts: Iterable[Fact] = ()) -> None:
        found = defaultdict[str, set[Fact]](set)
        for fact in facts:
            found[root_of(fact[0])].add(fact)
        self._by_root = {root: frozenset(those) for root, those in found.items()}
        self._hash = 0
        for those in self._by_root.values():
            self._hash ^= hash(those)

    def __bool__(self) -> bool:
        return bool(self._by_root)

    def __iter__(self) -> Iterator[Fact]:
        return chain.from_iterable(self._by_root.values())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, State):
            return NotImplemented
        return self._hash == other._hash and self._by_root == other._by_root

    def __hash__(self) -> int:
        return self._hash

    def __or__(self, other: State) -> State:
        fewer, more = sorted((self._by_root, other._by_root), key=len)
        changes = {
            root: those | there if there else those
            for root, those in fewer.items()
            if those is not (there := more.get(root, _NONE)) and not those <= there
        }
        return (self if more is self._by_root else other)._changed(changes)

    def of(self, name: str) -> set[object]:
        """Return what a name may be."""
        return {what for known, what in self._by_root.get(root_of(name), ()) if known == name}

    def forget(self, name: str) -> State:
        """Return the facts but those of a name and of each attribute of it."""
        root, below = root_of(name), f"{name}."
        those = self._by_root.get(root, _NONE)
        kept = frozenset(f for f in those if f[0] != name and not f[0].startswith(below))
        return self if len(kept) == len(those) else self._changed({root: kept})

    def only(self, roots: Collection[str]) -> State:
        """Return the facts of names that begin with one of these."""
        return State(chain.from_iterable(self._by_root.get(root, _NONE) for root in roots))

    def without(self, roots: Collection[str]) -> State:
        """Return the facts of names that begin with none of these."""
        return self._changed(dict.fromkeys(roots, _NONE))

    def _changed(self, changes: Mapping[str, frozenset[Fact]]) -> State:
        """Return the facts with those of some first parts of names replaced."""
        if not changes:
            return self
        made = State()
        made._by_root, made._hash = {**self._by_root}, self._hash
        for root, those in changes.items():
            before = made._by_root.pop(root, None)
            if before is not None:
                made._hash ^= hash(before)
            if those:
                made._by_root[root] = those
                made._hash ^= hash(those)
        return made


def root_of(name: str) -> str:
    """Return the first part of a dotted name."""
    return name.partition(".")[0]
