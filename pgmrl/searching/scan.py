"""How the short index is read: where `ef_search` and pgvector's other scan parameters are set.

The statement sets them for itself, in a condition of the query's own subquery, which the server evaluates before it
opens the index: the gate.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import Integer, bindparam, text

from pgmrl.model.scan_settings import (
    NO_LIMIT,
    gated_vector_sql,
    long_scan_settings,
    max_scan_tuples,
    scan_settings,
)

if TYPE_CHECKING:
    from sqlalchemy import TextClause

__all__ = ["Scan", "custom_plan", "gated_sql"]


class Scan(NamedTuple):
    """How the short index is read.

    Attributes:
        shortlist: rows to take.
        ef_search: candidates HNSW keeps at a time.

    """

    shortlist: int
    ef_search: int


@lru_cache(maxsize=1024)
def gated_sql(vector: str, scan: Scan, *, endless: bool = False) -> str:
    """A query's short vector as a subquery that sets the scan's parameters for this statement, as SQL text.

    The order of the scan depends on it, so that it is evaluated, once, before the index is opened.

    Args:
        vector: the short vector, as SQL text; of a column, with its FROM.
        scan: how the short index is read.
        endless: whether the scan goes on until the shortlist is full, the index ends, or its memory is full.

    """
    settings = scan_settings(f"'{scan.ef_search}'")
    limit = NO_LIMIT if endless else max_scan_tuples(scan.shortlist)
    if limit is not None:
        settings |= long_scan_settings(f"'{limit}'")
    return gated_vector_sql(vector, settings)


@lru_cache(maxsize=1)
def custom_plan() -> TextClause:
    """A condition, always true, that makes the server prefer a custom plan, for the filter's values, each time.

    A generic plan of a prepared statement, for no values in particular, takes a filter for an average one. For a rare
    value it would walk the graph, and it looks cheaper than the right plan, so the server would keep it. This
    expression costs nothing with its parameter known to be 1, and looks very expensive without.
    """
    ones = ", ".join(f"generate_series(1, :pgmrl_one) AS {name}" for name in "abcd")
    one = bindparam("pgmrl_one", 1, type_=Integer())
    return text(f"(SELECT count(*) FROM {ones}) = 1").bindparams(one)  # noqa: S608 - constants
