"""The nearest rows of many queries under many shortenings, exactly, in one pass over the table.

No column or index is needed for a shortening that is only considered: each batch of rows is shortened by NumPy, as
`Definition.shorten` says, and compared with all queries by one matrix product. So the cost is one sequential read and
rows x queries x dimensions multiplications on the client, whatever the number of shortenings adds to them; memory
holds one batch and the lists.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pgmrl.errors import MeasureError
from pgmrl.measure.distances import distances, short_space

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from pgmrl.model.shortening import Definition

__all__ = ["Lists", "Pass", "nearest"]

CELLS: Final = 2_000_000
"""Distances that are computed at a time: rows of a batch times queries."""

SLACK: Final = 100  # so many more are kept than a list needs, since the last ones may tie
NAMES: Final = 500_000  # of rows that are no longer in any list, so many are remembered at most
TIE: Final = 1e-7  # distances that differ by less, relative to the farthest of a list, are the same to the server
FEWEST: Final = 10  # queries that are worth going on with when time is short

Batch = tuple[list[str], "NDArray[np.float32]"]


@dataclass(slots=True)
class Lists:
    """For each query the rows that are nearest under one distance, of those that came so far.

    Attributes:
        size: rows to keep for each query.
        worst: the distance of the last that is kept, shape (queries,); no row that is farther is taken in.
        asked: which query an entry is for; entries are ordered by it once they are settled.
        rows: its row, by number.
        near: its distance.
        full: the distance between full vectors.

    """

    size: int
    worst: NDArray[np.float64]
    asked: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    near: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    full: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    _waiting: list[tuple[NDArray[Any], ...]] = field(default_factory=list)
    _count: int = 0

    @classmethod
    def of(cls, queries: int, size: int) -> Lists:
        """Empty ones."""
        return cls(size, np.full(queries, np.finfo(np.float64).max))

    def add(self, near: NDArray[np.float64], full: NDArray[np.float64], first: int) -> NDArray[np.int64]:
        """Take in a batch.

        Args:
            near: distances, shape (queries, n); infinite where the short index does not hold a row.
            full: distances between full vectors, same shape; infinite where a row has none.
            first: the number of the first row.

        Returns:
            Which of the n rows are in a list now.

        """
        asked, place = np.nonzero((near <= self.worst[:, None]) & np.isfinite(full))
        self._waiting.append((asked.astype(np.int32), place + first, near[asked, place], full[asked, place]))
        self._count += len(asked)
        if 2 * self._count > self.size * len(self.worst):  # a half more than what stays: more memory saves little time
            self.settle()
        return np.unique(place)

    def settle(self) -> None:
        """Let go of what is too far."""
        parts = [(self.asked, self.rows, self.near, self.full), *self._waiting]
        asked, rows, near, full = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        order = np.argsort(asked, kind="stable")
        bounds = np.searchsorted(asked[order], np.arange(len(self.worst) + 1))
        kept = []
        for query in range(len(self.worst)):
            own = order[bounds[query] : bounds[query + 1]]
            if len(own) >= self.size:
                own = own[np.argpartition(near[own], self.size - 1)[: self.size]]
                self.worst[query] = near[own].max()
            kept.append(own)
        chosen = np.concatenate(kept)
        self.asked, self.rows, self.near, self.full = asked[chosen], rows[chosen], near[chosen], full[chosen]
        self._waiting, self._count = [], 0

    def drop(self, queries: int) -> None:
        """Go on with the first so many queries alone."""
        self.settle()
        stay = self.asked < queries
        self.worst = self.worst[:queries]
        self.asked, self.rows, self.near, self.full = (
            self.asked[stay],
            self.rows[stay],
            self.near[stay],
            self.full[stay],
        )

    def each(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
        """Rows of each query with their distances, the short and the full one, as whole numbers: ties are equal."""
        bounds = np.searchsorted(self.asked, np.arange(len(self.worst) + 1))
        for start, stop in pairwise(bounds):
            part = slice(start, stop)
            yield self.rows[part], _steps(self.near[part]), _steps(self.full[part])


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass over the table found.

    Attributes:
        queries: how many of the queries it was made for, from the first; fewer than given where time was short.
        count: rows with a vector.
        names: of the rows in the lists, by number.
        full: the nearest by full vectors.
        short: the nearest by short ones, for each definition.

    """

    queries: int
    count: int
    names: Mapping[int, str]
    full: Lists
    short: list[Lists]


