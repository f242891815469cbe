"""Removing what must not be kept, so that the chains still verify."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

from sqlalchemy import Connection, and_, delete, exists, select, update

from sigra.errors import brief
from sigra.scope import Id
from sigra.store.access import read_tables, write_tables
from sigra.store.append import lock_chain
from sigra.store.beginning import beginning
from sigra.store.chain import is_committed, is_sound, organization_of, time_text
from sigra.store.database import Database
from sigra.store.errors import AuditChainError
from sigra.store.keys import Signer
from sigra.store.marks import check_reason, mark_erased, mark_pruned
from sigra.store.person import events_of, mentioned, names_of
from sigra.store.query import of_tenancy
from sigra.store.reading import EventFilter, Tenancy, tenancy, utc
from sigra.store.ready import make_ready
from sigra.store.report import Finding
from sigra.store.statements import ConnectionRunner
from sigra.store.stored import is_text
from sigra.store.strays import check_rows
from sigra.store.tables import chains, entries

if TYPE_CHECKING:
    from sigra.store.sink import SqlAuditSink

_log = logging.getLogger("sigra.audit")

_UNMARKED = "it had been changed since it was written, and was erased without a mark"

_OF_CHAIN = entries.c.chain == chains.c.id

_HELD, _PAUSE = 0.5, 0.1
"""Seconds for which SQLite's lock is taken, batch after batch, and then left to others: they do not
queue for it, but each looks again every tenth of a second."""


class Pruned(NamedTuple):
    """One batch that is gone: of which organization, and how many events."""

    organization_id: str | None
    events: int


def prune(
    sink: SqlAuditSink,
    before: datetime,
    *,
    reason: str,
    signer: Signer | None = None,
    batch: int = 10_000,
    **which: Unpack[Tenancy],
) -> Iterator[Pruned]:
    """Remove events older than a moment, batch by batch; yield each batch once it is gone.

    ``which`` is ``organization_id=`` or ``all_organizations=True``. Only the beginning of a chain
    goes: an old event that was written after a newer one stays until that one is old too. Each
    batch leaves a mark, signed if there is a signer. If a call is stopped, the next one goes on.
    Old entries that were changed since they were written stay, and ``AuditChainError`` is raised
    for their chain once the others are done.
    """
    found, limit = tenancy(**which), time_text(utc("before", before))
    check_reason(reason)
    if type(batch) is not int or batch < 1:
        raise ValueError(f"batch must be an int of at least 1, not {batch!r}")
    make_ready(sink, signer)
    old = exists().where(_OF_CHAIN, entries.c.occurred_at < limit)
    failed: list[AuditChainError] = []
    since = monotonic()
    for tag in _tags(sink.database, found, old):
        with _collected(failed):
            _check_tag(tag)
            more = True
            while more:
                count = write_tables(
                    sink.database,
                    lambda c: _prune_some(c, tag, limit, batch, reason, signer),  # noqa: B023
                )
                since = _give_way(sink.database, since)
                if count:
                    yield Pruned(organization_of(tag), count)
                more = count == batch
    _raise_first(failed, sink.database, found)


def _give_way(database: Database, since: float) -> float:
    """Pause where SQLite's lock was taken for long enough; return since when it is taken."""
    if database.dialect != "sqlite" or monotonic() - since < _HELD:
        return since
    sleep(_PAUSE)
    return monotonic()


def _prune_some(
    connection: Connection, tag: str, limit: str, batch: int, reason: str, signer: Signer | None
) -> int:
    chain = lock_chain(ConnectionRunner(connection), tag)[0]
    old = beginning(connection, chain, tag, limit, batch)
    if old:
        mark_pruned(connection, chain, tag, old[-1], reason, signer)
        gone = and_(entries.c.chain == chain, entries.c.sequence <= old[-1][0])
        connection.execute(delete(entries).where(gone))
    return len(old)


