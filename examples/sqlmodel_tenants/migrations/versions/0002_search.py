"""Search by meaning, as `alembic revision --autogenerate` wrote it."""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import HALFVEC

import pgmrl.alembic  # noqa: F401
from pgmrl import Definition, FilterIndex, Hnsw, Short

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")  # once for all tenants
    op.add_column("note", sa.Column("embedding", HALFVEC(256), nullable=False))
    op.set_storage("note", "embedding", "main")
    op.add_short("note", "embedding", Definition.of(256, Short(64), "cosine", "halfvec"))
    op.create_short_index(
        "note",
        "embedding",
        Definition.of(256, Short(64), "cosine", "halfvec"),
        index=Hnsw(m=16, ef_construction=100),
        concurrently=False,
    )
    op.create_short_index(
        "note",
        "embedding",
        Definition.of(256, Short(64), "cosine", "halfvec"),
        index=FilterIndex("team", include=["id"]),
        concurrently=False,
    )


def downgrade() -> None:
    op.drop_short("note", "embedding_short_64")
    op.drop_column("note", "embedding")
