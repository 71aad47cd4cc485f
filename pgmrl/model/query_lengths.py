"""The rule for a query's length, as SQL: for queries that the client never sees. As NumPy it is `as_query`'s."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgmrl.model.shortening import Definition

__all__ = ["scaled_sql", "uncountable_sql"]

PLAIN = (1e-3, 1e3)
"""A query of such a length is compared as it is, so that the distance of a row to itself is 0 to the last bit."""


SINGLE_LENGTH = 1e-35
"""Numbers of a shorter `vector` are below single precision's normal ones, and have lost digits."""


def scaled_sql(definition: Definition, vector: str) -> str:
    """SQL text of a query as it is compared: under cosine a very short or long one is scaled to unit length.

    Args:
        definition: of the column that is searched.
        vector: SQL text of the query, of pgvector's type `vector`.

    """
    if not definition.metric.normalise:
        return vector
    low, high = PLAIN
    length = f"{definition.norm('vector')}({vector})"
    plain = f"{length} OPERATOR(pg_catalog.>=) {low:g} AND {length} OPERATOR(pg_catalog.<=) {high:g}"
    return f"CASE WHEN {plain} THEN {vector} ELSE {definition.qualified('l2_normalize')}({vector}) END"


def uncountable_sql(definition: Definition, length: str, *, stored: bool) -> str | None:
    """SQL text of whether a query is of a length that pgvector cannot compute with; None where none is.

    Args:
        definition: of the column that is searched.
        length: SQL text of the query's length.
        stored: whether the query has the column's type already, so that scaling it comes too late.

    """
    low, high = definition.query_lengths
    if definition.metric.normalise:
        if not stored or definition.full == "halfvec":  # of which pgvector computes with every one that is not zero
            return None
        low, high = SINGLE_LENGTH, math.inf
    outside = f"{length} OPERATOR(pg_catalog.<) {low:g}"
    if high < math.inf:
        outside = f"({outside} OR {length} OPERATOR(pg_catalog.>) {high:g})"
    return f"{length} OPERATOR(pg_catalog.<>) 0 AND {outside}"
