"""Twelve attacks on a store, and three attackers who carry them out.

An attack changes the rows, which are read into memory and written back. The editor leaves
it at that, and makes marks that nobody signed for what is missing, which take no hash but those that
are there. The rewriter computes all hashes of the chains anew, as anybody can who may write to every
table. The thief has the signing key too, and signs those marks.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from sqlalchemy import Connection, delete, insert, select

from sigra.store import Signer, SqlAuditSink
from sigra.store.canonical import canonical
from sigra.store.chain import GENESIS, commit, entry_hash
from sigra.store.marks import mark_erased, mark_pruned
from sigra.store.tables import chains, entries, marks

Rows = list[dict[str, Any]]
Tables = dict[str, Rows]
TABLES = {"chains": chains, "entries": entries, "marks": marks}
EMPTY: Tables = {name: [] for name in TABLES}

Attacker = Literal["editor", "rewriter", "thief"]
Seen = tuple[str, int]
"""What kind of finding there must be, and at which sequence of the chain."""


@dataclass
class State:
    """All rows of a store; ``tag`` names the chain that is attacked, ``other`` another one.

    Rows before ``first`` stay as they are. ``copy`` is an older state. ``missing`` says for the
    marks of who makes some which entries are gone, or which payloads.
    """

    tables: Tables
    tag: str
    other: str
    random: Random
    first: int = 1
    copy: Tables = field(default_factory=dict)
    missing: dict[str, Any] = field(default_factory=dict)

    def chain(self, tag: str) -> int:
        """Return the id of a chain, 0 where it is gone."""
        return next((row["id"] for row in self.tables["chains"] if row["tag"] == tag), 0)

    @property
    def entries(self) -> Rows:
        """Return those of the attacked chain's entries that may be touched, in order."""
        chain = self.chain(self.tag)
        found = [row for row in self.tables["entries"] if row["chain"] == chain]
        return sorted(
            (row for row in found if row["sequence"] >= self.first), key=lambda row: row["sequence"]
        )

    def pick(self, start: int = 0, end: int | None = None) -> dict[str, Any]:
        """Return one of the entries."""
        return self.random.choice(self.entries[start:end])


def read_state(sink: SqlAuditSink) -> Tables:
    """Read all rows."""

    def rows(connection: Connection) -> Tables:
        return {
            name: [dict(row._mapping) for row in connection.execute(select(table))]
            for name, table in TABLES.items()
        }

    return sink.database.read(rows)


def write_state(sink: SqlAuditSink, state: Tables) -> None:
    """Replace all rows."""

    def replace(connection: Connection) -> None:
        for name, table in TABLES.items():
            connection.execute(delete(table))
            if state[name]:
                connection.execute(insert(table), state[name])

    alter(sink, replace)


def alter(sink: SqlAuditSink, work: Callable[[Connection], object]) -> None:
    """Write as one whom no check of the database stops: on SQLite anybody can say so."""

    def unchecked(connection: Connection) -> None:
        sqlite = connection.dialect.name == "sqlite"
        for there in (True, False):
            if sqlite:
                connection.exec_driver_sql(f"PRAGMA ignore_check_constraints = {int(there)}")
            if there:
                work(connection)

    sink.database.write(unchecked)


# Each attack returns what of it the chain itself shows where no hash was computed anew; the
# last two, of which it shows nothing, what a checkpoint does.


def change_entry(state: State) -> Seen:
    entry = state.pick()
    changes = {
        "action": "invoice.open",
        "outcome": "denied",
        "worker": "invoices.open",
        "event_id": f"{state.random.getrandbits(128):032x}",
        "occurred_at": "2025" + entry["occurred_at"][4:],
    }
    column = state.random.choice(sorted(changes))
    entry[column] = changes[column]
    return "changed", entry["sequence"]


def change_payload(state: State) -> Seen:
    entry = state.pick()
    fields = json.loads(entry["payload"])
    name = state.random.choice(sorted(fields))
    fields[name] = {"metadata": {"note": "eve"}, "attempt": 7}.get(name, "eve")
    entry["payload"] = canonical(fields)
    return "changed", entry["sequence"]


def remove_from_the_middle(state: State) -> Seen:
    entries = state.entries
    start = state.random.randrange(1, len(entries) - 1)
    for entry in entries[start : state.random.randint(start + 1, len(entries) - 1)]:
        state.tables["entries"].remove(entry)
    return "removed", entries[start]["sequence"]


def remove_the_oldest(state: State) -> Seen:
    entries = state.entries
    oldest = entries[: state.random.randint(1, len(entries))]
    state.missing["pruned"] = (oldest[-1]["sequence"], oldest[-1]["hash"])
    for entry in oldest:
        state.tables["entries"].remove(entry)
    return "truncated" if oldest == entries else "removed", oldest[0]["sequence"]


