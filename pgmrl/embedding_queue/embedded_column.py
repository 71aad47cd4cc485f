"""A column of vectors that is kept in step with a text, as its triggers say; how it becomes one, and ceases to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import text

from pgmrl import database
from pgmrl.database.search_path import catalogue_result, relation_name
from pgmrl.errors import DefinitionError, EmbedderError, MigrationError
from pgmrl.model import ddl
from pgmrl.model.embed import Embed, drop_embedding_triggers, keep_embedding_triggers, queue_embeddings
from pgmrl.names import LIMIT, column_parts, qualified, quoted
from pgmrl.online.locks import in_transaction
from pgmrl.online.preconditions import check_owner, check_sees_all_rows
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pgmrl.model.metrics import FullType

__all__ = [
    "EmbeddedColumn",
    "add_column",
    "check_model",
    "embedded_column",
    "install_embedding",
    "installed_model",
    "remove_embedding",
]

_COLUMN: Final = text("""
SELECT n.nspname AS schema, c.relname AS table_name, a.attname AS column_name, y.typname AS kind, a.atttypmod AS dims,
    e.template, e.embedder, e.notifies,
    ARRAY(SELECT ARRAY[k.attname::text, format_type(k.atttypid, k.atttypmod)] FROM pg_index AS x
        CROSS JOIN LATERAL unnest(x.indkey[0:x.indnkeyatts - 1]) WITH ORDINALITY AS i (attnum, n)
        JOIN pg_attribute AS k ON k.attrelid = x.indrelid AND k.attnum = i.attnum
        WHERE x.indrelid = c.oid AND x.indisprimary ORDER BY i.n) AS keys
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = :column AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_type AS y ON y.oid = a.atttypid
LEFT JOIN pgmrl.embeddings AS e ON e.relation = c.oid AND e.embedding = a.attname
WHERE c.oid = to_regclass(:owner)
""")


@dataclass(frozen=True, slots=True)
class EmbeddedColumn:
    """A column of vectors, and the text that it is kept in step with.

    Attributes:
        schema: of the table.
        table: its name.
        column: of the vectors.
        kind: `vector` or `halfvec`.
        dims: its dimensions.
        keys: the primary key's columns and their types as SQL text.
        embed: the text and the model; None where no trigger marks its rows.
        vector_schema: pgvector's.
    """

    schema: str
    table: str
    column: str
    kind: FullType
    dims: int
    keys: tuple[tuple[str, str], ...]
    embed: Embed | None
    vector_schema: str

    @property
    def owner(self) -> str:
        """The table as SQL text."""
        return qualified(self.schema, self.table)

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.schema}.{self.table}.{self.column}"


def embedded_column(connection: Connection, name: str) -> EmbeddedColumn:
    """What the catalogue says of a column of vectors.

    Args:
        connection: of the database.
        name: table.column or schema.table.column.

    Raises:
        NotMigrated: pgmrl's schema is missing or too old.
        MigrationError: there is no such column, it is none of pgvector's types with dimensions, or its table has no
            primary key.
    """
    database.require_schema(connection)
    schema, table, column = column_parts(name)
    owner = relation_name(connection, qualified(schema, table))
    row: Any = catalogue_result(connection, _COLUMN, {"owner": owner, "column": column}).first()
    if row is None:
        raise MigrationError(f"there is no table {qualified(schema, table)}: check its name and schema")
    if row.column_name is None:
        raise MigrationError(f"{owner} has no column {column}: give the full vectors' column")
    if row.kind not in {"vector", "halfvec"} or row.dims < 1:
        raise MigrationError(f"{name}: expected a column of vector(n) or halfvec(n), got {row.kind}")
    if not row.keys:
        raise MigrationError(f"table {owner} has no primary key, by which its rows are marked: add one")
    return EmbeddedColumn(
        row.schema,
        row.table_name,
        row.column_name,
        cast("FullType", row.kind),
        row.dims,
        tuple((key, type_) for key, type_ in row.keys),
        None if row.template is None else _embed(row),
        database.check_pgvector(connection),
    )


def _embed(row: Any) -> Embed:
    try:
        return Embed(row.template, row.embedder, bool(row.notifies))
    except DefinitionError as error:
        raise MigrationError(f"{row.schema}.{row.table_name}: its trigger was not made by pgmrl: {error}") from error


def add_column(connection: Connection, column: EmbeddedColumn, name: str, dims: int) -> EmbeddedColumn:
    """A column of vectors beside another one, for another model; the one that is there where it is of that kind.

    Args:
        connection: in autocommit.
        column: beside which it stands; it stays as it is.
        name: of the new one.
        dims: of the new one.

    Raises:
        DefinitionError: no name of a column.
        MigrationError: missing rights; a column of that name with another type.
        Locked: the table was not free.
    """
    path = f"{column.schema}.{column.table}.{name}"
    if not name or "." in name or len(name.encode()) > LIMIT or name == column.column:
        raise DefinitionError(
            f"{safe_repr(name)}: expected another column's name, of 1 to {LIMIT} bytes, without a dot"
        )
    there = catalogue_result(connection, _COLUMN, {"owner": column.owner, "column": name}).one()
    if there.column_name is not None:
        added = embedded_column(connection, path)
        if (added.kind, added.dims) != (column.kind, dims):
            raise MigrationError(f"{added.title}: expected {column.kind}({dims}), got {added.kind}({added.dims})")
        return added
    check_owner(connection, column.owner)
    type_ = f"{qualified(column.vector_schema, column.kind)}({dims})"
    add = f"ALTER TABLE {column.owner} ADD COLUMN IF NOT EXISTS {quoted(name)} {type_}"
    in_transaction(connection, [add, ddl.set_storage(column.owner, name, "main")], column.owner)
    return embedded_column(connection, path)


def check_model(title: str, by: str | None, name: str) -> None:
    """Check that a model is the one that a column is kept by: vectors of two models cannot be compared.

    Args:
        title: of the column, for people.
        by: the model that its triggers name; None where there are none, and any model may write.
        name: of the model that is to write. A name of the user's own says nothing and is taken; options are not
            compared.

    Raises:
        EmbedderError: it is another.
    """
    kinds = {"static", "sentence-transformers", "openai"}
    kept, other = (spec.split("?")[0].split(" (")[0].split(":", 1) for spec in (by or name, name))
    if {kept[0], other[0]} <= kinds and kept != other and not kept[0] == other[0] == "static":
        raise EmbedderError(
            f"expected the model {by}, by which {title} is kept in step, got {name}: vectors of two models cannot be "
            "compared. Give the other model a column of its own"
        )


def installed_model(connection: Connection, owner: str, column: str) -> str | None:
    """The model that the triggers of a column name; None where there are none, or where pgmrl's schema is missing."""
    if database.installed_revision(connection) is None:
        return None
    query = text("SELECT embedder FROM pgmrl.embeddings WHERE relation = to_regclass(:owner) AND embedding = :column")
    place = {"owner": relation_name(connection, owner), "column": column}
    embedder: str | None = catalogue_result(connection, query, place).scalar()
    return embedder


