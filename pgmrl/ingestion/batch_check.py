"""A batch before it is sent: defaults of the model, columns, vectors. What the server would refuse is refused here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pgmrl.errors import DefinitionError, VectorError
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from pgmrl.ingestion.batch_errors import BatchErrors
    from pgmrl.model.vectors import VectorArray

    Row = Mapping[str, Any]

__all__ = ["checked_batch"]


def checked_batch(rows: list[Row], errors: BatchErrors) -> tuple[list[Row], list[VectorArray | None]]:
    """The rows of a batch with the model's defaults, and the full vector of each.

    Args:
        rows: as they were given.
        errors: of the batch.

    Returns:
        The rows, and vectors of shape (dims,), float32; None for a row without one.

    Raises:
        IngestError: a row that cannot be loaded, named by its key.
    """
    completed = _with_defaults(rows, errors)
    _check_columns(completed, errors)
    return completed, _vectors(completed, errors)


def _with_defaults(rows: list[Row], errors: BatchErrors) -> list[Row]:
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            place = errors.written + number + 1
            raise errors.of_batch(
                f"row {place:,}: expected a mapping from column name to value, got {safe_repr(row, 60)}"
            )
    values = errors.table.model_values
    if not values.defaults:
        return rows
    completed: list[Row] = []
    for number, row in enumerate(rows):
        try:
            completed.append(values.completed(row))
        except DefinitionError as error:
            raise errors.of_row(number, row, str(error)) from error
    return completed


def _check_columns(rows: list[Row], errors: BatchErrors) -> None:
    table = errors.table
    for number, row in enumerate(rows):
        if not row:
            raise errors.of_row(number, row, "it has no columns: name some")
    names = dict.fromkeys(name for row in rows for name in row)
    unknown = next((name for name in names if name not in table.types), None)
    if unknown is not None:
        number = _first_with(unknown, rows)
        there = ", ".join(table.types)
        raise errors.of_row(number, rows[number], f"{table.name} has no column {safe_repr(unknown)} (it has {there})")
    short = table.attachment.short
    if short in names and table.attachment.side is None:
        number = _first_with(short, rows)
        raise errors.of_row(number, rows[number], f"{safe_repr(short)} is computed, not given: leave it out")


def _first_with(name: str | None, rows: list[Row]) -> int:
    return next(number for number, row in enumerate(rows) if name in row)


def _vectors(rows: list[Row], errors: BatchErrors) -> list[VectorArray | None]:
    table = errors.table
    values = [row.get(table.full_column) for row in rows]
    try:  # all at once; only where that fails is it worth knowing which row it was
        return list(table.definition.rows(values, table.narrowest_type))
    except VectorError:
        return _vectors_singly(rows, errors)


def _vectors_singly(rows: list[Row], errors: BatchErrors) -> list[VectorArray | None]:
    table = errors.table
    vectors: list[VectorArray | None] = []
    for number, row in enumerate(rows):
        value = row.get(table.full_column)
        try:
            vectors.append(None if value is None else table.definition.row(value, table.narrowest_type))
        except VectorError as error:
            raise errors.of_row(number, row, str(error)) from error
    return vectors
