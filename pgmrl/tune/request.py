"""What tuning is asked for, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from pgmrl.errors import DefinitionError, SearchError
from pgmrl.limits import EF_SEARCH_LIMIT
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from pgmrl.model.hnsw import Hnsw
    from pgmrl.model.metrics import ShortType
    from pgmrl.tune.candidates import Rule

__all__ = ["OptimizeFor", "TuneRequest"]

OptimizeFor = Literal["latency", "size", "build"]
"""What the setting is the cheapest in: the time of a search, the index's size, or the time to build it."""

CHOICES: Final = {
    "by": ("prefix", "rotation"),
    "types": ("halfvec", "vector", "bit"),
    "optimize_for": ("latency", "size", "build"),
}


@dataclass(frozen=True, slots=True)
class TuneRequest:
    """The arguments of `tune` that say what is looked for.

    Raises:
        SearchError: a number out of range.
        DefinitionError: an unknown shortening, type or aim.

    """

    recall: float
    k: int
    dims: tuple[int, ...] | None
    by: tuple[Rule, ...]
    types: tuple[ShortType, ...]
    index: Hnsw | None
    graph: bool
    max_shortlist: int
    optimize_for: OptimizeFor
    finalists: int
    rows: int
    graph_rows: int
    maintenance_work_mem: str | None
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise SearchError(
                f"recall={safe_repr(self.recall)}: expected a number above 0 and at most 1, for 95 % write 0.95"
            )
        if not 1 <= self.k <= self.max_shortlist <= EF_SEARCH_LIMIT:
            raise SearchError(
                f"k={self.k} and max_shortlist={self.max_shortlist}: expected a shortlist that holds the k results and "
                f"at most {EF_SEARCH_LIMIT:,} rows, pgvector's limit of ef_search"
            )
        for name in ("finalists", "rows", "graph_rows"):
            if getattr(self, name) < 1:
                raise SearchError(f"{name}={getattr(self, name)}: expected at least 1")
        for name, values in (("by", self.by), ("types", self.types), ("optimize_for", (self.optimize_for,))):
            unknown = [str(value) for value in values if value not in CHOICES[name]]
            if unknown or not values:
                expected = ", ".join(CHOICES[name])
                raise DefinitionError(
                    f"{name}: expected {expected}, got {safe_repr(unknown[0] if unknown else 'none')}"
                )
