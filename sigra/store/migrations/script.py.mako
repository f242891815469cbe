"""${message}"""

from alembic.operations import Operations
import sqlalchemy as sa

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade(op: Operations) -> None:
    """Go from the version before to this one."""
    ${upgrades if upgrades else "pass"}


def downgrade(op: Operations) -> None:
    """Go back to the version before."""
    ${downgrades if downgrades else "pass"}
