"""The metrics: operator, operator classes and the short side's rule, each said here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from pgmrl.errors import DefinitionError
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["METRICS", "ONE", "FullType", "Metric", "MetricName", "ShortType", "metric_named"]

MetricName = Literal["cosine", "l2", "inner_product"]
FullType = Literal["halfvec", "vector"]
ShortType = Literal["halfvec", "vector", "bit"]


ONE: Final = "CAST(1 AS double precision)"
"""The number as SQL text; `1 - distance` would be resolved to somebody's operator of integer and double precision."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A distance between full vectors, and what it asks of the short ones.

    Attributes:
        name: `cosine`, `l2` or `inner_product`.
        operator: pgvector's distance operator; smaller is nearer (inner product is negated).
        ops: the operator class without its type: `cosine_ops` of `halfvec_cosine_ops`.
        normalise: whether a short vector is scaled back to unit length. Only right for cosine: norms carry
            information under the other two.

    """

    name: MetricName
    operator: str
    ops: str
    normalise: bool

    def operator_for(self, short_type: ShortType) -> str:
        """The operator that orders short vectors of this type; bits are ordered by Hamming distance."""
        return "<~>" if short_type == "bit" else self.operator

    def operator_class(self, short_type: ShortType) -> str:
        """The HNSW operator class for short vectors of this type."""
        return "bit_hamming_ops" if short_type == "bit" else f"{short_type}_{self.ops}"

    def distances(self, vectors: NDArray[np.floating], query: NDArray[np.floating]) -> NDArray[np.float64]:
        """Distances as the server computes them.

        Args:
            vectors: shape (n, dims).
            query: shape (dims,); or a query for each vector, shape (n, dims).

        Returns:
            Shape (n,), float64; NaN for a zero vector under cosine.

        """
        rows, queries = np.asarray(vectors, np.float64), np.asarray(query, np.float64)
        if self.name == "l2":
            return np.asarray(np.linalg.norm(rows - queries, axis=1))
        products = rows @ queries if queries.ndim == 1 else np.einsum("nd,nd->n", rows, queries)
        if self.name == "inner_product":
            return np.asarray(-products)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(1.0 - products / (_lengths(rows) * _lengths(queries)))

    def similarity_sql(self, distance: str) -> str:
        """SQL text of the similarity at a distance, in the metric's own terms; larger is nearer.

        Cosine: the cosine, 1 - distance. Inner product: the product, which the distance is negated. L2:
        1 / (1 + distance), from 1 at no distance towards 0.

        Args:
            distance: SQL text of a `double precision`.

        """
        if self.name == "cosine":
            return f"({ONE} - {distance})"
        return f"(- {distance})" if self.name == "inner_product" else f"({ONE} / ({ONE} + {distance}))"

    def similarity(self, distances: NDArray[np.floating]) -> NDArray[np.float64]:
        """As `similarity_sql`, of an array of any shape; float64."""
        wide = np.asarray(distances, np.float64)
        if self.name == "cosine":
            return np.asarray(1.0 - wide)
        return np.asarray(-wide) if self.name == "inner_product" else np.asarray(1.0 / (1.0 + wide))


def _lengths(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(np.einsum("...d,...d->...", vectors, vectors)))


METRICS: Final[Mapping[str, Metric]] = MappingProxyType(
    {
        "cosine": Metric("cosine", "<=>", "cosine_ops", normalise=True),
        "l2": Metric("l2", "<->", "l2_ops", normalise=False),
        "inner_product": Metric("inner_product", "<#>", "ip_ops", normalise=False),
    }
)


def metric_named(name: str | Metric) -> Metric:
    """The metric of this name.

    Raises:
        DefinitionError: there is none of this name.

    """
    if isinstance(name, Metric):
        return name
    try:
        return METRICS[name]
    except Exception:  # whatever the value's own __hash__ and __eq__ raise
        known = ", ".join(METRICS)
        raise DefinitionError(f"metric={safe_repr(name)}: expected one of {known}") from None
