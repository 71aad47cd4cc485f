"""Rotations, the functions that shorten with them, and the view of all Matryoshka columns."""

from alembic import op

from pgmrl import database

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Install; the files say what each thing is for."""
    vector_schema = database.vector_schema_of(op.get_context())
    for name in ("rotations", "rotate_v1", "keep_short_v1", "keep_side_v1", "columns_view_1"):
        op.execute(database.script(name, vector_schema))


def downgrade() -> None:
    """Remove everything but the schema, in which Alembic keeps its version."""
    op.execute(database.script("drop_core", database.vector_schema_of(op.get_context())))
