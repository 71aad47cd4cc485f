"""Recall measured for the doctor: one row of history a column, where it can be kept."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from pgmrl import database
from pgmrl.doctor.exam import reading
from pgmrl.doctor.searches import numbers
from pgmrl.doctor.subject import subjects
from pgmrl.errors import PgmrlError
from pgmrl.measure import measure_recall, record_recall
from pgmrl.measure.history import require_recording
from pgmrl.measure.recall import SAMPLE, SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from pgmrl.doctor.subject import Subject
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
    progress: Callable[[int, int], None] | None = None,
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
        progress: called after each query with the number tried and the number to try, of the column at hand.

    Raises:
        DefinitionError: as `doctor`.
        NotMigrated: as `doctor`.

    """
    end = time.monotonic() + seconds
    with reading(connection, seconds):
        found, _ = subjects(connection, columns)
        serving = [(subject, numbers(connection, subject.column)) for subject in found if subject.serves]
    connection.rollback()
    measured = []
    for left, (subject, (k, shortlist, ef_search)) in zip(range(len(serving), 0, -1), serving, strict=True):
        share = max(1.0, (end - time.monotonic()) / left)
        options = {"k": k, "shortlist": shortlist, "ef_search": ef_search, "seconds": share}
        measured.append(_measured(connection, subject, options, sample, seed, progress))
        connection.rollback()
    return measured


def _measured(
    connection: Connection,
    subject: Subject,
    options: dict[str, Any],
    sample: int,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> Measurement:
    try:
        recall = measure_recall(
            connection, subject.column, queries=sample, seed=seed, worst=0, progress=progress, **options
        )
    except (PgmrlError, DBAPIError) as error:
        return Measurement(subject.name, None, False, _said(error))
    connection.rollback()
    try:
        if database.execute_plain(connection, "SELECT pg_is_in_recovery()").scalar():
            return Measurement(subject.name, recall, False, "a standby keeps no history: measure on its primary")
        require_recording(connection)
        record_recall(connection, subject.column, recall)
        connection.commit()
    except (PgmrlError, DBAPIError) as error:
        connection.rollback()
        return Measurement(subject.name, recall, False, _said(error))
    return Measurement(subject.name, recall, True)


def _said(error: PgmrlError | DBAPIError) -> str:
    return str(error if isinstance(error, PgmrlError) else error.orig).strip().splitlines()[0]
