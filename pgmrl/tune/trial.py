"""One candidate with all that was measured of it, and what follows for a table of any size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from pgmrl.measure.score import Interval, mean_interval
from pgmrl.tune.models import build_growth, fit_growth, fit_latency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgmrl.tune.candidates import Candidate
    from pgmrl.tune.models import Curve, Growth, Latency, Timed
    from pgmrl.tune.ranks import Ranks
    from pgmrl.tune.scans import Scans

__all__ = ["Graph", "Option", "Sweep", "Trial"]

FINE: Final = np.unique(np.concatenate([np.arange(1.0, 101.0), np.geomspace(100, 10_000, 80)]))
"""Sizes at which a curve is known: a short shortlist's recall has a corner at every row."""


class Option(NamedTuple):
    """One way to search, and what it brings.

    Attributes:
        candidate: the short vectors and how their index is built.
        shortlist: rows that are ranked exactly.
        ef_search: candidates HNSW keeps.
        recall: recall@k, its mean and 95 % interval.
        latency_ms: the median time of a search as the client sees it, in milliseconds.
        index_bytes: the index's size.
        build_seconds: the time its build takes; None where none was built.

    """

    candidate: Candidate
    shortlist: int
    ef_search: int
    recall: Interval
    latency_ms: float
    index_bytes: int
    build_seconds: float | None


