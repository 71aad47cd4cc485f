"""A vector for each note, as everybody adds one."""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import VECTOR

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    op.add_column("notes", sa.Column("embedding", VECTOR(256)))


def downgrade() -> None:
    op.drop_column("notes", "embedding")
