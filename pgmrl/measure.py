"""Recall, by distance: how much of the truth a search returned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["recall_at_k"]

TIE: Final = 1e-6  # distances that differ by less are the same; the server computes them in single precision


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
    limit = max(truth)
    near = np.asarray(found, np.float64) <= limit + TIE * max(1.0, abs(limit))
    return min(1.0, float(near.sum()) / len(truth))
