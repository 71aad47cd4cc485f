"""Distances of many queries to many vectors by one matrix product, between full vectors and between short ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pgmrl.model.metrics import metric_named

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pgmrl.model.metrics import Metric
    from pgmrl.model.shortening import Definition

__all__ = ["distances", "short_space"]

ZERO: Final = 1e-13  # of the squared lengths: what the subtraction leaves of equal vectors is smaller


def distances(metric: Metric, vectors: NDArray[Any], queries: NDArray[Any]) -> NDArray[np.float64]:
    """`Metric.distances` of many queries by one matrix product, except that a zero vector is infinitely far.

    Args:
        metric: of the distance.
        vectors: shape (n, dims).
        queries: shape (q, dims).

    Returns:
        Shape (q, n). An L2 distance below about 3e-7 of the vectors' length cannot be told from zero, and is zero.

    """
    rows, asked = vectors.astype(np.float64), queries.astype(np.float64)
    products = asked @ rows.T
    if metric.name == "inner_product":
        return np.asarray(-products)
    squares, own = (rows**2).sum(axis=1), (asked**2).sum(axis=1)[:, None]
    if metric.name == "l2":
        sums = squares + own
        gaps = sums - 2 * products
        return np.asarray(np.sqrt(np.where(gaps > ZERO * sums, gaps, 0)))
    lengths = np.sqrt(squares * own)
    return np.where(lengths > 0, 1 - products / np.where(lengths > 0, lengths, 1), np.inf)


def short_space(definition: Definition) -> tuple[Metric, Callable[[NDArray[np.floating]], NDArray[Any]]]:
    """Where short vectors are compared: the metric, and what makes the short vectors of full ones, for `distances`.

    Bits become -1 and 1, whose squared L2 distance is four times the Hamming distance, so that the order is the same.
    """
    if definition.short.type != "bit":
        return definition.metric, definition.shorten
    return metric_named("l2"), lambda vectors: 2.0 * definition.shorten(vectors) - 1.0
