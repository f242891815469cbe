"""Show audit events of a store to a person, or as JSON lines to a machine."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.text import Text
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError

from sigra.audit.event import EVENT_FIELDS, AuditEvent
from sigra.cli.show import fits, inline, listing, say, stdout_console
from sigra.cli.target import MisuseError
from sigra.errors import SigraError
from sigra.store import SqlAuditSink
from sigra.store.access import read_tables
from sigra.store.database import KEPT
from sigra.store.errors import LOCKED, code_of
from sigra.store.query import chain_of, matching, of_tenancy, read_chain
from sigra.store.reading import EventFilter
from sigra.store.stored import event_of, shown, who
from sigra.store.tables import chains, entries

_EVERY = 1.0
_STYLES = {"success": "green", "failure": "yellow", "error": "red"}


def show_page(
    store: SqlAuditSink, which: EventFilter, limit: int, cursor: str | None, *, machine: bool
) -> None:
    """Print one page, newest first, and say how to go on."""
    try:
        page = store.query(which, cursor, limit)
    except SigraError as error:
        raise MisuseError(str(error)) from None
    if machine:
        _print_json(page.events)
    elif page.events:
        _show_table(page.events)
    else:
        say("no event matches")
    if page.cursor is not None:
        print(f"more: --cursor {page.cursor}", file=sys.stderr)


def _show_table(events: Sequence[AuditEvent]) -> None:
    """Lay out a page; where the terminal is too narrow, in lines, whose ids are not cut apart."""
    columns = ["time (UTC)", "organization", "who", "action", "target", "outcome"]
    console, table = stdout_console(), listing(columns, [_row(event) for event in events])
    if fits(console, table):
        console.print(table)
    else:
        _print_lines(events, machine=False)


def follow(
    store: SqlAuditSink, which: EventFilter, lines: int, *, for_ever: bool, machine: bool
) -> None:
    """Print the newest events, oldest first, and then, if asked to, each that comes."""
    heads = _heads(store, which)
    newest = store.query(which, None, lines).events if lines else ()
    _print_lines(reversed(newest), machine=machine)
    known = {event.event_id for event in newest}
    while for_ever:
        time.sleep(_EVERY)
        try:
            for events in _since(store, which, heads):
                _print_lines((e for e in events if e.event_id not in known), machine=machine)
        except DBAPIError as error:
            if code_of(error) != LOCKED:
                raise
            print(f"nothing can be read: {KEPT}; this is tried again", file=sys.stderr)


def show_stats(store: SqlAuditSink, which: EventFilter, *, machine: bool) -> None:
    """Print how many events there are by action and outcome."""
    counts = _counted(store, which)
    actions = sorted({action for action, _ in counts})
    if machine:
        found = {a: {o: counts[a, o] for o in _STYLES if counts[a, o]} for a in actions}
        say(json.dumps({"events": counts.total(), "actions": found}))
        return
    rows = [[inline(action), *(f"{counts[action, o]:,}" for o in _STYLES)] for action in actions]
    rows.append(["all", *(f"{sum(counts[a, o] for a in actions):,}" for o in _STYLES)])
    console, table = stdout_console(), listing(["action", *_STYLES], rows)
    if fits(console, table):
        console.print(table)
        return
    for action, *numbers in rows:
        told = (f"{number} {name}" for number, name in zip(numbers, _STYLES, strict=True))
        say(f"{action}: {', '.join(told)}")


def _counted(store: SqlAuditSink, which: EventFilter) -> Counter[tuple[str, str]]:
    kinds: Any = (entries.c.action, entries.c.outcome)

    def read(connection: Connection) -> Counter[tuple[str, str]]:
        query: Any = select(*kinds, func.count()).group_by(*kinds)
        found: Any = connection.execute(matching(query, which, chain_of(connection, which)))
        counts: Counter[tuple[str, str]] = Counter()
        for action, outcome, number in found:
            counts[shown(action), shown(outcome)] += number
        return counts

    return read_tables(store.database, read)


def _heads(store: SqlAuditSink, which: EventFilter) -> dict[int, int]:
    query = of_tenancy(select(chains.c.id, chains.c.sequence), which)

    def read(connection: Connection) -> dict[int, int]:
        rows = connection.execute(query)
        return {row.id: row.sequence for row in rows if type(row.id) is type(row.sequence) is int}

    return read_tables(store.database, read)


def _since(
    store: SqlAuditSink, which: EventFilter, heads: dict[int, int]
) -> Iterator[list[AuditEvent]]:
    """Yield what each chain got since ``heads``, which then are the new ones."""
    for chain, last in _heads(store, which).items():
        if heads.get(chain, 0) < last:
            for rows in read_chain(store.database, chain, which, heads.get(chain, 0)):
                numbers = (row.sequence for row in rows if type(row.sequence) is int)
                heads[chain] = max(numbers, default=heads.get(chain, 0))
                yield [event_of(row) for row in rows]
            heads[chain] = max(heads.get(chain, 0), last)


def _row(event: AuditEvent) -> list[str]:
    target = " ".join(str(part) for part in (event.target_type, event.target_id) if part) or "-"
    organization = "-" if event.organization_id is None else event.organization_id
    moment = f"{event.occurred_at:%Y-%m-%d %H:%M:%S}"
    cells = (moment, organization, who(event), event.action, target, event.outcome)
    return [inline(str(cell)) for cell in cells]


def _print_lines(events: Iterable[AuditEvent], *, machine: bool) -> None:
    if machine:
        _print_json(events)
        return
    console = stdout_console()
    for event in events:
        *cells, outcome = _row(event)
        line = Text("  ".join(cells))
        line.append(f"  {outcome}", style=_STYLES.get(outcome, ""))
        console.print(line, soft_wrap=True)


def _print_json(events: Iterable[AuditEvent]) -> None:
    for event in events:
        fields = {name: getattr(event, name) for name in EVENT_FIELDS}
        fields["occurred_at"] = event.occurred_at.isoformat()
        say(json.dumps(fields, default=str))
