"""Who wrote it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("notes", sa.Column("author", sa.String(), nullable=False, server_default="nobody"))


def downgrade() -> None:
    op.drop_column("notes", "author")
