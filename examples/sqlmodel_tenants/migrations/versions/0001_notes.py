"""Notes, of which a team sees its own."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "note",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("team", sa.String(), nullable=False, index=True),
        sa.Column("body", sa.String(), nullable=False),
    )
    op.execute("ALTER TABLE note ENABLE ROW LEVEL SECURITY")
    op.execute("CREATE POLICY team ON note USING (team = current_setting('app.team'))")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON note TO notes_app")
    op.execute("GRANT USAGE ON SEQUENCE note_id_seq TO notes_app")


def downgrade() -> None:
    op.drop_table("note")
