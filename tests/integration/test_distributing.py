"""Distributing a table, as far as a server without Citus shows it: the errors, and the statements that are printed."""

from __future__ import annotations

import json
from io import StringIO
from typing import TYPE_CHECKING

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Column, Integer, MetaData, Table, Text, text

from pgmrl import Short, database, install_functions
from pgmrl.alembic.operations import DistributeTable
from pgmrl.database.table_state import table_state
from pgmrl.errors import MigrationError
from pgmrl.functions.install import drop_functions
from pgmrl.model.columns import Matryoshka
from pgmrl.model.embed import Embed, drop_embedding_triggers, keep_embedding_triggers
from pgmrl.model.shortening import Definition
from pgmrl.online.distributing import (
    add_to_shards,
    check_functions,
    check_triggers,
    create_distributed_table,
    distribution_statements,
    fill_shards,
    undistribute_table,
)
from pgmrl.online.target import Target
from tests.cli import failed

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pgmrl.model.rotation import Rotation


def test_without_citus(
    connection: Connection, database_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clear error, before anything is written; the command's exit code is that of any other."""
    with pytest.raises(MigrationError, match="expected the extension citus in this database, got none"):
        distribution_statements(connection, None, "docs", "tenant_id")
    command = ("distribute", "docs", "--by", "tenant_id", "--database-url", database_url)
    assert "expected the extension citus" in failed(capsys, monkeypatch, *command)


def test_triggers_that_write_elsewhere(connection: Connection, small_rotation: Rotation) -> None:
    """A rotation's come along, and Citus is told to take triggers; those of a queue would fill the shards' own."""
    database.upgrade(connection)
    database.install_rotation(connection, small_rotation)
    docs = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("title", Text),
        Column("embedding", Matryoshka(8, Short(4, by=small_rotation))),
    )
    docs.create(connection)

    def check() -> None:
        state = table_state(connection, None, "docs")
        assert state is not None
        assert len(state.sync_triggers) == 1
        check_triggers(connection, state, "docs")

    check()
    connection.exec_driver_sql("CREATE TRIGGER own BEFORE UPDATE ON docs EXECUTE FUNCTION tsvector_update_trigger()")
    check()
    connection.execute(text(keep_embedding_triggers(Embed("title", "static"), None, "docs", "embedding")))
    with pytest.raises(MigrationError, match=r"docs has the triggers zx_\S+, zx_\S+_u, which embed or cut its texts"):
        check()
    connection.execute(text(drop_embedding_triggers(None, "docs", "embedding")))
    check()


def test_functions_for_a_table_of_one_node(connection: Connection) -> None:
    """Are to be made again for the shards, before the table is distributed or after."""
    for distributed, fails in ((False, True), ("id", True), ("tenant", False)):
        docs = Table(
            "docs",
            MetaData(),
            Column("tenant", Integer, primary_key=True),
            Column("id", Integer, primary_key=True),
            Column("embedding", Matryoshka(8, Short(4), distributed=distributed)),
        )
        docs.create(connection, checkfirst=True)
        state = table_state(connection, None, "docs")
        assert state is not None
        check_functions(connection, state, "tenant")
        install_functions(connection, docs.c.embedding)
        if fails:
            with pytest.raises(MigrationError, match=r"public.docs is searched by the functions public.docs_…, made"):
                check_functions(connection, state, "tenant")
        else:
            check_functions(connection, state, "tenant")
        drop_functions(connection, docs.c.embedding)


def test_the_statements_quote_their_names() -> None:
    """The table is a regclass in a literal."""
    statement = create_distributed_table('public."o\'b"', "tenant", 4)
    assert statement == ("SELECT pg_catalog.create_distributed_table('public.\"o''b\"', 'tenant', shard_count => 4)")
    assert undistribute_table("docs") == "SELECT pg_catalog.undistribute_table('docs')"


def test_a_short_column_on_shards(connection: Connection) -> None:
    """A prefix in place asks no node and has no storage set; the fill leaves the rest to the triggers."""
    target = Target("docs", "embedding", Definition.of(8, Short(4), "cosine", "halfvec", "public"))
    (statement,) = add_to_shards(connection, target, filled=True)
    assert statement.startswith("ALTER TABLE docs ADD COLUMN embedding_short_4 public.halfvec(4) GENERATED ALWAYS AS")
    assert fill_shards(target) == (
        "UPDATE docs SET embedding_short_4 = NULL WHERE embedding_short_4 IS NULL AND embedding IS NOT NULL"
    )


def test_the_operation_is_printed_and_reversed() -> None:
    """In Alembic's offline mode nothing is looked at."""
    printed = StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": printed, "literal_binds": True}
    )
    operations = Operations(context)
    import pgmrl.alembic  # noqa: F401, PLC0415 - registers the operations

    operations.distribute_table("docs", "tenant_id")  # type: ignore[attr-defined]
    operations.undistribute_table("docs", "tenant_id")  # type: ignore[attr-defined]
    assert "create_distributed_table('docs', 'tenant_id')" in printed.getvalue()
    assert "undistribute_table('docs')" in printed.getvalue()
    operation = DistributeTable("docs", "tenant_id", 4)
    assert operation.reverse().reverse() == operation
    assert json.dumps(operation.to_diff_tuple()[0]) == '"distribute_table"'
