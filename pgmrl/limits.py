"""The numbers of a search: what pgvector allows, and what is taken where nobody says."""

from __future__ import annotations

from typing import Final

__all__ = [
    "EF_SEARCH_LIMIT",
    "MAX_SCAN_TUPLES",
    "OVERSAMPLE",
    "PARTITION_EF_SEARCH_MIN",
    "RRF_K",
    "SHORTLIST_LIMIT",
    "SHORTLIST_MIN",
    "TEXT_LIMIT",
]

EF_SEARCH_LIMIT: Final = 1000  # pgvector's; beyond it the scan iterates
MAX_SCAN_TUPLES: Final = 20_000  # pgvector's default
OVERSAMPLE: Final = 10
"""Shortlist rows for each result, unless the caller says otherwise; see docs/choosing.md for what it buys."""
PARTITION_EF_SEARCH_MIN: Final = 10  # below, a scan loses its way in the graph
SHORTLIST_MIN: Final = 40
SHORTLIST_LIMIT: Final = 100_000
RRF_K: Final = 60  # of reciprocal rank fusion; Cormack, Clarke, Buettcher, SIGIR 2009
TEXT_LIMIT: Final = 1_000
"""Characters of a query text. Ranking a row takes time with the square of the query's words, so that ten times as many
characters take a hundred times as long."""
