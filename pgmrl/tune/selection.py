"""Which setting to take, of those that were measured. Pure: options in, a decision out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pgmrl.limits import EF_SEARCH_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pgmrl.measure.intervals import Interval
    from pgmrl.tune.index_trial import IndexTrial, Option
    from pgmrl.tune.request import OptimizeFor, TuneRequest
    from pgmrl.tune.truncation import Truncation

__all__ = ["Selection", "cheapest", "pareto", "promising", "reaches", "select_setting", "sizes_for"]

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


class Selection(NamedTuple):
    """The setting to take.

    Attributes:
        choice: the cheapest one that reaches the target; None where none does.
        best: that, or where there is none the one that comes nearest.
        trial: what `best` is of.

    """

    choice: Option | None
    best: Option
    trial: IndexTrial


def sizes_for(k: int, most: int = EF_SEARCH_LIMIT) -> list[int]:
    """Shortlists for k results, rising, up to the longest allowed."""
    return sorted({k, most, *(size for size in SIZES if k <= size <= most)})


def reaches(recall: Interval, target: float) -> bool:
    """Whether recall is as good as was asked for, as far as the queries can tell.

    The lower end of the 95 % interval counts, not the mean: of many settings the one that looks cheapest at a mean is
    the one the sample was kind to. Where not one neighbour was missed there is nothing better.
    """
    return recall.low >= target or recall.mean >= 1.0


def cheapest(options: Sequence[Option], target: float, optimize_for: OptimizeFor) -> Option | None:
    """The cheapest setting that reaches the target; None where none does.

    Args:
        options: at one size of the table.
        target: recall@k.
        optimize_for: what counts first; what is level in that is decided by the index's size, or the time of a search.

    """
    reaching = [option for option in options if reaches(option.recall, target)]
    if not reaching:
        return None
    cost = _cost(optimize_for)
    least = min(map(cost, reaching))
    level = [option for option in reaching if cost(option) <= least * LEVEL[optimize_for]]
    if optimize_for == "latency":
        return min(level, key=lambda option: (option.index_bytes, option.latency_ms))
    return min(level, key=lambda option: (option.latency_ms, option.index_bytes))


def pareto(options: Sequence[Option]) -> list[Option]:
    """Those that no other beats in recall, time and size at once; the fastest first.

    What brings less than .002 more recall, or a twentieth less in size, is level: a front of every setting that was
    measured would be a page.
    """
    front: list[Option] = []
    for option in sorted(options, key=lambda o: (o.latency_ms, -o.recall.mean, o.index_bytes)):
        recall, size = option.recall.mean - STEP, 1.05 * option.index_bytes
        if not any(other.recall.mean >= recall and other.index_bytes <= size for other in front):
            front.append(option)
    return front


def select_setting(tried: Sequence[tuple[IndexTrial, Sequence[Option]]], request: TuneRequest) -> Selection:
    """The cheapest setting of all that was tried.

    Args:
        tried: trials, each with its settings; at least one.
        request: the target, and what counts.

    """
    owners = [(option, trial) for trial, options in tried for option in options]
    options = [option for option, _ in owners]
    choice = cheapest(options, request.recall, request.optimize_for)
    best = choice or max(options, key=lambda option: option.recall.mean)
    return Selection(choice, best, next(trial for option, trial in owners if option is best))


def promising(
    truncations: Sequence[Truncation],
    target: float,
    rows: int,
    sizes: Sequence[int],
    count: int,
    optimize_for: OptimizeFor,
) -> list[Truncation]:
    """The candidates whose index is worth a trial, the most promising first.

    By the shortlist that each needs when it is exact, which is a lower bound of what its search visits, and by the
    index's size: those that no other beats in both. Where none reaches the target, the one that comes nearest.

    Args:
        truncations: of all candidates.
        target: recall@k.
        rows: of the table.
        sizes: shortlists that may be taken.
        count: how many to return at most.
        optimize_for: what counts.

    """
    aim = 1 - (1 - target) * (1 - GRAPH_SHARE)
    needed = {
        id(truncation): truncation.needed(aim, rows, sizes) or truncation.needed(target, rows, sizes)
        for truncation in truncations
    }
    able = [truncation for truncation in truncations if needed[id(truncation)] is not None]
    if not able:
        return sorted(truncations, key=lambda truncation: -truncation.recall(sizes[-1], rows))[:1]

    def visits(truncation: Truncation) -> float:
        return _work(truncation) * float(needed[id(truncation)] or 0)

    def size(truncation: Truncation) -> int:
        return truncation.candidate.index_bytes(rows)

    front: list[Truncation] = []
    for truncation in sorted(able, key=lambda truncation: (visits(truncation), size(truncation))):
        if all(size(truncation) < size(other) for other in front):
            front.append(truncation)
    if optimize_for == "latency":
        return front[:count]
    return sorted(front, key=size)[:count]


def _cost(optimize_for: OptimizeFor) -> Callable[[Option], float]:
    if optimize_for == "latency":
        return lambda option: option.latency_ms
    if optimize_for == "size":
        return lambda option: float(option.index_bytes)
    return lambda option: option.build_seconds if option.build_seconds is not None else float("inf")


def _work(truncation: Truncation) -> float:
    """What an element that a scan visits costs, roughly: most of it is not the distance (measured from 128 to 768)."""
    width = truncation.candidate.dims * {"halfvec": 1.0, "vector": 2.0, "bit": 1 / 16}[truncation.candidate.type]
    return 0.8 + width / 2000
