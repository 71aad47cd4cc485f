"""The ground truth: which rows are the k nearest of each query, where some are as near as the k-th."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pgmrl.measure.recall_by_distance import within

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pgmrl.measure.neighbour_lists import Neighbours

__all__ = ["GroundTruth", "kept_neighbours"]

MORE: Final = 10
"""Rows that are kept beside the k nearest, at least: some may be at the distance of the k-th."""


def kept_neighbours(k: int) -> int:
    """How many of the nearest rows are kept to know the k nearest."""
    return k + max(MORE, k // 2)


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """The nearest rows of each query in one table.

    Attributes:
        k: how many count.
        distances: shape (queries, kept), float64, rising; infinite where the table has fewer rows.
        ids: of those rows, shape (queries, kept); -1 where the table has fewer.
        rows: of the table.

    """

    k: int
    distances: NDArray[np.float64]
    ids: NDArray[np.int64]
    rows: int

    @classmethod
    def of(cls, k: int, nearest: Neighbours) -> GroundTruth:
        """From the `kept_neighbours` of each query."""
        return cls(k, nearest.distances, nearest.ids, nearest.rows)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Results there are for each query, shape (queries,): k, or all rows of a smaller table."""
        return np.asarray(np.isfinite(self.distances[:, : self.k]).sum(axis=1))

    @property
    def limits(self) -> NDArray[np.float64]:
        """Distances within which a row is as near as the k-th, shape (queries,); -inf where there are no rows."""
        counts = self.counts
        last = np.take_along_axis(self.distances, np.maximum(counts - 1, 0)[:, np.newaxis], axis=1)[:, 0]
        return np.where(counts > 0, within(np.where(counts > 0, last, 0.0)), -np.inf)

    @property
    def neighbours(self) -> NDArray[np.bool_]:
        """Which of the rows count: all that are no farther than the k-th, shape (queries, kept)."""
        return np.asarray(self.distances <= self.limits[:, np.newaxis])

    @property
    def crowded(self) -> NDArray[np.bool_]:
        """Queries of which more rows may be at the distance of the k-th than are kept, shape (queries,)."""
        return np.asarray(self.neighbours[:, -1] & (self.rows > self.distances.shape[1]))

    def of_queries(self, part: slice) -> GroundTruth:
        """Of some of the queries."""
        return GroundTruth(self.k, self.distances[part], self.ids[part], self.rows)
