"""The numbers from which on a check reports a problem."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Thresholds"]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The numbers from which on a check reports a problem.

    Attributes:
        small_rows: rows; a smaller table may be read whole, because an index would gain nothing.
        exact_rows: rows; up to so many are counted exactly, in a larger table a sample of about so many.
        null_share: share of rows without a vector, 0 to 1, that is a warning; a smaller one is info.
        dead_share: share of dead rows, 0 to 1, which take places in a shortlist until VACUUM.
        modified_share: share of rows changed since the last ANALYZE, 0 to 1.
        held_seconds: age in seconds of a transaction that blocks VACUUM.
        unused_seconds: age in seconds of the statistics before an index without a scan is reported.
        unused_reads: sequential reads of the index's table in that time that make it a warning.
        filter_calls: searches with a filter from which on it deserves a covering index.
        visible_pages: pages; the visibility map of a smaller table does not matter.
        visible_share: share of pages marked all visible, 0 to 1, below which a covering index is not enough.
        rotation_rows: rows of the sample on which a rotation is compared with a newly learned one.
        rotation_gain: recall@10 that a newly learned rotation must gain for the present one to be stale.
        idle_seconds: seconds without a report after which a backfill that is not finished counts as stopped.
        stale_seconds: age in seconds from which on a row that waits to be embedded is a warning.
        grown: factor by which a table has grown since its setting was chosen, or its recall measured.
        recall_days: age in days of the last recall measurement.
        recall_drop: smallest loss of recall that is reported.
        recall_least: recall below which a column without a target is reported.

    """

    small_rows: int = 10_000
    exact_rows: int = 50_000
    null_share: float = 0.1
    dead_share: float = 0.2
    modified_share: float = 0.3
    held_seconds: float = 3_600
    unused_seconds: float = 86_400
    unused_reads: int = 100
    filter_calls: int = 100
    visible_pages: int = 100
    visible_share: float = 0.9
    rotation_rows: int = 4_000
    rotation_gain: float = 0.02
    idle_seconds: float = 600
    stale_seconds: float = 300
    grown: float = 2.0
    recall_days: float = 30
    recall_drop: float = 0.01
    recall_least: float = 0.9
