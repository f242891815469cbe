"""What is left of chains whose own row is gone."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, exists, func, select, union

from sigra.store.access import read_tables
from sigra.store.chain import chain_tag, is_sound, organization_of
from sigra.store.database import Database
from sigra.store.errors import AuditChainError
from sigra.store.reading import EventFilter
from sigra.store.report import Finding
from sigra.store.tables import chains, entries, marks

_ODD = "entries or marks name their chain by a value of a kind that is never written"


class _Left(NamedTuple):
    """What is left of a chain: its number, its tag if that is known, its first entry, counts."""

    chain: int
    tag: str | None
    first: int | None
    entries: int
    marks: int

    @property
    def told(self) -> str:
        left = f"{self.entries} entries and {self.marks} marks of it are left"
        return f"the row of chain {self.chain} is gone: {left}"


def find_strays(
    connection: Connection, tags: Collection[str], *, everything: bool
) -> Iterator[Finding]:
    """Yield a finding for each chain that has entries or marks and no row.

    It names the organization if that is one of ``tags`` or a mark says it. With ``everything``,
    chains of other or unknown organizations are yielded too.
    """
    for left in _all_left(connection, tags):
        if left is None:
            if everything:
                yield Finding(None, 0, None, "changed", _ODD)
        elif everything or left.tag in tags:
            organization = None if left.tag is None else organization_of(left.tag)
            yield Finding(organization, left.first or 0, None, "removed", left.told)


def count_strays(connection: Connection) -> int:
    """Return how many chains have entries or marks and no row."""
    return connection.execute(select(func.count()).select_from(_numbers)).scalar_one()


def check_rows(database: Database, which: EventFilter) -> None:
    """Raise ``AuditChainError`` if entries that are asked for belong to a chain without a row.

    Nothing but that row says whose they are, so that nobody exports, prunes or erases them.
    """
    everything, tags = which.all_organizations, {chain_tag(which.organization_id)}

    def look(connection: Connection) -> list[_Left | None]:
        found = [left for left in _all_left(connection, tags) if left is None or left.entries]
        return [left for left in found if everything or (left is not None and left.tag in tags)]

    for left in read_tables(database, look):
        told, tag = (_ODD, None) if left is None else (left.told, left.tag or left.chain)
        reason = f"are not whole: {told}, and cannot be used until that is restored"
        raise AuditChainError(tag, reason)


def _all_left(connection: Connection, tags: Collection[str]) -> Iterator[_Left | None]:
    """Yield what is left of each chain without a row; None for a number that is none."""
    for chain in connection.exec_driver_sql(_WITHOUT_ROW).scalars().all():
        if type(chain) is not int:
            yield None
            continue
        left = select(entries).where(entries.c.chain == chain).order_by(entries.c.sequence)
        first = connection.execute(left.limit(1)).one_or_none()
        count = connection.scalar(select(func.count()).select_from(left.subquery()))
        texts = connection.scalars(select(marks.c.body).where(marks.c.chain == chain)).all()
        named = [tag for tag in map(_tag_of, texts) if tag is not None]
        if first is not None:
            named = [tag for tag in (*tags, *named) if is_sound(first, tag)]
        tag = next(iter(named), None)
        yield _Left(chain, tag, None if first is None else first.sequence, count or 0, len(texts))


def _without_row(table: Table) -> Any:
    """Return the query of chains that a table names and that have no row; it uses the index."""
    found = select(func.min(table.c.chain).label("chain")).cte(recursive=True)
    following = select(func.min(table.c.chain)).where(table.c.chain > found.c.chain)
    found = found.union_all(select(following.scalar_subquery()).where(found.c.chain.is_not(None)))
    # Not by NOT IN, for which PostgreSQL reads all chains once for each where it expects many.
    known = exists().where(chains.c.id == found.c.chain)
    return select(found.c.chain).where(found.c.chain.is_not(None), ~known)


def _without_chain(table: Table) -> Any:
    """Return the query of rows whose chain is NULL."""
    return select(table.c.chain).where(table.c.chain.is_(None))


_numbers = union(
    *(query(table) for table in (entries, marks) for query in (_without_row, _without_chain))
).subquery()
_WITHOUT_ROW = str(select(_numbers.c.chain).order_by(_numbers.c.chain))


def _tag_of(mark: str) -> str | None:
    try:
        tag = json.loads(mark)["chain"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return tag if isinstance(tag, str) else None
