"""Load rows with vectors by binary COPY: checked before they are sent, whole batches or nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pgmrl.errors import IngestError
from pgmrl.ingestion.batch_check import checked_batch
from pgmrl.ingestion.batch_copy import write_batch
from pgmrl.ingestion.batch_errors import BatchErrors
from pgmrl.ingestion.driver import driver_of, give_up_if_lost, schema_in
from pgmrl.ingestion.target_table import TargetTable
from pgmrl.model.argument_types import callable_argument, whole_number
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg
    from numpy.typing import NDArray
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    Row = Mapping[str, Any]

__all__ = ["IngestReport", "ingest"]

BATCH: Final = 5_000


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What was loaded.

    Attributes:
        rows: rows written.
        null_vectors: of them, rows without a vector, which no search returns.
        zero_vectors: of them, rows whose short vector is zero under cosine: the index does not hold them, and only an
            exact search can return them (none can where the full vector is zero too).
        batches: transactions (or savepoints).
        seconds: from the first row to the last.
    """

    rows: int = 0
    null_vectors: int = 0
    zero_vectors: int = 0
    batches: int = 0
    seconds: float = 0.0


def ingest(
    connection: Connection | Session | psycopg.Connection[Any],
    column: Any,
    rows: Iterable[Row],
    *,
    vectors: Iterable[Any] | NDArray[Any] | None = None,
    batch_size: int = BATCH,
    check_sample: int = 20,
    progress: Callable[[int], None] | None = None,
) -> IngestReport:
    """Load rows into the table of a Matryoshka column.

    Memory is bounded by the batch, however long `rows` is. A batch is one transaction, or a savepoint where the
    connection is in a transaction already (as a Session always is): it is written whole or not at all, and earlier
    batches stay.

    Columns that a row does not name have their defaults, those that the model gives in Python too; None is NULL.

    A prefix is computed by the server. With a rotation whose axes are at hand the short vectors of a batch are one
    matrix product here, and a sample of them is compared with what the server computes from the stored vectors. Where
    the table has a BEFORE INSERT trigger of somebody else's, the server computes them all.

    Args:
        connection: of SQLAlchemy on psycopg 3, or psycopg's own.
        column: the Matryoshka attribute or column.
        rows: mappings from column name to value, with the vector among them unless `vectors` is given.
        vectors: the vectors, in the order of `rows`; shape (n, dims) or any iterable; None for a row without one.
        batch_size: rows in a batch.
        check_sample: short vectors of each batch that are compared.
        progress: called after each batch with the number of rows written so far.

    Raises:
        IngestError: a row that cannot be loaded, named by its key; nothing of its batch was written.
        NotMigrated: the table or one of the columns is not in the database.
    """
    batch_size = whole_number("batch_size", batch_size, IngestError, 1)
    check_sample = whole_number("check_sample", check_sample, IngestError, 0)
    callable_argument("progress", progress, IngestError)
    remaining_rows = _iterator("rows", rows, "mappings from column name to value")
    remaining_vectors = None
    if vectors is not None:
        remaining_vectors = _iterator("vectors", vectors, "one vector, or None, for each row")
        _check_lengths(rows, vectors)
    driver = driver_of(connection)
    table = TargetTable.of(driver, column, schema_in(connection, column))
    report, start = IngestReport(), time.perf_counter()
    batches = _batches(_paired(remaining_rows, remaining_vectors, table.full_column), batch_size)
    while batch := _next(batches, report.rows):
        errors = BatchErrors(table, report.rows)
        batch_rows, batch_vectors = checked_batch(batch, errors)
        try:
            write_batch(driver, batch_rows, batch_vectors, errors, check_sample)
        except IngestError:
            give_up_if_lost(connection, driver)
            raise
        present = [vector for vector in batch_vectors if vector is not None]
        zeros = int(table.definition.unfindable(np.stack(present)).sum()) if present else 0
        report = replace(
            report,
            rows=report.rows + len(batch),
            null_vectors=report.null_vectors + len(batch) - len(present),
            zero_vectors=report.zero_vectors + zeros,
            batches=report.batches + 1,
        )
        if progress is not None:
            progress(report.rows)
    return replace(report, seconds=time.perf_counter() - start)


def _iterator(name: str, values: Any, expected: str) -> Iterator[Any]:
    try:
        if not isinstance(values, (str, bytes, Mapping)) and isinstance(values, Iterable):
            return iter(values)
    except Exception:  # whatever the value's own __iter__ raises
        raise IngestError(f"{name}={safe_repr(values)}: expected {expected}. Nothing was written.") from None
    raise IngestError(f"{name}={safe_repr(values)}: expected {expected}. Nothing was written.")


def _check_lengths(rows: Any, vectors: Any) -> None:
    try:
        counts = (len(rows), len(vectors)) if isinstance(rows, Sized) and isinstance(vectors, Sized) else (0, 0)
    except Exception:  # whatever their own __len__ raise: it is seen when they end
        return
    if counts[0] != counts[1]:
        raise IngestError(
            f"expected one vector, or None, for each row, got {counts[0]:,} rows and {counts[1]:,} vectors. "
            "Nothing was written."
        )


def _paired(rows: Iterator[Any], vectors: Iterator[Any] | None, full_column: str) -> Iterator[Row]:
    """The rows, each with its vector in it."""
    if vectors is None:
        yield from rows
        return
    missing = object()
    count = 0
    for count, row in enumerate(rows, 1):
        if isinstance(row, Mapping) and full_column in row:
            raise IngestError(
                f"row {count:,} has {safe_repr(full_column)}, and `vectors` are given too: expected one of them"
            )
        vector = next(vectors, missing)
        if vector is missing:
            raise IngestError(f"expected one vector, or None, for each row, got {count - 1:,} vectors and more rows")
        yield {**row, full_column: vector} if isinstance(row, Mapping) else row
    if next(vectors, missing) is not missing:
        raise IngestError(f"expected one vector for each row, got {count:,} rows and more vectors")


def _batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while batch := list(islice(rows, size)):
        yield batch


def _next(batches: Iterator[list[Row]], written: int) -> list[Row]:
    """The next batch, empty at the end; an error of the caller's iterator gets a note of how far the load was."""
    try:
        return next(batches, [])
    except Exception as error:
        error.add_note(f"{written:,} rows had been written before.")
        raise
