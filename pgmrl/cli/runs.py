"""Run a search and say what it cost: for `pgmrl demo` and `pgmrl search`."""

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

__all__ = ["Run", "run"]


WARM_UP: Final = 3


class _Stages(NamedTuple):
    shortlist_ms: float | None
    rerank_ms: float | None
    index_name: str | None


@dataclass(frozen=True, slots=True)
class Run:
    """One search and its cost.

    Attributes:
        rows: the hits, nearest first; the last column is the distance.
        total_ms: the search, from here to the last row.
        shortlist_ms: of that, the short index; None where the search was exact.
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


def run(
    connection: Connection,
    statement: Select[*tuple[Any, ...]],
    column: Any,
    query: VectorArray,
    *,
    compare: bool,
    **options: Any,
) -> Run:
    """Search, look at the stages, and compare with the exact search where `compare`.

    Args:
        connection: the database.
        statement: as for `search`.
        column: as for `search`.
        query: the full vector, shape (dims,).
        compare: whether to run the exact search too.
        **options: of `search`.
    """
    two_stage = search(statement, column, query, **options)
    for _ in range(WARM_UP):  # reading from disk and compiling the statement are not what is compared
        connection.execute(two_stage).all()
    rows, total = _timed(connection, two_stage)
    stages = _stages(connection, two_stage)
    exact_ms = recall = None
    if compare:
        exact = search(statement, column, query, k=options.get("k", 10), exact=True)
        truth, exact_ms = _timed(connection, exact)
        recall = recall_at_k([row[-1] for row in rows], [row[-1] for row in truth])
    return Run(rows, total, *stages, exact_ms, recall)


def _timed(connection: Connection, statement: Any) -> tuple[list[Row[Any]], float]:
    start = time.perf_counter_ns()
    rows = list(connection.execute(statement).all())
    return rows, (time.perf_counter_ns() - start) / 1e6


def _stages(connection: Connection, statement: Any) -> _Stages:
    """Times of the stages and the index of the first, from the server's own account of one execution."""
    found = explain(connection, statement)
    if not found.shortlists or found.execution_ms is None:  # an exact search has no stages
        return _Stages(None, None, None)
    first = sum(s.usage.ms for s in found.stages if s.name in {"query", "shortlist"} and s.usage is not None)
    index = found.shortlists[0].indexes[0] if found.index_used else None
    return _Stages(first, found.execution_ms - first, index)
