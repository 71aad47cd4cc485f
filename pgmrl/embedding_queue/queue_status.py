"""How far the rows of a column are: what waits, what failed, and trying that again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from pgmrl.database.search_path import catalogue_result

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pgmrl.embedding_queue.embedded_column import EmbeddedColumn

__all__ = ["EmbeddingStatus", "ParkedRow", "embedding_status", "parked_rows", "retry_parked", "rewriting_triggers"]

STATUS_SQL: Final = (
    "SELECT table_schema, table_name, embedding, stale, taken, failed, parked, oldest_seconds\n"
    "FROM pgmrl.embedding_status ORDER BY 1, 2, 3"
)

REWRITERS_SQL: Final = """
SELECT e.table_schema || '.' || e.table_name || '.' || e.embedding AS title, e.table_schema, e.table_name,
    pgmrl.rewriting_triggers_v1(e.relation, ARRAY(
        SELECT a.attname::text FROM pg_attribute AS a WHERE a.attrelid = g.tgrelid AND a.attnum = ANY (g.tgattr::int2[])
    )) AS triggers
FROM pgmrl.embeddings AS e
JOIN pg_trigger AS g ON g.tgrelid = e.relation AND g.tgfoid = e.function AND (g.tgtype & 18) = 16 AND g.tgattr <> ''
"""


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


def rewriting_triggers(connection: Connection) -> list[tuple[str, str, str, list[str]]]:
    """Columns whose text a BEFORE trigger of the application may change unseen: it came after the triggers that mark.

    Returns:
        The column for people, its table's schema and name, and the BEFORE triggers.
    """
    query = f"SELECT * FROM ({REWRITERS_SQL}) AS r WHERE triggers IS NOT NULL ORDER BY 1"
    return [tuple(row) for row in catalogue_result(connection, query)]


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
