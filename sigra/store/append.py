"""Adding events to their chains, inside a transaction that the caller ends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sigra.audit.event import AuditEvent
from sigra.store.access import naming_missing
from sigra.store.chain import GENESIS, Row, chain_tag, link
from sigra.store.errors import AuditChainError, AuditNotKeptError
from sigra.store.statements import Runner

_FAR = 1 << 62
"""A sequence that no chain reaches by appending; the column holds twice as much."""


def append(runner: Runner, events: Sequence[AuditEvent]) -> None:
    """Add the events that the store does not have yet.

    The rows of their chains are locked first, in the order of the tags: writers wait for each
    other, take no sequence twice and do not deadlock. The heads move last. Raises
    ``AuditNotKeptError`` for an event that is afterwards in no row of its own chain, and
    ``AuditTablesMissingError`` where a table, or a column of it, was never made.
    """
    with naming_missing():
        if len(events) == 1:
            _append_one(runner, events[0])
        else:
            _append_many(runner, events)


def _append_many(runner: Runner, events: Sequence[AuditEvent]) -> None:
    of_chain = defaultdict(list)
    for event in events:
        of_chain[chain_tag(event.organization_id)].append(event)
    chains = {tag: lock_chain(runner, tag) for tag in sorted(of_chain)}
    known = _known(runner, events)
    # The values of all rows in one flat list, which saves an object for each row.
    rows: list[Any] = []
    heads: list[Any] = []
    added = 0
    for tag, (chain, last, head) in chains.items():
        sequence, previous = last, head
        for event in of_chain[tag]:
            there = known.get(event.event_id)
            if there is None:
                known[event.event_id] = chain
                sequence += 1
                previous, row = link(chain, tag, sequence, previous, event)
                rows += row
            elif there != chain:
                raise AuditNotKeptError(event.event_id, taken=True)
        if sequence > last:
            heads += (sequence, previous, chain)
            added += sequence - last
    if added:
        # Not every driver counts the rows of many statements: then look whether all are there.
        if runner.run_many(runner.statements.add_entry, rows) != added:
            _check_all_there(runner, events)
        runner.run_many(runner.statements.move_head, heads)


def _append_one(runner: Runner, event: AuditEvent) -> None:
    """Add one event; look for it in the store only if the insert has added no row."""
    tag = chain_tag(event.organization_id)
    chain, last, head = lock_chain(runner, tag)
    digest, row = link(chain, tag, last + 1, head, event)
    statements = runner.statements
    if runner.run(statements.add_new_entry, *row):
        runner.run(statements.move_head, last + 1, digest, chain)
    elif (found := _known(runner, [event]).get(event.event_id)) != chain:
        raise AuditNotKeptError(event.event_id, taken=found is not None)


def lock_chain(runner: Runner, tag: str) -> Row:
    """Lock a chain, or begin it if there is none; return its id, last sequence and last hash.

    Raises ``AuditChainError`` where its row is not kept, or has a value that is never written.
    """
    found = runner.rows(runner.lock, tag)
    if not found:
        runner.run(runner.statements.begin_chain, tag, 0, GENESIS)
        found = runner.rows(runner.lock, tag)
        if not found:
            reason = "took the row of a new chain and did not keep it: look for a trigger or a rule"
            raise AuditChainError(tag, f"{reason} on sigra_audit_chains")
    _, last, head = found[0]
    if type(last) is not int or last > _FAR or not isinstance(head, (bytes, memoryview)):
        raise AuditChainError.odd(tag)
    return found[0]


def _check_all_there(runner: Runner, events: Sequence[AuditEvent]) -> None:
    known = _known(runner, events)
    for event in events:
        if event.event_id not in known:
            raise AuditNotKeptError(event.event_id, taken=False)


def _known(runner: Runner, events: Sequence[AuditEvent]) -> dict[str, int]:
    """Return the chain of each event that the store has already, by event id."""
    ids = [event.event_id for event in events]
    known: dict[str, int] = {}
    sizes = runner.statements.known
    for start in range(0, len(ids), max(sizes)):
        some = ids[start : start + max(sizes)]
        size = min(size for size in sizes if size >= len(some))
        some += some[-1:] * (size - len(some))
        known.update(runner.rows(sizes[size], *some))
    return known
