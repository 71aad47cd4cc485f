"""Recall as it was measured over time: one row a measurement, in pgmrl's schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from pgmrl import database
from pgmrl.measure.recall import Recall
from pgmrl.model.columns import attachment_of, vectors_table
from pgmrl.model.server_names import server_name

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

__all__ = ["Measured", "kept_of", "recall_history", "record_recall", "require_recording"]


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement; the table pgmrl.recall_history has the same.

    Attributes:
        measured_at: when.
        short_column: the short vector's column.
        index_name: the index that served; None where the planner read the table.
        k: results that counted.
        shortlist: rows that were ranked exactly.
        ef_search: candidates HNSW kept.
        filter: the conditions of the searches, as SQL; None for none.
        queries: how many were tried.
        source: what they were, in words.
        recall: mean recall@k.
        recall_low: the lower end of its 95 % interval.
        recall_high: the upper end.
        truncation_loss: by the short vectors.
        ann_loss: by the scan of their index.
        shortfall: because fewer rows came back.
        completed: given back by the exact fallback.
        p50_ms: the median time of a search, in milliseconds.
        row_count: rows of the table, as estimated.
        measured_by: the role.

    """

    measured_at: datetime
    short_column: str
    index_name: str | None
    k: int
    shortlist: int
    ef_search: int
    filter: str | None
    queries: int
    source: str
    recall: float
    recall_low: float
    recall_high: float
    truncation_loss: float
    ann_loss: float
    shortfall: float
    completed: float
    p50_ms: float | None
    row_count: int | None
    measured_by: str


def require_recording(connection: Connection | Session) -> None:
    """Check that a measurement can be recorded, before it is made.

    Raises:
        NotMigrated: as `database.require_schema`.

    """
    database.require_schema(database.sqlalchemy_connection(connection))


def kept_of(recall: Recall) -> dict[str, Any]:
    """What the history keeps of a measurement, by the names of its columns: all but when it was made, and by whom."""
    return {
        "short_column": recall.short_column,
        "index_name": recall.index,
        "k": recall.k,
        "shortlist": recall.shortlist,
        "ef_search": recall.ef_search,
        "filter": recall.filter,
        "queries": recall.queries,
        "source": recall.source,
        "recall": recall.recall.mean,
        "recall_low": recall.recall.low,
        "recall_high": recall.recall.high,
        "truncation_loss": recall.truncation,
        "ann_loss": recall.ann,
        "shortfall": recall.shortfall,
        "completed": recall.completed,
        "p50_ms": recall.p50_ms,
        "row_count": recall.row_count,
    }


def record_recall(connection: Connection | Session, column: Any, recall: Recall) -> None:
    """Add a measurement to the history, in the caller's transaction.

    Args:
        connection: its role needs INSERT on pgmrl.recall_history; not a standby's.
        column: the Matryoshka attribute or column that was measured.
        recall: what `measure_recall` returned.

    Raises:
        NotMigrated: as `database.require_schema`.

    """
    connection = database.sqlalchemy_connection(connection)
    require_recording(connection)
    values = kept_of(recall)
    key = _key(connection, column)
    with database.pinned(connection):
        connection.execute(
            text(
                f"INSERT INTO pgmrl.recall_history (relation, full_column, {', '.join(values)}) "  # noqa: S608
                f"VALUES (CAST(:relation AS regclass), :full_column, {', '.join(f':{name}' for name in values)})"
            ),
            values | key,
        )


def recall_history(connection: Connection | Session, column: Any, *, limit: int = 100) -> list[Measured]:
    """The latest measurements of a column, the oldest first.

    Args:
        connection: of the database; its role sees the measurements of tables that it may read.
        column: the Matryoshka attribute or column.
        limit: how many at most.

    Raises:
        NotMigrated: as `database.require_schema`.

    """
    connection = database.sqlalchemy_connection(connection)
    require_recording(connection)
    names = ", ".join(Measured.__dataclass_fields__)
    rows = database.catalogue_result(
        connection,
        text(
            f"SELECT {names} FROM pgmrl.recall_history WHERE relation = to_regclass(:relation) "  # noqa: S608
            "AND full_column = :full_column ORDER BY measured_at DESC, id DESC LIMIT :limit"
        ),
        {**_key(connection, column), "limit": limit},
    ).all()
    return [Measured(*row) for row in reversed(rows)]


def _key(connection: Connection, column: Any) -> dict[str, str]:
    table = vectors_table(column)  # as settings are kept
    relation = database.relation_name(connection, server_name(connection, table))
    return {"relation": relation, "full_column": attachment_of(column).full}
