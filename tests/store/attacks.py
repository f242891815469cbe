"""Twelve attacks on a store, and three attackers who carry them out.

An attack changes the rows, which are read into memory and written back. The editor leaves
it at that. The rewriter then computes all hashes of the chains anew, as anybody can who may
write to every table. The thief has the signing key too, and signs marks for what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from sigra.store import Signer, SqlAuditSink
from sigra.store.chain import GENESIS, commit, entry_hash
from sigra.store.marks import mark_erased, mark_pruned
from sigra.store.tables import chains, entries, marks, payloads

Rows = list[dict[str, Any]]
TABLES = {"chains": chains, "entries": entries, "payloads": payloads, "marks": marks}


@dataclass
class State:
    """All rows of a store; ``chain`` is the one that is attacked, ``other`` another one."""

    tables: dict[str, Rows]
    chain: int
    other: int
    missing: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def entries(self) -> Rows:
        """Return the attacked chain's entries, in order."""
        found = [row for row in self.tables["entries"] if row["chain"] == self.chain]
        return sorted(found, key=lambda row: row["sequence"])

    def payload(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Return an entry's payload."""
        key = (entry["chain"], entry["sequence"])
        return next(p for p in self.tables["payloads"] if (p["chain"], p["sequence"]) == key)

    def move(self, entry: dict[str, Any], chain: int, sequence: int) -> None:
        """Put an entry and its payload at another place."""
        self.payload(entry).update(chain=chain, sequence=sequence)
        entry.update(chain=chain, sequence=sequence)

    def remove(self, entry: dict[str, Any]) -> None:
        """Remove an entry and its payload."""
        self.tables["payloads"].remove(self.payload(entry))
        self.tables["entries"].remove(entry)


def read_state(sink: SqlAuditSink) -> dict[str, Rows]:
    """Read all rows."""

    def rows(connection: Connection) -> dict[str, Rows]:
        return {
            name: [dict(row._mapping) for row in connection.execute(select(table))]
            for name, table in TABLES.items()
        }

    return sink.database.read(rows)


def write_state(sink: SqlAuditSink, state: dict[str, Rows]) -> None:
    """Replace all rows."""

    def replace(connection: Connection) -> None:
        for name, table in TABLES.items():
            connection.execute(delete(table))
            if state[name]:
                connection.execute(insert(table), state[name])

    sink.database.write(replace)


def change_entry(state: State) -> None:
    state.entries[4]["action"] = "invoice.open"


def change_payload(state: State) -> None:
    payload = state.payload(state.entries[4])
    payload["payload"] = payload["payload"].replace('"target_id":"4"', '"target_id":"5"')


def remove_from_the_middle(state: State) -> None:
    state.remove(state.entries[4])


def remove_the_oldest(state: State) -> None:
    oldest = state.entries[:3]
    state.missing["pruned"] = [(oldest[-1]["sequence"], oldest[-1]["hash"])]
    for entry in oldest:
        state.remove(entry)


def remove_the_newest(state: State) -> None:
    state.remove(state.entries[-1])


def insert_at_the_end(state: State) -> None:
    _insert(state, state.entries[-1]["sequence"] + 1)


def insert_in_the_middle(state: State) -> None:
    for entry in reversed(state.entries[4:]):
        state.move(entry, state.chain, entry["sequence"] + 1)
    _insert(state, 5)


def reorder(state: State) -> None:
    one, two = state.entries[3], state.entries[6]
    payload, other = state.payload(one), state.payload(two)
    one["sequence"], two["sequence"] = two["sequence"], one["sequence"]
    payload["sequence"], other["sequence"] = other["sequence"], payload["sequence"]


def move_to_another_organization(state: State) -> None:
    last = max(row["sequence"] for row in state.tables["entries"] if row["chain"] == state.other)
    state.move(state.entries[4], state.other, last + 1)


def delete_payload(state: State) -> None:
    entry = state.entries[4]
    state.missing["erased"] = [(entry["sequence"], entry["hash"])]
    state.tables["payloads"].remove(state.payload(entry))
    entry["actor_id"] = None


def remove_the_chain(state: State) -> None:
    for entry in state.entries:
        state.remove(entry)
    state.tables["chains"] = [row for row in state.tables["chains"] if row["id"] != state.chain]


def _insert(state: State, sequence: int) -> None:
    model = state.entries[0]
    fake = {"sequence": sequence, "event_id": "fake", "previous": b"?" * 32}
    payload = state.payload(model)
    state.tables["entries"].append({**model, **fake})
    state.tables["payloads"].append({**payload, "sequence": sequence})


ATTACKS: dict[str, Callable[[State], None]] = {
    attack.__name__: attack
    for attack in (
        change_entry,
        change_payload,
        remove_from_the_middle,
        remove_the_oldest,
        remove_the_newest,
        insert_at_the_end,
        insert_in_the_middle,
        reorder,
        move_to_another_organization,
        delete_payload,
        remove_the_chain,
    )
}
"""The twelfth, putting an old copy back, needs a copy: the test makes it."""


def rewrite(state: State) -> None:
    """Compute every chain anew, as if what is there now had been written so."""
    for chain in state.tables["chains"]:
        rows = [row for row in state.tables["entries"] if row["chain"] == chain["id"]]
        before = {(p["chain"], p["sequence"]): p for p in state.tables["payloads"]}
        previous = GENESIS
        for number, row in enumerate(sorted(rows, key=lambda row: row["sequence"]), 1):
            payload = before.get((row["chain"], row["sequence"]))
            row["sequence"], row["previous"] = number, previous
            if payload is not None:
                payload["sequence"] = number
                row["commitment"] = commit(payload["salt"], payload["payload"])
                row["actor_id"] = json.loads(payload["payload"])["actor_id"]
            row["hash"] = previous = entry_hash(
                chain["tag"], number, previous, row["event_id"], row["occurred_at"],
                row["action"], row["worker"], row["outcome"], row["commitment"],
            )  # fmt: skip
        chain["sequence"], chain["head"] = len(rows), previous


def attack_store(
    sink: SqlAuditSink, attack: Callable[[State], None], attacker: str, key: Signer
) -> None:
    """Carry out an attack on the chain of ``acme``, next to which there is one of ``other``."""
    tables = read_state(sink)
    ids = {row["tag"]: row["id"] for row in tables["chains"]}
    state = State(tables, ids["org:acme"], ids["org:other"])
    attack(state)
    signs = attacker == "thief" and state.missing
    if attacker != "editor" and not signs:
        rewrite(state)
    write_state(sink, state.tables)
    if signs:
        sink.database.write(lambda connection: _sign(connection, state, key))


def _sign(connection: Connection, state: State, key: Signer) -> None:
    for last in state.missing.get("pruned", ()):
        mark_pruned(connection, state.chain, "org:acme", last, "old", key)
    if "erased" in state.missing:
        mark_erased(connection, state.chain, "org:acme", state.missing["erased"], "asked", key)
