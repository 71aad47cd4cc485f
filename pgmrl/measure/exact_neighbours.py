"""The nearest rows of many queries, exactly, by one pass over the table.

Each batch of rows is compared with all queries by one matrix product in single precision, for the full vectors and for
each way to shorten them; pairs that may be among the nearest are computed once more in double precision, and that
decides. So the cost is one read and rows x queries x dimensions multiplications, summed over the ways to shorten.
Memory holds a batch, its scores (`CELLS` of them, 32 MB, and for a while three times that) and the lists: 28 bytes for
each row that is kept of a query, half as much again while rows wait to be merged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pgmrl.errors import MeasureError
from pgmrl.measure.neighbour_lists import NeighbourList, ShortSpace, VectorSpace
from pgmrl.measure.pairwise_scores import PairwiseScores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from pgmrl.measure.neighbour_lists import Neighbours, Pairs
    from pgmrl.model.shortening import Definition

__all__ = ["CELLS", "ExactSearch", "RowBatch", "read_neighbours"]

CELLS: Final = 8_000_000
"""Scores that are held at a time: rows of a batch times queries."""

LABELS: Final = 500_000
"""Labels of rows that are no longer in any list, so many are remembered at most."""

FEWEST: Final = 10
"""Queries that are worth going on with when time is short."""


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Some rows of a table.

    Attributes:
        ids: shape (n,), int64; no two rows of a pass have the same.
        vectors: full vectors as stored, shape (n, dims), float32.
        labels: what else is to be known of rows that are in a list; None for nothing.
        shorts: short vectors as stored, shape (n, short dims), where there is one way to shorten and these are not to
            be computed; None where they are.
        shortened: which rows have a short vector, shape (n,); None for all.
        levels: the smallest of the nested tables that a row belongs to, shape (n,); None where there is one table.
        own: pairs of a query and the row that it is, as numbers of queries and rows: no row is its own neighbour.

    """

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    labels: Sequence[Any] | None = None
    shorts: NDArray[Any] | None = None
    shortened: NDArray[np.bool_] | None = None
    levels: NDArray[np.int64] | None = None
    own: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        """Rows."""
        return len(self.ids)


