"""A table that is made to be loaded at once: its indexes come when its rows are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.database.connection import execute_plain
from pgmrl.model.server_names import server_name

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

__all__ = ["create_without_indexes", "vacuum_analyze"]


def create_without_indexes(connection: Connection, table: Table) -> None:
    """Create a table as its model says, without its indexes: HNSW on rows that are there is built many times faster."""
    indexes = set(table.indexes)
    table.indexes.clear()
    try:
        table.create(connection)
    finally:
        table.indexes.update(indexes)


def vacuum_analyze(connection: Connection, table: Table) -> None:
    """Let the planner know of the rows that were loaded.

    Args:
        connection: in autocommit.
        table: the table.
    """
    execute_plain(connection, f"VACUUM (ANALYZE) {server_name(connection, table)}")
