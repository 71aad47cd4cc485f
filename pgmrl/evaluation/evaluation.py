"""The result of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pgmrl.evaluation.compare import Difference
    from pgmrl.measure import Interval

__all__ = ["EXACT", "HYBRID", "SHORT_ONLY", "TWO_STAGE", "WORDS", "AtDims", "Evaluation", "System", "WorstQuery"]

EXACT: Final = "exact full"
SHORT_ONLY: Final = "short only"
TWO_STAGE: Final = "two stages"
WORDS: Final = "words"
HYBRID: Final = "hybrid"


@dataclass(frozen=True, slots=True)
class System:
    """One way to search, judged.

    Attributes:
        name: `exact full` (every row ranked by its full vector), `short only` (every row ranked by its short vector),
            `two stages` (as `search` does it, through the index), `words` (full-text search alone) or `hybrid` (words
            and two stages, as `search_hybrid` fuses them).
        means: by measure, with the 95 % interval.
        differences: by measure, from `exact full` on the same queries; empty for that itself.
        values: by measure for each query, shape (queries,), in the order of `Evaluation.queries`.

    """

    name: str
    means: Mapping[str, Interval]
    differences: Mapping[str, Difference]
    values: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class AtDims:
    """What short vectors of so many dimensions would give, computed without a column.

    Attributes:
        by: `prefix`, or the rotation's id.
        dims: dimensions of the short vector.
        short_only: by measure, ranking every row by its short vector.
        two_stage: by measure, ranking by full vectors the shortlist that an exact search of short vectors yields.
        kept: by measure, what two stages keep of the exact search's value; None where that is 0.

    """

    by: str
    dims: int
    short_only: Mapping[str, float]
    two_stage: Mapping[str, float]
    kept: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class WorstQuery:
    """A query that two stages do worse on than exact search, by the first measure.

    Attributes:
        query: its id.
        text: its words; None where it has none.
        exact: the exact search's value.
        two_stage: that of two stages.
        lost: relevant documents among those that the exact search finds and two stages do not.

    """

    query: str
    text: str | None
    exact: float
    two_stage: float
    lost: Sequence[str]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Quality of the ways to search one column, for judged queries.

    Attributes:
        column: the full vectors'.
        source: of the judgements, in words.
        measures: names, as given.
        queries: ids of the queries that were scored.
        rows: rows with a vector that were searched.
        judged: judgements of those queries.
        shortlists: by depth (rows that a measure looks at), rows of the shortlist.
        ef_search: as given; None for the default.
        systems: the first is `exact full`.
        dims: by rule and dimensions, ascending.
        worst: the worst queries, at most ten; empty where two stages are worse on none, or there are none to compare.
        warnings: what a reader has to know of the judgements, the queries and the index, in whole sentences.
        seconds: it took.

    """

    column: str
    source: str
    measures: Sequence[str]
    queries: Sequence[str]
    rows: int
    judged: int
    shortlists: Mapping[int, int]
    ef_search: int | None
    systems: Sequence[System]
    dims: Sequence[AtDims]
    worst: Sequence[WorstQuery]
    warnings: Sequence[str]
    seconds: float

    def system(self, name: str) -> System | None:
        """The system of this name; None where it was not compared."""
        return next((system for system in self.systems if system.name == name), None)