class ExactSearch:
    """A search that rows are given to, batch by batch.

    Args:
        definition: of the column; full vectors are compared under its metric.
        queries: shape (q, dims).
        count: rows to find for each query by full vectors.
        shortenings: definitions whose short vectors are compared too, of the same full vectors.
        shortlist: rows to find for each query by each kind of short vectors.
        levels: how many nested tables there are; of each the nearest by full vectors are found.
        label_shortlists: whether labels are kept of rows that are only near by short vectors.

    Attributes:
        labels: of the rows in the lists, by id; of others as well.
        own_seen: which queries have met the row that they are, shape (q,).

    """

    def __init__(
        self,
        definition: Definition,
        queries: NDArray[np.floating],
        count: int,
        *,
        shortenings: Sequence[Definition] = (),
        shortlist: int = 0,
        levels: int = 1,
        label_shortlists: bool = True,
    ) -> None:
        stored = definition.stored(queries)
        self._normalise = definition.metric.normalise
        self._full = VectorSpace(PairwiseScores.full(definition), stored)
        self._short = [ShortSpace(PairwiseScores.short(short), short.shorten(stored), short) for short in shortenings]
        self._levels = [NeighbourList(len(queries), count) for _ in range(levels)]
        self._shortlists = [NeighbourList(len(queries), shortlist) for _ in shortenings]
        self._rows = np.zeros(levels, np.int64)
        self._labelled = [*self._levels, *(self._shortlists if label_shortlists else ())]
        self._kept_labels = LABELS
        self.labels: dict[int, Any] = {}
        self.own_seen = np.zeros(len(queries), np.bool_)

    @property
    def queries(self) -> int:
        """How many there are."""
        return len(self._full.queries)

    def add(self, batch: RowBatch) -> None:
        """Compare some rows with all queries; under cosine those without a direction are passed over."""
        batch = _with_direction(batch) if self._normalise else batch
        if not len(batch):
            return
        if batch.own is not None:
            queries, columns = batch.own
            kept = queries < self.queries  # the reader does not know of those that were given up
            batch = replace(batch, own=(queries[kept], columns[kept]))
            self.own_seen[queries[kept]] = True
        candidates = [*self._near_by_full(batch), *self._near_by_short(batch)]
        self._merge(batch, candidates)

    def drop(self, queries: int) -> None:
        """Go on with the first so many queries alone."""
        self.own_seen = self.own_seen[:queries]
        for space in (self._full, *self._short):
            space.drop(queries)
        for near in (*self._levels, *self._shortlists):
            near.drop(queries)

    def full(self, level: int = 0) -> Neighbours:
        """The nearest by full vectors, in one of the nested tables."""
        return self._levels[level].neighbours(int(self._rows[level]))

    def short(self, number: int = 0) -> Neighbours:
        """The nearest by one kind of short vectors."""
        return self._shortlists[number].neighbours(int(self._rows[0]))

    def forget_labels(self) -> None:
        """Keep the labels of the rows in the lists alone."""
        for near in self._labelled:
            near.merge()
        ids = np.unique(np.concatenate([near.ids for near in self._labelled]))
        self.labels = {row: self.labels[row] for row in ids.tolist() if row in self.labels}
        self._kept_labels = max(LABELS, 2 * len(self.labels))

    # -- candidates ------------------------------------------------------------------------------------------------

    def _near_by_full(self, batch: RowBatch) -> list[Pairs]:
        scores = self._full.scores(self._full.seen(batch.vectors), batch.own)
        candidates = []
        for level, near in enumerate(self._levels):
            among = None if batch.levels is None else batch.levels >= level
            self._rows[level] += len(batch) if among is None else np.count_nonzero(among)
            candidates.append(near.candidates(self._full, scores, batch.vectors, among))
        return candidates

    def _near_by_short(self, batch: RowBatch) -> list[Pairs]:
        candidates = []
        for space, near in zip(self._short, self._shortlists, strict=True):
            space.vectors = space.definition.shorten(batch.vectors) if batch.shorts is None else batch.shorts
            scores = space.scores(space.seen(space.vectors), batch.own)
            candidates.append(near.candidates(space, scores, space.vectors, batch.shortened))
        return candidates

    def _merge(self, batch: RowBatch, candidates: Sequence[Pairs]) -> None:
        """Compute the distances of the candidates, those between full vectors once for all lists, and take them in."""
        codes = [near.query * len(batch) + near.column for near in candidates]
        pairs, place = np.unique(np.concatenate(codes), return_inverse=True)
        if not len(pairs):
            return
        full = self._full.distances(pairs // len(batch), pairs % len(batch), batch.vectors)
        wheres = np.split(place, np.cumsum([len(code) for code in codes])[:-1])
        levels = len(self._levels)
        for number, (near, (query, column), where) in enumerate(
            zip((*self._levels, *self._shortlists), candidates, wheres, strict=True)
        ):
            distances = full[where]
            if number >= levels:
                space = self._short[number - levels]
                distances = space.distances(query, column, space.vectors)
            near.add(query, batch.ids[column], distances, full[where])
        if batch.labels is not None:
            columns = [pairs.column for pairs in candidates[: len(self._labelled)]]
            taken = np.unique(np.concatenate(columns)).tolist()
            self.labels.update((int(batch.ids[row]), batch.labels[row]) for row in taken)
            if len(self.labels) > self._kept_labels:
                self.forget_labels()


def read_neighbours(
    batches: Iterable[RowBatch],
    search: ExactSearch,
    *,
    expected: float = 0.0,
    deadline: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Give all rows to a search.

    Args:
        batches: of the table.
        search: takes them.
        expected: rows that will come, to foresee whether there is time.
        deadline: of `time.monotonic()`, when it shall be over; queries are given up, the last ones first.
        progress: called with the rows that were read.

    Returns:
        The rows that were read.

    Raises:
        MeasureError: not even a few queries can be compared until the deadline.

    """
    started, rows = monotonic(), 0
    for batch in batches:
        search.add(batch)
        rows += len(batch)
        if progress is not None:
            progress(rows)
        if deadline is not None:
            affordable = _affordable(search.queries, started, deadline, rows / max(expected, rows, 1))
            if affordable < search.queries:
                search.drop(affordable)
    search.forget_labels()
    return rows


def _affordable(queries: int, started: float, deadline: float, done: float) -> int:
    """Queries that can be gone on with, if time goes with their number."""
    now = monotonic()
    if done >= 1 or (now - started < 1 and now < deadline):  # too early to tell
        return queries
    needed = (now - started) / done * (1 - done)
    if needed <= deadline - now:
        return queries
    affordable = int(queries * 0.9 * (deadline - now) / needed)
    if affordable < min(FEWEST, queries):
        raise MeasureError(
            f"reading the table for {queries:,} queries takes about {needed + now - started:,.0f} s, and reading alone "
            "may take most of it: give more seconds, or none"
        )
    return affordable


# -- rows ------------------------------------------------------------------------------------------------------------


def _with_direction(batch: RowBatch) -> RowBatch:
    """Without zero vectors, which have no distance to anything."""
    keep = np.asarray(batch.vectors.any(axis=1))
    if keep.all():
        return batch
    kept = np.flatnonzero(keep)
    own = batch.own
    if own is not None:
        known = keep[own[1]]
        own = (own[0][known], np.searchsorted(kept, own[1][known]))
    return replace(
        batch,
        ids=batch.ids[keep],
        vectors=batch.vectors[keep],
        labels=None if batch.labels is None else [batch.labels[row] for row in kept.tolist()],
        shorts=None if batch.shorts is None else batch.shorts[keep],
        shortened=None if batch.shortened is None else batch.shortened[keep],
        levels=None if batch.levels is None else batch.levels[keep],
        own=own,
    )
