"""What one candidate loses by shortening, in tables of several sizes, and what follows for a table of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pgmrl.measure.intervals import Interval, mean_interval
from pgmrl.tune.growth_models import fit_growth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgmrl.tune.candidates import Candidate
    from pgmrl.tune.growth_models import Curve, Growth
    from pgmrl.tune.short_ranks import ShortRanks

__all__ = ["SAME_SIZE", "Truncation", "moved"]

SAME_SIZE: Final = 1.25
"""A table of so many times the rows, at most, is as good as the one that was measured."""

FINE: Final = np.unique(np.concatenate([np.arange(1.0, 101.0), np.geomspace(100, 10_000, 80)]))
"""Sizes at which a curve is known: a short shortlist's recall has a corner at every row."""


@dataclass(frozen=True, slots=True)
class Truncation:
    """The recall of exact shortlists of one candidate.

    Attributes:
        candidate: how it shortens.
        ranks: of the true neighbours in each table, the largest first.
        curves: rows of each table, and the recall of an exact shortlist there.
        growth: of those curves.
        floor: recall above which they are compared.

    """

    candidate: Candidate
    ranks: list[ShortRanks]
    curves: list[tuple[int, Curve]]
    growth: Growth
    floor: float

    @classmethod
    def of(cls, candidate: Candidate, ranks: Sequence[ShortRanks], floor: float) -> Truncation:
        """From the ranks in each table; a table of hardly any rows says nothing."""
        telling = [table for table in ranks if table.truth.rows >= 2 * table.truth.k] or list(ranks[:1])
        curves = [(table.truth.rows, _curve_of(table)) for table in telling]
        return cls(candidate, list(ranks), curves, fit_growth(curves, ranks[0].truth.k, floor=floor), floor)

    def recall(self, shortlist: float, rows: int) -> float:
        """Mean recall of an exact shortlist in a table of so many rows."""
        return float(self.curves[0][1](np.array([self.growth.equivalent(shortlist, rows)]))[0])

    def below(self, rows: int) -> Truncation | None:
        """What would be known without this table and larger ones; None where that is not two sizes."""
        smaller = [number for number, (size, _) in enumerate(self.curves) if size < rows]
        if len(smaller) < 2:
            return None
        curves = [self.curves[number] for number in smaller]
        ranks = [self.ranks[number] for number in smaller]
        growth = fit_growth(curves, ranks[0].truth.k, floor=self.floor)
        return Truncation(self.candidate, ranks, curves, growth, self.floor)

    def model_error(self, shortlist: float, rows: int) -> float:
        """By how much recall may be missed in a table that is larger than what was read; see `IndexTrial.recall`."""
        base = self.curves[0][0]
        if rows <= SAME_SIZE * base:
            return 0.0
        if self.growth.error is None:
            return abs(self.recall(shortlist, rows) - self.recall(shortlist, base))
        return self.growth.error * max(1.0, float(np.log(rows / base) / np.log(base / self.curves[1][0])))

    def interval(self, shortlist: float, rows: int) -> Interval:
        """The same with the interval that the queries give."""
        base = mean_interval(self.ranks[0].per_query(self.growth.equivalent(shortlist, rows)))
        return moved(base, self.recall(shortlist, rows))

    def needed(self, target: float, rows: int, sizes: Sequence[int]) -> int | None:
        """The shortest of these shortlists that reaches a mean recall; None where none does."""
        return next((size for size in sizes if self.recall(size, rows) >= target), None)


def moved(interval: Interval, mean: float) -> Interval:
    """The same width about another mean."""
    low = max(0.0, mean - (interval.mean - interval.low))
    return Interval(mean, low, min(1.0, mean + (interval.high - interval.mean)))


def _curve_of(ranks: ShortRanks) -> Curve:
    """The recall of an exact shortlist, for any size, from a few hundred of them."""
    known = ranks.recall(FINE)
    return lambda sizes: np.interp(np.log(np.maximum(sizes, 1e-9)), np.log(FINE), known)
