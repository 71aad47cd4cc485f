"""What online migrations need: triggers for prefixes too, two full columns kept the same, backfills as jobs."""

from alembic import op

from pgmrl import database

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Install; the files say what each thing is for."""
    vector_schema = database.vector_schema_of(op.get_context())
    op.execute("DROP VIEW pgmrl.columns")
    for name in ("keep_short_v2", "mirror_full_v1", "backfills", "columns_view"):
        op.execute(database.script(name, vector_schema))


def downgrade() -> None:
    """Back to 0001; a column that only this revision's triggers keep must go first."""
    vector_schema = database.vector_schema_of(op.get_context())
    op.execute(database.script("drop_online", vector_schema))
    op.execute(database.script("columns_view_1", vector_schema))
