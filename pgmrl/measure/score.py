"""Recall by distance, and how sure its mean over some queries is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

__all__ = ["Interval", "Z", "mean_interval", "recall_at_k", "within"]

TIE: Final = 1e-6  # distances that differ by less are the same; the server computes them in single precision
Z: Final = 1.959963984540054  # of a normal distribution, 95 % lie within


def within(limit: float) -> float:
    """The largest distance that is as good as `limit`."""
    return limit + TIE * max(1.0, abs(limit))


def recall_at_k(found: Sequence[float], truth: Sequence[float]) -> float:
    """The share of the k nearest rows that a search returned.

    A row counts when it is no farther than the farthest of the truth, so that rows at the same distance are as good
    as each other. (After ann-benchmarks' definition of recall.)

    Args:
        found: distances that the search returned.
        truth: distances that an exact search of the same k returned.

    Returns:
        Between 0 and 1; 1 where the truth is empty.

    """
    if not len(truth):
        return 1.0
    near = np.asarray(found, np.float64) <= within(max(truth))
    return min(1.0, float(near.sum()) / len(truth))


class Interval(NamedTuple):
    """A mean over queries and where it would be found over all queries of the kind, in 95 of 100 samples.

    Attributes:
        mean: of the sample.
        low: the interval's lower end.
        high: its upper end.

    """

    mean: float
    low: float
    high: float


def mean_interval(values: ArrayLike) -> Interval:
    """A mean of values between 0 and 1 with its 95 % confidence interval.

    Agresti and Coull's adjusted Wald interval (The American Statistician 52, 1998), with the variance of the values in
    place of the binomial's: to the n values come z²/2 of 0 and z²/2 of 1. So a sample without a miss is not taken for
    certainty: 200 queries that found everything give .976 to 1.

    Args:
        values: one for each query, shape (n,), between 0 and 1.

    Raises:
        ValueError: there are none.

    """
    given = np.asarray(values, np.float64)
    if not given.size:
        raise ValueError("no values, no mean")
    more = Z * Z
    count = given.size + more
    middle = (given.sum() + more / 2) / count
    spread = ((given - middle) ** 2).sum() + more / 2 * ((1 - middle) ** 2 + middle**2)
    reach = Z * float(np.sqrt(spread / count / count))
    mean = float(given.mean())
    return Interval(mean, float(max(0.0, min(mean, middle - reach))), float(min(1.0, max(mean, middle + reach))))
