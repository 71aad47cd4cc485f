"""Distances of many queries to many rows: in single precision by one matrix product, and exactly for chosen pairs.

A score stands for a distance: it is cheaper to compute, and rises with it. Scores say which pairs are worth a look;
what is reported is computed for those in double precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np

from pgmrl.model.metrics import metric_named

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from pgmrl.model.shortening import Definition

__all__ = ["Operand", "PairwiseScores"]

Kind = Literal["cosine", "l2", "inner_product", "hamming"]

UNIT: Final = 2.0**-24
"""Of a rounding in single precision, relative."""

SMALL: Final = 1e-30
LARGE: Final = 1e30
"""Squared lengths beyond these are taken in double precision: single precision would make zero or infinity of them."""

VALUES: Final = 2_000_000
"""Numbers of vectors that pairs are taken from at a time: 16 MB in double precision."""


class Operand(NamedTuple):
    """Vectors, prepared for products.

    Attributes:
        vectors: shape (n, dims), float32 or float64; under cosine of unit length, of bits -1 and 1.
        squares: of their lengths, shape (n,), of the same type.

    """

    vectors: NDArray[Any]
    squares: NDArray[Any]


@dataclass(frozen=True, slots=True)
class PairwiseScores:
    """Scores and distances under one metric.

    The score under cosine is minus the cosine, under inner product minus the product, under L2 the squared distance
    without the query's own square, of bits minus the product of signs (an affine function of the Hamming distance).
    What has no direction is infinitely far under cosine, as it is for an index.

    Attributes:
        kind: the metric's name, or `hamming` for bits.

    """

    kind: Kind

    @classmethod
    def full(cls, definition: Definition) -> PairwiseScores:
        """Between full vectors."""
        return cls(definition.metric.name)

    @classmethod
    def short(cls, definition: Definition) -> PairwiseScores:
        """Between short vectors."""
        return cls("hamming" if definition.short.type == "bit" else definition.metric.name)

    def prepared(self, vectors: NDArray[Any], dtype: DTypeLike = np.float32) -> Operand:
        """Vectors as the products take them.

        Args:
            vectors: shape (n, dims); of bits truth values.
            dtype: float32 or float64; vectors whose squares single precision does not hold are taken as float64.

        """
        if self.kind == "hamming":
            signs = np.where(vectors, np.float32(1), np.float32(-1))
            return Operand(signs, np.full(len(signs), signs.shape[1], np.float32))
        array = np.asarray(vectors, dtype)
        with np.errstate(over="ignore", under="ignore"):
            squares = np.einsum("nd,nd->n", array, array)
        if array.dtype != np.float64 and not _held(array, squares):
            return self.prepared(vectors, np.float64)
        if self.kind != "cosine":
            return Operand(array, squares)
        with np.errstate(invalid="ignore", divide="ignore"):  # what is no number then is made infinitely far
            return Operand(array / np.sqrt(squares)[:, np.newaxis], np.ones_like(squares))

    def scores(self, queries: Operand, rows: Operand) -> NDArray[Any]:
        """The scores of all pairs, shape (queries, rows); infinite where there is no distance."""
        return self._finished(queries.vectors @ rows.vectors.T, rows.squares)

    def pair_scores(self, queries: Operand, rows: Operand) -> NDArray[Any]:
        """The score of each query with the row of the same number, shape (n,)."""
        return self._finished(np.einsum("nd,nd->n", queries.vectors, rows.vectors), rows.squares)

    def rounding(self, queries: Operand, longest: float) -> NDArray[Any]:
        """By how much a score in single precision may be off, shape (queries,).

        Rounding errors of a sum are as good as independent, so that they grow with the root of its length (Higham and
        Mary, SIAM Journal on Scientific Computing 41, 2019); twice that is allowed, and something for short sums.

        Args:
            queries: as for `scores`.
            longest: the largest square of a row's length.

        """
        if self.kind == "hamming":
            return np.full(len(queries.vectors), 0.5)
        relative = UNIT * (16 + 2 * queries.vectors.shape[1] ** 0.5)
        squares = queries.squares.astype(np.float64)
        if self.kind == "l2":
            return np.asarray(relative * (squares + longest))
        return np.asarray(relative * np.sqrt(squares * longest))

    def score_of(self, distances: NDArray[np.float64], queries: Operand) -> NDArray[np.float64]:
        """The score that stands for a distance of each query, shape (queries,)."""
        if self.kind == "l2":
            return np.asarray(distances**2 - queries.squares.astype(np.float64))
        if self.kind == "hamming":
            return np.asarray(2 * distances - queries.vectors.shape[1])
        return distances - 1 if self.kind == "cosine" else distances

    def distances(
        self,
        queries: NDArray[Any],
        rows: NDArray[Any],
        query: NDArray[np.int64],
        row: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """The distances of chosen pairs, in double precision, as the server defines them.

        Args:
            queries: shape (q, dims), as stored.
            rows: shape (n, dims), as stored.
            query: of each pair the query's number, shape (p,).
            row: of each pair the row's number, shape (p,).

        Returns:
            Shape (p,); infinite where there is no distance.

        """
        distances = np.empty(len(query))
        step = max(1, VALUES // max(1, rows.shape[1]))
        for start in range(0, len(query), step):
            part = slice(start, start + step)
            distances[part] = self._distances(queries[query[part]], rows[row[part]])
        distances[np.isnan(distances)] = np.inf
        return distances

    def _distances(self, queries: NDArray[Any], rows: NDArray[Any]) -> NDArray[np.float64]:
        if self.kind == "hamming":
            return np.asarray((queries != rows).sum(axis=1), np.float64)
        return metric_named(self.kind).distances(rows, queries)

    def _finished(self, products: NDArray[Any], squares: NDArray[Any]) -> NDArray[Any]:
        if self.kind == "l2":
            products *= -2
            products += squares
        else:
            np.negative(products, out=products)
        if self.kind != "hamming":
            products[np.isnan(products)] = np.inf
        return products


def _held(vectors: NDArray[Any], squares: NDArray[Any]) -> bool:
    """Whether the squared lengths are well within single precision; those of zero vectors are zero."""
    zero = squares == 0
    if vectors[zero].any():
        return False
    return bool(zero.all()) or bool(squares.max() < LARGE and squares[~zero].min() > SMALL)
