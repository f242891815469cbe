"""Removing what must not be kept, so that the chains still verify."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

from sqlalchemy import Connection, and_, delete, exists, func, or_, select, true, update

from sigra.scope import Id, id_text
from sigra.store.access import read_tables, write_tables
from sigra.store.append import lock_chain
from sigra.store.beginning import beginning, placed
from sigra.store.chain import is_committed, is_sound, organization_of, time_text
from sigra.store.database import Database
from sigra.store.errors import AuditChainError, InvalidQueryError
from sigra.store.keys import Signer
from sigra.store.marks import check_reason, mark_erased, mark_pruned
from sigra.store.query import of_tenancy
from sigra.store.reading import EventFilter, Tenancy, id_as_logged, tenancy, utc
from sigra.store.statements import ConnectionRunner
from sigra.store.stored import is_text
from sigra.store.tables import chains, entries

if TYPE_CHECKING:
    from sigra.store.sink import SqlAuditSink

_ERASED_AT_ONCE = 1_000
_HELD, _TURN = 0.5, 0.1
"""Seconds for which SQLite's lock is taken for one batch after the other, and then left alone: who
waits for it stands in no queue, and looks again each tenth of a second."""

_IDS = ("actor_id", "effective_user_id", "target_id")


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
    batch leaves a mark, signed where there is a signer. What stops half-way is taken up by the
    next call. Raises ``AuditChainError`` for a chain whose old entries are not as they were
    written, once the others are done: they stay.
    """
    found, limit = tenancy(**which), time_text(utc("before", before))
    check_reason(reason)
    if type(batch) is not int or batch < 1:
        raise ValueError(f"batch must be an int of at least 1, not {batch!r}")
    sink.flush()
    sink.prepare()
    old = exists().where(entries.c.chain == chains.c.id, entries.c.occurred_at < limit)
    failed: list[AuditChainError] = []
    since = monotonic()
    for tag in _tags(sink.database, found, old):
        with _put_off(failed):
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
    _raise(failed)


def _give_way(database: Database, since: float) -> float:
    """Leave SQLite's lock to others where it was taken long enough; return since when it is."""
    if database.dialect != "sqlite" or monotonic() - since < _HELD:
        return since
    sleep(_TURN)
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
    vacuum: bool = True,
    **which: Unpack[Tenancy],
) -> int:
    """Erase the payloads of all events of a person; return how many events these were.

    Of a person are events in which the id is ``actor_id``, ``effective_user_id`` or
    ``target_id``; ``which`` is ``organization_id=`` or ``all_organizations=True``. What stays of
    such an event is its id, time, action, outcome and worker. A mark tells of each, signed
    where there is a signer. The text is then taken off SQLite's disk too, by ``vacuum``: where
    that is False, it is for the caller to call; on PostgreSQL it is gone from the tables' files
    after a VACUUM FULL. An event that is not as it was written goes without a mark, and ``verify``
    still misses it; where its place cannot be read, ``AuditChainError`` is raised as by ``prune``.
    """
    which_chains = tenancy(**which)
    check_reason(reason)
    names = _names(person_id)
    sink.flush()
    sink.prepare()
    erased = 0
    failed: list[AuditChainError] = []
    for tag in _tags(sink.database, which_chains, true()):
        with _put_off(failed):
            _check_tag(tag)
            for found in _of_person(sink.database, tag, names):
                write_tables(
                    sink.database,
                    lambda c: _erase_some(c, tag, found, reason, signer),  # noqa: B023
                )
                erased += len(found)
    if vacuum:
        # Also where nothing was left to erase: an earlier call may have been killed before this.
        sink.database.scrub()
    _raise(failed)
    return erased


def _names(person_id: Id) -> set[str]:
    """Return the ids by which a person is named in events."""
    person = id_as_logged("person_id", person_id)
    if person is None:
        raise InvalidQueryError("person_id", "None is nobody: pass the id of whom to erase")
    # Whoever wrote to the sink itself may have left a long id as it was, if it is UTF-8 at all.
    given = str(id_text(person_id))
    return {person, given} if is_text(given) else {person}


def vacuum(sink: SqlAuditSink) -> None:
    """Leave in a SQLite store's file, and in its write-ahead log, no byte of what was erased.

    The file is written anew, which takes as much room again and nobody else can write meanwhile.
    On PostgreSQL nothing is done.
    """
    sink.prepare()
    sink.database.scrub()


def _of_person(database: Database, tag: str, names: Collection[str]) -> Iterator[list[Any]]:
    """Yield a person's events, some at a time, with nothing locked."""
    after = 0
    while True:
        query = _mentions(database.dialect, tag, after, names)
        rows = read_tables(database, lambda connection: connection.execute(query).all())  # noqa: B023
        theirs = [placed(tag, row) for row in rows if _is_of(row.payload, names)]
        if theirs:
            yield theirs
        if len(rows) < _ERASED_AT_ONCE:
            return
        after = rows[-1].sequence


def _erase_some(
    connection: Connection, tag: str, found: list[Any], reason: str, signer: Signer | None
) -> None:
    chain = lock_chain(ConnectionRunner(connection), tag)[0]
    # What somebody has changed goes too, but nobody signs for it: verify still misses it.
    whole = [(row.sequence, row.hash) for row in found if _is_whole(row, tag)]
    if whole:
        mark_erased(connection, chain, tag, whole, reason, signer)
    theirs = and_(entries.c.chain == chain, entries.c.sequence.in_([row.sequence for row in found]))
    nothing = {"salt": None, "payload": None, "actor_id": None}
    connection.execute(update(entries).where(theirs).values(nothing))


def _is_whole(row: Any, tag: str) -> bool:
    try:
        return is_sound(row, tag) and is_committed(row.commitment, row.salt, row.payload)
    except (TypeError, ValueError, AttributeError):
        return False


def _mentions(dialect: str, tag: str, after: int, names: Collection[str]) -> Any:
    """Return the query of payloads that may be a person's: of few others too."""
    # Not LIKE, of which SQLite takes 50,000 bytes: an id may be of any length.
    place = func.instr if dialect == "sqlite" else func.strpos
    said = [json.dumps(name, ensure_ascii=False) for name in names]
    mentioned = [place(entries.c.payload, f'"{key}":{name}') > 0 for key in _IDS for name in said]
    return (
        select(entries)
        .join(chains, chains.c.id == entries.c.chain)
        .where(chains.c.tag == tag, entries.c.sequence > after, or_(*mentioned))
        .order_by(entries.c.sequence)
        .limit(_ERASED_AT_ONCE)
    )


def _is_of(payload: str, names: Collection[str]) -> bool:
    try:
        fields = json.loads(payload)
        return any(fields.get(key) in names for key in _IDS)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return True  # it is damaged, and the person is mentioned in it


def _tags(database: Database, which: EventFilter, condition: Any) -> list[str]:
    """Return the tags of chains of which a condition holds."""
    query = of_tenancy(select(chains.c.tag).where(condition).order_by(chains.c.tag), which)
    return read_tables(database, lambda connection: list(connection.scalars(query)))


@contextmanager
def _put_off(failed: list[AuditChainError]) -> Iterator[None]:
    """Note what is wrong with one chain, which is to keep nothing from being done with others."""
    try:
        yield
    except AuditChainError as error:
        failed.append(error)


def _raise(failed: list[AuditChainError]) -> None:
    if failed:
        raise failed[0]


def _check_tag(tag: Any) -> None:
    if not is_text(tag):
        raise AuditChainError.odd(tag)
