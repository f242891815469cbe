"""The tables of the audit store.

``chains`` has one row for each organization (and one for events without): where its chain
ends. ``entries`` has what the chain covers, and beside it what can be erased without breaking
it; ``marks`` says what was pruned or erased.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

# SQLite generates ids only for a column of its type INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")

UNNUMBERED = "length(previous) = 32"
FOLLOWS = f"{UNNUMBERED} OR hex(substr(previous, 1, 8)) = printf('%016X', sequence - 1)"

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
    Column("salt", LargeBinary),
    Column("payload", Text),
    UniqueConstraint("chain", "previous").ddl_if(dialect="postgresql"),
    CheckConstraint(FOLLOWS, name="sigra_audit_entries_follows").ddl_if(dialect="sqlite"),
    Index(
        "sigra_audit_entries_first", "chain", "previous", unique=True, sqlite_where=text(UNNUMBERED)
    ).ddl_if(dialect="sqlite"),
    Index("sigra_audit_entries_newest", "occurred_at", "chain", "sequence"),
    Index("sigra_audit_entries_newest_of_chain", "chain", "occurred_at", "sequence"),
    sqlite_with_rowid=False,
)
"""One row for each event. ``occurred_at`` is ISO 8601 in UTC with microseconds, always of the
same length. ``payload`` is the rest of the event as canonical JSON, ``salt`` that of its
``commitment``, and ``actor_id`` a copy of the payload's, for filtering: the hash covers none of
the three, and in an erased event they are null."""

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
