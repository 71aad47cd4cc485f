"""Distributing a table, as far as a server without Citus shows it: the errors, and the statements that are printed."""

from __future__ import annotations

import json
from io import StringIO
from typing import TYPE_CHECKING

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations

from pgmrl.alembic.operations import DistributeTable
from pgmrl.errors import MigrationError
from pgmrl.online.distributing import create_distributed_table, distribution_statements, undistribute_table
from tests.cli import failed

if TYPE_CHECKING:
    from sqlalchemy import Connection


def test_without_citus(
    connection: Connection, database_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clear error, before anything is written; the command's exit code is that of any other."""
    with pytest.raises(MigrationError, match="expected the extension citus in this database, got none"):
        distribution_statements(connection, None, "docs", "tenant_id")
    command = ("distribute", "docs", "--by", "tenant_id", "--database-url", database_url)
    assert "expected the extension citus" in failed(capsys, monkeypatch, *command)


def test_the_statements_quote_their_names() -> None:
    """The table is a regclass in a literal."""
    statement = create_distributed_table('public."o\'b"', "tenant", 4)
    assert statement == ("SELECT pg_catalog.create_distributed_table('public.\"o''b\"', 'tenant', shard_count => 4)")
    assert undistribute_table("docs") == "SELECT pg_catalog.undistribute_table('docs')"


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
