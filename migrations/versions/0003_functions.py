"""What SQL functions for BI tools need: named queries, a catalogue of the functions, and how they are replaced."""

from alembic import op

from pgmrl import database

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Install; the files say what each thing is for."""
    vector_schema = database.vector_schema_of(op.get_context())
    for name in ("queries", "functions_catalogue"):
        op.execute(database.script(name, vector_schema))


def downgrade() -> None:
    """Back to 0002; refused while functions use it. Named queries are lost."""
    op.execute(database.script("drop_functions", database.vector_schema_of(op.get_context())))
