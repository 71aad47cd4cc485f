"""SQL functions of a column for BI tools and psql, from Python: declared with a model, or installed at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Table, event

from pgmrl import database
from pgmrl.database.function_sets import installed_markers
from pgmrl.errors import DefinitionError
from pgmrl.functions import installed
from pgmrl.functions.searched_column import SearchedColumn
from pgmrl.model.columns import INFO_KEY, attachment_of, base_column, vectors_table
from pgmrl.model.server_names import translated_schema
from pgmrl.model.sql_functions import SqlFunctions
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from sqlalchemy import Column
    from sqlalchemy.orm import InstrumentedAttribute, Session

__all__ = ["add_functions", "drop_functions", "install_functions", "searched_column_in"]


def add_functions(column: InstrumentedAttribute[Any] | Column[Any], functions: SqlFunctions | None = None) -> None:
    """Declare the SQL functions of a Matryoshka column; call it after the class or Table is defined.

        add_functions(Package.embedding, SqlFunctions(filters=("section",)))

    `MetaData.create_all` makes them with the table and `drop_all` drops them; autogenerate writes the operations.

    Raises:
        DefinitionError: no Matryoshka column, an unknown column in the declaration, or functions declared already.

    """
    base, functions = base_column(column), _checked(functions) or SqlFunctions()
    attachment = attachment_of(base)
    if attachment.functions is not None:
        raise DefinitionError(f"{base} has functions already: declare them once")
    for name in [test.column for test in functions.tests] + [functions.group_by, functions.words]:
        if name is not None and name not in base.table.c:
            raise DefinitionError(f"functions of {base}: table {base.table.name} has no column {safe_repr(name)}")
    base.info[INFO_KEY] = replace(attachment, functions=functions)
    # the side table is made after its owner, and dropped before it
    holder = vectors_table(base)
    event.listen(holder, "after_create", lambda _table, connection, **_: _created(connection, base))
    event.listen(holder, "before_drop", lambda _table, connection, **_: _dropped(connection, base))


def install_functions(
    connection: Connection | Session,
    column: InstrumentedAttribute[Any] | Column[Any],
    functions: SqlFunctions | None = None,
) -> SearchedColumn:
    """Install the SQL functions of a column, or replace them, in the caller's transaction.

    Args:
        connection: of the database that has the table; its role owns the functions.
        column: a Matryoshka attribute or column, also from `reflect`.
        functions: what to install; by default what the model declares, or else functions without filters.

    Returns:
        The column with the functions' names and types.

    Raises:
        NotMigrated: as `database.require_schema`.
        MigrationError: something of somebody else's is in the way, or uses what has to be dropped.
        DefinitionError: the column has no short vectors, or an unknown column is declared.

    """
    connection = database.sqlalchemy_connection(connection)
    searched = searched_column_in(connection, column, functions)
    installed.install(connection, searched, attachment_of(column).index)
    return searched


def drop_functions(connection: Connection | Session, column: InstrumentedAttribute[Any] | Column[Any]) -> list[str]:
    """Drop all SQL functions of a column, under whatever name they were installed.

    Returns:
        The names they began with, with their schema.

    Raises:
        NotMigrated: as `database.require_schema`.
        MigrationError: something else uses them, such as a view.

    """
    connection = database.sqlalchemy_connection(connection)
    base = base_column(column)
    schema = _schema_of(connection, base.table)
    prefixes = [
        (functions_schema, marker["name"])
        for functions_schema, marker in installed_markers(connection)
        if (marker["schema"], marker["table"], marker["column"]) == (schema, base.table.name, base.name)
    ]
    for functions_schema, prefix in prefixes:
        installed.drop(connection, functions_schema, prefix)
    return [f"{functions_schema}.{prefix}" for functions_schema, prefix in prefixes]


def searched_column_in(
    connection: Connection, column: InstrumentedAttribute[Any] | Column[Any], functions: SqlFunctions | None = None
) -> SearchedColumn:
    """A column with its functions as they are in this database; arguments and errors as `install_functions`."""
    base, attachment = base_column(column), attachment_of(column)
    declared = _checked(functions) or attachment.functions or SqlFunctions()
    schema, managed = _schema_of(connection, base.table), declared == attachment.functions
    vector_schema = database.check_pgvector(connection)
    return SearchedColumn.of(base, attachment, declared, schema, vector_schema, managed=managed)


def _checked(functions: Any) -> SqlFunctions | None:
    if functions is not None and not isinstance(functions, SqlFunctions):
        raise DefinitionError(f"functions={safe_repr(functions)}: expected SqlFunctions(...)")
    return functions


def _schema_of(connection: Connection, table: Table) -> str:
    return translated_schema(connection, table.schema) or database.table_schema(connection, table.name) or "public"


def _created(connection: Connection, column: Column[Any]) -> None:
    install_functions(connection, column)


def _dropped(connection: Connection, column: Column[Any]) -> None:
    drop_functions(connection, column)
