"""Bring the store's tables to another version, and say what was done."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError

from sigra.cli.show import counted, inline, say
from sigra.cli.target import MisuseError
from sigra.store import AuditTablesError, SqlAuditSink
from sigra.store.errors import UPGRADING, code_of
from sigra.store.indexes import missing_constraints, missing_indexes
from sigra.store.migrate import HEAD, Moved, downgrade, older, upgrade
from sigra.store.steps import known_versions
from sigra.store.tables import entries

_OPERATIONS = "in docs/store-operations.md"
_FIRST = (
    "Nobody can write meanwhile, and a process of another release not afterwards either: stop all "
    f'of those first; see "Upgrading" {_OPERATIONS}'
)
_GRANT = f'Now grant the other roles their rights: see "PostgreSQL roles" {_OPERATIONS}'
_GRANT_AGAIN = "Now grant the other roles their rights, as the page of the older release says"
_AGAIN = "Now start the older release; a process of this one would upgrade the tables again"
_PAUSE, _PATIENCE = 0.2, 600.0
"""Seconds between two tries, and until there is no further one on SQLite, which does not tell an
upgrade from a transaction that somebody forgot."""
_HELD = (
    "another process has the lock of the file: if it is another upgrade, this goes on after it; "
    "else find who has the file open, as by lsof, and end it"
)
_NOTES = {
    "23505": "a constraint that somebody dropped has let rows in: sigra audit verify names those "
    "that nobody logged",
    "42P07": "somebody gave that name to an index or table of their own: rename it, as by ALTER "
    "INDEX ... RENAME TO, and do this again",
    "SQLITE_BUSY": "but if it is another upgrade, wait until that is done",
    "SQLITE_CANTOPEN": "is its folder there, and may this user write to it?",
    "SQLITE_READONLY": "copy the file and upgrade the copy, or make it writable",
}
"""What to do besides, by PostgreSQL's code or SQLite's."""


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
        for missing in (missing_indexes, missing_constraints):
            dropped += store.database.read(missing)
    done = _carry_out(
        store, upgrade, Moved(found, to, tuple(dropped)), dry_run=dry_run, machine=machine
    )
    if done is not None and done.found is None and store.database.dialect == "postgresql":
        print(_GRANT, file=sys.stderr)


def downgrade_tables(
    store: SqlAuditSink, found: str | None, version: str, *, dry_run: bool, machine: bool
) -> None:
    """Go back from the version that was found."""
    to = _known(version)
    if found is not None and found < to:
        raise MisuseError(f"the tables are {older(found, to)}")
    if _carry_out(store, downgrade, Moved(found, to), dry_run=dry_run, machine=machine) is not None:
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
    move: Callable[[Any, str], Moved],
    plan: Moved,
    *,
    dry_run: bool,
    machine: bool,
) -> Moved | None:
    """Do what is planned, if that is anything, say what was done and return it; or say the plan."""
    to, done, facts = str(plan.version), None, dict[str, Any]()
    told = _told(plan, "would be")
    if told and not dry_run:
        if plan.found is not None:
            print(f"{_told(plan, 'are being')}: nobody can write meanwhile", file=sys.stderr)
        done = _insist(lambda: move(store.database, to))
        told = _told(done, "were")
    elif plan.found not in (None, to):
        facts["events"] = store.database.read(_count)
        told += f": {counted(facts['events'], 'event')}"
    found, version, indexes = done or plan
    if machine:
        changed = done is not None and bool(told)
        facts |= {"from": found, "to": version, "indexes": indexes, "changed": changed}
        say(json.dumps(facts))
    else:
        say(told or f"the tables are of version {version}: nothing to do")
    if "events" in facts:
        print(_FIRST, file=sys.stderr)
    return done


def _told(moved: Moved, verb: str) -> str:
    """Say what is done to the tables; return an empty text where that is nothing."""
    found, version, indexes = moved
    if found is None:
        return f"the tables {verb} made, of version {version}"
    if found != version:
        how = "upgraded" if found < str(version) else "brought back"
        return f"the tables {verb} {how} from version {found} to {version}"
    again = f"the tables {verb} given again what somebody dropped: {', '.join(indexes)}"
    return again if indexes else ""


def _insist(work: Callable[[], Moved]) -> Moved:
    """Do it; where somebody else is at it, say so and wait."""
    until, told = monotonic() + _PATIENCE, False
    while True:
        try:
            return work()
        except AuditTablesError as error:
            if error.reason != UPGRADING:
                raise
            why = str(error)
        except DBAPIError as error:
            code = code_of(error)
            if code != "SQLITE_BUSY" or monotonic() > until:
                if (note := _NOTES.get(code or "")) is not None:
                    error.add_note(note)
                raise
            why = _HELD
        if not told:
            print(inline(f"Waiting: {why}"), file=sys.stderr, flush=True)
        told = True
        sleep(_PAUSE)  # somebody may have set a very short lock_timeout


def _count(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(entries)).scalar_one()
