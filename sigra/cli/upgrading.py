"""Bring the store's tables to another version, and say what was done."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError

from sigra.cli.show import counted, inline, say
from sigra.cli.target import MisuseError
from sigra.store import AuditTablesError, SqlAuditSink
from sigra.store.access import noting_locked
from sigra.store.database import be_patient
from sigra.store.errors import UPGRADING, code_of
from sigra.store.indexes import missing_indexes
from sigra.store.migrate import HEAD, downgrade, known_versions, upgrade
from sigra.store.tables import entries

_OPERATIONS = "in docs/store-operations.md"
_FIRST = (
    "Nobody can write meanwhile, and a process of another release not afterwards either: stop all "
    f'of those first; see "Upgrading" {_OPERATIONS}'
)
_GRANT = f'Now grant the other roles their rights: see "PostgreSQL roles" {_OPERATIONS}'
_GRANT_AGAIN = "Now grant the other roles their rights, as the page of the older release says"
_AGAIN = "Now start the older release; a process of this one would upgrade the tables again"
_PAUSE = 0.2
_NOTES = {
    "SQLITE_BUSY": "but if it is another upgrade, wait until that is done",
    "SQLITE_CANTOPEN": "is its folder there, and may this user write to it?",
    "SQLITE_READONLY": "copy the file and upgrade the copy, or make it writable",
}
"""What to do besides, by SQLite's code."""


def upgrade_tables(
    store: SqlAuditSink, found: str | None, version: str | None, *, dry_run: bool, machine: bool
) -> None:
    """Upgrade from the version that was found; without one, make the tables."""
    to = _known(version or HEAD)
    if found is not None and found > to:
        raise MisuseError(
            f"the tables are of version {found}, which is newer than {to}; to go back, run sigra "
            f"audit downgrade --to {to}"
        )
    dropped: list[str] = []
    if found == to == HEAD:
        dropped = [str(index.name) for index in store.database.read(missing_indexes)]
    change = f"upgraded from version {found} to {to}"
    if found is None:
        change = f"made, of version {to}"
    elif found == to:
        change = f"given again what somebody dropped: {', '.join(dropped)}" if dropped else ""
    facts = {"from": found, "to": to, "indexes": dropped}
    _carry_out(store, upgrade, facts, change, dry_run=dry_run, machine=machine)
    if found is None and store.database.dialect == "postgresql" and not dry_run:
        print(_GRANT, file=sys.stderr)


def downgrade_tables(
    store: SqlAuditSink, found: str | None, version: str, *, dry_run: bool, machine: bool
) -> None:
    """Go back from the version that was found."""
    to = _known(version)
    if found is not None and found < to:
        raise MisuseError(
            f"the tables are of version {found}, which is older than {to}; run sigra audit upgrade "
            f"--to {to}"
        )
    change = "" if found == to else f"brought back from version {found} to {to}"
    facts = {"from": found, "to": to}
    _carry_out(store, downgrade, facts, change, dry_run=dry_run, machine=machine)
    if change and not dry_run:
        if store.database.dialect == "postgresql":
            print(_GRANT_AGAIN, file=sys.stderr)
        print(_AGAIN, file=sys.stderr)


def _known(version: str) -> str:
    if version not in (known := known_versions()):
        told = f"there is no version {inline(version)} of the tables"
        raise MisuseError(f"{told}: this release knows {', '.join(sorted(known))}")
    return version


def _carry_out(
    store: SqlAuditSink,
    move: Callable[[Any, str], None],
    facts: dict[str, Any],
    change: str,
    *,
    dry_run: bool,
    machine: bool,
) -> None:
    """Make a change, if there is one to make, and say so; or say what it would be."""
    moves = facts["from"] not in (None, facts["to"])
    if change and not dry_run:
        if facts["from"] is not None:
            print(f"the tables are being {change}: nobody can write meanwhile", file=sys.stderr)
        _insist(lambda: move(store.database, facts["to"]))
    facts["changed"] = bool(change) and not dry_run
    told = f"the tables {'would be' if dry_run else 'were'} {change}"
    if moves and dry_run:
        with noting_locked():
            facts["events"] = store.database.read(_count)
        told += f": {counted(facts['events'], 'event')}"
    if machine:
        say(json.dumps(facts))
    else:
        say(told if change else f"the tables are of version {facts['to']}: nothing to do")
    if moves and dry_run:
        print(_FIRST, file=sys.stderr)


def _insist(work: Callable[[], object]) -> None:
    """Do it; where somebody else is at it, say so and wait."""
    told = False
    while True:
        try:
            work()
        except AuditTablesError as error:
            if error.reason != UPGRADING:
                raise
            if not told:
                print(inline(f"Waiting: {error}"), file=sys.stderr, flush=True)
            told = True
            time.sleep(_PAUSE)  # somebody may have set a very short lock_timeout
        except DBAPIError as error:
            if (note := _NOTES.get(code_of(error) or "")) is not None:
                error.add_note(note)
            raise
        else:
            return


def _count(connection: Connection) -> int:
    be_patient(connection)
    return connection.execute(select(func.count()).select_from(entries)).scalar_one()
