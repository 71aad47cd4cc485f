"""Named queries: questions that were embedded once, for `…_search_named` in plain SQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, text

from pgmrl import database
from pgmrl.errors import SearchError
from pgmrl.functions.install import searched_column_in
from pgmrl.model.columns import attachment_of, base_column
from pgmrl.model.types import NumpyVector
from pgmrl.names import qualified
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Column, Connection
    from sqlalchemy.orm import InstrumentedAttribute, Session

__all__ = ["QueryInfo", "add_query", "queries", "remove_query"]


@dataclass(frozen=True, slots=True)
class QueryInfo:
    """One named query.

    Attributes:
        table: the table it is for, as SQL writes it.
        column: the full vector's column.
        name: its name.
        question: the words it was embedded from; None where a vector was given.
        embedder: the model that embedded them.
        dims: dimensions of the vector.
        added_at: when.
        added_by: the role that added it.

    """

    table: str
    column: str
    name: str
    question: str | None
    embedder: str | None
    dims: int
    added_at: datetime
    added_by: str


def add_query(
    connection: Connection | Session,
    column: InstrumentedAttribute[Any] | Column[Any],
    name: str,
    vector: Any,
    *,
    question: str | None = None,
    embedder: str | None = None,
) -> bool:
    """Keep a query's vector under a name, in the caller's transaction; one of this name is replaced.

    Args:
        connection: its role needs INSERT and UPDATE on pgmrl.queries.
        column: the Matryoshka column that the query is for.
        name: what `…_search_named` is called with.
        vector: the query's full vector, shape (dims,).
        question: the words it was embedded from.
        embedder: the model that embedded them.

    Returns:
        Whether there was none of this name.

    Raises:
        SearchError: the name is empty.
        VectorError: the vector cannot be searched with.
        NotMigrated: as `database.require_schema`.

    """
    connection, definition = database.sqlalchemy_connection(connection), attachment_of(column).definition
    if not name.strip() or "\0" in name:
        raise SearchError(f"a query's name cannot be {safe_repr(name)}: give it words")
    database.require_schema(connection)
    searched = searched_column_in(connection, column)
    query = definition.query(vector, f"the query {safe_repr(name)}")
    statement = text(
        "INSERT INTO pgmrl.queries (relation, full_column, name, question, embedder, vector) "
        "VALUES (CAST(:relation AS regclass), :column, :name, :question, :embedder, :vector) "
        "ON CONFLICT (relation, full_column, name) DO UPDATE SET question = EXCLUDED.question, "
        "embedder = EXCLUDED.embedder, vector = EXCLUDED.vector, added_at = now(), added_by = current_user "
        "RETURNING xmax = 0"
    ).bindparams(bindparam("vector", type_=NumpyVector(definition.dims, "vector", searched.vector_schema)))
    values = {
        "relation": qualified(searched.schema, searched.table),
        "column": searched.full_column,
        "name": name,
        "question": question,
        "embedder": embedder,
        "vector": query,
    }
    with database.pinned(connection):
        return bool(connection.execute(statement, values).scalar_one())


def remove_query(connection: Connection | Session, column: InstrumentedAttribute[Any] | Column[Any], name: str) -> bool:
    """Forget a named query, in the caller's transaction; False where there is none.

    Raises:
        NotMigrated: as `database.require_schema`.

    """
    connection, base = database.sqlalchemy_connection(connection), base_column(column)
    database.require_schema(connection)
    searched = searched_column_in(connection, column)
    statement = text(
        "DELETE FROM pgmrl.queries WHERE relation = to_regclass(:relation) AND full_column = :column AND name = :name"
    )
    values = {"relation": qualified(searched.schema, searched.table), "column": base.name, "name": name}
    with database.pinned(connection):
        return connection.execute(statement, values).rowcount > 0


def queries(connection: Connection | Session) -> list[QueryInfo]:
    """Every named query for a table that the current role may read.

    Raises:
        NotMigrated: as `database.require_schema`.

    """
    connection = database.sqlalchemy_connection(connection)
    database.require_schema(connection)
    vector_dims = qualified(database.check_pgvector(connection), "vector_dims")
    rows = database.catalogue_result(
        connection,
        text(
            f"SELECT relation::oid, full_column, name, question, embedder, {vector_dims}(vector), added_at, added_by "
            "FROM pgmrl.queries ORDER BY full_column, name"
        ),
    ).all()
    tables = database.relation_titles(connection, [row[0] for row in rows])
    return sorted((QueryInfo(tables[oid], *row) for oid, *row in rows), key=lambda query: (query.table, query.column))
