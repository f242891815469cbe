"""The first entries of a chain, checked before a mark says that they were pruned."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, func, select

from sigra.store.check import Anchored, ChainCheck
from sigra.store.errors import AuditChainError
from sigra.store.marks import read_marks
from sigra.store.query import is_place
from sigra.store.report import Finding
from sigra.store.tables import entries, marks

_AT_ONCE = 1_000


def beginning(
    connection: Connection, chain: int, tag: str, limit: str, most: int
) -> list[tuple[int, bytes]]:
    """Return sequence and hash of at most ``most`` first entries that are older than ``limit``.

    Raises ``AuditChainError`` where ``verify`` would report one of them: no mark may say "pruned"
    of an entry that somebody backdated or removed.
    """
    found: list[Finding] = []
    marked = read_marks(connection, {chain: tag}, None)[chain]
    head = SimpleNamespace(tag=tag, head=None)
    check = ChainCheck(head, marked, Anchored({}, 0), lambda: (), found.append)
    found.clear()  # those about marks are left to verify
    # If the last mark is bad, the entries are not checked, and can be pruned. The next mark holds
    # the digest of the bad one, so that verify reports it for ever.
    last = connection.scalar(select(func.max(marks.c.id)).where(marks.c.chain == chain))
    query = select(entries).where(entries.c.chain == chain).order_by(entries.c.sequence).limit(most)
    old: list[tuple[int, bytes]] = []
    with connection.execute(query.execution_options(yield_per=_AT_ONCE)) as rows:
        for row in rows:
            if placed(tag, row).occurred_at >= limit:
                break
            if last not in marked.bad:
                check.row(*row)
            if found:
                reason = f"hold an entry, {found[0].sequence}, of which verify says: "
                reason += f"{found[0].reason}. Nothing is pruned from there on"
                raise AuditChainError(tag, reason)
            old.append((row.sequence, row.hash))
    return old


def placed(tag: str, row: Any) -> Any:
    """Return the row; raise ``AuditChainError`` if a mark cannot hold its place and hash."""
    if not is_place(row) or type(row.hash) is not bytes:
        raise AuditChainError.odd(tag, row.sequence)
    return row
