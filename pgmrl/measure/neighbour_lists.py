"""Lists of the nearest rows of many queries, and the spaces of vectors in which they are near."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pgmrl.measure.pairwise_scores import Operand, PairwiseScores
    from pgmrl.model.shortening import Definition

__all__ = ["NeighbourList", "Neighbours", "Pairs", "ShortSpace", "VectorSpace"]

FAR: Final = np.finfo(np.float64).max
"""The distance of the last row in a list that is not full: beyond every finite one."""


class Pairs(NamedTuple):
    """Pairs of a query and a row of the batch, by their numbers."""

    query: NDArray[np.int64]
    column: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest rows of each query, nearest first.

    Attributes:
        ids: shape (queries, size); -1 where the table has fewer rows.
        distances: by which they are ordered, shape (queries, size); infinite where the table has fewer rows.
        full: the distances between full vectors, of the same shape.
        rows: of the table.

    """

    ids: NDArray[np.int64]
    distances: NDArray[np.float64]
    full: NDArray[np.float64]
    rows: int


class VectorSpace:
    """Where vectors are compared.

    Args:
        metric: by which.
        queries: shape (q, dims).

    Attributes:
        prepared: the queries, prepared.
        longest: the largest square of a row's length.

    """

    def __init__(self, metric: PairwiseScores, queries: NDArray[Any]) -> None:
        self.metric = metric
        self.queries = queries
        self.prepared = metric.prepared(queries)
        self.longest = 0.0

    def seen(self, vectors: NDArray[Any]) -> Operand:
        """The rows of a batch, prepared."""
        rows = self.metric.prepared(vectors)
        self.longest = max(self.longest, float(rows.squares.max(initial=0)))
        return rows

    def scores(self, rows: Operand, own: tuple[NDArray[np.int64], NDArray[np.int64]] | None) -> NDArray[Any]:
        """All pairs, shape (queries, rows); infinite for a query and its own row."""
        scores = self.metric.scores(self.prepared, rows)
        if own is not None:
            scores[own] = np.inf
        return scores

    def exact_scores(self, query: NDArray[np.int64], vectors: NDArray[Any]) -> NDArray[np.float64]:
        """The scores of some queries in double precision."""
        queries = self.metric.prepared(self.queries[query], np.float64)
        return np.asarray(self.metric.scores(queries, self.metric.prepared(vectors, np.float64)), np.float64)

    def distances(self, query: NDArray[np.int64], row: NDArray[np.int64], vectors: NDArray[Any]) -> NDArray[np.float64]:
        """The distances of chosen pairs, in double precision."""
        return self.metric.distances(self.queries, vectors, query, row)

    def drop(self, queries: int) -> None:
        """Go on with the first so many queries alone."""
        self.queries = self.queries[:queries]
        self.prepared = type(self.prepared)(*(part[:queries] for part in self.prepared))


class ShortSpace(VectorSpace):
    """Where short vectors are compared.

    Attributes:
        definition: of the short vectors.
        vectors: of the batch that is compared.

    """

    def __init__(self, metric: PairwiseScores, queries: NDArray[Any], definition: Definition) -> None:
        super().__init__(metric, queries)
        self.definition = definition
        self.vectors: NDArray[Any] = queries[:0]


