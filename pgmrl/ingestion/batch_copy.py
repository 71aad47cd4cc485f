"""A checked batch is written: binary COPY, and short vectors that are computed here and compared with the server's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import psycopg

from pgmrl.errors import IngestError
from pgmrl.ingestion.driver import plain_cursor
from pgmrl.model.binary import decode, encode
from pgmrl.model.ddl import set_computed_by
from pgmrl.model.rotation import Rotation
from pgmrl.names import quoted
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from pgmrl.ingestion.batch_errors import BatchErrors
    from pgmrl.ingestion.driver import Driver
    from pgmrl.ingestion.target_table import TargetTable
    from pgmrl.model.metrics import ShortType
    from pgmrl.model.vectors import VectorArray

    Row = Mapping[str, Any]

__all__ = ["write_batch"]

ULPS: Final = 2  # client and server add the products in another order


def write_batch(
    driver: Driver, rows: list[Row], vectors: list[VectorArray | None], errors: BatchErrors, check_sample: int
) -> None:
    """Write a batch, whole or not at all.

    Args:
        driver: the connection.
        rows: as `checked_batch` gives them.
        vectors: likewise.
        errors: of the batch.
        check_sample: short vectors to compare with the server's.

    Raises:
        IngestError: the server refuses a row, or computes other short vectors.
    """
    parts = _parts(errors.table, rows, vectors)
    current: _Part | None = None
    try:
        with driver.transaction():
            for current in parts:
                _copy(driver, current, errors)
                if current.shorts is not None:
                    _compare_shorts(driver, errors.table, current, check_sample)
                    driver.execute("SELECT pg_catalog.set_config('pgmrl.computed_by', '', true)")
            current = None  # what fails now is not of one part: a deferred constraint
    except psycopg.Error as error:
        if current is None:
            raise errors.of_server(error) from error
        raise errors.of_server(error, current.numbers, current.rows) from error


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of a batch that have the same columns.

    Attributes:
        columns: their columns.
        numbers: their places in the batch.
        rows: the rows.
        vectors: their vectors; None for a row without one.
        shorts: the short vectors of those that have one; None where the server computes them.
    """

    columns: list[str]
    numbers: list[int]
    rows: list[Row]
    vectors: list[VectorArray | None]
    shorts: NDArray[Any] | None


def _parts(table: TargetTable, rows: list[Row], vectors: list[VectorArray | None]) -> list[_Part]:
    """Rows of the same columns together: a column that COPY names cannot have its default in some of the rows."""
    by_columns: dict[frozenset[str], list[int]] = {}
    for number, row in enumerate(rows):
        by_columns.setdefault(frozenset(row), []).append(number)
    parts = []
    for numbers in by_columns.values():
        columns = list(rows[numbers[0]])
        own = [vectors[number] for number in numbers]
        shorts = _shorts(table, columns, [vector for vector in own if vector is not None])
        parts.append(_Part(columns, numbers, [rows[number] for number in numbers], own, shorts))
    return parts


def _shorts(table: TargetTable, columns: list[str], vectors: list[VectorArray]) -> NDArray[Any] | None:
    """The short vectors of the rows that have one, where the client can compute and then check them."""
    short, rule = table.definition.short, table.definition.short.by
    holds_axes = isinstance(rule, Rotation) and rule.axes is not None
    # where somebody's trigger changes a few rows, a sample of the others says nothing of them
    checkable = bool(table.keys) and set(table.keys) <= set(columns) and not table.changes_rows
    if not vectors or not holds_axes or short.type == "bit" or table.attachment.side or not checkable:
        return None
    return table.definition.shorten(np.stack(vectors))


# -- COPY ----------------------------------------------------------------------------------------------------------


def _copy(driver: Driver, part: _Part, errors: BatchErrors) -> None:
    table = errors.table
    names = [*part.columns]
    if part.shorts is not None:
        driver.execute(set_computed_by(table.definition).encode())
        names.append(str(table.attachment.short))
    unreadable = next((name for name in names if not table.types[name].received), None)
    if unreadable is not None:
        problem = (
            f"column {safe_repr(unreadable)}: the server reads no binary form of "
            f"{table.types[unreadable].name}: leave it out"
        )
        raise errors.of_row(part.numbers[0], part.rows[0], problem)
    statement = f"COPY {table.name} ({', '.join(map(quoted, names))}) FROM STDIN (FORMAT BINARY)"
    with plain_cursor(driver) as cursor, cursor.copy(statement.encode()) as copy:
        copy.set_types([table.types[name].sent_type for name in names])
        for number, row, values in _values(part, errors):
            try:
                for value in values:  # psycopg 3.1 has sent a part of the row by the time it finds out
                    if isinstance(value, str) and not value.isascii():
                        value.encode()
                copy.write_row(values)
            except psycopg.OperationalError:  # of the connection, not of the row
                raise
            except Exception as error:  # psycopg's dumpers raise whatever a wrong value makes them stumble over
                raise errors.of_row(number, row, _culprit(driver, names, values, error, errors)) from error


