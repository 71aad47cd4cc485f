"""The rule for a query's length, as SQL: for queries that the client never sees. As NumPy it is `as_query`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgmrl.model.shortening import Definition

__all__ = ["scaled_sql", "uncountable_sql"]

PLAIN = (1e-3, 1e3)
"""A query of such a length is sent as it is, so that the distance of a row to itself is 0 to the last bit."""


def scaled_sql(definition: Definition, vector: str) -> str:
    """SQL text of a query as it is compared: under cosine a very short or long one is scaled to unit length.

    Args:
        definition: of the column that is searched.
        vector: SQL text of the query, of pgvector's type `vector`.

    Returns:
        SQL text of the full type.

    """
    if not definition.metric.normalise:
        return f"CAST({vector} AS {definition.full_type})"
    low, high = PLAIN
    plain = f"{definition.norm('vector')}({vector}) BETWEEN {low:g} AND {high:g}"
    scaled = f"{definition.qualified('l2_normalize')}({vector})"
    return f"CAST(CASE WHEN {plain} THEN {vector} ELSE {scaled} END AS {definition.full_type})"


def uncountable_sql(definition: Definition, vector: str) -> str | None:
    """SQL text of whether a query is of a length that pgvector cannot compute with; None where none is.

    Args:
        definition: as `scaled_sql`.
        vector: as `scaled_sql`.

    """
    if definition.metric.normalise:
        return None
    low, high = definition.query_lengths
    norm = f"{definition.norm('vector')}({vector})"
    return f"{norm} <> 0 AND {norm} NOT BETWEEN {low:g} AND {high:g}"
