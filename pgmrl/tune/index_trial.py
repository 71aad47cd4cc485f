"""One candidate whose index was tried, and what follows for a table of any size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pgmrl.measure.intervals import Interval, mean_interval
from pgmrl.tune.growth_models import build_growth, fit_growth, fit_latency
from pgmrl.tune.truncation import moved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgmrl.tune.candidates import Candidate
    from pgmrl.tune.growth_models import Curve, Growth, Latency, Timed
    from pgmrl.tune.index_scans import IndexScans
    from pgmrl.tune.short_ranks import ShortRanks
    from pgmrl.tune.truncation import Truncation

__all__ = ["IndexTrial", "Option", "TriedIndex"]


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


@dataclass(frozen=True, slots=True)
class TriedIndex:
    """A candidate's index in a table of one size.

    Attributes:
        rows: of the table.
        ranks: of the true neighbours there.
        scans: of the index.
        index_bytes: its size.
        build_seconds: that it took to build; None where it was there.
        sample: the number of the table among `NestedSamples`, 0 for all rows that are read.

    """

    rows: int
    ranks: ShortRanks
    scans: IndexScans
    index_bytes: int
    build_seconds: float | None
    sample: int

    def loss(self, shortlist: float, ef_search: int) -> float:
        """What the scan loses of the exact shortlist, on average."""
        size = min(shortlist, ef_search)
        exact = self.ranks.per_query(size)
        return float((exact - self.scans.per_query(size, ef_search)).mean())

    @property
    def curve(self) -> Curve:
        """What the scan leaves for each ef_search, with a shortlist as long."""
        sizes = np.array(sorted(self.scans.ranks), np.float64)
        left = np.array([1 - self.loss(size, int(size)) for size in sizes])
        return lambda efs: np.interp(np.log(np.maximum(efs, 1e-9)), np.log(sizes), left)


@dataclass(slots=True)
class IndexTrial:
    """A candidate whose index was tried.

    Attributes:
        truncation: what it loses by shortening.
        candidate: with the index that was built.
        indexes: its index in tables of several sizes, the largest first.
        timed: times of whole searches.
        latency: the model of those.
        growth: how ef_search has to grow with the table for the same loss.

    """

    truncation: Truncation
    candidate: Candidate
    indexes: list[TriedIndex]
    timed: list[Timed]
    latency: Latency = field(init=False)
    growth: Growth = field(init=False)

    def __post_init__(self) -> None:
        self.fit()

    def fit(self) -> None:
        """Fit the models to what was measured so far."""
        self.latency = fit_latency(self.timed)
        base = self.indexes[0]
        curves = [(index.rows, index.curve) for index in self.indexes if len(index.scans.ranks) > 1]
        self.growth = fit_growth(curves or [(base.rows, base.curve)], base.ranks.truth.k, floor=0.0)

    def recall(self, shortlist: int, ef_search: int, rows: int) -> Interval:
        """Recall in a table of so many rows: that of the exact shortlist, less what the scan loses."""
        base = self.indexes[0]
        ef = self.growth.equivalent(ef_search, rows)
        size = self.growth.equivalent(shortlist, rows)
        measured = sorted(base.scans.ranks)
        above = next((known for known in measured if known >= ef - 1e-9), measured[-1])
        below = next((known for known in reversed(measured) if known <= ef + 1e-9), measured[0])
        loss = base.loss(size, above)
        if below != above:
            share = float(np.log(ef / below) / np.log(above / below))
            loss = share * loss + (1 - share) * base.loss(size, below)
        mean = min(1.0, max(0.0, self.truncation.recall(shortlist, rows) - loss))
        return moved(mean_interval(base.scans.per_query(min(size, above), above)), mean)

    def latency_ms(self, shortlist: int, ef_search: int, rows: int) -> float:
        """The median time of a search in a table of so many rows, while index and vectors are in memory."""
        return self.latency.ms(shortlist, ef_search, rows)

    def index_bytes(self, rows: int) -> int:
        """The index's size: in proportion to the rows."""
        base = self.indexes[0]
        return round(base.index_bytes * rows / max(1, base.rows))

    def build_seconds(self, rows: int) -> float | None:
        """The time a build takes while the graph fits into `maintenance_work_mem`."""
        base = self.indexes[0]
        return None if base.build_seconds is None else base.build_seconds * build_growth(base.rows, rows)

    def extrapolation_error(self, shortlist: int, ef_search: int) -> float | None:
        """By how much recall in the largest table was missed when it was predicted from the smaller ones.

        None where there are not two smaller ones.
        """
        rows = self.indexes[0].rows
        truncation = self.truncation.below(rows)
        if truncation is None or len(self.indexes) < 3:
            return None
        smaller = IndexTrial(truncation, self.candidate, self.indexes[1:], self.timed)
        measured = float(self.indexes[0].scans.per_query(shortlist, ef_search).mean())
        return abs(smaller.recall(shortlist, ef_search, rows).mean - measured)

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
        efs = sorted(ef for ef in self.indexes[0].scans.ranks if ef <= sizes[-1])
        return [self.option(size, ef, rows) for ef in efs for size in sizes if size <= ef]
