"""A table of chunks, as the triggers on its parent say; how it becomes one, and ceases to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from pgmrl import database
from pgmrl.database.search_path import catalogue_result, relation_name
from pgmrl.embedding_queue.embedded_column import EmbeddedColumn
from pgmrl.errors import DefinitionError, MigrationError
from pgmrl.model.chunks import Chunks, drop_chunk_triggers, keep_chunk_triggers, queue_chunks
from pgmrl.names import qualified
from pgmrl.online.locks import in_transaction
from pgmrl.online.preconditions import check_owner

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["ChunkTable", "chunk_table", "install_chunks", "remove_chunks"]

_PLACE: Final = text("""
SELECT n.nspname AS schema, c.relname AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass(:owner)
""")
_TABLE: Final = text("""
SELECT t.table_schema, t.table_name, t.embedding, t.template, t.model, t.size, t.overlap, t.notifies, p.columns,
    ARRAY(SELECT ARRAY[a.attname::text, format_type(a.atttypid, a.atttypmod)]
          FROM unnest(p.keys) WITH ORDINALITY AS k (name, n)
          JOIN pg_attribute AS a ON a.attrelid = t.relation AND a.attname = k.name ORDER BY k.n) AS keys
FROM pgmrl.chunk_tables AS t JOIN LATERAL pgmrl.chunk_parent_v1(t.chunks) AS p ON p.parent = t.relation
WHERE t.chunks = to_regclass(:owner)
""")


@dataclass(frozen=True, slots=True)
class ChunkTable:
    """A table of chunks.

    Attributes:
        schema: of the table.
        table: its name.
        columns: those that refer to the parent, in the order of its key.
        chunks: which text, and how long the chunks are.
        parent: the table that they are cut out of; its `column` is the name by which the queue knows the chunks.
    """

    schema: str
    table: str
    columns: tuple[str, ...]
    chunks: Chunks
    parent: EmbeddedColumn

    @property
    def owner(self) -> str:
        """The table as SQL text."""
        return qualified(self.schema, self.table)

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.schema}.{self.table}"


def chunk_table(connection: Connection, name: str) -> ChunkTable | None:
    """What the catalogue says of a table of chunks; None where no trigger keeps it in step with a text.

    Args:
        connection: of the database.
        name: table or schema.table.

    Raises:
        NotMigrated: pgmrl's schema is missing or too old.
        MigrationError: there is no such table.
    """
    schema, table = _place(connection, name)
    row: Any = catalogue_result(connection, _TABLE, {"owner": qualified(schema, table)}).first()
    if row is None:
        return None
    try:
        chunks = Chunks(row.template, row.model, row.size, row.overlap, bool(row.notifies))
    except DefinitionError as error:
        raise MigrationError(f"{name}: its trigger was not made by pgmrl: {error}") from error
    keys = tuple((key, type_) for key, type_ in row.keys)
    place = (row.table_schema, row.table_name, row.embedding)
    parent = EmbeddedColumn(*place, "halfvec", 1, keys, chunks.text, database.check_pgvector(connection))
    return ChunkTable(schema, table, tuple(row.columns), chunks, parent)


def _place(connection: Connection, name: str) -> tuple[str, str]:
    database.require_schema(connection)
    value: object = name
    parts = value.split(".") if isinstance(value, str) else []
    if len(parts) not in {1, 2} or not all(parts):
        raise DefinitionError(f"{name!r}: expected table or schema.table, of the chunks")
    owner = relation_name(connection, qualified(parts[0] if len(parts) == 2 else None, parts[-1]))
    row = catalogue_result(connection, _PLACE, {"owner": owner}).first()
    if row is None:
        raise MigrationError(f"there is no table {owner}: check its name and schema")
    return row.schema, row.name


def install_chunks(connection: Connection, name: str, chunks: Chunks) -> int:
    """Install the triggers that mark a parent's row when its text changes, and mark all of its rows.

    The triggers lock the parent against writers for a moment, with retries; the rows are marked afterwards, in a
    transaction that locks nothing.

    Args:
        connection: in autocommit.
        name: of the table of chunks.
        chunks: which text, and how long the chunks are.

    Returns:
        The rows that were marked.

    Raises:
        MigrationError: missing rights.
        Locked: the table was not free.
        DBAPIError: the server refuses: no foreign key to a parent, a column that is missing.
    """
    schema, table = _place(connection, name)
    owner = qualified(schema, table)
    check_owner(connection, owner)
    in_transaction(connection, [keep_chunk_triggers(chunks, schema, table)], owner)
    return int(catalogue_result(connection, queue_chunks(schema, table)).scalar_one())


def remove_chunks(connection: Connection, table: ChunkTable) -> None:
    """Remove the triggers and forget which rows were marked; the chunks stay.

    Args:
        connection: in autocommit.
        table: of the chunks.

    Raises:
        MigrationError: missing rights.
        Locked: the table was not free.
    """
    check_owner(connection, table.owner, creates=False)
    in_transaction(connection, [drop_chunk_triggers(table.schema, table.table)], table.parent.owner)
