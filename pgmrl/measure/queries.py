"""Queries to measure with: rows of the table itself, vectors of a file, or what a statement selects, such as a log."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlalchemy import BigInteger, Text, cast, func, literal_column, select, text
from sqlalchemy.exc import DBAPIError

from pgmrl import database
from pgmrl.database.connection import sqlstate
from pgmrl.errors import MeasureError, VectorError
from pgmrl.model.argument_types import path_argument, plain_text, whole_number
from pgmrl.model.columns import attachment_of, base_column, vectors_table
from pgmrl.model.server_names import server_name
from pgmrl.model.vectors import as_float32
from pgmrl.reprs import safe_repr, safe_str

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from sqlalchemy import ColumnElement, Connection, Table
    from sqlalchemy.orm import Session

    from pgmrl.model.shortening import Definition
    from pgmrl.model.vectors import VectorArray

__all__ = [
    "Queries",
    "array_of",
    "file_queries",
    "sampled_queries",
    "searchable",
    "selected_queries",
    "vector_queries",
]

MORE: Final = 3
"""So many rows are read for each that is asked for: a sample of pages comes in neighbours, and some have no vector."""

MOST_QUERIES: Final = 10_000_000
SEEDS: Final = 2**63
SYNTAX: Final = "42601"


@dataclass(frozen=True, slots=True)
class Queries:
    """Query vectors.

    Attributes:
        vectors: shape (n, dims), float32, each fit to be searched with.
        keys: the primary keys of the rows they are from, so that no row counts as its own neighbour; None where they
            are no rows.
        skipped: vectors that could not be searched with: NULL, not finite, or zero under cosine.
        source: where they are from, in words.

    """

    vectors: NDArray[np.float32]
    keys: list[tuple[Any, ...]] | None
    skipped: int
    source: str

    def __len__(self) -> int:
        """How many there are."""
        return len(self.vectors)


def sampled_queries(connection: Connection | Session, column: Any, count: int, *, seed: int = 0) -> Queries:
    """Rows of the table as queries, in random order; the same for the same seed while the table does not change.

    Reads some of the table's pages, chosen at random (TABLESAMPLE SYSTEM), and of their rows chooses again; more pages
    where few rows have a vector; all of the table where that has few rows, or no statistics. The server chooses: about
    three times as many vectors come as are asked for, however large the table. Rows that the role may not see under
    row-level security do not come.

    Args:
        connection: of the database.
        column: the Matryoshka attribute or column.
        count: rows to take; fewer come where the table has fewer with a usable vector.
        seed: of the sampling.

    Raises:
        MeasureError: there is no row with a vector that could be searched with.

    """
    connection = database.sqlalchemy_connection(connection)
    definition, table = attachment_of(column).definition, vectors_table(column)
    seed, count = whole_number("seed", seed, MeasureError), _check_limit(count)
    target = MORE * count + 100
    percent = _percent(connection, table, target)
    rows = _rows(connection, column, percent, seed, target)
    while len(rows) < target and percent < 100:  # of many rows without a vector, say
        percent = min(100.0, 4 * percent)
        rows = _rows(connection, column, percent, seed, target)
    picked, skipped = _picked(rows, definition, count)
    if len(picked) < count and len(rows) == target and definition.metric.normalise:  # zero vectors, if so many
        more, others = _picked(_rows(connection, column, 100.0, seed, target, zero=False), definition, count)
        picked, skipped = more, skipped + others
    if not picked:
        said = f"of {len(rows):,} rows none has a usable vector" if rows else "has no row with a vector"
        raise MeasureError(f"{table.fullname} {said}: there is nothing to measure with; load rows first")
    vectors = np.stack([row[-1] for row in picked]).astype(np.float32)
    return Queries(vectors, [tuple(row[:-1]) for row in picked], skipped, f"{len(picked):,} rows of {table.fullname}")


def vector_queries(column: Any, vectors: Iterable[Any], source: str = "given queries") -> Queries:
    """Vectors as queries; those that cannot be searched with are counted and left out.

    Args:
        column: the Matryoshka attribute or column that they are for.
        vectors: each of shape (dims,), or None.
        source: what they are, in words.

    Raises:
        VectorError: one is no array of numbers or has other dimensions.
        MeasureError: none can be searched with.

    """
    source = safe_str(source, 500)
    checked = list(searchable(column, vectors, source))
    kept = [vector for vector in checked if vector is not None]
    skipped = len(checked) - len(kept)
    if not kept:
        raise MeasureError(f"{source}: of {skipped:,} none can be searched with (NULL, zero or not finite)")
    return Queries(np.stack(kept), None, skipped, f"{len(kept):,} of {source}")


def searchable(column: Any, vectors: Iterable[Any], source: str) -> Iterator[VectorArray | None]:
    """Vectors as float32 arrays of shape (dims,); None in place of one that cannot be searched with.

    Args:
        column: the Matryoshka attribute or column that they are for.
        vectors: each of shape (dims,), or None.
        source: what they are, in words.

    Raises:
        VectorError: one is no array of numbers or has other dimensions.

    """
    definition = attachment_of(column).definition
    if isinstance(vectors, (str, bytes)) or not isinstance(vectors, Iterable):
        raise VectorError(f"{source}: expected vectors, such as an array of shape (n, dims), got {safe_repr(vectors)}")
    for number, value in enumerate(vectors, 1):
        vector = None if value is None else _array(value, f"query {number} of {source}")
        if vector is not None and vector.shape != (definition.dims,):
            shape, name = " x ".join(map(str, vector.shape)), base_column(column)
            raise VectorError(
                f"query {number} of {source} has {shape or 'no'} dimensions, {name} has {definition.dims}"
            )
        yield vector if vector is not None and _usable(vector, definition) else None


def file_queries(column: Any, path: str | Path, *, limit: int | None = None) -> Queries:
    """The queries of a file.

    Args:
        column: the Matryoshka attribute or column that they are for.
        path: `.npy` with an array of shape (n, dims), or JSON lines, each an array or an object with `vector`.
        limit: how many to take at most, from the start; None for all.

    Raises:
        VectorError: it holds something else.
        MeasureError: it cannot be read, none of them can be searched with, or the limit is below 1.

    """
    path = path_argument("path", path, MeasureError)
    limit = None if limit is None else _check_limit(limit)
    try:
        vectors = array_of(path)[:limit] if path.suffix == ".npy" else list(islice(_lines(path), limit))
    except OSError as error:
        raise MeasureError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # not UTF-8, or a NUL in its name
        if isinstance(error, VectorError):
            raise
        raise MeasureError(f"{safe_repr(str(path))} cannot be read: {safe_repr(str(error))}") from None
    return vector_queries(column, vectors, str(path))


def selected_queries(connection: Connection | Session, column: Any, statement: str, *, limit: int) -> Queries:
    """The queries that a statement selects, such as those of a log; it is read-only by the server's word.

    Args:
        connection: of the database.
        column: the Matryoshka attribute or column that they are for.
        statement: a SELECT of one column: vectors of any of pgvector's types, arrays of numbers, or their text.
        limit: rows to take at most; the server sends no more.

    Raises:
        VectorError: it selects something else.
        MeasureError: the server refuses it, none of them can be searched with, or the limit is below 1.

    """
    connection = database.sqlalchemy_connection(connection)
    limit = _check_limit(limit)
    if plain_text(statement) is None:
        raise MeasureError(f"the statement for queries: expected a text, got {safe_repr(statement)}")
    try:
        with database.snapshot(connection), database.caller_path(connection):
            connection.exec_driver_sql("SET LOCAL transaction_read_only = on")
            # a cursor takes the statement as it is, also one that ends with a comment, and of a whole log sends a part
            database.execute_plain(connection, f"DECLARE pgmrl_queries NO SCROLL CURSOR FOR\n{statement}")
            result = database.execute_plain(connection, f"FETCH {int(limit)} FROM pgmrl_queries")
            if len(result.keys()) != 1:
                raise MeasureError(
                    f"the statement for queries selects {len(result.keys())} columns: select the vector alone"
                )
            rows = [row[0] for row in result]
    except DBAPIError as error:
        said = f"the statement for queries: {str(error.orig).strip()}"
        if sqlstate(error) == SYNTAX:
            said = f"{said}\nGive a SELECT of one column of vectors."
        raise MeasureError(said) from error
    return vector_queries(column, rows, "queries that were selected")


def _check_limit(limit: Any) -> int:
    count = whole_number("queries", limit, MeasureError)
    if not 1 <= count <= MOST_QUERIES:
        raise MeasureError(f"{count} queries: ask for at least 1 and at most {MOST_QUERIES:,}")
    return count


# -- rows ----------------------------------------------------------------------------------------------------------


def _rows(
    connection: Connection, column: Any, percent: float, seed: int, count: int, *, zero: bool = True
) -> Sequence[tuple[Any, ...]]:
    """Key and vector of so many rows at most, in an order that depends on the keys and the seed alone.

    Args:
        connection: of the database.
        column: the Matryoshka attribute or column.
        percent: of the table's pages to read.
        seed: of the sampling.
        count: rows to send at most.
        zero: whether zero vectors come too; to leave them out the server reads every vector.

    """
    attachment, table = attachment_of(column), vectors_table(column)
    source = table.tablesample(func.system(percent), seed=text(str(int(seed)))) if percent < 100 else table
    vector = source.c[attachment.full]
    keys = [source.c[key.name] for key in table.primary_key]
    if not keys:
        raise MeasureError(f"{table.fullname} has no primary key: a search returns rows by their key")
    statement = select(*keys, vector).where(vector.is_not(None))
    if not zero:
        definition = attachment.definition
        norm = "vector_norm" if definition.full == "vector" else "l2_norm"
        functions: Any = getattr(func, definition.vector_schema) if definition.vector_schema else func
        statement = statement.where(getattr(functions, norm)(vector) > literal_column("0"))
    place: ColumnElement[int] = literal_column(str(int(seed) % SEEDS), BigInteger)
    for key in keys:  # each seeds the next one's hash: no text that joins them could be read in two ways
        place = func.pg_catalog.hashtextextended(cast(key, Text).collate("C"), cast(place, BigInteger))
    return [tuple(row) for row in connection.execute(statement.order_by(place).limit(count))]


def _picked(rows: Sequence[tuple[Any, ...]], definition: Definition, count: int) -> tuple[list[tuple[Any, ...]], int]:
    """The first so many that can be searched with, and how many before them cannot."""
    picked: list[tuple[Any, ...]] = []
    for number, row in enumerate(rows):
        if len(picked) == count:
            return picked, number - count
        if _usable(row[-1], definition):
            picked.append(row)
    return picked, len(rows) - len(picked)


def _percent(connection: Connection, table: Table, target: int) -> float:
    """What share of the pages holds twice so many rows, by the table's statistics; all where there are none."""
    rows = database.row_estimate(connection, server_name(connection, table))
    return 100.0 if not rows or rows < 10 * target else 200.0 * target / rows


def _usable(vector: NDArray[np.floating], definition: Definition) -> bool:
    """Whether a search by index can be asked with it."""
    try:
        definition.short_query(vector)
    except VectorError:
        return False
    return True


# -- files ---------------------------------------------------------------------------------------------------------


def array_of(path: Path) -> NDArray[Any]:
    """The array of a `.npy` file, shape (queries, dims).

    Raises:
        VectorError: it holds something else.
        OSError: it cannot be read.

    """
    try:
        array = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise VectorError(f"{path} is no NumPy array: {error}") from None
    if array.ndim != 2:
        raise VectorError(f"{path} has {array.ndim} dimensions: expected an array of shape (queries, dims)")
    return np.asarray(array)


def _lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
                yield value["vector"] if isinstance(value, dict) else value
            except (ValueError, KeyError):
                raise VectorError(f"{path}, line {number}: neither an array nor an object with `vector`") from None


def _array(value: Any, what: str) -> NDArray[np.float32]:
    try:
        return as_float32(json.loads(value) if isinstance(value, str) else value, what)
    except (ValueError, RecursionError) as error:
        if isinstance(error, VectorError):
            raise
        raise VectorError(f"{what} is no array of numbers") from None
