"""An index, once there were enough entries to need it."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_index("ix_entries_module_id", "entries", ["module_id"])


def downgrade() -> None:
    op.drop_index("ix_entries_module_id", "entries")
