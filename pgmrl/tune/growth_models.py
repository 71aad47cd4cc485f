"""How recall, time and size grow with the table: fitted to some sizes, checked against another. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Curve",
    "Growth",
    "Latency",
    "Timed",
    "build_growth",
    "fit_growth",
    "fit_latency",
]

Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""A share of the truth for each length of the shortlist (or ef_search), rising."""

EXPONENTS: Final = np.round(np.arange(-0.5, 1.0001, 0.005), 3)
LONGEST: Final = 1000  # shortlist that is compared


@dataclass(frozen=True, slots=True)
class Growth:
    """A curve that is stretched as the table grows: y(k + x, rows) = y0(k + x / (rows / rows0) ** exponent).

    What takes x rows more than k in one table takes x * r ** exponent more in one r times as large. A shortlist of k
    stays one: it brings what the short order has among its first k.

    Attributes:
        exponent: 0 where nothing changes; below 0 where a larger table makes it easier.
        rows: of the table the curve was measured in.
        k: results that count.
        error: the largest difference when the curve of the largest table was predicted from the two before, where it
            is above a floor; None where fewer than three sizes were measured.

    """

    exponent: float
    rows: int
    k: int
    error: float | None

    def equivalent(self, size: float, rows: int) -> float:
        """What a shortlist in a table of so many rows is in the measured one."""
        return float(_shrunk(np.array([size]), self.k, rows / self.rows, self.exponent)[0])


def fit_growth(curves: Sequence[tuple[int, Curve]], k: int, *, floor: float = 0.8) -> Growth:
    """The exponent between the two largest tables, checked by that of the two before.

    Args:
        curves: rows and curve of each table, the largest first; at least one.
        k: results that count.
        floor: only what is above is compared: a curve has many shapes below.

    """
    rows = curves[0][0]
    if len(curves) < 2:
        return Growth(0.0, rows, k, None)
    exponent = _exponent(curves[0], curves[1], k, floor)
    error = None
    if len(curves) > 2:
        before = _exponent(curves[1], curves[2], k, floor)
        error = _growth_error(curves[0], curves[1], k, before, floor)
    return Growth(exponent, rows, k, error)


def _growth_error(large: tuple[int, Curve], small: tuple[int, Curve], k: int, exponent: float, floor: float) -> float:
    """The largest difference between a curve and what another predicts of it."""
    at = _sizes(k)
    truth = large[1](at)
    difference = np.abs(truth - small[1](_shrunk(at, k, large[0] / small[0], exponent)))
    return float(difference[truth >= floor].max(initial=0.0))


def _exponent(large: tuple[int, Curve], small: tuple[int, Curve], k: int, floor: float) -> float:
    at = _sizes(k)
    truth = large[1](at)
    counts = truth >= min(floor, float(truth.max()))
    if large[0] <= small[0]:
        return 0.0
    ratio = large[0] / small[0]
    losses = [float(((truth - small[1](_shrunk(at, k, ratio, exponent))) ** 2)[counts].sum()) for exponent in EXPONENTS]
    best = min(losses)
    level = [float(exponent) for exponent, loss in zip(EXPONENTS, losses, strict=True) if loss <= best + 1e-9]
    return min(level, key=abs)  # of curves that say nothing, such as a constant, the one that changes nothing


def _sizes(k: int) -> NDArray[np.float64]:
    return np.asarray(np.geomspace(k, max(LONGEST, k), 60))


def _shrunk(sizes: NDArray[np.float64], k: int, ratio: float, exponent: float) -> NDArray[np.float64]:
    return np.asarray(np.where(sizes > k, k + (sizes - k) / ratio**exponent, sizes))


# -- latency -------------------------------------------------------------------------------------------------------


class Timed(NamedTuple):
    """A time that was measured.

    Attributes:
        rows: of the table.
        shortlist: rows that were ranked.
        ef_search: candidates of the scan.
        ms: the median, in milliseconds.

    """

    rows: int
    shortlist: int
    ef_search: int
    ms: float