def _curve_of(ranks: Ranks) -> Curve:
    """The recall of an exact shortlist, for any size, from a few hundred of them."""
    known = ranks.recall(FINE)
    return lambda sizes: np.interp(np.log(np.maximum(sizes, 1e-9)), np.log(FINE), known)


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one candidate loses by shortening, in tables of several sizes.

    Attributes:
        candidate: how it shortens.
        ranks: of the true neighbours at each level, the largest first.
        curves: rows and recall of an exact shortlist at each level.
        growth: of those curves.
        floor: recall above which they are compared.

    """

    candidate: Candidate
    ranks: list[Ranks]
    curves: list[tuple[int, Curve]]
    growth: Growth
    floor: float

    @classmethod
    def of(cls, candidate: Candidate, ranks: Sequence[Ranks], floor: float) -> Sweep:
        """From ranks at each level; a level without rows says nothing."""
        used = [one for one in ranks if one.truth.rows >= 2 * one.truth.k]
        used = used or list(ranks[:1])
        curves = [(one.truth.rows, _curve_of(one)) for one in used]
        return cls(candidate, list(ranks), curves, fit_growth(curves, ranks[0].truth.k, floor=floor), floor)

    def recall(self, shortlist: float, rows: int) -> float:
        """Mean recall of an exact shortlist in a table of so many rows."""
        return float(self.curves[0][1](np.array([self.growth.equivalent(shortlist, rows)]))[0])

    def below(self, rows: int) -> Sweep | None:
        """What would be known without this table and larger ones; None where that is not two sizes."""
        smaller = [number for number, (size, _) in enumerate(self.curves) if size < rows]
        if len(smaller) < 2:
            return None
        curves = [self.curves[number] for number in smaller]
        ranks = [self.ranks[number] for number in smaller]
        return Sweep(self.candidate, ranks, curves, fit_growth(curves, ranks[0].truth.k, floor=self.floor), self.floor)

    def interval(self, shortlist: float, rows: int) -> Interval:
        """The same with the interval that the queries give."""
        base = mean_interval(self.ranks[0].per_query(self.growth.equivalent(shortlist, rows)))
        return _moved(base, self.recall(shortlist, rows))

    def needed(self, target: float, rows: int, sizes: Sequence[int]) -> int | None:
        """The shortest of these shortlists that reaches a mean recall; None where none does."""
        return next((size for size in sizes if self.recall(size, rows) >= target), None)


@dataclass(frozen=True, slots=True)
class Graph:
    """A candidate's index in a table of one size.

    Attributes:
        rows: of the table.
        ranks: of the true neighbours there.
        scans: of the index.
        index_bytes: its size.
        build_seconds: that it took to build; None where it was there.
        level: of the table, 0 for all rows that are read.

    """

    rows: int
    ranks: Ranks
    scans: Scans
    index_bytes: int
    build_seconds: float | None
    level: int

    def loss(self, shortlist: float, ef_search: int) -> float:
        """What the scan loses of the exact shortlist, on average."""
        size = min(shortlist, ef_search)
        exact = self.ranks.per_query(size)
        return float((exact - self.scans.per_query(size, ef_search)).mean())

    @property
    def curve(self) -> Curve:
        """What is left by the scan for each ef_search, with a shortlist as long."""
        sizes = np.array(sorted(self.scans.found), np.float64)
        kept = np.array([1 - self.loss(size, int(size)) for size in sizes])
        return lambda asked: np.interp(np.log(np.maximum(asked, 1e-9)), np.log(sizes), kept)


@dataclass(slots=True)
class Trial:
    """A candidate whose index was tried.

    Attributes:
        sweep: what it loses by shortening.
        graphs: its index in tables of several sizes, the largest first.
        timed: times of whole searches.
        latency: the model of those.
        growth: how ef_search has to grow with the table for the same loss.

    """

    sweep: Sweep
    candidate: Candidate
    graphs: list[Graph]
    timed: list[Timed]
    latency: Latency = field(init=False)
    growth: Growth = field(init=False)

    def __post_init__(self) -> None:
        self.fit()

    def fit(self) -> None:
        """Fit the models to what was measured so far."""
        self.latency = fit_latency(self.timed)
        base = self.graphs[0]
        curves = [(graph.rows, graph.curve) for graph in self.graphs if len(graph.scans.found) > 1]
        self.growth = fit_growth(curves or [(base.rows, base.curve)], base.ranks.truth.k, floor=0.0)

    def recall(self, shortlist: int, ef_search: int, rows: int) -> Interval:
        """Recall in a table of so many rows: that of the exact shortlist, less what the scan loses."""
        base = self.graphs[0]
        ef = self.growth.equivalent(ef_search, rows)
        size = self.growth.equivalent(shortlist, rows)
        measured = sorted(base.scans.found)
        above = next((one for one in measured if one >= ef - 1e-9), measured[-1])
        below = next((one for one in reversed(measured) if one <= ef + 1e-9), measured[0])
        loss = base.loss(size, above)
        if below != above:
            share = float(np.log(ef / below) / np.log(above / below))
            loss = share * loss + (1 - share) * base.loss(size, below)
        mean = min(1.0, max(0.0, self.sweep.recall(shortlist, rows) - loss))
        return _moved(mean_interval(base.scans.per_query(min(size, above), above)), mean)

    def latency_ms(self, shortlist: int, ef_search: int, rows: int) -> float:
        """The median time of a search in a table of so many rows, while index and vectors are in memory."""
        return self.latency.ms(shortlist, ef_search, rows)

    def index_bytes(self, rows: int) -> int:
        """The index's size: in proportion to the rows."""
        base = self.graphs[0]
        return round(base.index_bytes * rows / max(1, base.rows))

    def build_seconds(self, rows: int) -> float | None:
        """The time a build takes while the graph fits into `maintenance_work_mem`."""
        base = self.graphs[0]
        return None if base.build_seconds is None else base.build_seconds * build_growth(base.rows, rows)

    def extrapolation_error(self, shortlist: int, ef_search: int) -> float | None:
        """By how much recall in the largest table was missed when it was predicted from the smaller ones.

        None where there are not two smaller ones.
        """
        rows = self.graphs[0].rows
        sweep = self.sweep.below(rows)
        if sweep is None or len(self.graphs) < 3:
            return None
        small = Trial(sweep, self.candidate, self.graphs[1:], self.timed)
        measured = float(self.graphs[0].scans.per_query(shortlist, ef_search).mean())
        return abs(small.recall(shortlist, ef_search, rows).mean - measured)

    def option(self, shortlist: int, ef_search: int, rows: int) -> Option:
        """All of it."""
        return Option(
            self.candidate,
            shortlist,
            ef_search,
            self.recall(shortlist, ef_search, rows),
            self.latency_ms(shortlist, ef_search, rows),
            self.index_bytes(rows),
            self.build_seconds(rows),
        )

    def options(self, rows: int, sizes: Sequence[int]) -> list[Option]:
        """Every setting that was measured, up to the longest of these shortlists, with every one that fits."""
        efs = sorted(ef for ef in self.graphs[0].scans.found if ef <= sizes[-1])
        return [self.option(size, ef, rows) for ef in efs for size in sizes if size <= ef]


def _moved(interval: Interval, mean: float) -> Interval:
    """The same width about another mean."""
    low = max(0.0, mean - (interval.mean - interval.low))
    return Interval(mean, low, min(1.0, mean + (interval.high - interval.mean)))
