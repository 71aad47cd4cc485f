"""The exact rankings of many queries, by full vectors and by many kinds of short ones, from one pass over the table.

No column or index is needed for a shortening that is only considered: each batch of rows is shortened by NumPy, as
`Definition.shorten` says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from pgmrl.errors import MeasureError
from pgmrl.measure.exact_neighbours import ExactSearch, read_neighbours
from pgmrl.measure.recall_by_distance import tie_ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from pgmrl.measure.exact_neighbours import RowBatch
    from pgmrl.measure.neighbour_lists import Neighbours
    from pgmrl.model.shortening import Definition

__all__ = ["ExactRankings", "RankedRows", "ranked_rows", "read_rankings"]

SLACK: Final = 100
"""So many more rows are kept than a ranking needs, since the last ones may tie."""


class RankedRows(NamedTuple):
    """The rows that are nearest to one query, in no order.

    Attributes:
        ids: shape (n,).
        near: numbers that order them by the distance that they were chosen by, and are equal where they tie.
        full: the same by the full vectors.

    """

    ids: NDArray[np.int64]
    near: NDArray[np.int64]
    full: NDArray[np.int64]


class ExactRankings(NamedTuple):
    """The result of one pass over the table.

    Attributes:
        queries: how many of the queries it was made for, from the first; fewer than given where time was short.
        rows: rows with a vector.
        names: of the rows in the rankings, by id.
        full: the nearest by full vectors.
        short: the nearest by short ones, for each definition.

    """

    queries: int
    rows: int
    names: Mapping[int, str]
    full: Neighbours
    short: list[Neighbours]


def read_rankings(
    batches: Iterable[RowBatch],
    definition: Definition,
    queries: NDArray[np.float32],
    definitions: Sequence[Definition],
    *,
    depth: int,
    shortlist: int,
    expected: float,
    deadline: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> ExactRankings:
    """Compare all rows with all queries.

    Args:
        batches: all rows with a vector, labelled by their names.
        definition: of the column.
        queries: shape (q, dims).
        definitions: the shortenings to try, all of the column's full vectors.
        depth: rows to find for each query.
        shortlist: rows to find for each query by each short vector, at least `depth`.
        expected: rows that will come, to foresee whether there is time.
        deadline: of `time.monotonic()`, when it shall be over; queries are given up, the last ones first.
        progress: called with the rows that were compared.

    Raises:
        MeasureError: there are no rows, or not even a few queries can be compared until the deadline.

    """
    sizes: dict[str, Any] = {"count": depth + SLACK, "shortlist": shortlist + SLACK}
    search = ExactSearch(definition, queries, shortenings=definitions, **sizes)
    rows = read_neighbours(batches, search, expected=expected, deadline=deadline, progress=progress)
    if not rows:
        raise MeasureError("the table has no row with a vector: load rows first")
    short = [search.short(number) for number in range(len(definitions))]
    return ExactRankings(search.queries, rows, search.labels, search.full(), short)


def ranked_rows(neighbours: Neighbours) -> Iterator[RankedRows]:
    """The rows of each query."""
    for ids, near, full in zip(neighbours.ids, neighbours.distances, neighbours.full, strict=True):
        known = ids >= 0
        yield RankedRows(ids[known], tie_ranks(near[known]), tie_ranks(full[known]))
