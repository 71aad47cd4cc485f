"""Tune the shortlist of filtered searches: of the column there is, for a sample of the filter's values."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pgmrl import database
from pgmrl.errors import MeasureError, SearchError
from pgmrl.limits import EF_SEARCH_LIMIT
from pgmrl.measure.attribution import SearchTrial
from pgmrl.measure.intervals import mean_interval
from pgmrl.measure.queries import Queries, sampled_queries
from pgmrl.measure.recall import measure_recall
from pgmrl.measure.session import measuring
from pgmrl.measure.table_truth import TableTruth
from pgmrl.searching.arguments import check_seconds
from pgmrl.tune.selection import reaches, sizes_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection, Select
    from sqlalchemy.orm import Session

    from pgmrl.measure.intervals import Interval
    from pgmrl.measure.recall import Recall
    from pgmrl.measure.scan_limits import ScanLimit

__all__ = ["QUERIES", "FilteredTuning", "tune_filtered"]

QUERIES: Final = 400
CHECKED: Final = 5  # filters whose searches are tried
CHECKING: Final = 0.4  # of the time


@dataclass(frozen=True, slots=True)
class FilteredTuning:
    """The shortest shortlist that reaches a recall under filters.

    Attributes:
        target: recall@k.
        k: results that count.
        filters: that were looked at.
        queries: for all of them together.
        exact: recall of exact shortlists by their size.
        shortlist: the shortest that reaches the target; None where none does.
        measured: recall of searches with it (or the longest), over the filters that were tried.
        p50_ms: the median time of such a search, of the median filter.
        slowest_ms: the same of the slowest filter.
        scan_limit: the limit of pgvector's that ended scans of most of these; None where none did.

    """

    target: float
    k: int
    filters: int
    queries: int
    exact: dict[int, Interval]
    shortlist: int | None
    measured: Interval
    p50_ms: float
    slowest_ms: float
    scan_limit: ScanLimit | None

    def as_json(self) -> dict[str, Any]:
        """As a JSON document."""
        exact = {size: interval._asdict() for size, interval in self.exact.items()}
        return {**asdict(self), "exact": exact, "measured": self.measured._asdict()}


def tune_filtered(
    connection: Connection | Session,
    column: Any,
    statements: Sequence[Select[*tuple[Any, ...]]],
    recall: float = 0.95,
    *,
    k: int = 10,
    queries: Queries | int = QUERIES,
    max_shortlist: int = EF_SEARCH_LIMIT,
    seconds: float = 300.0,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> FilteredTuning:
    """Find the shortest shortlist that brings a recall under filters, with the column and the indexes there are.

    One pass over the rows of each filter gives the recall of exact shortlists of every size; then searches with the
    chosen one are tried. Reads only.

    Args:
        connection: of the database.
        column: the Matryoshka attribute or column.
        statements: the Selects of the searches, one for each value of the filter.
        recall: recall@k to reach, above 0 and at most 1.
        k: results that count.
        queries: what to ask, or how many rows of the table to take; each filter has its share.
        max_shortlist: the longest to take.
        seconds: when to end.
        seed: of the sampling.
        progress: called with what is being done, how much of it is done and how much there is.

    Raises:
        MeasureError: no filters, or fewer queries than filters, or not enough time.
        SearchError: a number out of range, or a Select that cannot be searched.

    """
    connection = database.sqlalchemy_connection(connection)
    if not 0 < recall <= 1 or not 1 <= k <= max_shortlist <= EF_SEARCH_LIMIT:
        raise SearchError(
            f"recall={recall}, k={k}, max_shortlist={max_shortlist}: expected a recall above 0 and at most 1, and a "
            f"shortlist that holds the k results and at most {EF_SEARCH_LIMIT:,} rows"
        )
    report, end = progress or _silent, time.monotonic() + check_seconds(seconds)
    sample = sampled_queries(connection, column, queries, seed=seed) if isinstance(queries, int) else queries
    if not 1 <= len(statements) <= len(sample):
        raise MeasureError(
            f"{len(statements):,} filters and {len(sample):,} queries: expected a query for each, or more"
        )
    shares = [_share(sample, number, len(statements)) for number in range(len(statements))]
    sizes = sizes_for(k, max_shortlist)
    with measuring(connection, seconds=(1 - CHECKING) * seconds, parallel=None):
        recalls = []
        for number, (statement, share) in enumerate(zip(statements, shares, strict=True)):
            report("exact shortlists", number, len(statements))
            recalls.append(_exact(connection, column, statement, share, k, sizes, end - CHECKING * seconds))
    exact = {size: mean_interval(values) for size, values in zip(sizes, np.concatenate(recalls).T, strict=True)}
    shortlist = next((size for size in sizes if reaches(exact[size], recall)), None)
    tried: list[Recall] = []
    for number, place in enumerate(range(0, len(statements), -(-len(statements) // CHECKED))):
        report("searches", number, min(CHECKED, len(statements)))
        options: dict[str, Any] = {"k": k, "shortlist": shortlist or max_shortlist, "worst": 0}
        left = max(1.0, (end - time.monotonic()) / (CHECKED - number))
        tried.append(
            measure_recall(connection, column, statements[place], queries=shares[place], seconds=left, **options)
        )
    times = [measured.p50_ms for measured in tried]
    return FilteredTuning(
        recall,
        k,
        len(statements),
        len(sample),
        exact,
        shortlist,
        mean_interval([loss.recall for measured in tried for loss in measured.losses]),
        float(np.median(times)),
        max(times),
        next((measured.scan_limit for measured in tried if measured.scan_limit is not None), None),
    )


def _share(sample: Queries, number: int, count: int) -> Queries:
    """Of the queries every so-manieth, from one on."""
    keys = None if sample.keys is None else sample.keys[number::count]
    return Queries(sample.vectors[number::count], keys, 0, sample.source)


def _exact(
    connection: Connection,
    column: Any,
    statement: Select[*tuple[Any, ...]],
    queries: Queries,
    k: int,
    sizes: Sequence[int],
    deadline: float,
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The recall of exact shortlists of each size for each query, shape (queries, sizes)."""
    trial = SearchTrial.of(statement, column, k=k, shortlist=sizes[-1], oversample=None, ef_search=None, complete=True)
    truth = TableTruth.of(connection, trial.rows, trial.definition, 1.0)
    truths = truth.read(
        queries.vectors, queries.keys, k=k, shortlist=sizes[-1], deadline=deadline, progress=lambda _: None
    )
    return np.array([[own.shortlist_recall(size) for size in sizes] for own in truths])


def _silent(_what: str, _done: int, _whole: int) -> None:
    """No progress."""
