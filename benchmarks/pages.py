"""What a page of one organization among 10^4 costs: in a store of 10^4 rows, and in one of 10^7.

``python -m benchmarks.pages [--rows N] [--small URL --large URL]``: two empty databases, by default
SQLite files in the temporary folder, of which 10^7 rows take 8 GB. The database makes the rows
itself; they read like others, and their chains would not verify. Times are of the processor, but
for PostgreSQL, whose are of the clock.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from datetime import datetime, timedelta, timezone
from time import perf_counter, process_time

from sqlalchemy import Connection, create_engine

from sigra.store import SqlAuditSink
from sigra.store.chain import chain_tag
from sigra.store.query import matching, page_query
from sigra.store.reading import EventFilter
from sigra.store.tables import chains, entries

ORGANIZATIONS = 10_000
MINE, PLACE = 1_000, 5_000
"""How many events the one organization has, in both stores, and which of the chains is its."""

PAGE, ROUNDS = 50, 100
STEP = 3
"""Seconds between two events: a year for 10^7 of them."""

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
SECOND = f"(sequence * {ORGANIZATIONS * STEP} + chain * {STEP} + {int(START.timestamp())})"
NUMBER = f"(chain * {2 * MINE} + sequence)"

MADE: dict[str, dict[str, str]] = {
    "sqlite": {
        "from": "WITH RECURSIVE a(chain) AS (SELECT {first} UNION ALL SELECT chain + 1 FROM a "
                "WHERE chain < {last}), b(sequence) AS (SELECT 1 UNION ALL SELECT sequence + 1 "
                "FROM b WHERE sequence < {each}) SELECT {columns} FROM a CROSS JOIN b",
        "bytes": "randomblob(32)",
        "id": f"printf('01890a5d-ac96-774b-%016x', {NUMBER})",
        "time": f"strftime('%Y-%m-%dT%H:%M:%S', {SECOND}, 'unixepoch') || '.000000+00:00'",
    },
    "postgresql": {
        "from": "SELECT {columns} FROM generate_series({first}::bigint, {last}) AS a(chain), "
                "generate_series(1::bigint, {each}) AS b(sequence)",
        "bytes": f"sha256({NUMBER}::text::bytea)",
        "id": f"'01890a5d-ac96-774b-' || lpad(to_hex({NUMBER}), 16, '0')",
        "time": f"to_char(to_timestamp({SECOND}) AT TIME ZONE 'UTC', "
                "'YYYY-MM-DD\"T\"HH24:MI:SS') || '.000000+00:00'",
    },
}  # fmt: skip
"""How each database makes rows, some bytes, an id and a time."""

ACTOR = "'user_' || (sequence - 20 * (sequence / 20))"
PAYLOAD = (
    f'\'{{"actor_id":"\' || {ACTOR} || \'","actor_type":"user","attempt":1,'
    '"effective_user_id":"user_7","ip_address":null,"job_id":"01890a5d-ac96-774b-bcce-b302099a8057",'
    '"metadata":{"amount":129950,"currency":"EUR","lines":3},"target_id":"inv_1042",'
    '"target_type":"invoice","user_agent":null}\''
)


def fill(connection: Connection, first: int, last: int, each: int) -> None:
    """Make some chains, each of so many rows."""
    made = MADE[connection.dialect.name]
    values = dict.fromkeys(("previous", "hash", "head", "commitment", "salt"), made["bytes"])
    values |= {
        "id": "chain", "chain": "chain", "sequence": "sequence", "event_id": made["id"],
        "tag": f"'{chain_tag('')}' || chain", "occurred_at": made["time"],
        "action": "CASE WHEN sequence = 10 * (sequence / 10) THEN 'invoice.open' "
                  "ELSE 'invoice.close' END",
        "outcome": "'success'", "worker": "'invoices.close'", "actor_id": ACTOR,
        "payload": PAYLOAD,
    }  # fmt: skip
    for table, count, wanted in (
        (chains, 1, values | {"sequence": str(each)}),
        (entries, each, values),
    ):
        names = table.columns.keys()
        columns = ", ".join(wanted[name] for name in names)
        rows = made["from"].format(first=first, last=last, each=count, columns=columns)
        connection.exec_driver_sql(f"INSERT INTO {table.name} ({', '.join(names)}) {rows}")


def make_store(url: str, rows: int) -> SqlAuditSink:
    """Make a store: ``MINE`` rows are the one organization's, and the others share the rest."""
    sink = SqlAuditSink(url)
    sink.prepare()
    sink.close()
    each = max(1, rows // ORGANIZATIONS)
    newest = next(i for i in entries.indexes if i.name == "sigra_audit_entries_newest")
    engine = create_engine(url)
    with engine.begin() as connection:
        if engine.name == "sqlite":
            for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -200000"):
                connection.exec_driver_sql(f"PRAGMA {setting}")
        newest.drop(connection)  # its order is not that in which the rows are made
        fill(connection, 1, PLACE - 1, each)
        fill(connection, PLACE, PLACE, MINE)
        fill(connection, PLACE + 1, min(ORGANIZATIONS, (rows - MINE) // each + 1), each)
        newest.create(connection)
    with engine.connect() as connection:
        if engine.name == "postgresql":  # as its daemon does sooner or later
            connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("ANALYZE")
    engine.dispose()
    return SqlAuditSink(url)


def readings(sink: SqlAuditSink) -> dict[str, tuple[EventFilter, str | None]]:
    """Return what is read: filters, and the cursor of a page deep within."""
    mine = str(PLACE)
    cursor = None
    for _ in range(MINE * 8 // 10 // PAGE):
        cursor = sink.query(EventFilter(mine), cursor, PAGE).cursor
    middle = START + timedelta(seconds=MINE // 2 * ORGANIZATIONS * STEP)
    return {
        "the newest page": (EventFilter(mine), None),
        "the 17th page": (EventFilter(mine), cursor),
        "one action of ten": (EventFilter(mine, action="invoice.open"), None),
        "one actor of twenty": (EventFilter(mine, actor_id="user_7"), None),
        "until the middle of the year": (EventFilter(mine, until=middle), None),
    }


def plan(sink: SqlAuditSink, which: EventFilter) -> str:
    """Return how the database reads a page."""
    word = "EXPLAIN QUERY PLAN" if sink.database.dialect == "sqlite" else "EXPLAIN"

    def explained(connection: Connection) -> str:
        query = matching(page_query(PLACE, None), which, PLACE).limit(PAGE + 1)
        text = query.compile(connection.engine, compile_kwargs={"literal_binds": True})
        rows = connection.exec_driver_sql(f"{word} {text}")
        return "\n".join(f"    {row[-1]}" for row in rows)

    return sink.database.read(explained)


def compare(small: SqlAuditSink, large: SqlAuditSink) -> None:
    """Print the cost of each page in both, read in turns, and the median ratio."""
    now = process_time if large.database.dialect == "sqlite" else perf_counter

    def cost(sink: SqlAuditSink, which: EventFilter, cursor: str | None) -> float:
        start = now()
        sink.query(which, cursor, PAGE)
        return now() - start

    for name, (which, cursor) in readings(large).items():
        expected = len(small.query(which, cursor, PAGE).events)
        assert len(large.query(which, cursor, PAGE).events) == expected > 0
        costs = [[cost(sink, which, cursor) for sink in (small, large)] for _ in range(ROUNDS)]
        ratio = statistics.median(b / a for a, b in costs)
        few, many = (statistics.median(side) * 1e6 for side in zip(*costs, strict=True))
        print(f"{name}: {few:.0f} us of few rows, {many:.0f} us of many, ratio {ratio:.2f}")
    print("the newest page is read so:", plan(large, EventFilter(str(PLACE))), sep="\n")


def main() -> None:
    """Fill both stores, compare, and remove what was made in the temporary folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--small")
    parser.add_argument("--large")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        small = make_store(args.small or f"sqlite:///{folder}/small.db", ORGANIZATIONS)
        start = perf_counter()
        large = make_store(args.large or f"sqlite:///{folder}/large.db", args.rows)
        print(f"{args.rows} rows made in {perf_counter() - start:.0f} s")
        compare(small, large)
        for sink in (small, large):
            sink.close()


if __name__ == "__main__":
    main()
