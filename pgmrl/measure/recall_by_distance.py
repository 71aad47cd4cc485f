"""Recall by distance: rows at the same distance are as good as each other, and what counts as the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, overload

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["TIE", "recall_at_k", "tie_ranks", "within"]

TIE: Final = 1e-6
"""Distances that differ by less, relative to the larger of 1 and the distance, are the same: the server adds up in
single precision, in an order of its own."""


@overload
def within(limit: float) -> float: ...
@overload
def within(limit: NDArray[np.float64]) -> NDArray[np.float64]: ...
def within(limit: float | NDArray[np.float64]) -> float | NDArray[np.float64]:
    """The largest distance that is as good as `limit`, or as each of them."""
    return limit + TIE * np.maximum(1.0, np.abs(limit))


def tie_ranks(distances: NDArray[np.float64]) -> NDArray[np.int64]:
    """Numbers that order rows as their distances do, and are equal where these are the same.

    Args:
        distances: shape (n,), finite; what differs by less than `TIE` of the farthest is the same.

    """
    step = TIE * float(np.abs(distances).max(initial=0)) or 1.0
    return np.asarray(np.rint(distances / step), np.int64)


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
