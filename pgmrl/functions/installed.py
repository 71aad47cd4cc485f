"""Installing, listing and dropping a column's functions in a database."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from pgmrl import database
from pgmrl.database.shards import distributed_table, on_this_node
from pgmrl.errors import MigrationError
from pgmrl.functions.install_statements import drop_statement, install_statements
from pgmrl.names import qualified

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from pgmrl.functions.searched_column import SearchedColumn
    from pgmrl.model.hnsw import Hnsw

__all__ = ["FunctionInfo", "drop", "functions", "install"]


@dataclass(frozen=True, slots=True)
class FunctionInfo:
    """One SQL function that pgmrl made; the view pgmrl.functions has the same.

    Attributes:
        function_schema: where it is.
        function_name: its name.
        arguments: with types and defaults, as SQL.
        description: its comment.
        table_schema: schema of the table it searches.
        table_name: the table.
        full_column: the full vector's column.
        short_column: the short vector's column.
        filters: what its filter arguments test.
        version: of its text.
        callable: whether the current role may call it.

    """

    function_schema: str
    function_name: str
    arguments: str
    description: str | None
    table_schema: str
    table_name: str
    full_column: str
    short_column: str
    filters: list[str]
    version: int
    callable: bool


def install(connection: Connection | Session, column: SearchedColumn, index: Hnsw) -> None:
    """Install a column's functions, or replace those that are there, in the caller's transaction.

    Raises:
        NotMigrated: as `database.require_schema`.
        MigrationError: something of somebody else's is in the way, or uses what has to be dropped; or Citus distributes
            the table otherwise than is declared.

    """
    connection = database.sqlalchemy_connection(connection)
    database.require_schema(connection)
    owner = qualified(column.schema, column.vectors_table)
    table = distributed_table(connection, owner)
    if table is not None and (table.column is None or table.column != column.distributed):
        declared = "an ordinary table" if column.distributed is None else f"one distributed by {column.distributed}"
        raise MigrationError(
            f"{owner}: expected {declared}, got {table.describe()}: functions set the scan's parameters where the "
            "vectors are, by what the model declares as distributed= (docs/citus.md)"
        )
    _run(connection, install_statements(column, index))


def drop(connection: Connection | Session, schema: str, name: str) -> bool:
    """Drop the functions of this name, with their views; False where there are none.

    Raises:
        NotMigrated: as `database.require_schema`.
        MigrationError: something else uses them.

    """
    connection = database.sqlalchemy_connection(connection)
    database.require_schema(connection)
    return bool(_run(connection, [drop_statement(schema, name)]))


def _run(connection: Connection, statements: Sequence[str]) -> Any:
    """Run statements, all or none; the value that the last one returns."""
    value = None
    try:
        # types of the table's columns are found by the caller's path; all else in the statements has its schema
        with _atomic(connection), on_this_node(connection), database.caller_path(connection):
            for statement in statements:
                result = database.execute_plain(connection, statement)
                value = result.scalar() if result.returns_rows else None
    except DBAPIError as error:
        raise _explained(error) or error from None
    return value


@contextmanager
def _atomic(connection: Connection) -> Iterator[None]:
    """All or nothing: within the caller's transaction, or in one of their own where the connection commits each."""
    if not database.in_autocommit(connection):
        with connection.begin_nested():
            yield
        return
    database.execute_plain(connection, "BEGIN")
    try:
        yield
    except BaseException:
        database.execute_plain(connection, "ROLLBACK")
        raise
    database.execute_plain(connection, "COMMIT")


def _explained(error: DBAPIError) -> MigrationError | None:
    """The server's message on what is in the way, with its hint; None for any other error, such as missing rights."""
    state = database.sqlstate(error)
    if state not in {"42723", "42710", "42704", "22023", "2BP01", "3F000", "42P13"}:
        return None
    diagnostic = getattr(error.orig, "diag", None)
    parts = [getattr(diagnostic, part, None) for part in ("message_primary", "message_detail", "message_hint")]
    parts[0] = parts[0] or str(error.orig).strip()  # a driver that gives all in one
    if state == "2BP01":  # the server would advise CASCADE, by which somebody's view is lost
        parts[2] = "Nothing was changed. Drop what uses it first, and make it again afterwards."
    return MigrationError("\n".join(part for part in parts if part))


def functions(connection: Connection | Session) -> list[FunctionInfo]:
    """Every function that pgmrl made in this database.

    Raises:
        NotMigrated: as `database.require_schema`.

    """
    connection = database.sqlalchemy_connection(connection)
    database.require_schema(connection)
    names = ", ".join(FunctionInfo.__dataclass_fields__)
    with database.caller_path(connection):  # which says how types of arguments are written; nothing else in it depends
        rows = connection.execute(text(f"SELECT {names} FROM pgmrl.functions ORDER BY 1, 2"))
        return [FunctionInfo(*row) for row in rows]