def nearest(
    batches: Callable[[int], Iterable[Batch]],
    definition: Definition,
    queries: NDArray[np.float32],
    definitions: Sequence[Definition],
    *,
    depth: int,
    shortlist: int,
    estimate: float,
    deadline: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Pass:
    """Compare all rows with all queries.

    Args:
        batches: called with a number of rows; gives all rows, so many at a time: their names and their vectors, shape
            (n, dims).
        definition: of the column.
        queries: shape (q, dims).
        definitions: the shortenings to try, all of the column's full vectors.
        depth: rows to find for each query.
        shortlist: rows to find for each query by each short vector, at least `depth`.
        estimate: rows that will come, to foresee whether there is time.
        deadline: of `time.monotonic()`, when it shall be over; queries are given up, the last ones first.
        progress: called with the rows that were compared.

    Raises:
        MeasureError: there are no rows, or not even a few queries can be compared until the deadline.

    """
    spaces = [short_space(one) for one in definitions]
    lists = [Lists.of(len(queries), size + SLACK) for size in (depth, *[shortlist] * len(definitions))]
    asked = [definition.stored(queries), *(prepare(queries) for _, prepare in spaces)]
    names: dict[int, str] = {}
    count, limit, begun = 0, NAMES, monotonic()
    for own, vectors in batches(max(256, min(4_096, CELLS // len(queries)))):
        full = distances(definition.metric, definition.stored(vectors), asked[0])
        taken = [lists[0].add(full, full, count)]
        for (metric, prepare), given, found in zip(spaces, asked[1:], lists[1:], strict=True):
            taken.append(found.add(distances(metric, prepare(vectors), given), full, count))
        names.update((count + int(n), own[n]) for n in np.unique(np.concatenate(taken)))
        count += len(own)
        if len(names) > limit:
            names = _needed(names, lists)
            limit = max(NAMES, 2 * len(names))
        if progress is not None:
            progress(count)
        if deadline is not None:
            keep = _affordable(len(asked[0]), begun, deadline, count / max(estimate, count))
            if keep < len(asked[0]):
                asked = [given[:keep] for given in asked]
                for found in lists:
                    found.drop(keep)
    if not count:
        raise MeasureError("the table has no row with a vector: load rows first")
    return Pass(len(asked[0]), count, _needed(names, lists), lists[0], lists[1:])


def _affordable(queries: int, begun: float, deadline: float, done: float) -> int:
    """Queries that can be gone on with, if time goes with their number."""
    now = monotonic()
    if done >= 1 or (now - begun < 1 and now < deadline):  # too early to tell
        return queries
    needed = (now - begun) / done * (1 - done)
    if needed <= deadline - now:
        return queries
    keep = int(queries * 0.9 * (deadline - now) / needed)
    if keep < min(FEWEST, queries):
        raise MeasureError(
            f"reading the table for {queries:,} queries takes about {needed + now - begun:,.0f} s, and reading alone "
            "may take most of it: give more seconds, or none"
        )
    return keep


def _needed(names: Mapping[int, str], lists: Sequence[Lists]) -> dict[int, str]:
    for one in lists:
        one.settle()
    rows = np.unique(np.concatenate([one.rows for one in lists]))
    return {int(row): names[int(row)] for row in rows}


def _steps(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Distances as multiples of what the server can tell apart."""
    finite = np.abs(values[np.isfinite(values)])
    step = TIE * float(finite.max(initial=0)) or 1.0
    rounded: NDArray[np.int64] = np.rint(values / step).astype(np.int64)
    return rounded
