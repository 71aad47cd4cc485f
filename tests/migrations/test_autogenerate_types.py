"""Alembic's own autogenerate with pgmrl's `render_item`: new tables and columns shortened by prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations import Operations
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Column, Integer, MetaData, Table, select

from pgmrl import database
from pgmrl.alembic import render_item
from pgmrl.database.check_schema import check_schema
from pgmrl.model.columns import Matryoshka, add_short
from pgmrl.model.shortening import Short
from pgmrl.searching.search import search

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

PREAMBLE = "import sqlalchemy as sa\nfrom alembic import op\nfrom pgvector.sqlalchemy import BIT, HALFVEC, VECTOR\n"


def _migrate(connection: Connection, metadata: MetaData) -> str:
    """Autogenerate, run what was written, and return it."""
    context = MigrationContext.configure(
        connection, opts={"render_item": render_item, "target_metadata": metadata, "include_schemas": False}
    )
    script = produce_migrations(context, metadata)
    assert script.upgrade_ops is not None
    body = render_python_code(script.upgrade_ops, render_item=render_item, migration_context=context)
    code = PREAMBLE + "def upgrade():\n    " + body.replace("\n", "\n    ")
    names: dict[str, Any] = {}
    exec(compile(code, "migration", "exec"), names)  # noqa: S102 - what Alembic itself does with it
    with Operations.context(context):
        names["upgrade"]()
    return code


def test_a_new_table_is_written_with_plain_types(engine: Engine) -> None:
    """Autogenerate writes full column, generated short column and index; what it makes is what the model says."""
    metadata = MetaData()
    table = Table(
        "documents", metadata, Column("id", Integer, primary_key=True), Column("embedding", Matryoshka(32, Short(8)))
    )
    bits = Table(
        "signs",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("embedding", Matryoshka(32, Short(32, type="bit"), full="vector")),
    )
    with engine.begin() as connection:
        code = _migrate(connection, metadata)
        assert "HALFVEC(32)" in code
        assert "BIT(32)" in code
        assert "pgmrl" not in code
        check_schema(connection, table.c.embedding)
        check_schema(connection, bits.c.embedding)
        connection.execute(table.insert(), [{"id": n, "embedding": np.eye(32)[n]} for n in range(5)])
        nearest = connection.execute(search(select(table.c.id), table.c.embedding, np.eye(32)[3], k=1)).one()
        assert nearest.id == 3


def test_a_short_column_for_an_existing_vector_column(engine: Engine) -> None:
    """`add_short` on a pgvector column is one generated column and one index for autogenerate."""
    before, after = MetaData(), MetaData()
    for metadata in (before, after):
        Table("documents", metadata, Column("id", Integer, primary_key=True), Column("embedding", VECTOR(32)))
    add_short(after.tables["documents"].c.embedding, Short(8), metric="l2")
    with engine.begin() as connection:
        before.create_all(connection)
        code = _migrate(connection, after)
        assert "add_column" in code
        assert "create_table" not in code
        info = check_schema(connection, after.tables["documents"].c.embedding)
        assert info is not None
        assert info.operator_class == "halfvec_l2_ops"
        assert database.columns(connection) == [info]
