"""What tuning chose, recall as it was measured, and a view of both with the server's statistics."""

from alembic import op

from pgmrl import database

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Install; the files say what each thing is for."""
    vector_schema = database.vector_schema_of(op.get_context())
    for name in ("settings", "recall_history", "health"):
        op.execute(database.script(name, vector_schema))


def downgrade() -> None:
    """Back to 0003. Settings and measurements are lost."""
    op.execute(database.script("drop_observed", database.vector_schema_of(op.get_context())))
