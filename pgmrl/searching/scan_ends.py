"""Why the scan of an HNSW index ended: pgvector does not report it, but has only these reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ScanEnd", "scan_end"]

ScanEnd = Literal["full", "max_scan_tuples", "scan_mem", "exhausted"]
"""It had returned all rows requested; pgvector's limit on rows, or on memory; the end of the index."""

NEARLY_ALL: Final = 0.9  # of the rows an index holds: their number is as of the last VACUUM


def scan_end(
    rows: float, requested: float, examined: Sequence[float], limit: int | None, indexed: float | None
) -> ScanEnd | None:
    """Why a scan ended; None where that cannot be told.

    Args:
        rows: that the scan returned.
        requested: rows.
        examined: rows that came from each index, including those that a filter removed.
        limit: hnsw.max_scan_tuples, which holds for the index of each partition; None where unknown.
        indexed: rows of all the indexes; None where unknown.

    """
    if rows >= requested:
        return "full"
    if limit is None:
        return None
    if max(examined) >= limit:
        return "max_scan_tuples"
    if not indexed:
        return None
    return "exhausted" if sum(examined) >= NEARLY_ALL * indexed else "scan_mem"
