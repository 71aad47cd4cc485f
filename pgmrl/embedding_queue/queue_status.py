"""How far the rows of a column are: what waits, what failed, and trying that again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from pgmrl.database.search_path import catalogue_result

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pgmrl.embedding_queue.embedded_column import EmbeddedColumn

__all__ = [
    "EmbeddingStatus",
    "MarkingTriggers",
    "ParkedRow",
    "embedding_status",
    "marking_triggers",
    "parked_rows",
    "retry_parked",
]

STATUS_SQL: Final = (
    "SELECT table_schema, table_name, embedding, stale, taken, failed, parked, oldest_seconds\n"
    "FROM pgmrl.embedding_status ORDER BY 1, 2, 3"
)

TRIGGERS_SQL: Final = """
SELECT e.table_schema, e.table_name, e.embedding,
    count(*) FILTER (WHERE (g.tgtype & 18) = 16) > 0 AS marks_updates,
    bool_and(g.tgenabled IN ('O', 'A')) AS enabled,
    pgmrl.rewriting_triggers_v1(e.relation, (
        SELECT array_agg(a.attname::text) FROM pg_attribute AS a
        JOIN pg_trigger AS u ON u.tgrelid = a.attrelid AND a.attnum = ANY (u.tgattr::int2[])
        WHERE u.tgrelid = e.relation AND u.tgfoid = e.function AND (u.tgtype & 18) = 16
    )) AS rewriters
FROM (
    SELECT relation, table_schema, table_name, embedding, function FROM pgmrl.embeddings
    UNION ALL SELECT relation, table_schema, table_name, embedding, function FROM pgmrl.chunk_tables
) AS e
JOIN pg_trigger AS g ON g.tgrelid = e.relation AND g.tgfoid = e.function
GROUP BY e.relation, e.table_schema, e.table_name, e.embedding, e.function ORDER BY 1, 2, 3
"""


def _worker(title: str, column: str) -> str:
    """The command that keeps a column, or the chunks in a table, in step."""
    chunks = column.removeprefix("chunks in ")
    return f"pgmrl embed {title}" if chunks == column else f"pgmrl chunk {chunks}"


@dataclass(frozen=True, slots=True)
class MarkingTriggers:
    """The triggers that mark the rows of a column.

    Attributes:
        table_schema: of the table.
        table_name: the table.
        column: of the vectors.
        marks_updates: whether there is one for UPDATE.
        enabled: whether none of them is disabled.
        rewriters: BEFORE triggers that may change the text in an UPDATE which does not name it, unseen by these.
    """

    table_schema: str
    table_name: str
    column: str
    marks_updates: bool
    enabled: bool
    rewriters: list[str] | None

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.table_schema}.{self.table_name}.{self.column}"

    @property
    def install(self) -> str:
        """How they are installed so that no row is missed."""
        command = f"`{_worker(self.title, self.column)} --install …`"
        if command.startswith("`pgmrl chunk"):
            return f"{command}, which marks every row, also those that were missed."
        return f"{command}; with --all it marks every row, also those that were missed."


@dataclass(frozen=True, slots=True)
class EmbeddingStatus:
    """The rows of a column that are still to be embedded.

    Attributes:
        table_schema: of the table.
        table_name: the table.
        column: of the vectors.
        stale: rows that are marked, without those that are parked.
        taken: of them, those that a worker has.
        failed: of them, those that failed and will be tried again.
        parked: rows that no worker tries again.
        oldest_seconds: since the oldest of the stale rows was marked; None where there is none.
    """

    table_schema: str
    table_name: str
    column: str
    stale: int
    taken: int
    failed: int
    parked: int
    oldest_seconds: float | None

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.table_schema}.{self.table_name}.{self.column}"

    @property
    def worker(self) -> str:
        """The command of its workers."""
        return _worker(self.title, self.column)


@dataclass(frozen=True, slots=True)
class ParkedRow:
    """A row that could not be embedded.

    Attributes:
        key: its primary key's values as text.
        attempts: how often it was tried.
        error: why not.
    """

    key: tuple[str, ...]
    attempts: int
    error: str


def embedding_status(connection: Connection) -> list[EmbeddingStatus]:
    """Every column that is kept in step with a text; needs pgmrl's schema."""
    return [EmbeddingStatus(*tuple(row)) for row in catalogue_result(connection, STATUS_SQL)]


def marking_triggers(connection: Connection) -> list[MarkingTriggers]:
    """The triggers of every column that is kept in step with a text."""
    return [MarkingTriggers(*tuple(row)) for row in catalogue_result(connection, TRIGGERS_SQL)]


def parked_rows(connection: Connection, column: EmbeddedColumn, limit: int = 100) -> list[ParkedRow]:
    """The rows that no worker tries again, as far as this role may read them."""
    query = text(
        "SELECT key, attempts, coalesce(error, '') FROM pgmrl.parked_embeddings "
        "WHERE relation = to_regclass(:owner) AND embedding = :column ORDER BY queued_at, key LIMIT :limit"
    )
    rows = catalogue_result(connection, query, {"owner": column.owner, "column": column.column, "limit": limit})
    return [ParkedRow(tuple(key), attempts, error) for key, attempts, error in rows]


def retry_parked(connection: Connection, column: EmbeddedColumn) -> int:
    """Have the parked rows of a column tried again; how many there are."""
    query = text(
        "UPDATE pgmrl.embedding_queue SET parked = false, attempts = 0, error = NULL, due_at = clock_timestamp() "
        "WHERE parked AND relation = to_regclass(:owner) AND embedding = :column RETURNING id"
    )
    return len(catalogue_result(connection, query, {"owner": column.owner, "column": column.column}).all())
