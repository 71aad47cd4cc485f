"""One candidate whose index was tried, and what follows for a table of any size."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from pgmrl.measure.intervals import Interval, Z
from pgmrl.tune.growth_models import build_growth, fit_growth, fit_latency
from pgmrl.tune.truncation import SAME_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pgmrl.tune.candidates import Candidate
    from pgmrl.tune.growth_models import Curve, Growth, Latency, Timed
    from pgmrl.tune.index_scans import IndexScans
    from pgmrl.tune.short_ranks import ShortRanks
    from pgmrl.tune.truncation import Truncation

__all__ = ["IndexTrial", "Option", "TriedIndex"]

SUPPOSED: Final = 0.35
"""How ef_search has to grow with the table, where indexes of one size alone were tried: .25 to .7 in all that was
measured, most of it about .35."""


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
        scans: of the index, by some of the queries that the ranks are of, from the first.
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

    def losses(self, shortlist: float, ef_search: int) -> NDArray[np.float64]:
        """What the scan of each query loses of its exact shortlist, shape (queries that were scanned,)."""
        size = min(shortlist, ef_search)
        scanned = self.scans.per_query(size, ef_search)
        return np.asarray(self.ranks.per_query(size)[: len(scanned)] - scanned)

    def loss(self, shortlist: float, ef_search: int) -> float:
        """The same on average."""
        return float(self.losses(shortlist, ef_search).mean())

    def loss_at(self, shortlist: float, ef_search: float) -> tuple[float, int]:
        """The same of any ef_search, between those that were tried, and the one above of these."""
        measured = sorted(self.scans.ranks)
        above = next((known for known in measured if known >= ef_search - 1e-9), measured[-1])
        below = next((known for known in reversed(measured) if known <= ef_search + 1e-9), measured[0])
        loss = self.loss(shortlist, above)
        if below != above:
            share = float(np.log(ef_search / below) / np.log(above / below))
            loss = share * loss + (1 - share) * self.loss(shortlist, below)
        return loss, above

    def recall(self, shortlist: int, ef_search: int) -> float:
        """The recall of a search there, on average: that of the exact shortlist by all queries, less what is lost."""
        return float(self.ranks.per_query(min(shortlist, ef_search)).mean()) - self.loss(shortlist, ef_search)

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
    _smaller: IndexTrial | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.fit()

    def fit(self) -> None:
        """Fit the models to what was measured so far."""
        self.latency = fit_latency(self.timed)
        base = self.indexes[0]
        curves = [(index.rows, index.curve) for index in self.indexes if len(index.scans.ranks) > 1]
        self.growth = fit_growth(curves or [(base.rows, base.curve)], base.ranks.truth.k, floor=0.0)
        if len(curves) < 2:
            self.growth = replace(self.growth, exponent=SUPPOSED)
        self._smaller = None

    def recall(self, shortlist: int, ef_search: int, rows: int, *, model_error: bool = True) -> Interval:
        """Recall in a table of so many rows: that of the exact shortlist, less what the scan loses.

        The interval is that of the queries, of both, and beyond it the error of the models, where these were needed.

        Args:
            shortlist: rows that are ranked exactly.
            ef_search: candidates HNSW keeps.
            rows: of the table.
            model_error: False for the interval of the queries alone.

        """
        exact = self.truncation.interval(shortlist, rows)
        loss = self._loss(shortlist, ef_search, rows)
        error = self._model_error(shortlist, ef_search, rows) if model_error else 0.0
        base = self.indexes[0]
        above = base.loss_at(shortlist, self.growth.equivalent(ef_search, rows))[1]
        losses = base.losses(self.growth.equivalent(shortlist, rows), above)
        reach = Z * float(losses.std()) / float(np.sqrt(len(losses)))
        mean = min(1.0, max(0.0, exact.mean - loss))
        low = mean - float(np.hypot(exact.mean - exact.low, reach)) - error
        high = mean + float(np.hypot(exact.high - exact.mean, reach)) + error
        return Interval(mean, max(0.0, low), min(1.0, high))

    def _loss(self, shortlist: float, ef_search: float, rows: int) -> float:
        """What the scan loses in a table of so many rows."""
        sizes = self.growth.equivalent(shortlist, rows), self.growth.equivalent(ef_search, rows)
        return self.indexes[0].loss_at(*sizes)[0]

    def _model_error(self, shortlist: int, ef_search: int, rows: int) -> float:
        """By how much recall may be missed for want of a table of this size.

        As far as the models missed the largest table that was measured, when they knew the smaller ones, for each such
        step; where they could not be checked, as much as they make out.
        """
        return self._scan_error(shortlist, ef_search, rows) + self.truncation.model_error(shortlist, rows)

    def _scan_error(self, shortlist: int, ef_search: int, rows: int) -> float:
        base = self.indexes[0]
        if rows <= SAME_SIZE * base.rows:
            return 0.0
        if len(self.indexes) < 3:
            return abs(self._loss(shortlist, ef_search, rows) - base.loss_at(shortlist, ef_search)[0])
        missed = abs(self._known_smaller._loss(shortlist, ef_search, base.rows) - base.loss_at(shortlist, ef_search)[0])
        return missed * max(1.0, float(np.log(rows / base.rows) / np.log(base.rows / self.indexes[1].rows)))

    @property
    def _known_smaller(self) -> IndexTrial:
        """What would be known without the largest table."""
        if self._smaller is None:
            rows = self.indexes[0].rows
            truncation = self.truncation.below(rows) or self.truncation
            timed = [time for time in self.timed if time.rows < rows] or self.timed
            self._smaller = IndexTrial(truncation, self.candidate, self.indexes[1:], timed)
        return self._smaller

    def latency_ms(self, shortlist: int, ef_search: int, rows: int) -> float:
        """The median time of a search in a table of so many rows, while index and vectors are in memory."""
        return self.latency.ms(shortlist, ef_search, rows)

    def index_bytes(self, rows: int) -> int:
        """The index's size: in proportion to the rows."""
        base = self.indexes[0]
        return round(base.index_bytes * rows / max(1, base.rows))

    def build_seconds(self, rows: int) -> float | None:
        """The time a build takes while the graph fits into `maintenance_work_mem`."""
        for index in self.indexes:
            if index.build_seconds is not None:
                return index.build_seconds * build_growth(index.rows, rows)
        return None

    def extrapolation_error(self, shortlist: int, ef_search: int) -> float | None:
        """By how much recall in the largest table was missed when it was predicted from the smaller ones.

        None where there are not two smaller ones.
        """
        rows = self.indexes[0].rows
        if len(self.indexes) < 3 or self.truncation.below(rows) is None:
            return None
        measured = self.indexes[0].recall(shortlist, ef_search)
        return abs(self._known_smaller.recall(shortlist, ef_search, rows).mean - measured)

    def option(self, shortlist: int, ef_search: int, rows: int, *, model_error: bool = True) -> Option:
        """All of it; see `recall`."""
        return Option(
            self.candidate,
            shortlist,
            ef_search,
            self.recall(shortlist, ef_search, rows, model_error=model_error),
            self.latency_ms(shortlist, ef_search, rows),
            self.index_bytes(rows),
            self.build_seconds(rows),
        )

    def options(self, rows: int, sizes: Sequence[int], *, model_error: bool = True) -> list[Option]:
        """Every setting that was measured, up to the longest of these shortlists, with every one that fits."""
        efs = sorted(ef for ef in self.indexes[0].scans.ranks if ef <= sizes[-1])
        return [self.option(size, ef, rows, model_error=model_error) for ef in efs for size in sizes if size <= ef]
