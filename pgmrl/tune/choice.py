"""Which setting to take, and what is in the way where none is good enough. Pure: options in, a decision out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from pgmrl.limits import EF_SEARCH_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pgmrl.measure.score import Interval
    from pgmrl.tune.trial import Option, Sweep, Trial
    from pgmrl.tune.tuning_inputs import Wanted

__all__ = ["Cause", "Limit", "Minimise", "cheapest", "chosen", "pareto", "promising", "reaches", "sizes_for", "why_not"]

Minimise = Literal["latency", "size", "build"]
Cause = Literal["dimensions", "shortlist", "time", "graph"]

SIZES: Final = (
    *(1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100),
    *(120, 150, 200, 250, 300, 400, 500, 600, 800, 1000),
)
"""Shortlists that are tried."""

LEVEL: Final = {"latency": 1.05, "size": 1.02, "build": 1.1}
"""What differs by less is level: measurements are no better."""

STEP: Final = 0.002

GRAPH_SHARE: Final = 0.3
"""Of the loss that is allowed so much is left to the graph when candidates are compared by truncation alone."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Why a target was not reached.

    Attributes:
        cause: `dimensions` (the short vectors), `shortlist` (its size, and ef_search with it), `time` (it ran out
            before everything was tried) or `graph`.
        message: what limits, in numbers.
        remedy: what to do.

    """

    cause: Cause
    message: str
    remedy: str


def sizes_for(k: int, most: int = EF_SEARCH_LIMIT) -> list[int]:
    """Shortlists for k results, rising, up to the longest allowed."""
    return sorted({k, most, *(size for size in SIZES if k <= size <= most)})


def reaches(recall: Interval, target: float) -> bool:
    """Whether recall is as good as was asked for, as far as the queries can tell.

    The lower end of the 95 % interval counts, not the mean: of many settings the one that looks cheapest at a mean is
    the one the sample was kind to. Where not one neighbour was missed there is nothing better.
    """
    return recall.low >= target or recall.mean >= 1.0


def cheapest(options: Sequence[Option], target: float, minimise: Minimise) -> Option | None:
    """The cheapest setting that reaches the target; None where none does.

    Args:
        options: at one size of the table.
        target: recall@k.
        minimise: what counts first; what is level in that is decided by the index's size, or the time of a search.

    """
    good = [one for one in options if reaches(one.recall, target)]
    if not good:
        return None
    cost = _cost(minimise)
    least = min(cost(one) for one in good)
    level = [one for one in good if cost(one) <= least * LEVEL[minimise]]
    if minimise == "latency":
        return min(level, key=lambda one: (one.index_bytes, one.latency_ms))
    return min(level, key=lambda one: (one.latency_ms, one.index_bytes))


def pareto(options: Sequence[Option]) -> list[Option]:
    """Those that no other beats in recall, time and size at once; the fastest first.

    What brings less than .002 more recall, or a twentieth less in size, is level: a front of every setting that was
    measured would be a page.
    """
    front: list[Option] = []
    for one in sorted(options, key=lambda o: (o.latency_ms, -o.recall.mean, o.index_bytes)):
        recall, size = one.recall.mean - STEP, 1.05 * one.index_bytes
        if not any(other.recall.mean >= recall and other.index_bytes <= size for other in front):
            front.append(one)
    return front


def chosen(tried: Sequence[tuple[Trial, Sequence[Option]]], wanted: Wanted) -> tuple[Option | None, Option, Trial]:
    """The cheapest setting of all that was tried.

    Args:
        tried: trials, each with its settings; at least one.
        wanted: the target, and what counts.

    Returns:
        That, or None where none reaches the target; that, or where there is none the one that comes nearest; and the
        trial this one is of.

    """
    owners = [(one, trial) for trial, options in tried for one in options]
    options = [one for one, _ in owners]
    choice = cheapest(options, wanted.recall, wanted.minimise)
    best = choice or max(options, key=lambda one: one.recall.mean)
    return choice, best, next(trial for one, trial in owners if one is best)


def promising(
    sweeps: Sequence[Sweep], target: float, rows: int, sizes: Sequence[int], count: int, minimise: Minimise
) -> list[Sweep]:
    """The candidates whose index is worth a trial, the most promising first.

    By the shortlist that each needs when it is exact, which is a lower bound of what its search visits, and by the
    index's size: those that no other beats in both. Where none reaches the target, the one that comes nearest.

    Args:
        sweeps: of all candidates.
        target: recall@k.
        rows: of the table.
        sizes: shortlists that may be taken.
        count: how many to return at most.
        minimise: what counts.

    """
    wanted = 1 - (1 - target) * (1 - GRAPH_SHARE)
    needed = {id(one): one.needed(wanted, rows, sizes) or one.needed(target, rows, sizes) for one in sweeps}
    able = [one for one in sweeps if needed[id(one)] is not None]
    if not able:
        return sorted(sweeps, key=lambda one: -one.recall(sizes[-1], rows))[:1]

    def visits(one: Sweep) -> float:
        return _work(one) * float(needed[id(one)] or 0)

    def size(one: Sweep) -> int:
        return one.candidate.index_bytes(rows)

    front: list[Sweep] = []
    for one in sorted(able, key=lambda one: (visits(one), size(one))):
        if all(size(one) < size(other) for other in front):
            front.append(one)
    if minimise == "latency":
        return front[:count]
    return sorted(front, key=size)[:count]


def why_not(
    best: Option | None,
    sweeps: Sequence[Sweep],
    target: float,
    rows: int,
    most: int,
    *,
    rotated: bool,
    ended: str | None = None,
) -> Limit:
    """What keeps every setting below the target.

    Args:
        best: the setting with the highest recall.
        sweeps: of all candidates.
        target: recall@k.
        rows: of the table.
        most: the longest shortlist, and largest ef_search, that was allowed.
        rotated: whether a rotation was among the candidates.
        ended: where time ran out, in words; None where it sufficed.

    """
    top = max(sweeps, key=lambda one: one.recall(most, rows))
    longest = max(sweeps, key=lambda one: one.recall(EF_SEARCH_LIMIT, rows))
    name = longest.candidate.title
    if not reaches(longest.interval(EF_SEARCH_LIMIT, rows), target):
        kept = longest.recall(EF_SEARCH_LIMIT, rows)
        more = "more dimensions (--dims)" if rotated else "more dimensions (--dims), or a rotation (--by rotation)"
        return Limit(
            "dimensions",
            f"the short vectors lose too much: an exact shortlist of {EF_SEARCH_LIMIT:,} by {name} keeps {kept:.4f}",
            f"try {more}",
        )
    at_most = f"{top.recall(most, rows):.4f}"
    short = not reaches(top.interval(most, rows), target)
    scanned = "" if best is None else f"; {_scanned(best, sweeps, rows)}"
    if ended is not None and not short:
        longer = f"an exact shortlist of {most:,} by {top.candidate.title} keeps {at_most}"
        return Limit("time", f"time ran out {ended}{scanned}; {longer}", "give more --seconds")
    if short or (most < EF_SEARCH_LIMIT and best is not None):
        return Limit(
            "shortlist",
            f"the longest shortlist and largest ef_search allowed are {most:,}: exact, that keeps {at_most} by "
            f"{top.candidate.title}, and {longest.recall(EF_SEARCH_LIMIT, rows):.4f} at {EF_SEARCH_LIMIT:,}",
            "allow a longer one (--max-shortlist), or try more dimensions (--dims), which need a shorter one",
        )
    graph = "" if best is None else f" ({best.candidate.graph})"
    return Limit(
        "graph",
        f"the graph{graph} loses too much{scanned}",
        "build a better one: a larger ef_construction, then a larger m (--graph tries some)",
    )


def _scanned(best: Option, sweeps: Sequence[Sweep], rows: int) -> str:
    """What the scan finds, beside an exact shortlist of the same size by the same short vectors."""
    found = f"the scan with ef_search={best.ef_search:,} finds {best.recall.mean:.4f}"
    mine = next((one for one in sweeps if one.candidate.same_vectors(best.candidate)), None)
    if mine is None:
        return found
    return f"an exact shortlist of {best.shortlist:,} keeps {mine.recall(best.shortlist, rows):.4f}, {found}"


def _cost(minimise: Minimise) -> Callable[[Option], float]:
    if minimise == "latency":
        return lambda one: one.latency_ms
    if minimise == "size":
        return lambda one: float(one.index_bytes)
    return lambda one: one.build_seconds if one.build_seconds is not None else float("inf")


def _work(one: Sweep) -> float:
    """What an element that a scan visits costs, roughly: most of it is not the distance (measured from 128 to 768)."""
    width = one.candidate.dims * {"halfvec": 1.0, "vector": 2.0, "bit": 1 / 16}[one.candidate.type]
    return 0.8 + width / 2000
