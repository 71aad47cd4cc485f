"""The rank of each true neighbour in the exact short order: the recall of an exact shortlist of every size at once."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pgmrl.errors import MeasureError
from pgmrl.measure.pairwise_scores import Operand, PairwiseScores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from pgmrl.measure.exact_neighbours import RowBatch
    from pgmrl.measure.ground_truth import GroundTruth
    from pgmrl.tune.candidates import Candidate
    from pgmrl.tune.nested_samples import NestedSamples
    from pgmrl.tune.tuned_table import TunedTable

__all__ = ["ShortRanks", "count_short_ranks"]

QUERIES: Final = 100
"""Queries whose neighbours are fetched together."""

COMPARED: Final = 4_000_000
"""Pairs of a row and a neighbour that are compared at a time."""

FARTHEST: Final = 20_000
"""Ranks beyond are not counted to the end: no shortlist is that long, in a table ten times as large neither."""


@dataclass(slots=True)
class ShortRanks:
    """Where the true neighbours stand in the short order of one candidate, in one table.

    Attributes:
        truth: the neighbours.
        thresholds: their short scores, shape (queries, kept), float64; NaN where a row does not count.
        rounding: by how much scores may be off, shape (queries,): those that differ by less are equal.
        nearer: rows that are nearer in the short order, shape (queries, kept); some number above FARTHEST where there
            are more than that.
        equal: rows that are as near, itself included, shape (queries, kept).

    """

    truth: GroundTruth
    thresholds: NDArray[np.float64]
    rounding: NDArray[np.float64]
    nearer: NDArray[np.int64]
    equal: NDArray[np.int64]

    @classmethod
    def empty(cls, truth: GroundTruth) -> ShortRanks:
        """Before any row has been counted."""
        shape = truth.distances.shape
        counts = (np.zeros(shape, np.int64), np.zeros(shape, np.int64))
        return cls(truth, np.full(shape, np.nan), np.zeros(shape[0]), *counts)

    @property
    def limits(self) -> NDArray[np.float64]:
        """Scores beyond which no row counts, shape (queries,)."""
        counting = np.isfinite(self.thresholds) & (self.nearer <= FARTHEST)
        finite = np.where(counting, self.thresholds, -np.inf)
        return np.asarray(finite.max(axis=1) + self.rounding)

    def count(self, query: NDArray[np.int64], score: NDArray[Any]) -> None:
        """Take in rows, each with the query it is near to, in the order of the queries."""
        step = max(1, COMPARED // self.thresholds.shape[1])
        for start in range(0, len(query), step):
            self._count(query[start : start + step], score[start : start + step])

    def _count(self, query: NDArray[np.int64], score: NDArray[Any]) -> None:
        rounding = self.rounding[query][:, np.newaxis]
        beyond = self.thresholds[query] - score[:, np.newaxis]  # NaN compares as False
        starts = np.flatnonzero(np.diff(query, prepend=-1))
        self.nearer[query[starts]] += np.add.reduceat(beyond > rounding, starts, axis=0, dtype=np.int64)
        self.equal[query[starts]] += np.add.reduceat(np.abs(beyond) <= rounding, starts, axis=0, dtype=np.int64)

    def per_query(self, shortlist: float) -> NDArray[np.float64]:
        """The recall of an exact shortlist of this size for each query.

        Rows at the same short distance come in any order: of those a shortlist holds as many as it has room for, and
        each with the same chance.
        """
        room = np.maximum(shortlist - self.nearer, 0)
        counts = np.isfinite(self.thresholds)
        chance = np.where(counts, np.minimum(1.0, room / np.maximum(self.equal, 1)), 0.0)
        returned = chance.sum(axis=1)
        crowded = self.truth.crowded
        if crowded.any():  # more rows at the distance of the k-th than were kept: what ties with those is as good
            most = np.where(counts, np.minimum(room, self.equal), 0).max(axis=1)
            returned = np.where(crowded, np.maximum(returned, most), returned)
        return np.asarray(np.minimum(1.0, returned / np.maximum(1, self.truth.counts)))

    def recall(self, shortlists: Iterable[float]) -> NDArray[np.float64]:
        """Mean recall of an exact shortlist of each size."""
        return np.array([self.per_query(size).mean() for size in shortlists])


def count_short_ranks(
    table: TunedTable,
    candidates: Sequence[Candidate],
    queries: NDArray[np.float32],
    truths: Sequence[GroundTruth],
    samples: NestedSamples,
    progress: Callable[[RowBatch], None] | None = None,
) -> list[list[ShortRanks]]:
    """Ranks for each candidate in each part of the table, by one more pass over it.

    Args:
        table: the table.
        candidates: ways to shorten.
        queries: as stored, shape (q, dims), float32.
        truths: of these queries in each part.
        samples: the parts.
        progress: called with each batch.

    Raises:
        MeasureError: a candidate cannot hold the table's values.

    """
    counters = [_Counter.of(candidate, queries, truths) for candidate in candidates]
    _set_thresholds(table, counters, truths)
    with closing(table.batches(len(queries))) as batches:
        for batch in batches:
            if len(batch):
                smallest = samples.of(batch.ids)
                among = [np.flatnonzero(smallest >= number) for number in range(len(truths))]
                for counter in counters:
                    counter.add(batch, among)
            if progress is not None:
                progress(batch)
    return [counter.ranks for counter in counters]


@dataclass(slots=True)
class _Counter:
    """Counts for one candidate."""

    candidate: Candidate
    metric: PairwiseScores
    queries: Operand
    ranks: list[ShortRanks]

    @classmethod
    def of(cls, candidate: Candidate, queries: NDArray[np.float32], truths: Sequence[GroundTruth]) -> _Counter:
        metric = PairwiseScores.short(candidate.definition)
        prepared = metric.prepared(candidate.definition.shorten(queries))
        return cls(candidate, metric, prepared, [ShortRanks.empty(truth) for truth in truths])

    def add(self, batch: RowBatch, among: Sequence[NDArray[np.int64]]) -> None:
        scores = self.metric.scores(self.queries, self._shortened(batch.vectors))
        for ranks, columns in zip(self.ranks, among, strict=True):
            part = scores if len(columns) == scores.shape[1] else scores[:, columns]
            query, column = np.nonzero(part <= ranks.limits.astype(part.dtype)[:, np.newaxis])
            ranks.count(query, part[query, column])

    def _shortened(self, vectors: NDArray[np.float32]) -> Operand:
        shorts: NDArray[Any] = self.candidate.swept.shorten(vectors)
        if self.candidate.type == "halfvec" and not np.isfinite(shorts).all():
            raise MeasureError(
                f"{self.candidate.title}: a short vector has a value beyond half precision; give --type vector"
            )
        return self.metric.prepared(shorts)

    def set_thresholds(self, batch: RowBatch, first: int, counting: Sequence[NDArray[np.int64]]) -> None:
        """Short scores of the neighbours of some queries.

        Args:
            batch: the neighbours, in the order of their places.
            first: of the queries.
            counting: for each part of the table the places of the neighbours that count, else -1.

        """
        rows = self._shortened(batch.vectors)
        rounding = self.metric.rounding(self.queries, float(rows.squares.max(initial=0)))
        for ranks, neighbours in zip(self.ranks, counting, strict=True):
            query, column = np.nonzero(neighbours >= 0)
            row = np.searchsorted(batch.ids, neighbours[query, column])
            scores = self.metric.pair_scores(_taken(self.queries, first + query), _taken(rows, row))
            ranks.thresholds[first + query, column] = np.where(np.isfinite(scores), scores, np.nan)
            ranks.rounding = np.maximum(ranks.rounding, rounding)


def _set_thresholds(table: TunedTable, counters: Sequence[_Counter], truths: Sequence[GroundTruth]) -> None:
    for start in range(0, len(truths[0].ids), QUERIES):
        part = slice(start, start + QUERIES)
        counting = [np.where(truth.neighbours[part], truth.ids[part], -1) for truth in truths]
        places = np.unique(np.concatenate([neighbours[neighbours >= 0] for neighbours in counting]))
        if not len(places):
            continue
        rows = table.at(places)
        order = np.argsort(rows.ids)
        batch = type(rows)(rows.ids[order], rows.vectors[order])
        for counter in counters:
            counter.set_thresholds(batch, start, counting)


def _taken(operand: Operand, numbers: NDArray[np.int64]) -> Operand:
    return Operand(operand.vectors[numbers], operand.squares[numbers])
