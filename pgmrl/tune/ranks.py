"""The place of each true neighbour in the exact short order: the recall of an exact shortlist of every size at once."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pgmrl.errors import MeasureError
from pgmrl.tune.scores import Scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from pgmrl.tune.candidates import Candidate
    from pgmrl.tune.scores import Operand
    from pgmrl.tune.table_reader import Batch, Levels, Source
    from pgmrl.tune.truth import Truth

__all__ = ["Ranks", "count_ranks"]

QUERIES: Final = 100  # whose neighbours are fetched together
COMPARED: Final = 4_000_000  # pairs of a row and a neighbour that are compared at a time


@dataclass(slots=True)
class Ranks:
    """Where the true neighbours stand in the short order of one candidate, in one table.

    Attributes:
        truth: the neighbours.
        thresholds: their short scores, shape (queries, kept), float32; NaN where a row does not count.
        rounding: by how much those may be off, shape (queries,).
        nearer: rows that are nearer in the short order, shape (queries, kept).
        level: rows that are as near, itself included, shape (queries, kept).

    """

    truth: Truth
    thresholds: NDArray[np.float32]
    rounding: NDArray[np.float32]
    nearer: NDArray[np.int64]
    level: NDArray[np.int64]

    @classmethod
    def empty(cls, truth: Truth) -> Ranks:
        """Before any row has been counted."""
        shape = truth.distances.shape
        counts = (np.zeros(shape, np.int64), np.zeros(shape, np.int64))
        return cls(truth, np.full(shape, np.nan, np.float32), np.zeros(shape[0], np.float32), *counts)

    @property
    def limits(self) -> NDArray[np.float32]:
        """Scores beyond which no row counts, shape (queries,)."""
        finite = np.where(np.isfinite(self.thresholds), self.thresholds, -np.inf)
        return np.asarray(finite.max(axis=1) + self.rounding)

    def count(self, query: NDArray[np.int64], score: NDArray[np.float32]) -> None:
        """Take in rows, each with the query it is near to, in the order of the queries."""
        step = max(1, COMPARED // self.thresholds.shape[1])
        for start in range(0, len(query), step):
            self._count(query[start : start + step], score[start : start + step])

    def _count(self, query: NDArray[np.int64], score: NDArray[np.float32]) -> None:
        slack = self.rounding[query][:, np.newaxis]
        beyond = self.thresholds[query] - score[:, np.newaxis]  # NaN compares as False
        starts = np.flatnonzero(np.diff(query, prepend=-1))
        self.nearer[query[starts]] += np.add.reduceat(beyond > slack, starts, axis=0, dtype=np.int64)
        self.level[query[starts]] += np.add.reduceat(np.abs(beyond) <= slack, starts, axis=0, dtype=np.int64)

    def per_query(self, shortlist: float) -> NDArray[np.float64]:
        """The recall of an exact shortlist of this size for each query.

        Rows at the same short distance come in any order: of those a shortlist holds as many as it has room for, and
        each with the same chance.
        """
        room = np.maximum(shortlist - self.nearer, 0)
        counts = np.isfinite(self.thresholds)
        chance = np.where(counts, np.minimum(1.0, room / np.maximum(self.level, 1)), 0.0)
        found = chance.sum(axis=1)
        crowded = self.truth.crowded
        if crowded.any():  # more rows at the distance of the k-th than were kept: what ties with those is as good
            most = np.where(counts, np.minimum(room, self.level), 0).max(axis=1)
            found = np.where(crowded, np.maximum(found, most), found)
        return np.asarray(np.minimum(1.0, found / max(1, self.truth.wanted)))

    def recall(self, shortlists: Iterable[float]) -> NDArray[np.float64]:
        """Mean recall of an exact shortlist of each size."""
        return np.array([self.per_query(one).mean() for one in shortlists])


def count_ranks(
    source: Source,
    candidates: Sequence[Candidate],
    queries: NDArray[np.float32],
    truths: Sequence[Truth],
    levels: Levels,
    progress: Callable[[Batch], None],
) -> list[list[Ranks]]:
    """Ranks for each candidate at each level, by one more pass over the table.

    Args:
        source: of the rows.
        candidates: ways to shorten.
        queries: as stored, shape (q, dims), float32.
        truths: of each level, for these queries.
        levels: as for the truth.
        progress: called with each batch.

    Raises:
        MeasureError: no candidate can hold the table's values.

    """
    counters = [_Counter.of(one, queries, truths) for one in candidates]
    _set_thresholds(source, counters, truths)
    with closing(source.batches()) as batches:
        for batch in batches:
            if len(batch.places):
                level = levels.of(batch.places)
                among = [np.flatnonzero(level >= number) for number in range(len(truths))]
                for counter in counters:
                    counter.add(batch, among)
            progress(batch)
    return [counter.ranks for counter in counters]


@dataclass(slots=True)
class _Counter:
    """Counts for one candidate."""

    candidate: Candidate
    scores: Scores
    asked: Operand
    ranks: list[Ranks]

    @classmethod
    def of(cls, candidate: Candidate, queries: NDArray[np.float32], truths: Sequence[Truth]) -> _Counter:
        scores = Scores.short(candidate.definition)
        asked = scores.prepared(candidate.definition.shorten(queries))
        return cls(candidate, scores, asked, [Ranks.empty(truth) for truth in truths])

    def add(self, batch: Batch, among: Sequence[NDArray[np.int64]]) -> None:
        rows = self._rows(batch.vectors)
        found = self.scores.of(self.asked, rows)
        for ranks, columns in zip(self.ranks, among, strict=True):
            part = found if len(columns) == found.shape[1] else found[:, columns]
            query, column = np.nonzero(part <= ranks.limits[:, np.newaxis])
            ranks.count(query, part[query, column])

    def _rows(self, vectors: NDArray[np.float32]) -> Operand:
        shorts: NDArray[Any] = self.candidate.swept.shorten(vectors)
        if self.candidate.type == "halfvec" and not np.isfinite(shorts).all():
            raise MeasureError(
                f"{self.candidate.title}: a short vector has a value beyond half precision; give --types vector"
            )
        return self.scores.prepared(shorts)

    def set_thresholds(self, batch: Batch, first: int, counting: Sequence[NDArray[np.int64]]) -> None:
        """Short scores of the neighbours of some queries.

        Args:
            batch: the neighbours, in the order of their places.
            first: of the queries.
            counting: for each level the places of the neighbours that count, else -1.

        """
        rows = self._rows(batch.vectors)
        longest = float(rows.squares.max(initial=0))
        rounding = self.scores.rounding(self.asked, longest)
        for ranks, neighbours in zip(self.ranks, counting, strict=True):
            query, column = np.nonzero(neighbours >= 0)
            row = np.searchsorted(batch.places, neighbours[query, column])
            pairs = self.scores.pairs(_taken(self.asked, first + query), _taken(rows, row))
            ranks.thresholds[first + query, column] = np.where(np.isfinite(pairs), pairs, np.nan)
            ranks.rounding = np.maximum(ranks.rounding, rounding)


def _set_thresholds(source: Source, counters: Sequence[_Counter], truths: Sequence[Truth]) -> None:
    for start in range(0, len(truths[0].places), QUERIES):
        part = slice(start, start + QUERIES)
        counting = [np.where(one.neighbours[part], one.places[part], -1) for one in truths]
        wanted = np.unique(np.concatenate([one[one >= 0] for one in counting]))
        if not len(wanted):
            continue
        found = source.at(wanted)
        order = np.argsort(found.places)
        batch = type(found)(found.places[order], found.vectors[order])
        for counter in counters:
            counter.set_thresholds(batch, start, counting)


def _taken(operand: Operand, numbers: NDArray[np.int64]) -> Operand:
    return type(operand)(operand.vectors[numbers], operand.squares[numbers])