def _values(part: _Part, errors: BatchErrors) -> Iterator[tuple[int, Row, list[Any]]]:
    """Each row's place in the batch, the row, and its values as they are sent, with the short vector behind them."""
    table = errors.table
    shorts = iter(part.shorts if part.shorts is not None else ())
    for number, row, vector in zip(part.numbers, part.rows, part.vectors, strict=True):
        full = None if vector is None else encode(vector, table.vector_type)
        values = [full if name == table.full_column else _value(name, row, number, errors) for name in part.columns]
        if part.shorts is not None:
            values.append(None if vector is None else encode(next(shorts), table.definition.short.type))
        yield number, row, values


def _value(name: str, row: Row, number: int, errors: BatchErrors) -> Any:
    value = row[name]
    if value is None:
        return None
    try:
        return errors.table.sent(name, value)
    except Exception as error:  # whatever a wrong value makes its conversion stumble over
        raise errors.of_value(number, row, name, value) from error


def _culprit(driver: Driver, names: Sequence[str], values: Sequence[Any], error: Exception, errors: BatchErrors) -> str:
    """Which value could not be sent."""
    for name, value in zip(names, values, strict=True):
        try:
            if value is not None:
                dumper = driver.adapters.get_dumper_by_oid(errors.table.types[name].sent_type, psycopg.pq.Format.BINARY)
                dumper(type(value), driver).dump(value)
        except Exception:
            return errors.refused(name, value)
    return str(error)


# -- short vectors -------------------------------------------------------------------------------------------------


def _compare_shorts(driver: Driver, table: TargetTable, part: _Part, check_sample: int) -> None:
    """Compare a sample of the short vectors with what the server computes from what it has stored."""
    with_vector = [row for row, vector in zip(part.rows, part.vectors, strict=True) if vector is not None]
    step = max(1, len(with_vector) // max(1, check_sample))
    sample = with_vector[::step][:check_sample]
    if not sample:
        return
    type_ = table.definition.short.type
    send = table.definition.qualified(f"{type_}_send")
    written, computed = quoted(str(table.attachment.short)), table.definition.sql(quoted(table.full_column))
    keys = ", ".join(map(quoted, table.keys)).replace("%", "%%")
    places = ", ".join("(" + ", ".join(["%s"] * len(table.keys)) + ")" for _ in sample)
    query = f"SELECT {send}({written}), {send}({computed}) FROM {table.name}".replace("%", "%%")  # noqa: S608
    values = [table.compared(key, row[key]) for row in sample for key in table.keys]
    # not prepared, which a pooler between the server and us may not allow
    pairs = plain_cursor(driver).execute(f"{query} WHERE ({keys}) IN ({places})".encode(), values, prepare=False)
    compared = pairs.fetchall()
    if len(compared) < len(sample) or any(ours is None or theirs is None for ours, theirs in compared):
        raise IngestError(
            f"a trigger on {table.name} changes rows while they are loaded, so the short vectors computed here are "
            "not theirs: nothing of this batch was written; pin the rotation by its id alone, Rotation(id), and "
            "the server computes them"
        )
    if not all(_nearly_equal(ours, theirs, type_) for ours, theirs in compared):
        raise IngestError(
            f"the short vectors computed here are not those {table.name} computes itself: nothing of this batch "
            "was written; load the rotation from its file again"
        )


def _nearly_equal(ours: bytes, theirs: bytes, type_: ShortType) -> bool:
    """Whether two short vectors in binary form differ by no more than the order of adding explains."""
    own, server = (decode(value, type_).astype(np.float64) for value in (ours, theirs))
    largest = np.abs(server).max().astype(np.float16 if type_ == "halfvec" else np.float32)
    return bool(np.abs(own - server).max() <= ULPS * max(float(np.spacing(largest)), 1e-5 * float(largest)))
