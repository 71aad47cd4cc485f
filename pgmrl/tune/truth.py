"""The truth: the nearest rows of each query by the full vectors, in the table and in smaller parts of it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pgmrl.measure.score import within
from pgmrl.tune.scores import Scores

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from numpy.typing import NDArray

    from pgmrl.model.metrics import Metric
    from pgmrl.model.shortening import Definition
    from pgmrl.tune.table_reader import Batch, Levels

__all__ = ["Truth", "find_truth"]

MORE = 10  # rows that are kept beside the k nearest: some may be at the distance of the k-th


def _kept(k: int) -> int:
    """How many of the nearest rows are kept."""
    return k + max(MORE, k // 2)


@dataclass(slots=True)
class Truth:
    """The nearest rows of each query in one table.

    Attributes:
        k: how many count.
        distances: shape (queries, kept), float64, rising; infinite where the table has fewer rows.
        places: of those rows, shape (queries, kept).
        rows: of the table.

    """

    k: int
    distances: NDArray[np.float64]
    places: NDArray[np.int64]
    rows: int = 0

    @classmethod
    def empty(cls, queries: int, k: int) -> Truth:
        """Of a table that has not been read."""
        shape = (queries, _kept(k))
        return cls(k, np.full(shape, np.inf), np.full(shape, -1, np.int64))

    @property
    def wanted(self) -> int:
        """Results there are: k, or all rows of a smaller table."""
        return min(self.k, self.rows)

    @property
    def neighbours(self) -> NDArray[np.bool_]:
        """Which of the rows count: all that are no farther than the k-th, shape (queries, kept)."""
        return np.asarray(self.distances <= within(self.distances[:, self.wanted - 1])[:, np.newaxis])

    @property
    def crowded(self) -> NDArray[np.bool_]:
        """Queries with more rows at the distance of the k-th than are kept, shape (queries,)."""
        return np.asarray(self.neighbours[:, -1] & (self.rows > self.distances.shape[1]))

    def of_queries(self, part: slice) -> Truth:
        """Of some of the queries."""
        return Truth(self.k, self.distances[part], self.places[part], self.rows)

    def merge(self, query: int, distances: NDArray[np.float64], places: NDArray[np.int64]) -> None:
        """Take in more rows for a query."""
        both = np.concatenate([self.distances[query], distances])
        order = np.argsort(both, kind="stable")[: self.distances.shape[1]]
        self.distances[query] = both[order]
        self.places[query] = np.concatenate([self.places[query], places])[order]


@dataclass(slots=True)
class _Search:
    """Exact search of all queries, batch by batch.

    Attributes:
        metric: of the full vectors.
        scores: in single precision, to find the few that are worth a look.
        queries: shape (q, dims), float32.

    """

    metric: Metric
    scores: Scores
    queries: NDArray[np.float32]
    longest: float = field(default=0.0)

    def add(self, batch: Batch, levels: NDArray[np.int64], truths: list[Truth]) -> None:
        asked, rows = self.scores.prepared(self.queries), self.scores.prepared(batch.vectors)
        self.longest = max(self.longest, float(rows.squares.max(initial=0)))
        found = self.scores.of(asked, rows)
        slack = self.scores.rounding(asked, self.longest)
        for level, truth in enumerate(truths):
            among = np.flatnonzero(levels >= level)
            truth.rows += len(among)
            part = found if len(among) == found.shape[1] else found[:, among]
            for query, columns in self._worth(part, truth, asked.squares, slack):
                chosen = among[columns]
                exact = self.metric.distances(batch.vectors[chosen], self.queries[query])
                truth.merge(query, exact, batch.places[chosen])

    def _worth(
        self,
        found: NDArray[np.float32],
        truth: Truth,
        squares: NDArray[np.float32],
        slack: NDArray[np.float32],
    ) -> Iterable[tuple[int, NDArray[np.int64]]]:
        """For each query the columns that may be among its nearest."""
        most = truth.distances.shape[1]
        if not np.isfinite(truth.distances[:, -1]).all():  # the first rows
            count = min(most, found.shape[1])
            if count:
                nearest = np.argpartition(found, count - 1, axis=1)[:, :count]
                yield from enumerate(nearest)
            return
        limits = self._score(truth.distances[:, -1], squares) + slack
        query, column = np.nonzero(found <= limits[:, np.newaxis])
        starts = np.flatnonzero(np.diff(query, prepend=-1))
        for start, columns in zip(starts, np.split(column, starts[1:]), strict=True):
            number = int(query[start])
            if len(columns) > 2 * most:  # more than `most` cannot stay; as many again, in case rounding matters
                columns = columns[np.argpartition(found[number, columns], 2 * most)[: 2 * most]]  # noqa: PLW2901
            yield number, columns

    def _score(self, distances: NDArray[np.float64], squares: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.metric.name == "l2":
            return np.asarray(distances**2 - squares, np.float32)
        return np.asarray(distances - (1 if self.metric.name == "cosine" else 0), np.float32)


def find_truth(
    batches: Generator[Batch],
    definition: Definition,
    queries: NDArray[np.float32],
    k: int,
    levels: Levels,
    progress: Callable[[Batch], None],
) -> list[Truth]:
    """The nearest rows of each query, by one pass over the table.

    Products in single precision choose what is looked at, distances in double precision decide.

    Args:
        batches: of the table; closed at the end.
        definition: of the column.
        queries: as stored, shape (q, dims), float32.
        k: results that count.
        levels: smaller tables that are parts of it.
        progress: called with each batch.

    Returns:
        One for each level.

    """
    truths = [Truth.empty(len(queries), k) for _ in levels.fractions]
    search = _Search(definition.metric, Scores.full(definition), queries)
    with closing(batches) as opened:
        for batch in opened:
            if len(batch.places):
                search.add(batch, levels.of(batch.places), truths)
            progress(batch)
    return truths
