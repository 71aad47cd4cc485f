"""Recall measured for the doctor: one row of history a column, where it can be kept."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from pgmrl import database
from pgmrl.doctor.checks.searches import numbers
from pgmrl.doctor.examination import surveying
from pgmrl.doctor.examined_columns import subjects
from pgmrl.errors import MeasureError, PgmrlError
from pgmrl.measure import measure_recall, record_recall
from pgmrl.measure.recall import SAMPLE, SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from pgmrl.doctor.examined_columns import Subject
    from pgmrl.measure import Recall

__all__ = ["Measurement", "measure"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """What measuring one column gave.

    Attributes:
        name: the column's.
        recall: None where it could not be measured.
        recorded: whether it is in the history now.
        reason: why it was not measured, or not recorded; None where it was.

    """

    name: str
    recall: Recall | None
    recorded: bool
    reason: str | None = None


def measure(
    connection: Connection,
    *columns: Any,
    seconds: float = SECONDS,
    sample: int = SAMPLE,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Measurement]:
    """Measure the recall of each column as its searches run, and add a row to its history.

    What cannot be measured or recorded says why and keeps no other from it: on a standby, or without INSERT on
    pgmrl.recall_history, the measurement is only returned.

    Args:
        connection: of the database, not in a transaction; each row of history is committed.
        *columns: as for `doctor`.
        seconds: for all columns together.
        sample: queries of each.
        seed: of the sampling.
        progress: called after each query with what is measured, the number tried and the number to try.

    Raises:
        MeasureError: the connection is in a transaction.
        DefinitionError: as `doctor`.
        NotMigrated: as `doctor`.
        PgvectorMissing: pgvector is not installed or too old.
        Locked: as `doctor`.
        DatabaseError: as `doctor`.

    """
    if connection.in_transaction() and not _commits_itself(connection):
        raise MeasureError("the connection is in a transaction, and each measurement is committed: end it first")
    end = time.monotonic() + seconds
    with surveying(connection, seconds):
        found, _, closed = subjects(connection, columns)
        serving = [(subject, numbers(connection, subject.column)) for subject in found if subject.serves]
    measured = [Measurement(one.subject, None, False, one.reason) for one in closed]
    for left, (subject, (k, shortlist, ef_search)) in zip(range(len(serving), 0, -1), serving, strict=True):
        share = max(1.0, (end - time.monotonic()) / left)
        options = {"k": k, "shortlist": shortlist, "ef_search": ef_search, "seconds": share}
        measured.append(_measured(connection, subject, options, sample, seed, progress))
    return measured


def _measured(
    connection: Connection,
    subject: Subject,
    options: dict[str, Any],
    sample: int,
    seed: int,
    progress: Callable[[str, int, int], None] | None,
) -> Measurement:
    def tell(what: str, done: int, whole: int) -> None:
        if progress is not None and what == "queries":
            progress(f"recall of {subject.name}", done, whole)

    options |= {"queries": sample, "seed": seed, "worst": 0, "progress": tell}
    try:
        recall = measure_recall(connection, subject.column, **options)
    except (PgmrlError, DBAPIError) as error:
        return Measurement(subject.name, None, False, _said(error))
    try:
        with nullcontext() if _commits_itself(connection) else connection.begin():
            if database.execute_plain(connection, "SELECT pg_is_in_recovery()").scalar():
                return Measurement(subject.name, recall, False, "a standby keeps no history: measure on its primary")
            record_recall(connection, subject.column, recall)
    except (PgmrlError, DBAPIError) as error:
        return Measurement(subject.name, recall, False, _said(error))
    return Measurement(subject.name, recall, True)


def _commits_itself(connection: Connection) -> bool:
    return bool(getattr(connection.connection.dbapi_connection, "autocommit", False))


def _said(error: PgmrlError | DBAPIError) -> str:
    return str(error if isinstance(error, PgmrlError) else error.orig).strip().splitlines()[0]