@dataclass(frozen=True, slots=True)
class Latency:
    """ms = fixed + ranked * shortlist + visited * (1 + deeper * log2(rows / rows0)) * ef_search.

    An HNSW scan visits a number of elements that is proportional to ef_search and grows with the logarithm of the rows
    (Malkov and Yashunin, IEEE TPAMI 42, 2020); each row of the shortlist is read and compared once.

    Attributes:
        fixed: milliseconds of any search.
        ranked: for each row of the shortlist.
        visited: for each candidate of the scan, in a table of `rows` rows.
        deeper: by which share that rises when the rows double.
        rows: of the largest table that was measured.
        error: the mean relative difference when its times were predicted from the smaller ones; None where there were
            not two of those.

    """

    fixed: float
    ranked: float
    visited: float
    deeper: float
    rows: int
    error: float | None

    def ms(self, shortlist: float, ef_search: float, rows: float) -> float:
        """The median time of a search, in milliseconds."""
        depth = max(0.1, 1 + self.deeper * float(np.log2(max(1.0, rows) / max(1, self.rows))))
        return self.fixed + self.ranked * shortlist + self.visited * depth * ef_search


def fit_latency(timed: Sequence[Timed]) -> Latency:
    """Terms by the largest table, and how they grow by the smaller ones; least squares of relative differences.

    Args:
        timed: of one candidate in one or more tables.

    """
    sizes = sorted({time.rows for time in timed}, reverse=True)
    largest = [time for time in timed if time.rows == sizes[0]]
    smaller = [time for time in timed if time.rows < sizes[0]]
    error = None
    if len(sizes) > 2:
        before = fit_latency(smaller)
        missed = [abs(before.ms(time.shortlist, time.ef_search, time.rows) / time.ms - 1) for time in largest]
        error = float(np.mean(missed))
    fixed, ranked, visited = _terms(largest)
    flat = Latency(fixed, ranked, visited, 0.0, sizes[0], error)
    return replace(flat, deeper=_deeper(flat, smaller))


def _terms(timed: Sequence[Timed]) -> tuple[float, float, float]:
    """Least squares; a term that would be negative is left out."""
    ms = np.array([time.ms for time in timed])
    terms = np.array([(1.0, time.shortlist, time.ef_search) for time in timed]) / ms[:, np.newaxis]
    used = [0, 1, 2]
    while True:
        factors = np.linalg.lstsq(terms[:, used], np.ones(len(ms)), rcond=None)[0]
        if (factors >= 0).all() or len(used) == 1:
            break
        used.pop(int(np.argmin(factors * np.abs(terms[:, used]).mean(axis=0))))
    result = [0.0, 0.0, 0.0]
    for place, value in zip(used, factors, strict=True):
        result[place] = max(0.0, float(value))
    return result[0], result[1], result[2]


def _deeper(flat: Latency, smaller: Sequence[Timed]) -> float:
    """The one number that is left, at least 0: ms - flat = visited * ef_search * log2(rows / rows0) * deeper."""
    if not smaller:
        return 0.0
    slope = np.array([flat.visited * time.ef_search * np.log2(time.rows / flat.rows) / time.ms for time in smaller])
    rest = np.array([1 - flat.ms(time.shortlist, time.ef_search, time.rows) / time.ms for time in smaller])
    square = float((slope**2).sum())
    return max(0.0, float((slope * rest).sum()) / square) if square > 0 else 0.0


# -- building ------------------------------------------------------------------------------------------------------


def build_growth(small: float, large: float) -> float:
    """How many times as long an index of `large` rows takes to build as one of `small`: by rows * log(rows)."""
    if small <= 1:
        return max(1.0, large)
    return large * float(np.log2(max(2.0, large))) / (small * float(np.log2(max(2.0, small))))
