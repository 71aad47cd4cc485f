"""What a search sets for its scan of the short index: pgvector's `hnsw.ef_search` and its companions.

A search in Python and the installed SQL functions take names and values from here. Values are SQL text of type text.
"""

from __future__ import annotations

from math import ceil, sqrt
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from pgmrl.limits import (
    EF_SEARCH_LIMIT,
    MAX_SCAN_TUPLES,
    OVERSAMPLE,
    PARTITION_EF_SEARCH_MIN,
    SHORTLIST_LIMIT,
    SHORTLIST_MIN,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "EXPECTED_CANDIDATES",
    "NO_LIMIT",
    "PGVECTOR_DEFAULTS",
    "default_ef_search",
    "default_ef_search_sql",
    "default_shortlist",
    "default_shortlist_sql",
    "gated_vector_sql",
    "long_scan_settings",
    "max_scan_tuples",
    "max_scan_tuples_sql",
    "partition_ef_search",
    "scan_settings",
]

PGVECTOR_DEFAULTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "hnsw.ef_search": "40",
        "hnsw.iterative_scan": "off",
        "hnsw.max_scan_tuples": str(MAX_SCAN_TUPLES),
        "hnsw.scan_mem_multiplier": "1",
    }
)
ITERATIVE_SCAN: Final = "relaxed_order"  # the rerank sorts anyway, and a strict order loses rows behind a filter
SCAN_MEM_MULTIPLIER: Final = 8
TUPLES_PER_SHORTLIST_ROW: Final = 4
NO_LIMIT: Final = 2**31 - 1
"""The largest number of rows that pgvector takes."""

EXPECTED_CANDIDATES: Final = 10
"""The rows that the planner is told to expect of a scan under a filter, for each row of the shortlist.

It takes a walk through the graph for cheaper than it is: each row that does not pass costs a step and a read of the
table. Told to expect ten times the rows, it changes to an index on the filter, or to reading the table, about where
that is as fast.
"""


def scan_settings(ef_search: str) -> dict[str, str]:
    """What every scan sets.

    Args:
        ef_search: candidates HNSW keeps at a time, at most EF_SEARCH_LIMIT.
    """
    return {"hnsw.ef_search": ef_search, "hnsw.iterative_scan": f"'{ITERATIVE_SCAN}'"}


def long_scan_settings(max_scan_tuples: str) -> dict[str, str]:
    """What a scan sets besides for a shortlist of more than EF_SEARCH_LIMIT rows: it has to iterate.

    Args:
        max_scan_tuples: rows after which the scan gives up.
    """
    return {"hnsw.max_scan_tuples": max_scan_tuples, "hnsw.scan_mem_multiplier": f"'{SCAN_MEM_MULTIPLIER}'"}


def gated_vector_sql(vector: str, settings: Mapping[str, str]) -> str:
    """A query's short vector as a subquery that sets a scan's parameters, as SQL text.

    In its WHERE: of a subquery without FROM Citus looks at the SELECT alone, and sends it to the shards.

    Args:
        vector: the short vector, as SQL text.
        settings: names and values, as `scan_settings` has them.
    """
    calls = " || ".join(f"pg_catalog.set_config('{name}', {value}, true)" for name, value in settings.items())
    return f"(SELECT {vector} WHERE ({calls}) IS NOT NULL)"


def max_scan_tuples(shortlist: int) -> int | None:
    """Rows after which the scan for a shortlist gives up; None where a search leaves the setting alone."""
    return max(MAX_SCAN_TUPLES, TUPLES_PER_SHORTLIST_ROW * shortlist) if shortlist > EF_SEARCH_LIMIT else None


def max_scan_tuples_sql(shortlist: str) -> str:
    """As `max_scan_tuples` of a shortlist beyond EF_SEARCH_LIMIT, as SQL text of type text."""
    return f"greatest({MAX_SCAN_TUPLES}, {TUPLES_PER_SHORTLIST_ROW} * {shortlist})::text"


def default_ef_search(shortlist: int) -> int:
    """The candidates for a shortlist where nobody says: as many as it holds, as far as pgvector goes."""
    return min(shortlist, EF_SEARCH_LIMIT)


def default_ef_search_sql(shortlist: str) -> str:
    """As `default_ef_search`, as SQL text."""
    return f"least({shortlist}, {EF_SEARCH_LIMIT})"


def partition_ef_search(shortlist: int, partitions: int) -> int:
    """Candidates for the index of each partition, with which a search of all finds what one of the whole table does.

    Each of n partitions at random has about 1/n of the nearest rows; a scan that keeps so few candidates misses some of
    them, and the more partitions, the larger the share that chance gives to one. Divided by the root of n, recall was
    that of one table or better, with 4, 16 and 64 partitions: `python -m benchmarks.partitions`.
    """
    return min(EF_SEARCH_LIMIT, max(PARTITION_EF_SEARCH_MIN, ceil(shortlist / sqrt(max(1, partitions)))))


def default_shortlist(k: int) -> int:
    """The shortlist for k results where neither the caller nor tuning says."""
    return min(SHORTLIST_LIMIT, max(SHORTLIST_MIN, OVERSAMPLE * k))


def default_shortlist_sql(k: str) -> str:
    """As `default_shortlist`, as SQL text.

    Args:
        k: results, as SQL text of a number.
    """
    return f"least({SHORTLIST_LIMIT}, greatest({SHORTLIST_MIN}, {OVERSAMPLE} * {k}))"