@dataclass(slots=True)
class NeighbourList:
    """For each query the nearest rows of those that came so far.

    Attributes:
        queries: how many.
        size: rows to keep for each.
        worst: the distance of the last one that is kept, shape (queries,); `FAR` while there are fewer.
        query: which query an entry is for, ascending.
        ids: its row.
        distances: by which the rows are ordered.
        full: the distance between full vectors.
        waiting: entries that are not merged yet.
        count: how many those are.

    """

    queries: int
    size: int
    worst: NDArray[np.float64] = field(init=False)
    query: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    ids: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    distances: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    full: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    waiting: list[tuple[NDArray[Any], ...]] = field(default_factory=list)
    count: int = 0

    def __post_init__(self) -> None:
        self.worst = np.full(self.queries, FAR)

    def candidates(
        self, space: VectorSpace, scores: NDArray[Any], vectors: NDArray[Any], among: NDArray[np.bool_] | None
    ) -> Pairs:
        """Pairs that may be among the nearest.

        Args:
            space: where the vectors are compared.
            scores: in single precision, shape (queries, n).
            vectors: of the batch, shape (n, dims).
            among: which rows can be in the list, shape (n,); None for all.

        """
        rounding = space.metric.rounding(space.prepared, space.longest)
        full = self.worst < FAR
        worst = space.metric.score_of(np.where(full, self.worst, 0.0), space.prepared)
        limits = np.where(full, worst + rounding, FAR)
        limits = np.minimum(limits, np.finfo(scores.dtype).max).astype(scores.dtype)
        near = scores <= limits[:, np.newaxis]
        if among is not None:
            near &= among
        crowded = np.flatnonzero(_counts(near) > self.size)
        if len(crowded):
            some = np.where(near[crowded], scores[crowded], np.inf)
            nearest = np.partition(some, self.size - 1, axis=1)[:, self.size - 1]
            near[crowded] = some <= (nearest + 2 * rounding[crowded]).astype(scores.dtype)[:, np.newaxis]
            self._decide(space, near, vectors)
        query, column = np.divmod(np.flatnonzero(near), near.shape[1])
        return Pairs(query, column)

    def _decide(self, space: VectorSpace, near: NDArray[np.bool_], vectors: NDArray[Any]) -> None:
        """Where more rows than can stay are as near as single precision can tell, double precision chooses."""
        crowded = np.flatnonzero(_counts(near) > 2 * self.size)
        if not len(crowded):
            return
        exact = np.where(near[crowded], space.exact_scores(crowded, vectors), np.inf)
        chosen = np.argpartition(exact, self.size - 1, axis=1)[:, : self.size]
        near[crowded] = False
        near[crowded[:, np.newaxis], chosen] = True

    def add(
        self,
        query: NDArray[np.int64],
        ids: NDArray[np.int64],
        distances: NDArray[np.float64],
        full: NDArray[np.float64],
    ) -> None:
        """Take in the candidates that are nearer than the last row of their list, each with its distances."""
        nearer = distances < self.worst[query]
        self.waiting.append((query[nearer].astype(np.int32), ids[nearer], distances[nearer], full[nearer]))
        self.count += int(nearer.sum())
        if 2 * self.count > self.size * self.queries:  # a half more than what stays: more memory saves little time
            self.merge()

    def merge(self) -> None:
        """Let go of what is too far."""
        if not self.waiting:
            return
        parts = [(self.query, self.ids, self.distances, self.full), *self.waiting]
        query, ids, distances, full = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        order = np.argsort(query, kind="stable")
        bounds = np.searchsorted(query[order], np.arange(self.queries + 1))
        kept = []
        for number in range(self.queries):
            own = order[bounds[number] : bounds[number + 1]]
            if len(own) >= self.size:
                own = own[np.argpartition(distances[own], self.size - 1)[: self.size]]
                self.worst[number] = distances[own].max()
            kept.append(own)
        chosen = np.concatenate(kept)
        self.query, self.ids, self.distances, self.full = query[chosen], ids[chosen], distances[chosen], full[chosen]
        self.waiting, self.count = [], 0

    def drop(self, queries: int) -> None:
        """Go on with the first so many queries alone."""
        self.merge()
        stay = self.query < queries
        self.queries, self.worst = queries, self.worst[:queries]
        self.query, self.ids, self.distances, self.full = (
            self.query[stay],
            self.ids[stay],
            self.distances[stay],
            self.full[stay],
        )

    def neighbours(self, rows: int) -> Neighbours:
        """What was found, nearest first."""
        self.merge()
        order = np.lexsort((self.distances, self.query))
        query = self.query[order]
        place = np.arange(len(query)) - np.searchsorted(query, query)
        shape = (self.queries, self.size)
        ids, distances, full = np.full(shape, -1, np.int64), np.full(shape, np.inf), np.full(shape, np.inf)
        for whole, values in ((ids, self.ids), (distances, self.distances), (full, self.full)):
            whole[query, place] = values[order]
        return Neighbours(ids, distances, full, rows)


def _counts(near: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """How many of each row are true."""
    return np.asarray(near.view(np.uint8).sum(axis=1, dtype=np.uint32))
