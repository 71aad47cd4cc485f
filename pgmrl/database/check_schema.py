"""Is the database what the model says? For an application's start-up, a health check, a deployment's last step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from pgmrl.database.catalogue import columns, table_schema
from pgmrl.database.connection import sqlalchemy_connection
from pgmrl.database.extension import check_pgvector
from pgmrl.errors import NotMigrated
from pgmrl.model.columns import attachment_of, vectors_table
from pgmrl.model.shortening import Rotation
from pgmrl.names import qualified

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Table
    from sqlalchemy.orm import Session

    from pgmrl.database.catalogue import ColumnInfo
    from pgmrl.model.columns import Attachment

__all__ = ["check_schema", "check_types", "rows_of"]


def check_schema(connection: Connection | Session, column: Any) -> ColumnInfo | None:
    """Check that the database has what a Matryoshka column declares; reads the catalogue only.

    Args:
        connection: of the database.
        column: the Matryoshka attribute or column.

    Returns:
        What the catalogue says of it; None before its rotation has been learned.

    Raises:
        PgvectorMissing: pgvector is not installed or too old.
        NotMigrated: a table, column, trigger or index is missing or of another type, with its name.
        DefinitionError: it is no Matryoshka column.
    """
    connection = sqlalchemy_connection(connection)
    attachment, table = attachment_of(column), vectors_table(column)
    check_pgvector(connection)
    check_types(connection, table, attachment)
    return None if attachment.short is None else _kept(connection, table, attachment)


def check_types(connection: Connection, table: Table, attachment: Attachment) -> None:
    """Check that the table has the full and the short column, of their types.

    Args:
        connection: of the database.
        table: that holds the vectors.
        attachment: of the column.

    Raises:
        NotMigrated: it has not, with the name of what is missing.
    """
    definition = attachment.definition
    there = _types(connection, table)
    if not there:
        raise NotMigrated(f"there is no table {table.fullname}: run the application's migrations")
    _require_type(table, attachment.full, there, f"{definition.full}({definition.dims})")
    if attachment.short is not None:
        _require_type(table, attachment.short, there, f"{definition.short.type}({definition.short.dims})")


def _kept(connection: Connection, table: Table, attachment: Attachment) -> ColumnInfo:
    name = f"{table.fullname}.{attachment.short}"
    own = rows_of(connection, table, attachment, columns(connection))
    if not own:
        raise NotMigrated(f"nothing keeps {name} in step with {attachment.full}: run the migration that adds it")
    info = max(own, key=lambda one: bool(one.index_valid))
    by = attachment.definition.short.by
    wanted = by.id if isinstance(by, Rotation) else None
    if info.rotation != wanted:
        raise NotMigrated(f"{name} is kept by {info.rotation or 'a prefix'}, the model says {wanted or 'a prefix'}")
    if info.index_name is None:
        raise NotMigrated(
            f"{name} has no HNSW index, so a search reads the whole table: run the migration that adds it"
        )
    if not info.index_valid:
        raise NotMigrated(f"index {info.index_name} is invalid: REINDEX INDEX CONCURRENTLY {info.index_name}")
    if info.operator_class != attachment.definition.metric.operator_class(attachment.definition.short.type):
        raise NotMigrated(
            f"index {info.index_name} is for {info.operator_class}, searches by {attachment.definition.metric.name} "
            "do not use it: rebuild it with the operator class of the metric"
        )
    return info


def rows_of(
    connection: Connection, table: Table, attachment: Attachment, infos: Iterable[ColumnInfo]
) -> list[ColumnInfo]:
    """The catalogue's rows for the short column of a Table: one for each of its indexes.

    Args:
        connection: of the database.
        table: that holds the vectors; without a schema the search_path decides.
        attachment: of the column.
        infos: of `database.columns`.
    """
    schema = table.schema or table_schema(connection, table.name)
    place = (schema, table.name, attachment.full, attachment.short)
    return [one for one in infos if (one.table_schema, one.table_name, one.full_column, one.short_column) == place]


def _types(connection: Connection, table: Table) -> dict[str, str]:
    rows = connection.execute(
        text(
            "SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute AS a "
            "WHERE a.attrelid = to_regclass(:name) AND a.attnum > 0 AND NOT a.attisdropped"
        ),
        {"name": qualified(table.schema, table.name)},
    )
    return {name: type_.rsplit(".", 1)[-1] for name, type_ in rows}


def _require_type(table: Table, name: str, there: dict[str, str], wanted: str) -> None:
    if name not in there:
        raise NotMigrated(f"table {table.fullname} has no column {name}: run the migration that adds it")
    if there[name] != wanted:
        raise NotMigrated(f"{table.fullname}.{name} is {there[name]}, the model says {wanted}: migrate one of them")
