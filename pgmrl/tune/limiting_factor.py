"""What keeps every setting below the target, and what would help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pgmrl.limits import EF_SEARCH_LIMIT
from pgmrl.tune.selection import reaches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgmrl.tune.index_trial import Option
    from pgmrl.tune.truncation import Truncation

__all__ = ["Cause", "Limit", "limiting_factor"]

Cause = Literal["dimensions", "shortlist", "time", "graph"]


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


def limiting_factor(
    best: Option | None,
    truncations: Sequence[Truncation],
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
        truncations: of all candidates.
        target: recall@k.
        rows: of the table.
        most: the longest shortlist, and largest ef_search, that was allowed.
        rotated: whether a rotation was among the candidates.
        ended: where time ran out, in words; None where it sufficed.

    """
    top = max(truncations, key=lambda truncation: truncation.recall(most, rows))
    longest = max(truncations, key=lambda truncation: truncation.recall(EF_SEARCH_LIMIT, rows))
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
    scanned = "" if best is None else f"; {_scanned(best, truncations, rows)}"
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


def _scanned(best: Option, truncations: Sequence[Truncation], rows: int) -> str:
    """What the scan returns, beside an exact shortlist of the same size by the same short vectors."""
    returned = f"the scan with ef_search={best.ef_search:,} finds {best.recall.mean:.4f}"
    own = next((other for other in truncations if other.candidate.same_vectors(best.candidate)), None)
    if own is None:
        return returned
    return f"an exact shortlist of {best.shortlist:,} keeps {own.recall(best.shortlist, rows):.4f}, {returned}"