def remove_the_newest(state: State) -> Seen:
    entries = state.entries
    newest = entries[state.random.randrange(1, len(entries)) :]
    last = entries[-len(newest) - 1]
    chain = next(row for row in state.tables["chains"] if row["tag"] == state.tag)
    chain.update(sequence=last["sequence"], head=last["hash"])
    for entry in newest:
        state.tables["entries"].remove(entry)
    return "truncated", newest[0]["sequence"]


def insert_at_the_end(state: State) -> Seen:
    return _insert(state, state.entries[-1]["sequence"] + 1)


def insert_in_the_middle(state: State) -> Seen:
    sequence = state.pick(1)["sequence"]
    for entry in reversed(state.entries):
        if entry["sequence"] >= sequence:
            entry["sequence"] += 1
    return _insert(state, sequence)


def reorder(state: State) -> Seen:
    places = state.random.sample(range(len(state.entries)), 2)
    one, two = (state.entries[place] for place in sorted(places))
    one["sequence"], two["sequence"] = two["sequence"], one["sequence"]
    return "reordered", two["sequence"]


def move_to_another_organization(state: State) -> Seen:
    entry, last = state.pick(1), state.entries[-1]
    there, sequence = state.chain(state.other), entry["sequence"]
    end = max(row["sequence"] for row in state.tables["entries"] if row["chain"] == there)
    entry.update(chain=there, sequence=end + 1)
    return "truncated" if entry is last else "removed", sequence


def delete_payload(state: State) -> Seen:
    entry = state.pick()
    state.missing["erased"] = [(entry["sequence"], entry["hash"])]
    entry.update(salt=None, payload=None, actor_id=None)
    return "removed", entry["sequence"]


def remove_the_chain(state: State) -> Seen:
    for entry in state.entries:
        state.tables["entries"].remove(entry)
    rows = state.tables["chains"]
    state.tables["chains"] = [row for row in rows if row["tag"] != state.tag]
    return "truncated", 1


def put_an_old_copy_back(state: State) -> Seen:
    state.tables = {name: [dict(row) for row in rows] for name, rows in state.copy.items()}
    return "truncated", len(state.entries) + 1


def _insert(state: State, sequence: int) -> Seen:
    model = state.pick()
    fake = {"sequence": sequence, "previous": b"?" * 32}
    event_id = f"{state.random.getrandbits(128):032x}"
    state.tables["entries"].append({**model, **fake, "event_id": event_id})
    return "inserted", sequence


ATTACKS: dict[str, Callable[[State], Seen]] = {
    "change an entry": change_entry,
    "change a payload": change_payload,
    "remove an entry from the middle": remove_from_the_middle,
    "remove the oldest entries": remove_the_oldest,
    "remove the newest entries": remove_the_newest,
    "insert an entry at the end": insert_at_the_end,
    "insert an entry in the middle": insert_in_the_middle,
    "reorder entries": reorder,
    "move an entry to another organization": move_to_another_organization,
    "delete a payload": delete_payload,
    "remove a whole organization": remove_the_chain,
    "put an old copy of the database back": put_an_old_copy_back,
}
"""By the names that they have in docs/security.md."""


def rewrite(state: State) -> None:
    """Compute every chain anew, as if what is there now had been written so."""
    for chain in state.tables["chains"]:
        rows = [row for row in state.tables["entries"] if row["chain"] == chain["id"]]
        previous = GENESIS
        for number, row in enumerate(sorted(rows, key=lambda row: row["sequence"]), 1):
            row["sequence"], row["previous"] = number, previous
            if row["payload"] is not None:
                row["commitment"] = commit(row["salt"], row["payload"])
                row["actor_id"] = json.loads(row["payload"])["actor_id"]
            row["hash"] = previous = entry_hash(
                chain["tag"], number, previous, row["event_id"], row["occurred_at"],
                row["action"], row["worker"], row["outcome"], row["commitment"],
            )  # fmt: skip
        chain["sequence"], chain["head"] = len(rows), previous


def attack_store(
    sink: SqlAuditSink, attack: Callable[[State], Seen], attacker: Attacker, key: Signer,
    state: State,
) -> Seen:  # fmt: skip
    """Carry out an attack on a store that is in this state; return what the attack returns."""
    seen = attack(state)
    if attacker == "rewriter" or (attacker == "thief" and not state.missing):
        rewrite(state)
    write_state(sink, state.tables)
    if attacker == "editor" or (attacker == "rewriter" and "erased" in state.missing):
        sink.database.write(lambda connection: _mark(connection, state, None))
    if attacker == "thief" and state.missing:
        sink.database.write(lambda connection: _mark(connection, state, key))
    return seen


def _mark(connection: Connection, state: State, key: Signer | None) -> None:
    chain = state.chain(state.tag)
    if "pruned" in state.missing:
        mark_pruned(connection, chain, state.tag, state.missing["pruned"], "old", key)
    if "erased" in state.missing:
        mark_erased(connection, chain, state.tag, state.missing["erased"], "asked", key)
