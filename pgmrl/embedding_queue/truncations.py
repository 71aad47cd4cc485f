"""Short vectors that are a prefix of a length that the model was not trained for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pgmrl.database.search_path import catalogue_result
from pgmrl.model_cards import truncation_advice

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["TRUNCATIONS_SQL", "UntrainedTruncation", "untrained_truncations"]

TRUNCATIONS_SQL: Final = (
    "SELECT c.table_schema, c.table_name, c.full_column, c.full_dims, c.short_dims, e.embedder\n"
    "FROM pgmrl.columns AS c JOIN pgmrl.embeddings AS e\n"
    "  ON (e.table_schema, e.table_name, e.embedding) = (c.table_schema, c.table_name, c.full_column)\n"
    "WHERE c.shortening = 'prefix' ORDER BY 1, 2, 3, 5"
)


class UntrainedTruncation(NamedTuple):
    """A short vector of such a length.

    Attributes:
        table_schema: of the table.
        table_name: the table.
        column: of the full vectors.
        dims: of the short ones.
        advice: what to do.
    """

    table_schema: str
    table_name: str
    column: str
    dims: int
    advice: str


def untrained_truncations(connection: Connection) -> list[UntrainedTruncation]:
    """Of the columns that triggers keep in step with a text, those with such short vectors; needs pgmrl's schema.

    Raises:
        EmbedderError: the user's file of models cannot be read.
    """
    found = []
    for schema, table, column, full_dims, dims, embedder in catalogue_result(connection, TRUNCATIONS_SQL):
        advice = truncation_advice(embedder, dims, full_dims) if dims and full_dims else None
        if advice is not None:
            found.append(UntrainedTruncation(schema, table, column, dims, advice))
    return found
