"""Export, clean up and checkpoint: commands that maintain the audit store."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, overload

import click
from sqlalchemy import select

from sigra.cli.output import FULL
from sigra.cli.show import Bar, counted, inline, say, stderr_console
from sigra.cli.target import MisuseError
from sigra.cli.verifying import SHOWN
from sigra.errors import MissingExtraError
from sigra.store import (
    Checkpoint,
    Signer,
    SqlAuditSink,
    append_checkpoint,
    export,
    read_checkpoints,
    take_checkpoint,
)
from sigra.store.access import read_tables
from sigra.store.chain import organization_of, time_text
from sigra.store.errors import AuditTablesError, CheckpointOrderError
from sigra.store.reading import event_filter
from sigra.store.stored import organization_shown, shown
from sigra.store.tables import chains, entries, marks

_AHEAD = timedelta(days=1)
"""How far ahead a writer's clock may be before ``cleanup`` warns of it."""


@overload
def read_key(path: Path) -> Signer: ...
@overload
def read_key(path: None) -> None: ...
def read_key(path: Path | None) -> Signer | None:
    """Read a private key; None without a path."""
    if path is None:
        return None
    try:
        return Signer.from_pem(path.read_bytes())
    except (ValueError, TypeError, OSError) as error:
        raise MisuseError(f"{path} is not a readable private key: {error}") from error


def export_store(
    store: SqlAuditSink,
    which: dict[str, Any],
    folder: Path,
    form: Any,
    signer: Signer | None,
    *,
    machine: bool,
) -> None:
    """Export with a progress bar, and say what was written."""
    with Bar(stderr_console(), None, "events") as bar:
        try:
            manifest = export(
                store,
                folder,
                format=form,
                signer=signer,
                progress=lambda done: bar.move(done, done),
                **which,
            )
        except (ConnectionError, TimeoutError):
            raise  # a driver's own, and not of the folder
        except MissingExtraError as error:
            raise MisuseError(str(error)) from None
        except OSError as error:
            reason = error.strerror
            told = f"{folder} cannot be written: {reason}" if reason else str(error)
            raise _unwritable(error, told) from None
    events, files = manifest.events, len(manifest.files)
    if not events:
        warn_if_misspelt(store, which)
    if machine:
        facts = {"folder": str(folder), "format": form, "events": events, "files": files}
        say(json.dumps(facts))
    else:
        say(f"{counted(events, 'event')} in {counted(files, 'file')} in {folder}")


def _unwritable(error: Exception, told: str) -> click.ClickException:
    """Return the error to end with: where the disk is full, the command was called rightly."""
    kind = click.ClickException if getattr(error, "errno", None) in FULL else MisuseError
    return kind(told)


def check_signed(store: SqlAuditSink, signed: bool) -> None:
    """Raise ``MisuseError`` where marks would not be signed, and those before them are."""
    keyed = marks.select().where(marks.c.key_id.is_not(None)).limit(1)
    if not signed and read_tables(store.database, lambda c: c.execute(keyed).first()):
        raise MisuseError(
            "the marks of what was removed or erased before are signed: pass --key too, or verify "
            "--public-key calls that of this one forged, for good (a new key will do)"
        )


def clean_up(store: SqlAuditSink, retention_days: int, *, signed: bool, machine: bool) -> None:
    """Remove old events with a progress bar, and say how many."""
    try:
        before = datetime.now(timezone.utc) - timedelta(days=retention_days)
    except OverflowError:
        raise MisuseError(
            f"--retention-days {retention_days} is too large: that is before the year 1"
        ) from None
    check_signed(store, signed)
    with Bar(stderr_console(), None, "events") as bar:
        removed = store.clean_up(before, lambda done: bar.move(done, done))
    if machine:
        say(json.dumps({"removed": removed, "before": before.isoformat()}))
    else:
        say(f"{counted(removed, 'event')} older than {before:%Y-%m-%d %H:%M} UTC removed")
    _warn_of_future(store)


def _warn_of_future(store: SqlAuditSink) -> None:
    """Warn of each chain that begins with an event of the future: nothing of it is removed."""
    future = time_text(datetime.now(timezone.utc) + _AHEAD)
    oldest = select(entries.c.occurred_at).where(entries.c.chain == chains.c.id)
    moment = oldest.order_by(entries.c.sequence).limit(1).correlate(chains).scalar_subquery()
    query = select(chains.c.tag, moment).where(moment > future).order_by(chains.c.tag)
    found = read_tables(store.database, lambda c: c.execute(query).all())
    texts = [
        f"the oldest event of {_named(organization_shown(tag))} is dated {shown(dated)}, as by a "
        'wrong clock: until then nothing of it is removed. See "Prune" in docs/store-operations.md'
        for tag, dated in found
    ]
    _warn_of_all(texts, "more organization")


def warn_if_misspelt(store: SqlAuditSink, which: dict[str, Any]) -> None:
    """Warn where one organization is named that has no events."""
    organization = which.get("organization_id")
    if organization is not None and not store.query(event_filter(**which), None, 1).events:
        _warn(f"organization {organization} has no events; is that its id?")


def _warn(text: str) -> None:
    print(inline(f"Warning: {text}"), file=sys.stderr)


def _warn_of_all(texts: list[str], what: str, see: str = "") -> None:
    """Warn by each text, up to ``SHOWN`` of them, and say of how many more ``what`` they are."""
    for text in texts[:SHOWN]:
        _warn(text)
    if (more := len(texts) - SHOWN) > 0:
        _warn(f"the same of {counted(more, what)}{see}")


def _named(organization: str | None) -> str:
    return "no organization" if organization is None else f"organization {organization}"


def add_checkpoint(store: SqlAuditSink, signer: Signer, file: Path, *, machine: bool) -> None:
    """Take a checkpoint after the last one of a file, and add it there."""
    try:
        before, taken = _add(store, signer, file)
    except (ConnectionError, TimeoutError, AuditTablesError):
        raise  # a driver's own, or of the tables, and not of the file
    except (ValueError, OSError) as error:
        raise _unwritable(error, f"{file} cannot take a checkpoint: {error}") from error
    number, length = len(before) + 1, len(list(taken.heads))
    if before:
        _compare(before[-1], taken)
    if machine:
        say(json.dumps({"file": str(file), "number": number, "chains": length}))
    else:
        say(f"checkpoint {number} of {counted(length, 'chain')} in {file}")


def _compare(before: Checkpoint, taken: Checkpoint) -> None:
    """Warn of each chain that is shorter now: no prune or erase makes one so."""
    if not before.is_whole():  # verify says so
        return
    now = {tag: sequence for tag, sequence, _ in taken.heads}
    shorter = [(tag, then) for tag, then, _ in before.heads if now.get(tag, 0) < then]
    texts = [
        f"the chain of {_named(organization_of(tag))} ends at sequence {now.get(tag, 0)}, but in "
        f"the checkpoint before at {then}: its end was removed, or a backup was restored"
        for tag, then in shorter
    ]
    _warn_of_all(texts, "more chain", ": verify --checkpoints names them")


def _add(store: SqlAuditSink, signer: Signer, file: Path) -> tuple[list[Checkpoint], Checkpoint]:
    """Add a checkpoint after those of a file; return these too."""
    while True:
        before = read_checkpoints(file) if file.exists() else []
        taken = take_checkpoint(store, signer, before[-1] if before else None)
        with suppress(CheckpointOrderError):  # another command added one meanwhile
            append_checkpoint(file, taken)
            return before, taken
