"""The tables of the audit store.

``chains`` has one row for each organization (and one for events without): where its chain
ends. ``entries`` has what the chain covers, ``payloads`` what can be erased without breaking
it, and ``marks`` says what was pruned or erased.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

# SQLite gives out ids by itself only to a column of its INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()

chains = Table(
    "sigra_audit_chains",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("tag", Text, nullable=False, unique=True),
    Column("sequence", BigInteger, nullable=False),
    Column("head", LargeBinary, nullable=False),
)
"""``tag`` names the chain (see ``chain_tag``); ``sequence`` and ``head`` are of its last entry."""

entries = Table(
    "sigra_audit_entries",
    metadata,
    Column("chain", BigInteger, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("previous", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("event_id", Text, nullable=False, unique=True),
    Column("occurred_at", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("worker", Text),
    Column("actor_id", Text),
    Column("commitment", LargeBinary, nullable=False),
    UniqueConstraint("chain", "previous"),
    Index("sigra_audit_entries_newest", "occurred_at", "chain", "sequence"),
    Index("sigra_audit_entries_newest_of_chain", "chain", "occurred_at", "sequence"),
    sqlite_with_rowid=False,
)
"""One row for each event. ``occurred_at`` is ISO 8601 in UTC with microseconds, always of the
same length. ``actor_id`` is a copy of the payload's, for filtering: erased, it is null."""

payloads = Table(
    "sigra_audit_payloads",
    metadata,
    Column("chain", BigInteger, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("salt", LargeBinary, nullable=False),
    Column("payload", Text, nullable=False),
    sqlite_with_rowid=False,
)
"""The rest of each event as canonical JSON, and the salt of its commitment."""

marks = Table(
    "sigra_audit_marks",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("chain", BigInteger, nullable=False, index=True),
    Column("body", Text, nullable=False),
    Column("key_id", Text),
    Column("signature", LargeBinary),
)
"""What was pruned or erased, as canonical JSON, signed where the store has a key."""
