"""${message}

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
"""

from alembic import op

from pgmrl import database

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Remove."""
    ${downgrades if downgrades else "pass"}
