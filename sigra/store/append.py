"""Adding events to their chains, inside a transaction that somebody else ends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sigra.audit.event import AuditEvent
from sigra.store.chain import GENESIS, Row, chain_tag, link
from sigra.store.statements import Runner


def append(runner: Runner, events: Sequence[AuditEvent]) -> int:
    """Add those of the events that the store does not have; return how many these were.

    The chains' rows are locked first, always in one order: writers wait for each other, and
    neither meet at one sequence nor in a deadlock. Their heads move last.
    """
    if len(events) == 1:
        return _append_one(runner, events[0])
    of_chain = defaultdict(list)
    for event in events:
        of_chain[chain_tag(event.organization_id)].append(event)
    chains = {tag: lock_chain(runner, tag) for tag in sorted(of_chain)}
    known = _known(runner, events)
    # Values of many rows, one after the other: rows by themselves would be so many objects more.
    rows: list[Any] = []
    heads: list[Any] = []
    added = 0
    for tag, (chain, last, head) in chains.items():
        sequence, previous = last, head
        for event in of_chain[tag]:
            if event.event_id not in known:
                known.add(event.event_id)
                sequence += 1
                previous, row = link(chain, tag, sequence, previous, event)
                rows += row
        if sequence > last:
            heads += (sequence, previous, chain)
            added += sequence - last
    if added:
        runner.run_many(runner.statements.add_entry, rows)
        runner.run_many(runner.statements.move_head, heads)
    return added


def _append_one(runner: Runner, event: AuditEvent) -> int:
    """Do the same with one event, and without a look at whether the store has it."""
    tag = chain_tag(event.organization_id)
    chain, last, head = lock_chain(runner, tag)
    digest, row = link(chain, tag, last + 1, head, event)
    statements = runner.statements
    if not runner.run(statements.add_new_entry, *row):
        return 0
    runner.run(statements.move_head, last + 1, digest, chain)
    return 1


def lock_chain(runner: Runner, tag: str) -> Row:
    """Return a chain's id, last sequence and last hash; begin the chain if there is none."""
    found = runner.rows(runner.lock, tag)
    if not found:
        runner.run(runner.statements.begin_chain, tag, 0, GENESIS)
        found = runner.rows(runner.lock, tag)
    return found[0]


def _known(runner: Runner, events: Sequence[AuditEvent]) -> set[str]:
    """Return which of the events' ids there are already."""
    ids = [event.event_id for event in events]
    known: set[str] = set()
    sizes = runner.statements.known
    for start in range(0, len(ids), max(sizes)):
        some = ids[start : start + max(sizes)]
        size = min(size for size in sizes if size >= len(some))
        some += some[-1:] * (size - len(some))
        known.update(row[0] for row in runner.rows(sizes[size], *some))
    return known
