"""Each bit of each column of many rows matters, and no row that is as it was written is blamed."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from amounts import LONG, MANY
from attacks import alter
from events import event
from sqlalchemy import Connection, LargeBinary, Text, and_, cast, literal, select
from sqlalchemy.exc import DBAPIError

from sigra.store import Finding, SqlAuditSink, verify
from sigra.store.chain import organization_of
from sigra.store.check import Anchored, ChainCheck
from sigra.store.marks import Marked
from sigra.store.tables import chains, entries

CHAINS, EACH = 100 if MANY else 10, 10

ONE_OF = 1 if LONG else 500
"""Of so many bits one is flipped."""

SAMPLES = 10_000 if LONG else 60 if MANY else 10
GOOD = 1_000_000 if LONG else 2_000 if MANY else 200

ENTRY = entries.columns.keys()
PLACES = {name: place for place, name in enumerate(ENTRY)}
CHECKED = [place for name, place in PLACES.items() if name not in ("chain", "sequence")]
"""Where in a row what stands; numbers are flipped in a database, whose order they change."""


def write_rows(sink: SqlAuditSink, rows: int, chain_count: int) -> None:
    """Write events of any texts, numbers and nested metadata."""
    some = random.Random(rows)
    texts = ["ann", "b\u00f6b", "\u2028\x7f", "\U0001f600", '"\\', "x" * 300, "0"]
    for start in range(0, rows, 500):
        sink._write([
            (event(
                number, f"org {number % chain_count}", actor_id=some.choice([None, *texts]),
                target_id=some.choice([None, *texts]), worker=some.choice([None, "w.one"]),
                user_agent=some.choice([None, *texts]), attempt=some.choice([None, 1, 20]),
                outcome=some.choice(["success", "failure"]),
                metadata=some.choice([
                    {}, {"n": some.getrandbits(70)}, {"f": some.random() * 1e9},
                    {"a": [1, None, True, {"k\u00e9y": some.choice(texts)}]},
                ]),
            ), None)
            for number in range(start, min(start + 500, rows))
        ])  # fmt: skip


Rows = list[tuple[Any, ...]]


def rows_of(connection: Connection) -> list[tuple[int, str, Rows]]:
    """Return the id and tag of each chain, and its rows as a verification reads them."""
    query = select(entries).order_by(entries.c.sequence)
    return [
        (chain.id, chain.tag, [
            tuple(row) for row in connection.execute(query.where(entries.c.chain == chain.id))
        ])
        for chain in connection.execute(select(chains)).all()
    ]  # fmt: skip


def flip(value: bytes, bit: int) -> bytes:
    """Return bytes of which one bit is another."""
    changed = bytearray(value)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def bits_of(value: str | bytes | None) -> Iterator[Any]:
    """Yield a text or bytes with one bit flipped, as SQLite would give it."""
    data = value.encode() if isinstance(value, str) else value or b""
    for bit in range(random.randrange(ONE_OF), len(data) * 8, ONE_OF):
        flipped = flip(data, bit)
        yield flipped.decode(errors="surrogateescape") if isinstance(value, str) else flipped


def found_in(tag: str, rows: Rows, number: int, row: tuple[Any, ...]) -> list[Finding]:
    """Check a chain from a row on that is another than was written, and the row after it."""
    findings: list[Finding] = []
    marked = Marked(number, rows[number][ENTRY.index("previous")])
    check = ChainCheck(
        SimpleNamespace(tag=tag, head=None), marked, Anchored({}, 0), lambda: (), findings.append
    )
    for each in (row, *rows[number + 1 : number + 2]):
        check.row(*each)
    return findings


def test_each_bit_is_found_at_its_row(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """No text and no bytes of any row can be another by a bit."""
    sink = open_sink(new_url("sqlite"))
    write_rows(sink, CHAINS * EACH, CHAINS)
    flipped = 0
    for _, tag, rows in sink.database.read(rows_of):
        for number, row in enumerate(rows):
            assert found_in(tag, rows, number, row) == []
            for place in CHECKED:
                for value in bits_of(row[place]):
                    findings = found_in(tag, rows, number, (*row[:place], value, *row[place + 1 :]))
                    assert [number + 1] == [one.sequence for one in findings[:1]], (place, value)
                    flipped += 1
    print(f"{flipped} bits")


def test_a_bit_in_a_database_is_found_at_its_row(
    url: str, open_sink: Callable[..., SqlAuditSink]
) -> None:
    """So it is by a verification of the organization, of numbers too, if the database takes it."""
    sink = open_sink(url)
    write_rows(sink, CHAINS * EACH, CHAINS)
    stored = sink.database.read(rows_of)
    refused = 0
    for _ in range(SAMPLES):
        seed = secrets.randbits(32)
        found = _flip_one(sink, stored, random.Random(seed))
        assert found is not False, seed
        refused += found is None
    print(f"{SAMPLES} bits, of which the database refused {refused}")
    assert verify(sink, all_organizations=True).findings == ()


def _flip_one(sink: SqlAuditSink, stored: Any, some: random.Random) -> bool | None:
    """Flip a bit of one value in the database, and back: was it found, or could it not be?"""
    chain, tag, rows = some.choice(stored)
    number = some.randrange(len(rows))
    column = some.choice(list(entries.columns))
    value = rows[number][PLACES[column.name]]
    if value is None:
        return None
    key = {"chain": chain, "sequence": number + 1}

    def put(there: dict[str, Any], new: Any) -> None:
        where = and_(*(entries.c[name] == each for name, each in there.items()))
        alter(sink, lambda c: c.execute(entries.update().where(where).values({column: new})))

    try:
        changed = _flipped(value, some, sink.database.dialect)
        put(key, changed)
    except (DBAPIError, UnicodeError):
        return None
    report = verify(sink, organization_id=organization_of(tag))
    put({**key, column.name: changed} if column.name in key else key, value)
    places = {one.sequence for one in report.findings}
    if column.name == "sequence":  # where the row now stands is found besides
        return number + 1 in places
    return report.first is not None and report.first.sequence == number + 1


def _flipped(value: Any, some: random.Random, dialect: str) -> Any:
    if isinstance(value, int):
        data = value.to_bytes(8, "big", signed=True)
        return int.from_bytes(flip(data, some.randrange(64)), "big", signed=True)
    data = value.encode() if isinstance(value, str) else value
    data = flip(data, some.randrange(len(data) * 8))
    if isinstance(value, bytes):
        return data
    return cast(literal(data, LargeBinary), Text) if dialect == "sqlite" else data.decode()


def test_good_rows_are_never_blamed(
    new_url: Callable[[str], str], open_sink: Callable[..., SqlAuditSink]
) -> None:
    """Whatever was logged, what is there as it was written is intact."""
    sink = open_sink(new_url("sqlite"))
    write_rows(sink, GOOD, 100)
    report = verify(sink, all_organizations=True)
    assert (report.verdict, report.rows, report.findings) == ("intact", GOOD, ())
