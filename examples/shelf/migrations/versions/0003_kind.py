"""Functions are told from classes."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("entries", sa.Column("kind", sa.String(), nullable=False, server_default="function"))


def downgrade() -> None:
    op.drop_column("entries", "kind")
