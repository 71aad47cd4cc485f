"""Search in two stages, as `alembic revision --autogenerate` wrote it."""

from alembic import op

import pgmrl.alembic  # noqa: F401
from pgmrl import Definition, Hnsw, Short

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_short("passages", "embedding", Definition.of(256, Short(64), "cosine", "vector"))
    op.create_short_index(
        "passages",
        "embedding",
        Definition.of(256, Short(64), "cosine", "vector"),
        index=Hnsw(m=16, ef_construction=100),
    )


def downgrade() -> None:
    op.drop_short("passages", "embedding_short_64")
