"""The view pgmrl.health from Python: one row for each short column, for dashboards."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from sqlalchemy import text

from pgmrl import database

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

__all__ = ["Health", "health"]


@dataclass(frozen=True, slots=True)
class Health:
    """One short column; the view pgmrl.health has the same.

    Attributes:
        table_schema: schema of the table.
        table_name: the table.
        full_column: the full vector's column.
        short_column: the short vector's column.
        shortening: `prefix` or `rotation`.
        rotation: the rotation's id; None for a prefix.
        metric: as in `ColumnInfo`.
        stage: `arriving` or `retired` while a reshape has two short columns side by side; else None.
        index_name: the index that serves searches.
        index_state: `valid`, `invalid` or `missing`.
        index_bytes: size of the index.
        table_bytes: the table's size with TOAST, without indexes.
        estimated_rows: rows as of the last ANALYZE.
        index_scans: scans of the index since the statistics began, on this server.
        table_reads: sequential scans of the table since the statistics began, on this server.
        dead_rows: dead rows by the statistics.
        dead_share: share of dead rows among all, 0 to 1; None of an empty table.
        last_vacuum: by hand or by autovacuum.
        last_analyze: by hand or by autovacuum.
        modified_since_analyze: rows that changed since the last ANALYZE.
        recall: the latest recall that was recorded without a filter.
        recall_low: lower end of its 95 % interval.
        recall_high: upper end of its 95 % interval.
        recall_k: number of results that recall counts.
        recall_measured_at: when recall was measured.
        recall_target: the recall that the stored setting was chosen for.
        below_target: whether the whole interval is below the target; None where one is missing, or recall was measured
            with another k, shortlist or ef_search than the setting has.

    """

    table_schema: str
    table_name: str
    full_column: str
    short_column: str
    shortening: str
    rotation: str | None
    metric: str | None
    stage: str | None
    index_name: str | None
    index_state: str
    index_bytes: int | None
    table_bytes: int
    estimated_rows: int
    index_scans: int
    table_reads: int
    dead_rows: int
    dead_share: float | None
    last_vacuum: datetime | None
    last_analyze: datetime | None
    modified_since_analyze: int
    recall: float | None
    recall_low: float | None
    recall_high: float | None
    recall_k: int | None
    recall_measured_at: datetime | None
    recall_target: float | None
    below_target: bool | None

    @property
    def name(self) -> str:
        """As in `Report.columns`."""
        return f"{self.table_schema}.{self.table_name}.{self.full_column} ({self.short_column})"


def health(connection: Connection | Session) -> list[Health]:
    """All short columns of the database with their indexes, statistics and latest recall.

    Raises:
        NotMigrated: as `database.require_schema`.

    """
    connection = database.sqlalchemy_connection(connection)
    database.require_schema(connection)
    names = ", ".join(field.name + ("::text" if field.name == "index_name" else "") for field in fields(Health))
    rows = database.catalogue_result(connection, text(f"SELECT {names} FROM pgmrl.health ORDER BY 1, 2, 3, 4"))
    return [Health(*row) for row in rows]
