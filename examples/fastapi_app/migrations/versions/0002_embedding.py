"""Each passage's embedding."""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import VECTOR

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    op.add_column("passages", sa.Column("embedding", VECTOR(256), nullable=False))


def downgrade() -> None:
    op.drop_column("passages", "embedding")
