"""Let SQLite tell by a check, and not by an index, that no two entries follow one."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_UNNUMBERED = "length(previous) = 32"
_FOLLOWS = f"{_UNNUMBERED} OR hex(substr(previous, 1, 8)) = printf('%016X', sequence - 1)"
_OF_OTHERS = """
SELECT sql FROM sqlite_master WHERE tbl_name = 'sigra_audit_entries' AND type <> 'table'
AND sql IS NOT NULL AND name NOT IN ('sigra_audit_entries_newest',
'sigra_audit_entries_newest_of_chain', 'sigra_audit_entries_first')
"""


def upgrade(op: Operations) -> None:
    """Make the entries anew, with the check."""
    if op.get_bind().dialect.name == "sqlite":
        _remake(op, sa.CheckConstraint(_FOLLOWS, name="sigra_audit_entries_follows"))
        op.create_index(
            "sigra_audit_entries_first",
            "sigra_audit_entries",
            ["chain", "previous"],
            unique=True,
            sqlite_where=sa.text(_UNNUMBERED),
        )


def downgrade(op: Operations) -> None:
    """Make the entries anew, with the index."""
    if op.get_bind().dialect.name == "sqlite":
        _remake(op, sa.UniqueConstraint("chain", "previous"))


def _remake(op: Operations, constraint: sa.Constraint) -> None:
    of_others = op.get_bind().exec_driver_sql(_OF_OTHERS).scalars().all()
    op.create_table(
        "sigra_audit_remade",
        sa.Column("chain", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("previous", sa.LargeBinary, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False, unique=True),
        sa.Column("occurred_at", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("worker", sa.Text),
        sa.Column("actor_id", sa.Text),
        sa.Column("commitment", sa.LargeBinary, nullable=False),
        sa.Column("salt", sa.LargeBinary),
        sa.Column("payload", sa.Text),
        constraint,
        sqlite_with_rowid=False,
    )
    # What somebody altered goes along as it is: it is for verifying to find.
    with _pragma(op, "ignore_check_constraints"):
        op.execute("INSERT INTO sigra_audit_remade SELECT * FROM sigra_audit_entries")
    op.drop_table("sigra_audit_entries")
    # Else SQLite looks first whether all views and triggers find what they name.
    with _pragma(op, "legacy_alter_table"):
        op.rename_table("sigra_audit_remade", "sigra_audit_entries")
    newest = ["occurred_at", "chain", "sequence"]
    op.create_index("sigra_audit_entries_newest", "sigra_audit_entries", newest)
    newest = ["chain", "occurred_at", "sequence"]
    op.create_index("sigra_audit_entries_newest_of_chain", "sigra_audit_entries", newest)
    for made in of_others:  # the indexes and triggers that went with the table
        op.get_bind().exec_driver_sql(made)


@contextmanager
def _pragma(op: Operations, name: str) -> Iterator[None]:
    op.execute(f"PRAGMA {name} = ON")
    try:
        yield
    finally:
        op.execute(f"PRAGMA {name} = OFF")
