"""Make the tables of the first version."""

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade(op: Operations) -> None:
    """Make the four tables and their indexes."""
    op.create_table(
        "sigra_audit_chains",
        sa.Column("id", _Id, primary_key=True, autoincrement=True),
        sa.Column("tag", sa.Text, nullable=False, unique=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("head", sa.LargeBinary, nullable=False),
    )
    _create_entries(op)
    op.create_table(
        "sigra_audit_payloads",
        sa.Column("chain", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "sigra_audit_marks",
        sa.Column("id", _Id, primary_key=True, autoincrement=True),
        sa.Column("chain", sa.BigInteger, nullable=False, index=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text),
        sa.Column("signature", sa.LargeBinary),
    )


def _create_entries(op: Operations) -> None:
    op.create_table(
        "sigra_audit_entries",
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
        sa.UniqueConstraint("chain", "previous"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "sigra_audit_entries_newest", "sigra_audit_entries", ["occurred_at", "chain", "sequence"]
    )
    op.create_index(
        "sigra_audit_entries_newest_of_chain",
        "sigra_audit_entries",
        ["chain", "occurred_at", "sequence"],
    )


def downgrade(op: Operations) -> None:
    """Drop the tables, and all that was audited with them."""
    for name in ("marks", "payloads", "entries", "chains"):
        op.drop_table(f"sigra_audit_{name}")
