"""How sure the means of judged queries are, and the differences between two systems."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from pgmrl.measure import Interval, mean_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Difference", "difference", "mean_of"]

RESAMPLES: Final = 10_000
BATCH: Final = 2_000_000  # drawn numbers held at a time
CONFIDENCE: Final = (0.025, 0.975)


class Difference(NamedTuple):
    """A system against the exact search of the same queries.

    Attributes:
        mean: of the system's value minus the exact search's, over the queries.
        low: lower end of the mean's 95 % interval by paired bootstrap.
        high: its upper end.
        kept: the system's mean as a share of the exact search's; None where that is 0.
        kept_low: lower end of the share's 95 % interval, from the same resamples.
        better: queries that the system does better on.
        worse: queries that it does worse on.

    """

    mean: float
    low: float
    high: float
    kept: float | None
    kept_low: float | None
    better: int
    worse: int


def mean_of(values: NDArray[np.float64]) -> Interval:
    """The mean of one measure over queries with its 95 % interval.

    Args:
        values: shape (queries,).

    """
    if values.min() >= 0 and values.max() <= 1:
        return mean_interval(values)
    mean, drawn = float(values.mean()), _resampled(values[:, None])[:, 0]  # counts, say
    low, high = np.quantile(drawn, CONFIDENCE)
    return Interval(mean, float(low), float(high))


def difference(system: NDArray[np.float64], exact: NDArray[np.float64]) -> Difference:
    """Two systems on the same queries.

    By resampling queries with both of their values (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993;
    for retrieval: Sakai, SIGIR 2006): no assumption on how the differences are distributed. Where no query differs in
    the sample, nor does any resample: the interval is then 0 to 0, and says nothing of queries that were not asked.

    Args:
        system: shape (queries,).
        exact: shape (queries,).

    """
    drawn = _resampled(np.column_stack([system, exact]))
    low, high = np.quantile(drawn[:, 0] - drawn[:, 1], CONFIDENCE)
    whole = float(exact.mean())
    shares = np.divide(drawn[:, 0], drawn[:, 1], out=np.ones(len(drawn)), where=drawn[:, 1] != 0)
    return Difference(
        float((system - exact).mean()),
        float(low),
        float(high),
        float(system.mean()) / whole if whole else None,
        float(np.quantile(shares, CONFIDENCE[0])) if whole else None,
        int((system > exact).sum()),
        int((system < exact).sum()),
    )


def _resampled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of the columns over samples with replacement, shape (resamples, columns); the same ones every time."""
    random, count = np.random.default_rng(0), len(values)
    size = max(1, BATCH // count)
    parts = [
        values[random.integers(0, count, (min(size, RESAMPLES - start), count))].mean(axis=1)
        for start in range(0, RESAMPLES, size)
    ]
    return np.concatenate(parts)
