"""Read vectors from a table: in batches, in pgvector's binary form, through a cursor on the server."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import psycopg
from psycopg.pq import Format
from sqlalchemy import LargeBinary, event, func

from pgmrl.model.binary import decode_many, value_dtype
from pgmrl.names import quoted

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import ColumnElement, Connection, CursorResult, Select

    from pgmrl.model.metrics import ShortType
    from pgmrl.model.shortening import Definition

__all__ = ["VectorBatch", "VectorType", "batch_rows", "binary_column", "binary_sql", "read_vectors"]

ROWS: Final = 8_192
"""Rows of a batch, at most."""

VALUES: Final = 8_000_000
"""Numbers of the vectors of a batch, at most: 32 MB in single precision."""

FEWEST: Final = 64


class VectorType(NamedTuple):
    """A column's type.

    Attributes:
        kind: `vector`, `halfvec` or `bit`.
        dims: dimensions; of `bit` its length.

    """

    kind: ShortType
    dims: int

    @classmethod
    def full(cls, definition: Definition) -> VectorType:
        """Of the full column."""
        return cls(definition.full, definition.dims)

    @classmethod
    def short(cls, definition: Definition) -> VectorType:
        """Of the short column."""
        return cls(definition.short.type, definition.short.dims)


class VectorBatch(NamedTuple):
    """Some rows.

    Attributes:
        columns: what else was selected, by column: the values of the rows.
        vectors: of each vector column, shape (n, dims), float32; of `bit` truth values. Zeros in place of a NULL.
        present: of each vector column, which rows have a vector, shape (n,).

    """

    columns: list[tuple[Any, ...]]
    vectors: tuple[NDArray[Any], ...]
    present: tuple[NDArray[np.bool_], ...]


def batch_rows(dims: int, queries: int = 1, cells: int = VALUES) -> int:
    """Rows that fit the memory of a batch.

    Args:
        dims: dimensions of all its vectors together.
        queries: queries that each row is compared with.
        cells: comparisons that are held at a time.

    """
    return max(FEWEST, min(ROWS, VALUES // dims, cells // max(1, queries)))


def binary_sql(kind: ShortType, column: str, vector_schema: str | None) -> str:
    """A vector's binary form as SQL text.

    Args:
        kind: the column's type.
        column: SQL text, already quoted.
        vector_schema: pgvector's schema, where it is not on the search_path.

    """
    schema = "pg_catalog" if kind == "bit" else vector_schema
    return f"{quoted(schema)}.{kind}_send({column})" if schema else f"{kind}_send({column})"


def binary_column(kind: ShortType, column: ColumnElement[Any], vector_schema: str | None) -> ColumnElement[bytes]:
    """As `binary_sql`, of a column of SQLAlchemy's."""
    schema = "pg_catalog" if kind == "bit" else vector_schema
    functions = getattr(func, schema) if schema else func
    binary: ColumnElement[bytes] = getattr(functions, f"{kind}_send")(column, type_=LargeBinary())
    return binary


def read_vectors(
    connection: Connection,
    statement: Select[*tuple[Any, ...]] | str,
    types: Sequence[VectorType],
    *,
    rows: int,
) -> Generator[VectorBatch]:
    """Read the rows of a statement, so many at a time: memory holds one batch, whatever the table's size.

    To be closed, also where an error ends the reading: it holds a cursor.

    Args:
        connection: in a transaction, which the cursor needs.
        statement: selects anything, and behind it the vectors in binary form, as `binary_sql` and `binary_column` make
            it. Text is sent as it is, without parameters.
        types: of the vectors.
        rows: of a batch.

    """
    with closing(_executed(connection, statement, rows)) as result:
        for part in result.partitions(rows):
            yield _batch(part, types)


def _executed(connection: Connection, statement: Select[*tuple[Any, ...]] | str, rows: int) -> CursorResult[Any]:
    """The result in binary form, where bytes are half as long; as text where a column's type can only be read so."""
    with _binary_results(connection):
        result = _sent(connection, statement, rows)
    cursor: Any = result.cursor
    adapters = getattr(cursor, "adapters", None)  # an asynchronous cursor has none, and fetches text
    if adapters is None or all(adapters.get_loader(column.type_code, Format.BINARY) for column in cursor.description):
        return result
    result.close()  # a key of an extension's type or of an enum, say
    return _sent(connection, statement, rows)


def _sent(connection: Connection, statement: Select[*tuple[Any, ...]] | str, rows: int) -> CursorResult[Any]:
    options: dict[str, Any] = {"yield_per": rows}
    if isinstance(statement, str):
        return connection.exec_driver_sql(statement, execution_options={**options, "no_parameters": True})
    return connection.execute(statement, execution_options=options)


def _batch(rows: Sequence[Sequence[Any]], types: Sequence[VectorType]) -> VectorBatch:
    columns = list(zip(*rows, strict=True))
    first = len(columns) - len(types)
    vectors, present = [], []
    for (kind, dims), values in zip(types, columns[first:], strict=True):
        there = np.array([value is not None for value in values], np.bool_)
        if not there.all():
            zero = bytes(value_dtype(kind, dims).itemsize)
            values = tuple(zero if value is None else value for value in values)  # noqa: PLW2901
        vectors.append(decode_many(values, kind, dims))
        present.append(there)
    return VectorBatch(columns[:first], tuple(vectors), tuple(present))


@contextmanager
def _binary_results(connection: Connection) -> Iterator[None]:
    """Have psycopg fetch in binary form."""

    def fetch_binary(_connection: Any, cursor: Any, *_: Any) -> None:
        if isinstance(cursor, psycopg.Cursor):
            cursor.format = Format.BINARY

    event.listen(connection, "before_cursor_execute", fetch_binary)
    try:
        yield
    finally:
        event.remove(connection, "before_cursor_execute", fetch_binary)
