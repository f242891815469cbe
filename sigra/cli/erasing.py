"""Erase persons from the audit store, and say what is left to do."""

from __future__ import annotations

import json
import sys
from typing import Any

from sigra.cli.keeping import check_signed, warn_if_misspelt
from sigra.cli.show import counted, say
from sigra.cli.target import MisuseError
from sigra.cli.verifying import told
from sigra.store import Signer, SqlAuditSink, erase
from sigra.store import vacuum as scrub
from sigra.store.database import LEFT
from sigra.store.errors import AuditChainError
from sigra.store.marks import check_reason
from sigra.store.reading import id_as_logged
from sigra.store.report import Finding

_ON_DISK = (
    "What is left to do: have the owner of the tables run VACUUM FULL sigra_audit_entries; until "
    "then the text is still on the disk"
)
_IN_FILE = (
    "What is left to do: run the same command without --no-vacuum, in a quiet hour; until then "
    "copies of the text may be in the file and in its -wal"
)


def erase_persons(
    store: SqlAuditSink,
    which: dict[str, Any],
    persons: tuple[str, ...],
    target_type: str | None,
    reason: str,
    no_vacuum: bool,
    signer: Signer | None,
    *,
    machine: bool,
) -> int:
    """Erase persons one after the other, then their text on the disk, and say how many events.

    Returns the command's exit status: 1 where one of them was not as it was written.
    """
    _check(persons, reason)
    check_signed(store, signer is not None)
    changed: list[Finding] = []

    def tell(finding: Finding) -> None:  # at once: what comes after it may fail
        changed.append(finding)
        print(told(finding), file=sys.stderr)

    how = {"reason": reason, "signer": signer, "target_type": target_type, "on_changed": tell}
    erased = _erase(store, persons, not no_vacuum, {**how, **which})
    if not erased:
        warn_if_misspelt(store, which)
    if machine:
        facts = {"erased": erased, "findings": [finding._asdict() for finding in changed]}
        say(json.dumps(facts, default=str))
    else:
        more = f"; somebody had changed {len(changed):,} of them" if changed else ""
        say(f"{counted(erased, 'event')} erased{more}")
    if erased:
        _say_what_is_left(store, vacuumed=not no_vacuum)
    return 1 if changed else 0


def _check(persons: tuple[str, ...], reason: str) -> None:
    """Raise ``MisuseError`` for any that will not do, before anything of the first one is gone."""
    try:
        check_reason(reason)
        for person in persons:
            id_as_logged("person", person)
    except ValueError as error:
        raise MisuseError(str(error)) from None


def _erase(store: SqlAuditSink, persons: tuple[str, ...], vacuum: bool, how: dict[str, Any]) -> int:
    """Erase each person, whatever chain cannot be used, then what is left of them on the disk."""
    erased, failed = 0, list[AuditChainError]()
    for person in persons:
        try:
            erased += erase(store, person, vacuum=False, **how)
        except AuditChainError as error:
            failed.append(error)
    try:
        if vacuum:
            scrub(store)
    except KeyboardInterrupt:
        print(f"Stopped: {LEFT}; the same command, run again, removes it", file=sys.stderr)
        raise
    except Exception as error:
        error.add_note("the same command, run again, does that")
        raise
    if failed:
        _say_what_is_left(store, vacuumed=vacuum)  # of what is erased in the other chains
        raise failed[0]
    return erased


def _say_what_is_left(store: SqlAuditSink, *, vacuumed: bool) -> None:
    if store.database.dialect == "postgresql":
        print(_ON_DISK, file=sys.stderr)
    elif not vacuumed:
        print(_IN_FILE, file=sys.stderr)
