"""A search with what it cost, and beside it the exact one: for `pgmrl demo` and `pgmrl search`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pgmrl.explanation import explain
from pgmrl.measure.recall_by_distance import recall_at_k
from pgmrl.searching.search import search

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row, Select

    from pgmrl.model.vectors import VectorArray

__all__ = ["TimedSearch", "timed_search"]


WARM_UP: Final = 3


class _StageTimes(NamedTuple):
    shortlist_ms: float | None
    rerank_ms: float | None
    index_name: str | None


@dataclass(frozen=True, slots=True)
class TimedSearch:
    """One search and its cost.

    Attributes:
        rows: the hits, nearest first; the last column is the distance.
        total_ms: the search, from here to the last row.
        shortlist_ms: of that, the short index; None where the search was exact, or over shards.
        rerank_ms: of that, ranking by the full vectors and fetching the winners.
        index: the index the shortlist came through; None where the server read the table instead.
        exact_ms: the same search by reading every row; None where it was not asked for.
        recall: the share of the true nearest among the hits; None likewise.
    """

    rows: list[Row[Any]]
    total_ms: float
    shortlist_ms: float | None
    rerank_ms: float | None
    index: str | None
    exact_ms: float | None
    recall: float | None


def timed_search(
    connection: Connection,
    statement: Select[*tuple[Any, ...]],
    column: Any,
    query: VectorArray,
    *,
    compare: bool,
    **options: Any,
) -> TimedSearch:
    """Search, look at the stages, and compare with the exact search where `compare`.

    Args:
        connection: the database.
        statement: the rows to search, as `search` takes it.
        column: the Matryoshka attribute or column.
        query: the full vector, shape (dims,).
        compare: whether to run the exact search too.
        **options: of `search`.
    """
    two_stage = search(statement, column, query, **options)
    for _ in range(WARM_UP):  # reading from disk and compiling the statement are not what is compared
        connection.execute(two_stage).all()
    rows, total_ms = _timed(connection, two_stage)
    times = _stage_times(connection, two_stage)
    exact_ms = recall = None
    if compare:
        exact = search(statement, column, query, k=options.get("k", 10), exact=True)
        truth, exact_ms = _timed(connection, exact)
        recall = recall_at_k([row[-1] for row in rows], [row[-1] for row in truth])
    return TimedSearch(rows, total_ms, *times, exact_ms, recall)


def _timed(connection: Connection, statement: Any) -> tuple[list[Row[Any]], float]:
    start = time.perf_counter_ns()
    rows = list(connection.execute(statement).all())
    return rows, (time.perf_counter_ns() - start) / 1e6


def _stage_times(connection: Connection, statement: Any) -> _StageTimes:
    """Times of the stages and the index of the first, from the server's own account of one execution."""
    explanation = explain(connection, statement)
    index = explanation.shortlists[0].indexes[0] if explanation.index_used else None
    if not explanation.shortlists or explanation.execution_ms is None or explanation.shards is not None:
        return _StageTimes(None, None, index)  # an exact search has no stages, and shards rank what they shortlist
    shortlist_ms = sum(
        stage.usage.ms
        for stage in explanation.stages
        if stage.name in {"query", "shortlist"} and stage.usage is not None
    )
    return _StageTimes(shortlist_ms, explanation.execution_ms - shortlist_ms, index)
