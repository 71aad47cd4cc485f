"""Everything pgmrl keeps in a database; its scripts are listed in pgmrl/database/revisions.py."""

from alembic import op

from pgmrl import database

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Install."""
    for statement in database.revision_statements(revision, True, database.vector_schema_of(op.get_context())):
        op.execute(statement)


def downgrade() -> None:
    """Remove everything but the schema, in which Alembic keeps its version; refused while something uses it."""
    for statement in database.revision_statements(revision, False, database.vector_schema_of(op.get_context())):
        op.execute(statement)
