"""Put each event's payload into its entry: a commit then writes a page less."""

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_MOVE = """
UPDATE sigra_audit_entries SET salt = p.salt, payload = p.payload FROM sigra_audit_payloads AS p
WHERE p.chain = sigra_audit_entries.chain AND p.sequence = sigra_audit_entries.sequence
"""
# A payload of no entry has no place to go: by a mark that nobody signed, verifying finds it still.
_TELL_OF_STRAYS = """
INSERT INTO sigra_audit_marks (chain, body)
SELECT p.chain, 'a payload with sequence ' || p.sequence || ' belonged to no entry'
FROM sigra_audit_payloads AS p
LEFT JOIN sigra_audit_entries AS e ON p.chain = e.chain AND p.sequence = e.sequence
WHERE e.chain IS NULL
"""
_MOVE_BACK = """
INSERT INTO sigra_audit_payloads (chain, sequence, salt, payload)
SELECT chain, sequence, salt, payload FROM sigra_audit_entries
WHERE salt IS NOT NULL AND payload IS NOT NULL
"""


def upgrade(op: Operations) -> None:
    """Move salts and payloads into the entries."""
    _keep_writers_out(op)
    op.add_column("sigra_audit_entries", sa.Column("salt", sa.LargeBinary))
    op.add_column("sigra_audit_entries", sa.Column("payload", sa.Text))
    op.execute(_MOVE)
    op.execute(_TELL_OF_STRAYS)
    op.drop_table("sigra_audit_payloads")


def downgrade(op: Operations) -> None:
    """Move salts and payloads into a table of their own."""
    _keep_writers_out(op)
    op.create_table(
        "sigra_audit_payloads",
        sa.Column("chain", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.execute(_MOVE_BACK)
    op.drop_column("sigra_audit_entries", "payload")
    op.drop_column("sigra_audit_entries", "salt")


def _keep_writers_out(op: Operations) -> None:
    # Every writer locks a chain's row first, whichever table it then comes to. SQLite has one lock.
    if op.get_bind().dialect.name == "postgresql":
        op.execute("LOCK TABLE sigra_audit_chains IN EXCLUSIVE MODE")
