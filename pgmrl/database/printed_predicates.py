"""The condition of a partial index as the server prints it: what is declared and what is there compare as texts."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from pgmrl.database.connection import execute_plain, in_autocommit, sqlstate
from pgmrl.database.search_path import caller_path, catalogue_result
from pgmrl.errors import MigrationError
from pgmrl.names import qualified, quoted
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sqlalchemy import Connection

    from pgmrl.model.hnsw import Hnsw

__all__ = ["printed_index"]

NOT_ALLOWED: Final = frozenset({"42501", "25006"})
"""insufficient_privilege, read_only_sql_transaction"""
UNDEFINED_COLUMN: Final = "42703"

_PRINTED: Final = text(
    "SELECT pg_get_expr(x.indpred, x.indrelid) FROM pg_index AS x WHERE x.indrelid = to_regclass(:table)"
)


def printed_index(
    connection: Connection, schema: str | None, table: str, index: Hnsw, *, pending: Collection[str] = ()
) -> Hnsw:
    """An index with its condition as the server prints it; one of all rows as it is.

    The server is asked by a partial index on an empty temporary copy of the table, which is rolled back: so it says,
    too, what is wrong with a condition, before anything is written.

    Args:
        connection: of the database.
        schema: of the table.
        table: its name; it is there.
        index: as declared.
        pending: columns that the table is about to get: a condition on one of them stays as it is.

    Raises:
        MigrationError: no index can have this condition, or this role may not make temporary tables.
    """
    if index.predicate is None:
        return index
    owner, copy = qualified(schema, table), f"pg_temp.{quoted(table)}"
    try:
        with _rolled_back(connection):
            with caller_path(connection):
                execute_plain(connection, f"CREATE TEMPORARY TABLE {quoted(table)} (LIKE {owner})")
                execute_plain(connection, f"CREATE INDEX ON {copy} ((1)) WHERE ({index.predicate})")
            return index.printed(catalogue_result(connection, _PRINTED, {"table": copy}).scalar_one())
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        if sqlstate(error) == UNDEFINED_COLUMN and pending:
            return index
        raise MigrationError(_problem(error, owner, index)) from error


def _problem(error: DBAPIError, owner: str, index: Hnsw) -> str:
    said = str(error.orig).strip().splitlines()[0]
    if sqlstate(error) in NOT_ALLOWED:
        return (
            f"the condition of a partial index on {owner} is compared through a temporary table, which the server "
            f"refuses ({said}): GRANT TEMPORARY ON DATABASE to this role, and run it on the primary"
        )
    return (
        f"Hnsw(where={safe_repr(index.declared)}) of {owner}: expected a condition on the table's own columns, by "
        f"immutable functions and without subqueries; the server says: {said}"
    )


@contextmanager
def _rolled_back(connection: Connection) -> Iterator[None]:
    """A transaction or savepoint that leaves nothing."""
    if not in_autocommit(connection):
        savepoint = connection.begin_nested()
        try:
            yield
        finally:
            savepoint.rollback()
        return
    execute_plain(connection, "BEGIN")
    try:
        yield
    finally:
        execute_plain(connection, "ROLLBACK")
