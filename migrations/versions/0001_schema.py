"""Everything pgmrl keeps in a database; each file of pgmrl/database/sql says what its part is for."""

from alembic import op

from pgmrl import database

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCRIPTS = (
    "version",
    "owns_v1",
    "rotations",
    "rotate_v1",
    "watched_columns_v1",
    "sync_short_v1",
    "sync_side_v1",
    "mirror_full_v1",
    "columns_view",
    "backfills",
    "queries",
    "functions_catalogue",
    "settings",
    "recall_history",
    "health",
)


def upgrade() -> None:
    """Install."""
    vector_schema = database.vector_schema_of(op.get_context())
    for name in SCRIPTS:
        for statement in database.script(name, vector_schema):
            op.execute(statement)


def downgrade() -> None:
    """Remove everything but the schema, in which Alembic keeps its version; refused while something uses it."""
    for statement in database.script("drop_all", database.vector_schema_of(op.get_context())):
        op.execute(statement)