def install_embedding(connection: Connection, column: EmbeddedColumn, embed: Embed, *, everything: bool = False) -> int:
    """Install the triggers that mark a row when its text changes, and mark the rows that have no vector.

    The triggers lock the table against writers for a moment, with retries; the rows are marked afterwards, in a
    transaction that locks nothing.

    Args:
        connection: in autocommit.
        column: of the vectors.
        embed: the text and the model.
        everything: whether to mark also the rows that have a vector.

    Returns:
        The rows that were marked.

    Raises:
        MigrationError: missing rights, or row-level security that hides rows.
        DBAPIError: the column holds vectors of another model; or no row can be marked, for which the server says why.
        Locked: the table was not free.
    """
    check_owner(connection, column.owner)
    check_sees_all_rows(connection, column.owner)
    statement = keep_embedding_triggers(embed, column.schema, column.table, column.column)
    in_transaction(connection, [statement], column.owner)
    queue = queue_embeddings(column.schema, column.table, column.column, everything=everything)
    return int(catalogue_result(connection, queue).scalar_one())


def remove_embedding(connection: Connection, column: EmbeddedColumn) -> None:
    """Remove the triggers and forget which rows were marked; the vectors stay.

    Args:
        connection: in autocommit.
        column: of the vectors.

    Raises:
        MigrationError: missing rights.
        Locked: the table was not free.
    """
    check_owner(connection, column.owner, creates=False)
    in_transaction(connection, [drop_embedding_triggers(column.schema, column.table, column.column)], column.owner)
