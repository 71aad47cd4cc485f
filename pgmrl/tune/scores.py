"""Distances of many queries to many rows by one matrix product, as numbers that rise with the distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pgmrl.model.shortening import Definition

__all__ = ["Operand", "Scores"]

Kind = Literal["cosine", "l2", "inner_product", "bits"]

ROUNDING: Final = 4e-6
"""Of a product in single precision, relative to the vectors' lengths; distances that differ by less are the same."""


class Operand(NamedTuple):
    """Vectors, prepared.

    Attributes:
        vectors: shape (n, dims), float32; under cosine of unit length, of bits -1 and 1.
        squares: of their lengths, shape (n,), float32.

    """

    vectors: NDArray[np.float32]
    squares: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scores:
    """A score for each pair: smaller is nearer, and the order is that of the distance.

    Cosine: minus the cosine. Inner product: minus the product. L2: the squared distance without the query's own
    square. Bits: minus the product of signs, an affine function of the Hamming distance. A vector without a direction
    is infinitely far under cosine, as it is for an index.

    """

    kind: Kind

    @classmethod
    def full(cls, definition: Definition) -> Scores:
        """Between full vectors."""
        return cls(definition.metric.name)

    @classmethod
    def short(cls, definition: Definition) -> Scores:
        """Between short vectors."""
        return cls("bits" if definition.short.type == "bit" else definition.metric.name)

    def prepared(self, vectors: NDArray[Any]) -> Operand:
        """Vectors of shape (n, dims) as the products take them."""
        if self.kind == "bits":
            signs = np.where(vectors, np.float32(1), np.float32(-1))
            return Operand(signs, np.full(len(signs), signs.shape[1], np.float32))
        single = np.asarray(vectors, np.float32)
        squares = np.einsum("nd,nd->n", single, single)
        if self.kind != "cosine":
            return Operand(single, squares)
        with np.errstate(invalid="ignore", divide="ignore"):
            # what is no number then is made infinitely far in `of`
            return Operand(single / np.sqrt(squares)[:, np.newaxis], np.ones_like(squares))

    def of(self, queries: Operand, rows: Operand) -> NDArray[np.float32]:
        """All pairs, shape (queries, rows)."""
        return self._finished(queries.vectors @ rows.vectors.T, rows.squares)

    def pairs(self, queries: Operand, rows: Operand) -> NDArray[np.float32]:
        """Each query with the row of the same number, shape (n,)."""
        return self._finished(np.einsum("nd,nd->n", queries.vectors, rows.vectors), rows.squares)

    def rounding(self, queries: Operand, longest: float) -> NDArray[np.float32]:
        """By how much a score may be off, shape (queries,).

        Args:
            queries: as in `of`.
            longest: the largest square of a row's length.

        """
        if self.kind == "bits":
            return np.full(len(queries.vectors), 0.5, np.float32)
        if self.kind == "l2":
            return np.asarray(ROUNDING * (queries.squares + longest), np.float32)
        return np.asarray(ROUNDING * np.sqrt(queries.squares * longest), np.float32)

    def _finished(self, products: NDArray[np.float32], squares: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.kind == "l2":
            products *= -2
            products += squares
            return products
        np.negative(products, out=products)
        if self.kind == "cosine":
            products[np.isnan(products)] = np.inf
        return products
