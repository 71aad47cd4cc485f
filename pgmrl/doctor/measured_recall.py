"""Measuring the recall of columns, with a row in the history of each where it can be recorded."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from pgmrl import database
from pgmrl.doctor.bounded_reads import first_line, read_catalogue, time_limit
from pgmrl.doctor.checked_columns import checked_columns
from pgmrl.doctor.checks.search_settings import search_numbers
from pgmrl.errors import MeasureError, PgmrlError
from pgmrl.measure import measure_recall, record_recall
from pgmrl.measure.recall import SAMPLE, SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from pgmrl.doctor.checked_columns import CheckedColumn
    from pgmrl.measure import Recall

__all__ = ["Measurement", "measure_columns"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """What measuring one column gave.

    Attributes:
        name: the column's, `schema.table.column`.
        recall: None where it could not be measured.
        recorded: whether it is in the history now.
        reason: why it was not measured, or not recorded; None where it was.

    """

    name: str
    recall: Recall | None
    recorded: bool
    reason: str | None = None


def measure_columns(
    connection: Connection,
    *columns: Any,
    seconds: float = SECONDS,
    sample: int = SAMPLE,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Measurement]:
    """Measure the recall of each column's searches, and add a row to its history.

    A column that cannot be measured or recorded has a reason, and the others are measured all the same: on a standby,
    or without INSERT on pgmrl.recall_history, the measurement is returned and not recorded.

    Args:
        connection: a connection to the database, not in a transaction; each row of history is committed.
        *columns: Matryoshka attributes or columns, or names (`packages.embedding`); by default all of the database.
        seconds: time limit of all columns together.
        sample: queries for each column.
        seed: seed of the samples.
        progress: called after each query with what is measured, the number tried and the number to try.

    Raises:
        SearchError: `seconds` is no finite number, or below 0.
        MeasureError: the connection is in a transaction.
        DefinitionError: a column is not a Matryoshka column.
        NotMigrated: there is no table or column of a name.
        PgvectorMissing: pgvector is not installed or too old.
        Locked: another transaction holds a table, so that not even its size can be read.
        DatabaseError: the catalogue was not read in time, or a column is in a schema that the role may not use.

    """
    connection = database.sqlalchemy_connection(connection)
    if connection.in_transaction() and not database.in_autocommit(connection):
        raise MeasureError("the connection is in a transaction, and each measurement is committed: end it first")
    seconds = time_limit(seconds)
    deadline = time.monotonic() + seconds
    with read_catalogue(connection, seconds):
        selection = checked_columns(connection, columns)
        searched = [
            (column, search_numbers(connection, column.searched)) for column in selection.columns if column.serves
        ]
    measurements = [Measurement(entry.subject, None, False, entry.reason) for entry in selection.not_checked]
    for remaining, (column, numbers) in zip(range(len(searched), 0, -1), searched, strict=True):
        share = max(1.0, (deadline - time.monotonic()) / remaining)
        options = {**numbers._asdict(), "seconds": share, "queries": sample, "seed": seed}
        measurements.append(_measure(connection, column, options, progress))
    return measurements


def _measure(
    connection: Connection,
    column: CheckedColumn,
    options: dict[str, Any],
    progress: Callable[[str, int, int], None] | None,
) -> Measurement:
    def report(what: str, done: int, total: int) -> None:
        if progress is not None and what == "queries":
            progress(f"recall of {column.name}", done, total)

    try:
        recall = measure_recall(connection, column.searched, worst=0, progress=report, **options)
    except (PgmrlError, DBAPIError) as error:
        return Measurement(column.name, None, False, _reason(error))
    try:
        with nullcontext() if database.in_autocommit(connection) else connection.begin():
            if database.is_standby(connection):
                return Measurement(column.name, recall, False, database.KEEPS_NO_HISTORY)
            record_recall(connection, column.searched, recall)
    except (PgmrlError, DBAPIError) as error:
        return Measurement(column.name, recall, False, _reason(error))
    return Measurement(column.name, recall, True)


def _reason(error: PgmrlError | DBAPIError) -> str:
    return first_line(error) if isinstance(error, DBAPIError) else str(error).strip().splitlines()[0]