def erase(
    sink: SqlAuditSink,
    person_id: Id,
    *,
    reason: str,
    signer: Signer | None = None,
    target_type: str | None = None,
    vacuum: bool = True,
    on_changed: Callable[[Finding], object] | None = None,
    **which: Unpack[Tenancy],
) -> int:
    """Erase the payloads of all events of a person; return how many events these were.

    An event is a person's if the id is its ``actor_id``, ``effective_user_id`` or ``target_id``
    (of that ``target_type``, if one is given). ``which`` is ``organization_id=`` or
    ``all_organizations=True``. Each event's id, time, action, outcome and worker stay, and a mark
    names the event, signed if there is a signer. ``vacuum`` removes the text from SQLite's disk
    too (if False, call ``sigra.store.vacuum`` later); PostgreSQL needs a VACUUM FULL. An event
    changed since it was written is erased without a mark, so that ``verify`` still reports it, and
    passed to ``on_changed``, or else logged. Raises ``AuditChainError`` as ``prune`` does.
    """
    which_chains = tenancy(**which)
    check_reason(reason)
    names = names_of(person_id)
    make_ready(sink, signer)
    erased = 0
    failed: list[AuditChainError] = []
    theirs = exists().where(_OF_CHAIN, mentioned(sink.database.dialect, names))
    for tag in _tags(sink.database, which_chains, theirs):
        with _collected(failed):
            _check_tag(tag)
            for found in events_of(sink.database, tag, names, target_type):
                step = partial(_erase_some, tag=tag, found=found, reason=reason, signer=signer)
                _tell_changed(tag, write_tables(sink.database, step), on_changed)
                erased += len(found)
    if vacuum:  # also where nothing was left to erase: an earlier call may have been killed before
        sink.database.scrub()
    _raise_first(failed, sink.database, which_chains)
    return erased


def vacuum(sink: SqlAuditSink) -> None:
    """Remove from a SQLite store's file, and its write-ahead log, all bytes of what was erased.

    The file is written anew: this takes as much room again, and nobody else can write meanwhile.
    On PostgreSQL nothing is done.
    """
    make_ready(sink)
    sink.database.scrub()


def _erase_some(
    connection: Connection, tag: str, found: list[Any], reason: str, signer: Signer | None
) -> list[Any]:
    """Erase some events of one chain; return those of them that somebody has changed."""
    chain = lock_chain(ConnectionRunner(connection), tag)[0]
    whole: list[tuple[int, bytes]] = []
    changed: list[Any] = []  # erased too, but without a mark: verify still reports them
    for row in found:
        if _is_whole(row, tag):
            whole.append((row.sequence, row.hash))
        else:
            changed.append(row)
    if whole:
        mark_erased(connection, chain, tag, whole, reason, signer)
    theirs = and_(entries.c.chain == chain, entries.c.sequence.in_([row.sequence for row in found]))
    nothing = {"salt": None, "payload": None, "actor_id": None}
    connection.execute(update(entries).where(theirs).values(nothing))
    return changed


def _tell_changed(
    tag: str, changed: list[Any], on_changed: Callable[[Finding], object] | None
) -> None:
    organization = organization_of(tag)
    if on_changed is not None:
        for row in changed:
            on_changed(Finding(organization, row.sequence, row.event_id, "changed", _UNMARKED))
    elif changed:
        where = "no organization" if organization is None else f"organization {brief(organization)}"
        for row in changed:
            _log.error("an audit event of %s, sequence %s: %s", where, row.sequence, _UNMARKED)


def _is_whole(row: Any, tag: str) -> bool:
    try:
        return is_sound(row, tag) and is_committed(row.commitment, row.salt, row.payload)
    except (TypeError, ValueError, AttributeError):
        return False


def _tags(database: Database, which: EventFilter, condition: Any) -> list[str]:
    """Return the tags of the chains for which a condition holds."""
    query = of_tenancy(select(chains.c.tag).where(condition).order_by(chains.c.tag), which)
    return read_tables(database, lambda connection: list(connection.scalars(query)))


@contextmanager
def _collected(failed: list[AuditChainError]) -> Iterator[None]:
    """Collect the error of one chain, which must not stop the work on the others."""
    try:
        yield
    except AuditChainError as error:
        failed.append(error)


def _raise_first(failed: list[AuditChainError], database: Database, which: EventFilter) -> None:
    """Raise what was collected, or for a chain that has no row, and so was passed over."""
    if failed:
        if (more := len(failed) - 1) > 0:
            failed[0].add_note(f"{more} more of the chains cannot be used: verify names them")
        raise failed[0]
    check_rows(database, which)


def _check_tag(tag: Any) -> None:
    if not is_text(tag):
        raise AuditChainError.odd(tag)
